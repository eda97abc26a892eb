"""How many upright and turned images each value of `--rotate` reads, what it costs, and what it harms.

    python -m benchmarks.accuracy.rotation [--images 400] [--data DIR ...] [--json FILE]

Each set is read as it is, and turned clockwise by 90, 180 and 270 degrees. An image is harmed if it is read
exactly without `--rotate`, and not with it.

There are also columns, whose upright characters stand one below the other. Some are words of capital
letters. Others are Chinese words of 2 to 12 characters, which the Chinese model reads, beside the same
words as lines. Of columns of random characters of GB 2312 level 1, the script counts how many are cut
correctly between the characters. It needs the extras [cpu,evaluate,train], the fonts and word lists of the
tier `latin`, and for the Chinese columns fonts-noto-cjk and wordfreq.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.accuracy.drawn_text import drawn_sets
from benchmarks.common import write
from crnn_deploy.datasets import open_dataset
from crnn_deploy.models import DEFAULT, shipped
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.images.column import lay_out
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.orientation import Rotate
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.chinese_words import read_chinese_words
from crnn_deploy.synthesis.fonts import scan
from crnn_deploy.synthesis.texts import read_words

SETS = ("clean words", "augmented words", "clean numbers", "augmented lines of words")
ROTATES: tuple[Rotate, ...] = get_args(Rotate)
DEGREES = {0: None, 90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
CHINESE = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
CHINESE_HELD_OUT = Path("/usr/share/fonts/opentype/noto/NotoSerifCJK-Regular.ttc")
GAPS = (0.05, 0.15, 0.4)  # between the characters of a column, times the size of the font

Labelled = Sequence[tuple[str, NDArray[Any]]]


def read_all(readers: Mapping[Rotate, Recognizer], images: Labelled) -> dict[str, Any]:
    """Exact readings of each reader, those it harms, and images per CPU-second."""
    row: dict[str, Any] = {}
    plain: list[bool] = []
    for name, reader in readers.items():
        start = time.process_time()
        texts = reader.read(pixels for _, pixels in images)
        seconds = time.process_time() - start
        right = [text.text == truth for text, (truth, _) in zip(texts, images, strict=True)]
        plain = plain or right
        harmed = sum(before and not now for before, now in zip(plain, right, strict=True))
        row[name] = {
            **{"exact": sum(right), "harmed": harmed, "images_per_cpu_second": round(len(images) / seconds)}
        }
    return row


def column(
    text: str, font: ImageFont.FreeTypeFont, gap: int, square: bool
) -> tuple[Any, list[tuple[int, int]]]:
    """Upright characters one below the other, and the rows of each one's ink.

    gap: pixels between characters; square: each takes the font's size, however high its ink is
    """
    boxes = [font.getbbox(character, anchor="mm") for character in text]
    heights = [int(font.size) if square else int(b - t) for _, t, _, b in boxes]
    pad = max(2, int(font.size) // 8)
    width = int(max(right - left for left, _, right, _ in boxes)) + 2 * pad
    image = Image.new("L", (width, sum(heights) + gap * (len(text) - 1) + 2 * pad), 235)
    draw, y, rows = ImageDraw.Draw(image), pad, []
    for character, (left, top, right, bottom), height in zip(text, boxes, heights, strict=True):
        at = y + height / 2 - (0 if square else (top + bottom) / 2)
        draw.text((width / 2 - (left + right) / 2, at), character, font=font, fill=25, anchor="mm")
        rows.append((int(at + top) - 1, int(at + bottom) + 2))
        y += height + gap
    return np.asarray(image), rows


def latin_columns(count: int) -> Labelled:
    """Words of three to nine capitals in held-out faces."""
    rng = np.random.default_rng(11)
    faces = [face for face in scan() if face.split == "held-out"]
    words = [
        word.upper()
        for word in read_words("held-out")
        if 3 < len(word) < 10 and word.isascii() and word.isalpha()
    ]
    made = []
    for word in rng.choice(words, count):
        face = faces[rng.integers(len(faces))]
        font = ImageFont.truetype(face.path, int(rng.integers(18, 48)), index=face.index)
        made.append((str(word), column(str(word), font, int(font.size * rng.choice(GAPS)), False)[0]))
    return made


def chinese_words(count: int, least: int, most: int) -> tuple[Labelled, Labelled]:
    """Held-out words of `least` to `most` characters in a held-out face, as columns and as lines."""
    rng = np.random.default_rng(13)
    known = read_chinese_words("held-out")
    columns: list[tuple[str, NDArray[Any]]] = []
    lines: list[tuple[str, NDArray[Any]]] = []
    while len(columns) < count:
        text = "".join(rng.choice(known.words, 3, p=known.shares))[: rng.integers(least, most + 1)]
        if len(text) < least:
            continue
        font = ImageFont.truetype(CHINESE_HELD_OUT, int(rng.integers(18, 48)), index=2)
        gap = int(font.size * rng.choice(GAPS))
        columns.append((text, column(text, font, gap, True)[0]))
        left, top, right, bottom = font.getbbox(text, anchor="lm")
        pad = int(font.size) // 8
        image = Image.new("L", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), 235)
        ImageDraw.Draw(image).text((pad - left, pad - top), text, font=font, fill=25, anchor="lm")
        lines.append((text, np.asarray(image)))
    return columns, lines


def chinese_cuts(count: int) -> dict[str, Any]:
    """How many columns of 4 to 12 characters are cut between all of them, by the gap between characters."""
    pool = [bytes((0xB0 + at // 94, 0xA1 + at % 94)).decode("gb2312") for at in range(3755)]
    found: dict[str, Any] = {"columns": count}
    for gap in GAPS:
        rng, right = np.random.default_rng(12), 0
        for _ in range(count):
            font = ImageFont.truetype(CHINESE, int(rng.integers(18, 48)), index=2)
            text = "".join(rng.choice(pool, rng.integers(4, 13)))
            image, rows = column(text, font, int(font.size * gap), True)
            laid = lay_out(image)
            right += (
                laid is not None
                and len(laid.slots) == len(rows)
                and all(
                    top <= slot.top and slot.bottom <= bottom
                    for slot, (top, bottom) in zip(laid.slots, rows, strict=True)
                )
            )
        found[f"right at a gap of {gap}"] = right
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=400, help="Read this many images of each set.")
    parser.add_argument("--data", action="append", default=[], help="Read these upright real images too.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    with closing(open_backend(DEFAULT)) as backend:
        drawn = drawn_sets(backend.manifest.alphabet, arguments.images)
        sets = {name: drawn[name] for name in SETS}
        sets |= {Path(path).name: open_dataset(path) for path in arguments.data}
        readers: dict[Rotate, Recognizer] = {name: Recognizer(backend, rotate=name) for name in ROTATES}
        rows: dict[str, Any] = {}
        for name, dataset in sets.items():
            samples = [dataset[at] for at in range(min(arguments.images, len(dataset)))]
            upright = [(sample.text, read_image(sample.image)) for sample in samples]
            rows[name] = {
                "images": len(upright),
                "tall": sum(p.shape[0] >= 1.5 * p.shape[1] for _, p in upright),
            }
            for degrees, code in DEGREES.items():
                turned = [(t, p if code is None else np.asarray(cv2.rotate(p, code))) for t, p in upright]
                rows[name][f"turned by {degrees}"] = read_all(readers, turned)
            print(name, rows[name], flush=True)
        columns = latin_columns(arguments.images)
        rows["columns of capitals"] = {"images": len(columns), "turned by 0": read_all(readers, columns)}
        print(rows["columns of capitals"])
    if CHINESE_HELD_OUT.is_file():
        with closing(open_backend(shipped()["chinese"])) as backend:
            readers = {name: Recognizer(backend, rotate=name) for name in ROTATES}
            for name, least, most in (("Chinese columns", 4, 12), ("short Chinese columns", 2, 3)):
                columns, lines = chinese_words(arguments.images, least, most)
                as_columns, as_lines = (read_all(readers, found) for found in (columns, lines))
                rows[name] = {"images": len(columns), "turned by 0": as_columns}
                rows[f"{name}, as lines"] = {"images": len(lines), "turned by 0": as_lines}
                print(rows[name], rows[f"{name}, as lines"])
    if CHINESE.is_file():
        rows["cuts of Chinese columns"] = chinese_cuts(arguments.images)
        print(rows["cuts of Chinese columns"])
    write("rotation", rows, arguments.json)


if __name__ == "__main__":
    main()
