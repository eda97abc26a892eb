"""How INT8 compares with the float model: text on held-out drawn images and on real ones, and speed.

    python -m benchmarks.speed.int8 [--model FILE.onnx] [--scales FILE] [--activations uint8]
        [--checkpoint FILE.pth] [--images 5000] [--data DIR ...] [--json FILE]

One run calibrates, unless you give --scales, and quantises the convolutions and matrix products. Then it
measures:

- how many texts change
- whether an image gives the same output alone and in a batch
- CPU-seconds of float, INT8 and PyTorch eager (of --checkpoint, at batch 1)
- how many convolutions TensorRT for RTX sees in each precision

Without --activations it measures int8 and uint8, and uint8 with the LSTM in int8. The script needs the extras
[cpu,evaluate,export,train].
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.reference import open_reference
from crnn_deploy.graph.model import backend_of, open_model
from crnn_deploy.models import DEFAULT
from crnn_deploy.parity.proof_images import proof_images, read
from crnn_deploy.quantization import calibration_set, qdq
from crnn_deploy.quantization.calibrate import calibrate, read_scales
from crnn_deploy.quantization.int8_lstm import with_int8_lstm
from crnn_deploy.quantization.quantize import speed_ratio
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.batching import Batch
from crnn_deploy.verdict.judge import judge

ROUNDS = 7


def invariant(backend: Backend, batches: list[Batch]) -> bool:
    """Whether every logit is the same alone as in its batch."""
    for batch in batches:
        together = backend.run(batch.images)
        for at, image in enumerate(batch.images):
            alone = backend.run(image[None])
            if not np.array_equal(alone.probabilities[0], together.probabilities[at]):
                return False
    return True


def cpu_seconds(backends: dict[str, Backend], batches: list[Batch], single: bool) -> dict[str, float]:
    """CPU-seconds an image, interleaved, median of the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in backends}
    for _ in range(ROUNDS):
        for name, backend in backends.items():
            start = time.process_time()
            count = 0
            for batch in batches:
                for images in batch.images[:, None] if single else [batch.images]:
                    backend.run(images)
                    count += len(images)
            taken[name].append((time.process_time() - start) / count)
    return {name: median(values) for name, values in taken.items()}


def tensorrt_types(model: Any) -> dict[str, int] | str:
    """How many convolutions TensorRT for RTX sees in each precision."""
    try:
        import tensorrt_rtx
    except ImportError:
        return "TensorRT for RTX is not installed"
    from crnn_deploy.engine.network import Network

    layers = Network(tensorrt_rtx, model).layers()
    found = [layer.precision for layer in layers if layer.kind == "CONVOLUTION"]
    return {precision: found.count(precision) for precision in sorted(set(found))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT, help="Quantise this model.")
    parser.add_argument("--scales", type=Path, help="Read the scales from this file instead of calibrating.")
    parser.add_argument(
        "--activations", choices=["int8", "uint8"], help="Measure only this kind of activations."
    )
    parser.add_argument(
        "--keep-float", nargs="*", default=[], help="Keep the layers with these outputs in float."
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="Measure PyTorch's speed with this checkpoint of the same weights."
    )
    parser.add_argument("--images", type=int, default=5000, help="Draw this many held-out images.")
    parser.add_argument(
        "--data", action="append", default=[], help="Read the real images of this folder too."
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(arguments.model)
    source, floating = model.graph, model.backend()
    if arguments.scales:
        scales = read_scales(arguments.scales, model)
    else:
        found = calibration_set.rendered(floating.manifest.alphabet, 1536)
        chosen, held_back = calibration_set.sample(found, floating.manifest, 512)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scales.json"
            scales = calibrate(model, chosen, held_back, "auto", path, rendered=True)
    proofs = {"rendered": proof_images(floating.manifest, None, None, arguments.images)}
    proofs |= {
        Path(spec).parent.name: proof_images(floating.manifest, spec, None, 0) for spec in arguments.data
    }
    references = {name: read(floating, proof.batches) for name, proof in proofs.items()}
    some = list(proofs["rendered"].batches[:: max(1, len(proofs["rendered"].batches) // 24)])
    results = header("int8")
    name, sha256 = arguments.model.name, scales.model_sha256
    results["model"] = {"name": name, "sha256": sha256, "method": scales.method}
    kinds: dict[str, qdq.Activations] = {"int8": "int8", "uint8": "uint8", "uint8, LSTM int8": "uint8"}
    for kind, activations in kinds.items():
        if arguments.activations not in (None, activations):
            continue
        model = qdq.insert(source, scales.ranges, keep_float=arguments.keep_float, activations=activations)
        if kind.endswith("LSTM int8"):
            model = with_int8_lstm(model, source, scales.ranges)
        candidate = backend_of(model)
        row: dict[str, Any] = {"kept_float": arguments.keep_float}
        for name, proof in proofs.items():
            verdict = judge(references[name], read(candidate, proof.batches), proof.truths)
            row[name] = {key: value for key, value in verdict.to_plain().items() if key != "changes"}
            print(f"{kind}, {name}:\n{verdict.table()}", flush=True)
        row["batch_invariant"] = invariant(candidate, some)
        row["speed_x_float_batch_8"] = round(speed_ratio(floating, candidate, some), 3)
        backends: dict[str, Backend] = {"onnxruntime fp32": floating, "onnxruntime int8": candidate}
        if arguments.checkpoint:
            backends["pytorch eager"] = open_reference(arguments.checkpoint, CheckpointSettings())
        row["cpu_ms_an_image_batch_1"] = {
            name: round(1e3 * value, 4) for name, value in cpu_seconds(backends, some, True).items()
        }
        if kind == "int8":
            row["convolutions_in_tensorrt_rtx"] = tensorrt_types(model)
        results[kind] = row
        print(kind, json.dumps({key: row[key] for key in row if key not in proofs}), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
