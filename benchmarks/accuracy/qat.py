"""How much finetuning for INT8 wins back if quantising after training fails, with weights of 3 bits.

    python -m benchmarks.accuracy.qat [--steps 240] [--level 3] [--images 1000] [--json FILE]

The convolutions and the last layer of the print model get weights of 7 levels. Then the model is finetuned
on drawn images, with the same rounding, and exported, calibrated and quantised again in the same way. Both
results read the same held-out drawn images, and are compared with the float print model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import open_reference
from crnn_deploy.graph.model import backend_of, open_model
from crnn_deploy.parity.proof_images import proof_images, read
from crnn_deploy.quantization import calibration_set, qdq
from crnn_deploy.quantization.calibrate import calibrate
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.training.config import Config
from crnn_deploy.training.loop import train
from crnn_deploy.verdict.judge import judge

CHECKPOINT = Path(__file__).parents[2] / "training" / "print.pth"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=240, help="Finetune for this many steps.")
    parser.add_argument(
        "--level", type=int, default=3, help="Round weights to whole levels from -LEVEL to LEVEL."
    )
    parser.add_argument("--images", type=int, default=1000, help="Read this many drawn images.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drawn = {"kinds": {"word": 3, "number": 1, "line": 1}}
        config = Config.model_validate(
            {
                "out": f"{folder}/run",
                "start": {"checkpoint": CHECKPOINT},
                "qat": arguments.level,
                "train": [{"synthetic": drawn}],
                "steps": arguments.steps,
                "batch": 32,
                "window": 8,
                "optimizer": {"lr": 3e-4},
                "schedule": {"name": "cosine", "warmup": 20},
                "ema": 0.98,
            }
        )
        train(config)
        results = header("qat")
        results |= {"steps": arguments.steps, "weight_level": arguments.level}
        checkpoints = {"after training": CHECKPOINT, "quantisation-aware": Path(folder) / "run" / "last.pth"}
        reference = None
        for name, checkpoint in checkpoints.items():
            path = Path(folder) / f"{name}.onnx"
            floating = open_reference(checkpoint, CheckpointSettings())
            export(floating, path)
            found = calibration_set.rendered(floating.manifest.alphabet, 400)
            images, held_back = calibration_set.sample(found, floating.manifest, 256)
            model = open_model(path)
            scales = calibrate(model, images, held_back, "mse", Path(folder) / "scales.json", rendered=True)
            proof = proof_images(floating.manifest, None, None, arguments.images)
            reference = reference or read(model.backend(), proof.batches)  # the float print model
            quantised = qdq.insert(model.graph, scales.ranges, weight_level=arguments.level)
            verdict = judge(reference, read(backend_of(quantised), proof.batches), proof.truths)
            results[name] = {k: v for k, v in verdict.to_plain().items() if k != "changes"}
            print(f"{name}:\n{verdict.table()}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
