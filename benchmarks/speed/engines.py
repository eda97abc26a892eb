"""How engines of TensorRT for RTX are built, and how half precision changes the default model's text; no GPU.

    python -m benchmarks.speed.engines [--images 2000] [--json FILE]

The script builds engines in fp32, fp16 and bf16, as `crnn-deploy build-engine` does: of the default model, of
the paper's network (37 and 6,736 classes; random weights), and of one with colour input (random weights). If
half precision fails its check, a safer precision takes its place, and the result says so. The types of the
layers are those of the network's tensors; they are not read from the engine.

Then the default model reads held-out words, half of them with the faults of cameras. Its values are rounded
as half precision stores them (see `graph.precision`). The script needs no GPU. It needs the extras
[cpu,export,tensorrt-rtx,train], and the fonts and word lists of the tier `latin`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.drawn_text import drawn_sets
from crnn_deploy.engine.build import BuildSettings, build_engine
from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import reference_of
from crnn_deploy.graph.model import load_onnx, manifest_of, session_of
from crnn_deploy.graph.precision import LARGEST, PEAK, Half, cast, from_first_recurrence, rounded
from crnn_deploy.manifest import Manifest
from crnn_deploy.models import DEFAULT
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.runtime.backends.engine_file import Precision
from crnn_deploy.runtime.batching import batches
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.verdict.fidelity import fidelity

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
SETS = ("clean words", "augmented words")
BATCH = 16


def models(folder: Path) -> dict[str, Path]:
    """The networks to build, as ONNX files."""
    found = {"default model": DEFAULT}
    for name, channels, classes in (
        ("paper's, 37 classes", 1, 37),
        ("paper's, 6,736 classes", 1, 6736),
        ("paper's, 3 channels, 37 classes", 3, 37),
    ):
        torch.manual_seed(0)
        alphabet = tuple(chr(0x4E00 + at) for at in range(classes - 1))
        path = folder / f"{channels}-{classes}.onnx"
        source = {"recipe": "paper", "family": "crnn"}
        export(reference_of(CRNN(32, channels, classes), RECIPES["paper"], alphabet, source), path)
        found[name] = path
    return found


def built(model: Path, precision: Precision, folder: Path) -> dict[str, Any]:
    """One engine."""
    settings = BuildSettings(precision, builder="tensorrt-rtx", profiles=1)
    result = build_engine(model, folder / "x.engine", settings)
    engine = result.engine
    return {
        "asked": precision,
        "built": engine.precision,
        "layers": engine.counts(),
        "layers_from": engine.layers_from,
        "kept_fp32": len(engine.kept_fp32),
        "profiles": [f"batch {p.batch}, width {p.width}" for p in engine.profiles],
        "seconds": engine.build_seconds,
        "bytes": engine.engine_bytes,
        "checked": {r.name: r.rounded.line() for r in result.rungs if r.rounded is not None},
    }


def images(manifest: Manifest, count: int) -> list[NDArray[np.float32]]:
    """Batches of held-out words as the network takes them."""
    sets = drawn_sets(manifest.alphabet, count // len(SETS))
    samples = [sets[name][at] for name in SETS for at in range(len(sets[name]))]
    prepared = ((at, prepare(read_image(sample.image), manifest)) for at, sample in enumerate(samples))
    return [batch.images for batch in batches(prepared, BATCH)]


def run(model: onnx.ModelProto, inputs: Sequence[NDArray[np.float32]]) -> tuple[list[Frames], float]:
    """Frames of each batch, and the largest tensor before rounding (0 of a float32 model)."""
    session = session_of(model)
    names = [output.name for output in session.get_outputs()]
    frames, peak = [], 0.0
    for batch in inputs:
        outputs = dict(zip(names, session.run(None, {session.get_inputs()[0].name: batch}), strict=True))
        peak = float(np.maximum(peak, outputs.pop(PEAK, 0.0)))
        frames.append(Frames.from_logits(*outputs.values()))
    return frames, peak


def half_precision(count: int) -> dict[str, Any]:
    """The default model in half precision against float32, on the CPU."""
    model = load_onnx(DEFAULT)
    manifest = manifest_of(model)
    inputs = images(manifest, count)
    expected, _ = run(model, inputs)
    late = tuple(from_first_recurrence(model))
    rungs: dict[str, tuple[Half, tuple[str, ...]]] = {
        "fp16": ("fp16", ()),
        "fp16, recurrent layers and head in fp32": ("fp16", late),
        "bf16": ("bf16", ()),
    }
    found: dict[str, Any] = {}
    for name, (half, keep) in rungs.items():
        actual, peak = run(rounded(cast(model, half, keep_fp32=keep)), inputs)
        report = fidelity(expected, actual, manifest, manifest, peak=peak, largest=LARGEST[half])
        found[name] = {
            "images": report.images,
            "frames": report.frames,
            "max_delta": report.max_delta,
            "largest_logit": report.scale,
            "argmax_agreement": 1 - report.flips / report.frames,
            "argmax_flips": report.flips,
            "peak": peak,
            "passed": report.passed,
            "verdict": report.verdict.to_plain(),
        }
        print(f"{name}: {report.line()}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=2000, help="Read this many images with the default model."
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    results = header("engines")
    results["half precision of the default model"] = half_precision(arguments.images)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network, path in models(folder).items():
            results[network] = []
            for precision in PRECISIONS:
                results[network].append(built(path, precision, folder))
                print(f"{network}: {json.dumps(results[network][-1])}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
