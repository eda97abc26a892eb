"""What it costs to decode a page, cut out its boxes and read them, beside files of crops.

    python -m benchmarks.speed.page_boxes [--boxes 300] [--rounds 7] [--json FILE]

The page has --boxes drawn words, three in a line. The default model reads it with `read_regions`, from a PNG
file and from pixels in memory. It also reads files of crops, one for each box.

Each box is turned by 3 degrees. It is cut out in four ways: by its four corners, with PaddleOCR's code for
that, by 14 points that stand across in pairs, and by an outline whose points begin anywhere. The script uses
one thread, and needs the extra [cpu].
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import cpu_in_turn, measured, options, write
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.regions.region import Region
from crnn_deploy.runtime.images.crop import crop
from crnn_deploy.runtime.images.pixels import decode_image
from crnn_deploy.runtime.recognizer import Recognizer

ACROSS, GAP = 3, 12  # words in a line of the page, and pixels around each
DEGREES = 3.0

Points = NDArray[np.float64]


def page_of(words: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], list[Points]]:
    """A grey page of words and their upright corners (4, 2)."""
    wide, high = (max(word.shape[axis] for word in words) + GAP for axis in (1, 0))
    page = np.full((high * -(-len(words) // ACROSS) + GAP, wide * ACROSS + GAP), 255, np.uint8)
    corners = []
    for at, word in enumerate(words):
        (height, width), top, left = word.shape, GAP + at // ACROSS * high, GAP + at % ACROSS * wide
        page[top : top + height, left : left + width] = word
        right, bottom = left + width, top + height
        corners.append(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64))
    return page, corners


def turned(corners: Points) -> Points:
    angle = np.radians(DEGREES)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray((corners - corners.mean(axis=0)) @ matrix + corners.mean(axis=0))


def in_pairs(corners: Points) -> Points:
    """7 points along the upper side and 7 back along the lower one."""
    shares = np.linspace(0, 1, 7)[:, None]
    above = corners[0] + shares * (corners[1] - corners[0])
    below = corners[2] + shares * (corners[3] - corners[2])
    return np.concatenate([above, below])


def by_paddleocr(page: NDArray[np.uint8], corners: Points) -> NDArray[np.uint8]:
    """What PaddleOCR calls for a box (get_rotate_crop_image)."""
    points = corners.astype(np.float32)
    sides = np.linalg.norm(points - np.roll(points, -1, axis=0), axis=1)
    width, height = int(max(sides[0], sides[2])), int(max(sides[1], sides[3]))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    made = cv2.warpPerspective(
        page,
        cv2.getPerspectiveTransform(points, target),
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(made, np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--boxes", type=int, default=300, help="Draw this many words on the page.")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    words = [decode_image(data, "<word>", decoded_grey=True) for data in draw_images("words", given.boxes)]
    page, upright = page_of(words)
    boxes = [turned(corners) for corners in upright]
    recognizer = Recognizer("latin")

    def regions(points: Sequence[Points], ordered: bool = True) -> list[Region]:
        return [Region(tuple(map(tuple, some.tolist())), ordered=ordered) for some in points]

    def cut(some: Sequence[Region]) -> list[NDArray[np.uint8]]:
        return [crop(page, region, name="").pixels for region in some]

    corners, pairs = regions(boxes), regions([in_pairs(box) for box in boxes])
    outlines = regions([np.roll(in_pairs(box), 5, axis=0) for box in boxes], ordered=False)
    same = all(np.array_equal(a, by_paddleocr(page, b)) for a, b in zip(cut(corners), boxes, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.png")
        cv2.imwrite(str(file), page)
        crops = [Path(folder, f"{at}.png") for at in range(len(boxes))]
        for path, made in zip(crops, cut(corners), strict=True):
            cv2.imwrite(str(path), made)
        tasks = {
            "decode the page (PNG)": lambda: decode_image(file.read_bytes(), "", decoded_grey=True),
            "cut out by four corners": lambda: cut(corners),
            "cut out by PaddleOCR's lines": lambda: [by_paddleocr(page, box) for box in boxes],
            "cut out by 14 points in pairs": lambda: cut(pairs),
            "cut out by 14 points in any order": lambda: cut(outlines),
            "read the boxes of a file": lambda: recognizer.read_regions(file, corners),
            "read the boxes of pixels": lambda: recognizer.read_regions(page, corners),
            "read files of crops": lambda: recognizer.read(crops),
        }
        spent = cpu_in_turn(tasks, dict.fromkeys(tasks, len(boxes)), given.rounds)
        texts = [text.text for text in recognizer.read_regions(file, corners)]
        as_crops = [text.text for text in recognizer.read(crops)]
    rows: dict[str, object] = {
        "page": {"boxes": len(boxes), "width": page.shape[1], "height": page.shape[0]},
        "the same": {"crops_as_of_paddleocr": same, "texts_as_of_files": texts == as_crops},
    }
    for name, values in spent.items():
        print(f"{float(np.median(values)) * 1e3:8.1f} us a box  {name}", flush=True)
        rows[name] = {"cpu_per_box": measured(values, "CPU ms")}
    write("page_boxes", rows, given.json)


if __name__ == "__main__":
    main()
