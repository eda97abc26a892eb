"""Whether the pixels that a network gets here equal those of its project's own code, at random sizes.

    python -m benchmarks.accuracy.family_pixels [--sizes 1000] [--json FILE]

Every image is drawn anew, as noise or as black and white blocks, grey or coloured, and saved as PNG. Its
sides are 1 to 600 pixels long. Tiny, tall, wide and other images have equal shares. The steps of each project
are written again in `published_pixels`, which needs Pillow and PyTorch. Recipes are used in the version for
the Pillow that is installed.

A row shows how many images were compared, how many came out in another size, how many differ, and the largest
difference in grey levels. If the project's own code fails at a size, another size is drawn instead.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.published_pixels import PUBLISHED, NoInput, as_installed
from crnn_deploy.evaluation.speed import header
from crnn_deploy.manifest import Manifest, StepRule
from crnn_deploy.recipes.recipe import RECIPES, Recipe
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.runtime.long_lines import uncut

EXACT = 1e-3  # grey levels: what the order of float32 operations makes of a number


@dataclass
class Row:
    """What was found of one recipe."""

    recipe: str
    images: int = 0
    other_size: int = 0
    differ: int = 0  # by EXACT or more
    most: float = 0.0  # grey levels


def manifest_of(recipe: Recipe) -> Manifest:
    """The manifest of a model of this recipe, as the runtime prepares images for it."""
    return uncut(recipe.manifest(("a",), StepRule(4, 4)))


def difference(found: NDArray[Any], published: NDArray[Any], manifest: Manifest) -> float | None:
    """The largest difference of two inputs in grey levels; None where their sizes differ."""
    if found.shape != published.shape:
        return None
    std = np.asarray(manifest.std)[:, None, None]
    return float((np.abs(found.astype(np.float64) - published) * std).max() * 255)


def images(rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Images without end: tiny, tall, wide, and any."""
    while True:
        for high, wide in ((12, 12), (600, 40), (40, 600), (300, 300)):
            channels = (3,) if rng.random() < 0.7 else ()
            shape = (int(rng.integers(1, high + 1)), int(rng.integers(1, wide + 1)), *channels)
            image = rng.integers(0, 256, shape, np.uint8)
            if rng.random() < 0.5:
                image = np.where(image > 127, np.uint8(255), np.uint8(0))
            if rng.random() < 0.5:
                small: NDArray[Any] = cv2.resize(image, None, fx=0.3, fy=0.3) if min(shape[:2]) > 3 else image
                image = cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
            yield image


def measure(name: str, sizes: int, folder: Path) -> Row:
    manifest = manifest_of(as_installed(RECIPES[name]))
    row, file = Row(name), folder / "image.png"
    for image in images(np.random.default_rng(0)):
        if row.images == sizes:
            return row
        cv2.imwrite(str(file), image)
        try:
            published = PUBLISHED[name](file)
        except NoInput:
            continue
        found = prepare(read_image(str(file), decoded_grey=manifest.decoded_grey), manifest)
        row.images += 1
        if (levels := difference(found, published, manifest)) is None:
            row.other_size += 1
        else:
            row.differ += levels >= EXACT
            row.most = max(row.most, levels)
    raise AssertionError("images() does not end")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, default=1000, help="Compare images of this many sizes for each recipe."
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in PUBLISHED:
            rows.append(row := measure(name, args.sizes, Path(folder)))
            print(
                f"{row.recipe:22s} {row.images} images, {row.other_size} of another size, "
                f"{row.differ} differ, by at most {row.most:.6f} grey levels",
                flush=True,
            )
    if args.json:
        versions = {"pillow": PIL.__version__, "opencv": cv2.__version__, "torch": torch.__version__}
        content = {**header("family_pixels"), "libraries": versions, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
