"""A contact sheet: images and their labels at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crnn_deploy.datasets import Dataset, Sample, record
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.synthesis.font_pack import unpacked
from crnn_deploy.synthesis.fonts import Face
from crnn_deploy.training.config import Config
from crnn_deploy.training.data import BatchStream
from crnn_deploy.training.model import build
from crnn_deploy.training.sources import TrainingDataInvalid, open_sources

__all__ = ["contact_sheet", "shown", "training_samples"]

_WIDTH = 1600  # pixels of the sheet
_HEIGHT = 40  # of an image in it
_CAPTION = 16  # pixels of em
_GAP = 10


def contact_sheet(samples: Iterable[Sample], faces: list[Face]) -> NDArray[np.uint8]:
    """Images one beside the other, each over its label; (H, W, 3) BGR.

    faces: to write labels with; an image that cannot be read shows why in its label's place
    """
    rows: list[list[NDArray[np.uint8]]] = [[]]
    left = _GAP
    for sample in samples:
        cell = _cell(sample, faces)
        if rows[-1] and left + cell.shape[1] + _GAP > _WIDTH:
            rows.append([])
            left = _GAP
        rows[-1].append(cell)
        left += cell.shape[1] + _GAP
    height = _HEIGHT + 2 * _CAPTION
    sheet = np.full((len(rows) * (height + _GAP) + _GAP, _WIDTH, 3), 245, np.uint8)
    for at, row in enumerate(rows):
        top, left = _GAP + at * (height + _GAP), _GAP
        for cell in row:
            sheet[top : top + height, left : left + cell.shape[1]] = cell
            left += cell.shape[1] + _GAP
    return sheet


def shown(dataset: Dataset, index: int) -> Sample:
    """A sample for `contact_sheet`; of one that is not whole, the reason stands in its label's place."""
    one = record(dataset, index)
    if isinstance(one, Sample):
        return one
    return Sample(np.full((_HEIGHT, 2 * _HEIGHT), 160, np.uint8), str(one), one.name)


def training_samples(config: Config, number: int) -> Iterator[Sample]:
    """What a training sees, without end; each source has its share of every `number` images.

    Raises TrainingDataInvalid, and what opening its data raises.
    """
    manifest = build(config).manifest
    one_window = config.model_copy(update={"batch": number, "window": 1})
    with unpacked(config.font_pack) if config.font_pack else nullcontext() as material:
        stream = BatchStream(open_sources(config, manifest.alphabet, material), manifest, one_window)
        for window in count():
            found = 0
            for pixels, text, _ in stream.samples(window):
                found += 1
                yield Sample(pixels, text, "")
            if not found:
                raise TrainingDataInvalid("no training image can be used; see crnn-deploy dataset check")


def _cell(sample: Sample, faces: list[Face]) -> NDArray[np.uint8]:
    label = sample.text
    try:
        pixels = read_image(sample.image)
    except CrnnDeployError as error:
        pixels, label = np.full((_HEIGHT, 2 * _HEIGHT), 160, np.uint8), str(error)
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR).astype(np.uint8)
    room = _WIDTH - 2 * _GAP
    scale = min(_HEIGHT / pixels.shape[0], room / pixels.shape[1])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    shown = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    font = _font(label, faces)
    width = min(room, max(size[0], round(font.getlength(label)) + 2))
    canvas = Image.new("RGB", (width, _HEIGHT + 2 * _CAPTION), (245, 245, 245))
    ImageDraw.Draw(canvas).text((0, _HEIGHT + _CAPTION // 4), label, (40, 40, 40), font)
    cell = np.asarray(canvas)[:, :, ::-1].copy()
    cell[: size[1], : size[0]] = shown
    return cell


def _font(label: str, faces: list[Face]) -> ImageFont.FreeTypeFont:
    """An upright face that draws the label; Pillow's own where none does."""
    for face in faces:
        if face.style in ("Book", "Regular") and face.covers(label):
            return ImageFont.truetype(face.path, _CAPTION, face.index)
    font = ImageFont.load_default(_CAPTION)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
