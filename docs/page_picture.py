"""The example page, its boxes, and the page with what the default model reads: docs/pictures/page.png.

    python docs/page_picture.py

Lines stand straight, on a slope and on an arc, as a detector finds them on a poster. Needs the extras
[cpu,train].
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
PAGE, BOXES = ROOT / "examples" / "page" / "poster.png", ROOT / "examples" / "page" / "poster.json"
PICTURE = ROOT / "docs" / "pictures" / "page.png"
PAPER, INK = (232, 238, 242), (60, 40, 30)  # BGR
SIZE = 640, 420  # width and height of the page
Points = list[list[float]]


def line(text: str, size: int) -> NDArray[np.uint8]:
    """A line of text, a few pixels of paper around it."""
    font = ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"), size)
    left, top, right, bottom = font.getbbox(text)
    pad = size // 5
    image = Image.new("RGB", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), PAPER[::-1])
    ImageDraw.Draw(image).text((pad - left, pad - top), text, font=font, fill=INK[::-1])
    return np.asarray(image)[:, :, ::-1]


def on_slope(
    page: NDArray[np.uint8], strip: NDArray[np.uint8], corner: tuple[int, int], degrees: float
) -> Points:
    """Put a line on the page, turned around its top left corner; its corners."""
    height, width = strip.shape[:2]
    turn = np.radians(degrees)
    along, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    corners = np.array(corner) + np.array(
        [0 * along, width * along, width * along + height * down, height * down]
    )
    flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(flat, corners.astype(np.float32))
    cv2.warpPerspective(strip, transform, page.shape[1::-1], page, cv2.INTER_CUBIC, cv2.BORDER_TRANSPARENT)
    return np.round(corners, 1).tolist()


def on_arc(page: NDArray[np.uint8], strip: NDArray[np.uint8], top: tuple[int, int], degrees: float) -> Points:
    """Bend a line around a circle whose highest point is `top`; 7 points above and 7 below it."""
    height, width = strip.shape[:2]
    angle = np.radians(degrees)
    radius = width / angle + height / 2
    centre = np.array([top[0], top[1] + radius])
    y, x = np.mgrid[: page.shape[0], : page.shape[1]].astype(np.float32)
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    along = ((np.arctan2(x, -y) + angle / 2) / angle * width).astype(np.float32)
    down = (radius - np.hypot(x, y)).astype(np.float32)
    bent = cv2.remap(strip, along, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = (along >= 0) & (along < width) & (down >= 0) & (down < height)
    page[inside] = bent[inside]
    turns = (np.linspace(0, 1, 7) - 0.5) * angle
    rays = np.stack([np.sin(turns), -np.cos(turns)], axis=1)
    points = np.concatenate([centre + radius * rays, (centre + (radius - height) * rays)[::-1]])
    return np.round(points, 1).tolist()


def main() -> None:
    page = np.full((SIZE[1], SIZE[0], 3), PAPER, np.uint8)
    shapes = [
        on_arc(page, line("SUMMER FESTIVAL", 40), (320, 30), 100),
        on_slope(page, line("Live music, food and games", 26), (120, 205), 0),
        on_slope(page, line("Free entry!", 34), (380, 270), -14),
        on_slope(page, line("Saturday 19 June 2027", 22), (60, 290), 4),
        on_slope(page, line("Harbour Street 48", 22), (60, 340), 4),
    ]
    PAGE.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(PAGE), page, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    about = {"version": "5.5.0", "imagePath": PAGE.name, "imageHeight": SIZE[1], "imageWidth": SIZE[0]}
    boxes = [{"label": "text", "shape_type": "polygon", "points": points} for points in shapes]
    BOXES.write_text(json.dumps({**about, "imageData": None, "flags": {}, "shapes": boxes}, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "crnn_deploy",
            "infer",
            "--boxes",
            str(BOXES),
            "--draw",
            folder,
            str(PAGE),
        ]
        subprocess.run(command, check=True)
        [drawn] = Path(folder).rglob("*.png")
        PICTURE.write_bytes(drawn.read_bytes())


if __name__ == "__main__":
    main()
