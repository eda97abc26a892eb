"""How fast the print model's configuration trains: drawing alone, steps alone, both, and which limits.

Fonts and words come from a pack (`crnn-deploy dataset pack-fonts`): the one that CRNN_DEPLOY_FONT_PACK names,
or `fonts.tar.xz` in the folder of all parts. Without a pack they come from the machine. The results say
which.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.gpu.device import Device
from benchmarks.gpu.work import Work
from crnn_deploy.synthesis.font_pack import Material, unpacked
from crnn_deploy.training.config import Config, read_config
from crnn_deploy.training.copies import is_asynchronous, on_device
from crnn_deploy.training.data import BatchStream, TrainingBatch, batches_from
from crnn_deploy.training.learner import Learner
from crnn_deploy.training.model import build
from crnn_deploy.training.sources import faces_of, open_sources

__all__ = ["training"]

WORKERS = (4, 8, 14)  # processes that draw
BATCHES = (64, 256, 1024)
IMAGES = 2048  # of a window, as the default configuration has it
SECONDS = 12.0  # of each measurement with workers
ROUNDS = 3  # passes over a window that is ready on the device
_ROOT = Path(__file__).parents[2]
_FINE = 512  # images of a window where drawing alone is measured, so that the end cuts off little
_ENDLESS = 10**9  # steps
_RATE = 1e-4  # of learning: nothing is learned here that anybody reads
_FORMATS: dict[str, Literal["fp32", "bf16"]] = {"fp32, TF32": "fp32", "bf16": "bf16"}


def training(work: Work, gpu: Device) -> None:
    """Images a second by worker processes alone, by the network alone, and by the whole training."""
    torch.backends.cuda.matmul.allow_tf32 = True  # as PyTorch has it for convolutions and LSTMs anyway
    pack = _pack(work.folder)
    with unpacked(pack) if pack else nullcontext() as material:
        work.attempt(partial(_fonts, material, pack), "fonts")
        drawn = {
            count: work.attempt(partial(_drawn, work, material, count), "drawn", f"{count} processes")
            for count in WORKERS
        }
        steps = {
            (name, batch): row
            for batch in BATCHES
            for name, row in (
                work.attempt(partial(_steps, gpu, material, batch), "steps", f"batch {batch}") or {}
            ).items()
        }
        fastest = max(steps, key=lambda cell: float(steps[cell]["images_per_second"]), default=None)
        if fastest is None:
            return
        work.attempt(partial(_whole, work, gpu, material, *fastest), "whole training")
        found = [row for row in drawn.values() if row is not None]
        if found:
            work.keep(_limit(max(row["images_per_second"] for row in found), steps, fastest), "limit")


def _pack(folder: Path) -> Path | None:
    named = os.environ.get("CRNN_DEPLOY_FONT_PACK")
    if named:
        return Path(named)
    own = folder / "fonts.tar.xz"
    return own if own.exists() else None


def _config(batch: int, images: int) -> Config:
    """The print model's configuration, but for the size of batch and window."""
    config = read_config(_ROOT / "training" / "print.yaml", (f"recipe={_ROOT / 'training' / 'print.toml'}",))
    return config.model_copy(update={"batch": batch, "window": max(1, images // batch)})


def _stream(config: Config, material: Material | None) -> BatchStream:
    manifest = build(config).manifest
    return BatchStream(open_sources(config, manifest.alphabet, material), manifest, config)


def _fonts(material: Material | None, pack: Path | None) -> str:
    """Which fonts are drawn with."""
    [source] = _config(BATCHES[0], IMAGES).train
    assert source.synthetic is not None
    faces = faces_of(source.synthetic, material)
    if pack is not None:
        return f"{len(faces)} faces of the pack {pack.name}"
    if any(face.path.is_relative_to(folder) for face in faces for folder in source.synthetic.folders):
        return f"{len(faces)} faces of this machine"
    return f"{len(faces)} faces of matplotlib: others than the print model's, so other images are drawn"


def _drawn(work: Work, material: Material | None, workers: int) -> dict[str, float]:
    """By processes alone, once each of them has drawn its first window."""
    config = _config(64, _FINE)
    batches = batches_from(_stream(config, material), 0, _ENDLESS, config.window, workers)
    return _counted(work, batches, warm=workers * config.window)


def _counted(work: Work, batches: Iterator[TrainingBatch], warm: int) -> dict[str, float]:
    """Images and batches a second after the first `warm` ones."""
    start = time.perf_counter()
    next(batches)
    first = time.perf_counter() - start
    for _ in range(warm - 1):
        next(batches)
    start, images, count = time.perf_counter(), 0, 0
    while time.perf_counter() - start < SECONDS and not work.late():
        images += len(next(batches).texts)
        count += 1
    spent = time.perf_counter() - start
    return {
        "images_per_second": images / spent,
        "batches_per_second": count / spent,
        "seconds to the first batch": first,
    }


def _steps(gpu: Device, material: Material | None, batch: int) -> dict[str, dict[str, float]]:
    """Of a training in each number format, from batches that are ready on the device."""
    config = _config(batch, IMAGES)
    ready = list(on_device(iter(_stream(config, material)[0]), gpu.device))
    return {name: _step(gpu, config, precision, ready) for name, precision in _FORMATS.items()}


def _step(
    gpu: Device, config: Config, precision: Literal["fp32", "bf16"], ready: list[TrainingBatch]
) -> dict[str, float]:
    learner = _learner(gpu, config, precision)

    def every() -> None:
        for step, batch in enumerate(ready):
            learner.learn(batch, step, _RATE)

    every()  # libraries choose their kernels for each width
    gpu.synchronize()
    ms = statistics.median(gpu.milliseconds(every, ROUNDS))
    return {
        "ms": ms / len(ready),
        "steps_per_second": len(ready) / ms * 1e3,
        "images_per_second": sum(len(batch.texts) for batch in ready) / ms * 1e3,
    }


def _learner(gpu: Device, config: Config, precision: Literal["fp32", "bf16"]) -> Learner:
    own = config.model_copy(update={"precision": precision})
    model = build(own)
    model.module.train()
    return Learner(own, model, gpu.device)


def _whole(work: Work, gpu: Device, material: Material | None, name: str, batch: int) -> dict[str, Any]:
    """Workers, pinned copies and steps, with the batch and number format that are fastest alone."""
    config, workers = _config(batch, IMAGES), WORKERS[-1]
    learner = _learner(gpu, config, _FORMATS[name])
    batches = batches_from(
        *(_stream(config, material), 0, _ENDLESS, config.window, workers),
        pinned=is_asynchronous(gpu.device),
    )

    def trained() -> Iterator[TrainingBatch]:
        for step, one in enumerate(on_device(batches, gpu.device)):
            learner.learn(one, step, _RATE)
            yield replace(one, images=one.images[:0])  # what is trained on is not held

    found = _counted(work, trained(), warm=workers * config.window)
    gpu.synchronize()
    return {"precision": name, "batch": batch, "processes": workers, **found}


def _limit(drawn: float, steps: dict[tuple[str, int], dict[str, float]], fastest: tuple[str, int]) -> str:
    """Which of the two is slower, in a sentence."""
    learned = steps[fastest]["images_per_second"]
    name, batch = fastest
    slower = "drawing" if drawn < learned else "the network's step"
    return (
        f"{slower} limits: processes draw {drawn:,.0f} images a second at most, "
        f"and steps of {batch} images in {name} take {learned:,.0f}"
    )
