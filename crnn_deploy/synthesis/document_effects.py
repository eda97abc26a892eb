"""What happens to the letters, the ink, the paper and the scan of a document: one table, one function each.

Ink is coverage 0-1, images are grey 0-255, all (H, W) float32. Each function leaves what it is given as it is
and takes its amount from the table's range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.effects import NOISE, noise_pool, shade

__all__ = [
    *("EFFECTS", "INK", "NEEDS_INK", "PAPER", "SCAN", "DocumentEffect", "Medium", "bowed"),
    *("filled_loops", "heavy", "key_tilt"),
]

Medium = Literal["typewriter", "matrix", "thermal", "print"]
Grey = NDArray[np.float32]
Mask = NDArray[np.uint8]

_POOL = (1024, NOISE // 1024)  # of the noise that grain is cut from


@dataclass(frozen=True)
class DocumentEffect:
    """How often something is done to a document at full strength, and how much of it."""

    chance: float
    low: float
    high: float
    unit: str
    media: tuple[Medium, ...] = ("typewriter", "matrix", "thermal", "print")


_TYPED: tuple[Medium, ...] = ("typewriter",)
_DOTS: tuple[Medium, ...] = ("matrix", "thermal")

EFFECTS: dict[str, DocumentEffect] = {
    # of the machine, while letters are set
    "key_offset": DocumentEffect(0.9, 0.004, 0.035, "em that a key strikes beside its place", _TYPED),
    "key_weight": DocumentEffect(0.9, 0.1, 0.6, "ink that the weakest keys leave away, share", _TYPED),
    "key_tilt": DocumentEffect(0.5, 0.2, 0.8, "ink that one side of a letter lacks, share", _TYPED),
    "filled_loops": DocumentEffect(0.4, 0.05, 0.12, "em across which loops close", ("typewriter", "print")),
    "heavy": DocumentEffect(0.3, 0.02, 0.06, "em that strokes widen", ("typewriter", "thermal", "print")),
    "double_strike": DocumentEffect(0.12, 0.01, 0.05, "em between the two strikes", ("typewriter", "matrix")),
    "missing_dots": DocumentEffect(0.35, 0.01, 0.08, "dots that are not there, share", _DOTS),
    "faded_rows": DocumentEffect(0.35, 0.3, 0.9, "ink that one pin in four lacks, share", _DOTS),
    "other_lines": DocumentEffect(0.4, 0.05, 0.3, "letter heights of the next line that are seen"),
    "crossed_out": DocumentEffect(0.03, 0.1, 0.5, "em of a letter x beside the text", _TYPED),
    "underline": DocumentEffect(0.05, 0.03, 0.09, "em, its thickness"),
    # of the ink
    "bowed": DocumentEffect(0.1, 0.02, 0.1, "image heights that the line's middle is off its ends"),
    "ribbon": DocumentEffect(0.55, 0.2, 0.9, "grain of the ink, share", _TYPED),
    "worn": DocumentEffect(0.3, 0.15, 0.8, "ink that lacks in blotches, share"),
    "faded": DocumentEffect(0.4, 0.2, 0.65, "ink that lacks toward one side, share"),
    "carbon": DocumentEffect(0.22, 0.02, 0.06, "letter heights, sigma of the blur", ("typewriter", "print")),
    # of the paper
    "shade": DocumentEffect(0.5, 0.05, 0.35, "of the contrast, from corner to corner"),
    "grain": DocumentEffect(0.5, 0.02, 0.12, "of the contrast, of the paper's texture"),
    "stains": DocumentEffect(0.2, 0.05, 0.25, "of the contrast"),
    "show_through": DocumentEffect(0.2, 0.06, 0.28, "of the contrast, the back side's text"),
    "crumpled": DocumentEffect(0.2, 0.1, 0.45, "of the contrast, at the folds"),
    "crease": DocumentEffect(0.12, 0.1, 0.6, "of the contrast, one line across"),
    "rule": DocumentEffect(0.12, 0.2, 1.0, "of the contrast, a line of a form"),
    "dark_border": DocumentEffect(0.06, 0.02, 0.12, "image heights that the copier's shadow reaches in"),
    "hole": DocumentEffect(0.04, 0.08, 0.25, "image heights, a hole or a staple at an edge"),
    "stamp": DocumentEffect(0.05, 0.2, 0.7, "of the contrast, an arc of a rubber stamp"),
    # of the scan
    "low_resolution": DocumentEffect(0.4, 0.0, 1.0, "from 14 to 8 pixels of letter height"),
    "blur": DocumentEffect(0.4, 0.01, 0.04, "image heights, sigma"),
    "noise": DocumentEffect(0.5, 0.02, 0.35, "deviations of the image, sigma"),
    "binarised": DocumentEffect(0.22, 0.42, 0.8, "of the way from ink to paper, the threshold"),
    "speckle": DocumentEffect(0.15, 0.001, 0.012, "of the pixels are specks"),
    "bleached": DocumentEffect(0.4, 0.0, 0.3, "of the contrast that the paper is beyond white"),
    "gamma": DocumentEffect(0.25, 0.0, 0.7, "distance of the exponent from 1"),
    "jpeg": DocumentEffect(0.5, 0.0, 75.0, "below quality 95"),
}


# --- letters as they are struck: masks (H, W) uint8, sizes in pixels ---


def key_tilt(mask: Mask, rng: np.random.Generator, amount: float) -> Mask:
    """A type that does not lie flat: ink falls off to one side."""
    across = rng.random() < 0.5
    ramp = np.linspace(1 - amount, 1, mask.shape[across], dtype=np.float32)
    ramp = ramp[::-1] if rng.random() < 0.5 else ramp
    return np.asarray(mask * (ramp if across else ramp[:, None]), np.uint8)


def filled_loops(mask: Mask, size: float) -> Mask:
    """Dirt in the type closes what is narrower than so many pixels."""
    side = max(2, round(size))
    return np.asarray(cv2.morphologyEx(np.pad(mask, side), cv2.MORPH_CLOSE, _disc(side)), np.uint8)[
        side:-side, side:-side
    ]


def heavy(mask: Mask, size: float) -> Mask:
    """Strokes widened inside the letter's own box."""
    return np.asarray(cv2.dilate(mask, _disc(max(2, round(size)))), np.uint8)


# --- ink: coverage (H, W) float32, 0-1 ---


def bowed(ink: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """A page that does not lie flat: the baseline is an arc."""
    rows, columns = ink.shape
    x, y = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    arc = 1 - (2 * x[:1] / columns - 1) ** 2 - 0.5
    sign = 1 if rng.random() < 0.5 else -1
    moved = y + np.float32(sign * amount * rows) * arc
    return np.asarray(cv2.remap(ink, x, moved, cv2.INTER_LINEAR), np.float32)


def ribbon(ink: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """The cloth of the ribbon."""
    scale = max(1.0, ink.shape[0] / 40)
    cloth = 0.35 + 0.5 * _grain(ink.shape, rng, scale)
    return np.asarray(ink * np.clip(1 - amount * cloth, 0.05, 1), np.float32)


def worn(ink: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Ink that lacks in blotches of a stroke to a letter."""
    cell = rng.uniform(0.06, 0.5) * ink.shape[0]
    lack = np.clip(_blotches(ink.shape, rng, cell), 0, 2)
    return np.asarray(ink * np.clip(1 - amount * lack, 0.08, 1), np.float32)


def faded(ink: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Heat that printed weakly, or sun: ink falls off along the line, in waves or to one end."""
    columns = ink.shape[1]
    coarse = rng.uniform(0, 1, (1, int(rng.integers(2, 7)))).astype(np.float32)
    wave = cv2.resize(coarse, (columns, 1), interpolation=cv2.INTER_LINEAR)
    return ink * (1 - np.float32(amount) * wave)


def carbon(ink: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """A carbon copy: soft, and grey around the letters."""
    soft = cv2.GaussianBlur(ink, (0, 0), max(0.4, amount * ink.shape[0]))
    return np.asarray(np.minimum(1, soft * rng.uniform(0.9, 1.4)), np.float32)


INK = {"ribbon": ribbon, "worn": worn, "faded": faded, "carbon": carbon}


# --- paper: how far each place is from blank, as a share of the contrast; positive is toward the ink ---


def grain(shape: tuple[int, int], rng: np.random.Generator, amount: float) -> Grey:
    """Fibres of the paper."""
    return np.float32(amount) * _grain(shape, rng, max(1.0, shape[0] / rng.uniform(15, 50)))


def stains(shape: tuple[int, int], rng: np.random.Generator, amount: float) -> Grey:
    """Yellowed and dirty places."""
    return np.float32(amount) * np.clip(_blotches(shape, rng, rng.uniform(0.3, 1.5) * shape[0]), -0.5, 2)


def crumpled(shape: tuple[int, int], rng: np.random.Generator, amount: float) -> Grey:
    """Facets of crumpled paper, each lit otherwise, with sharp folds between them."""
    rows, columns = shape
    found = np.zeros(shape, np.float32)
    y, x = np.ogrid[:rows, :columns]
    for _ in range(int(rng.integers(1, 3 + columns // (4 * rows)))):
        angle = rng.uniform(0, np.pi)
        far = (x - rng.uniform(0, columns)) * np.float32(np.cos(angle)) + (
            y - rng.uniform(0, rows)
        ) * np.float32(np.sin(angle))
        found += (
            rng.uniform(-0.5, 1) * amount * np.exp(-np.abs(far) / (rng.uniform(0.1, 0.8) * rows)) * (far > 0)
        )
    return found.astype(np.float32)


def crease(shape: tuple[int, int], rng: np.random.Generator, amount: float) -> Grey:
    """A fold: a line, dark or light, that may cross the letters."""
    rows, columns = shape
    found = np.zeros(shape, np.float32)
    if rng.random() < 0.5:
        at = round(rng.uniform(0, columns)), round(rng.uniform(0, columns))
        ends = (at[0], 0), (round(0.8 * at[0] + 0.2 * at[1]), rows)
    else:
        ends = (0, round(rng.uniform(0, rows))), (columns, round(rng.uniform(0, rows)))
    level = amount if rng.random() < 0.5 else -amount
    cv2.line(found, *ends, level, 1 + rows // 40, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(found, (0, 0), rng.uniform(0.4, 1.2)), np.float32)


def rule(shape: tuple[int, int], rng: np.random.Generator, amount: float) -> Grey:
    """A line of a form, or a corner of its box, at the edge of the crop; dotted at times."""
    rows, columns = shape
    found = np.zeros(shape, np.float32)
    thickness = 1 + int(rng.integers(0, 1 + rows // 20))
    y = rows * (rng.uniform(0.9, 1.0) if rng.random() < 0.7 else rng.uniform(0.0, 0.08))
    tilt = rng.uniform(-0.02, 0.02) * rows
    cv2.line(found, (0, round(y - tilt)), (columns, round(y + tilt)), amount, thickness, cv2.LINE_AA)
    if rng.random() < 0.25:
        found[:, int(rng.integers(3, 9)) // 3 :: max(3, rows // 12)] = 0
    if rng.random() < 0.3:
        x = 0 if rng.random() < 0.5 else columns - 1
        cv2.line(found, (x, 0), (x, rows), amount, thickness)
    return found


def dark_border(shape: tuple[int, int], rng: np.random.Generator, amount: float) -> Grey:
    """The shadow beside a page on a copier's glass."""
    rows, columns = shape
    found = np.zeros(shape, np.float32)
    reach = max(1, round(amount * rows))
    level = rng.uniform(0.5, 1.0)
    side = int(rng.integers(4))
    edge = (np.s_[:reach], np.s_[rows - reach :], np.s_[:, :reach], np.s_[:, columns - reach :])[side]
    found[edge] = level
    return np.asarray(cv2.GaussianBlur(found, (0, 0), rng.uniform(0.4, 0.2 * reach + 0.5)), np.float32)


def hole(shape: tuple[int, int], rng: np.random.Generator, amount: float) -> Grey:
    """A punched hole or a staple beside the letters, at an edge of the crop."""
    rows, columns = shape
    found = np.zeros(shape, np.float32)
    x = round((rng.random() < 0.5) * columns + rng.normal(0, 0.05) * rows)
    y = round(rng.uniform(0, rows))
    if rng.random() < 0.5:
        cv2.circle(found, (x, y), max(1, round(amount * rows)), rng.uniform(0.5, 1), -1, cv2.LINE_AA)
    else:
        end = x + round(rng.uniform(-0.5, 0.5) * rows), y + round(rng.uniform(-0.5, 0.5) * rows)
        cv2.line(found, (x, y), end, rng.uniform(0.5, 1), 1 + rows // 25, cv2.LINE_AA)
    return found


def stamp(shape: tuple[int, int], rng: np.random.Generator, amount: float) -> Grey:
    """An arc of a rubber stamp or of a pen that crosses the line."""
    rows, columns = shape
    found = np.zeros(shape, np.float32)
    radius = round(rng.uniform(0.6, 4) * rows)
    centre = round(rng.uniform(0, columns)), round(rng.uniform(-1, 2) * rows)
    for ring in range(int(rng.integers(1, 3))):
        cv2.circle(found, centre, radius + ring * (2 + rows // 10), amount, 1 + rows // 40, cv2.LINE_AA)
    return found


PAPER = {
    "shade": shade,
    "grain": grain,
    "stains": stains,
    "crumpled": crumpled,
    "crease": crease,
    "rule": rule,
    "dark_border": dark_border,
    "hole": hole,
    "stamp": stamp,
}


# --- the scan: image (H, W) float32, 0-255 ---


def low_resolution(image: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Scanned with few pixels and enlarged again: letters of 14 pixels, or of 8 at the amount 1."""
    rows, columns = image.shape
    share = (14 - 6 * amount) / (0.6 * rows)  # letters take about so much of the crop
    if share >= 1:
        return image
    small = max(4, round(columns * share)), max(8, round(rows * share))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    how = (
        cv2.INTER_NEAREST
        if rng.random() < 0.15
        else cv2.INTER_CUBIC
        if rng.random() < 0.5
        else cv2.INTER_LINEAR
    )
    return np.asarray(cv2.resize(shrunk, (columns, rows), interpolation=how), np.float32)


def blur(image: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Out of focus; at times along one direction alone."""
    sigma = max(0.3, amount * image.shape[0])
    if rng.random() < 0.8:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    along = (sigma * 1.6, 0.1) if rng.random() < 0.5 else (0.1, sigma * 1.6)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), along[0], sigmaY=along[1]), np.float32)


def noise(image: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Of the sensor; finer or coarser."""
    sigma = amount * float(image.std())
    return image + np.float32(sigma) * _grain(image.shape, rng, 1.0 if rng.random() < 0.7 else 1.8)


def binarised(image: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Black and white alone; at times smoothed again as readers of such scans do."""
    low, high = np.percentile(image[::2, ::2], (2, 90))
    dark = image < low + amount * (high - low)
    if dark.mean() > 0.4:  # shaded paper turns black: scanners compare with what lies around
        side = round(1.5 * image.shape[0])
        dark = image < cv2.blur(image, (side, side)) - (0.35 - 0.3 * amount) * (high - low)
    found = np.where(dark, np.float32(rng.uniform(0, 25)), np.float32(rng.uniform(235, 255)))
    if rng.random() < 0.5:
        found = cv2.GaussianBlur(found, (0, 0), rng.uniform(0.3, 0.8))
    return np.asarray(found, np.float32)


def speckle(image: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Pepper and salt, of one pixel or a few."""
    found = image.copy()
    rows, columns = image.shape
    size = 1 + int(rng.random() < 0.4) + rows // 48
    for level in (np.float32(rng.uniform(0, 60)), np.float32(rng.uniform(200, 255))):
        count = int(amount * image.size / size**2)
        ys, xs = rng.integers(0, rows, count), rng.integers(0, columns, count)
        for dy in range(size):
            for dx in range(size):
                found[np.minimum(ys + dy, rows - 1), np.minimum(xs + dx, columns - 1)] = level
    return found


def bleached(image: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Scanned too light: the paper is white throughout, and thin strokes with it."""
    low, high = np.percentile(image[::2, ::2], (2, 85))
    gain = (255 - low) * (1 + amount) / max(1, high - low)
    return np.asarray((image - low) * gain + low, np.float32)


def gamma(image: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Brightness that does not follow the light."""
    exponent = 1 + amount if rng.random() < 0.5 else 1 / (1 + amount)
    levels = np.float32(255) * np.linspace(0, 1, 256, dtype=np.float32) ** np.float32(exponent)
    return levels[np.clip(image, 0, 255).astype(np.uint8)]


def jpeg(image: Grey, rng: np.random.Generator, amount: float) -> Grey:
    """Stored as JPEG."""
    quality = int(95 - amount)
    encoded = cv2.imencode(
        ".jpg", np.clip(image, 0, 255).astype(np.uint8), (cv2.IMWRITE_JPEG_QUALITY, quality)
    )[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.float32)


SCAN = {
    "low_resolution": low_resolution,
    "blur": blur,
    "noise": noise,
    "binarised": binarised,
    "speckle": speckle,
    "bleached": bleached,
    "gamma": gamma,
    "jpeg": jpeg,
}
NEEDS_INK = ("binarised", "bleached")  # without ink they stretch the paper's own grain to black and white


# --- what they are made of ---


@cache
def _disc(side: int) -> Mask:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _grain(shape: tuple[int, ...], rng: np.random.Generator, scale: float) -> Grey:
    """Noise of deviation about 1 whose grains are so many pixels wide."""
    rows, columns = int(shape[0] / scale) + 1, int(shape[1] / scale) + 1
    y = int(rng.integers(max(1, _POOL[0] - rows)))
    x = int(rng.integers(max(1, _POOL[1] - columns)))
    cut = noise_pool().reshape(_POOL)[y : y + rows, x : x + columns]
    if cut.shape != (rows, columns):
        cut = np.pad(cut, ((0, rows - cut.shape[0]), (0, columns - cut.shape[1])), mode="wrap")
    if scale == 1:
        return cut[: shape[0], : shape[1]]
    return np.asarray(cv2.resize(cut, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def _blotches(shape: tuple[int, ...], rng: np.random.Generator, cell: float) -> Grey:
    """Smooth noise of deviation about 1 with cells of so many pixels."""
    cell = max(1.5, cell)
    coarse = rng.standard_normal((int(shape[0] / cell) + 2, int(shape[1] / cell) + 2), np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)
