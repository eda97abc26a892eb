"""Batches on the device: on a GPU, the next one is copied while the one before is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from crnn_deploy.training.data import TrainingBatch

__all__ = ["is_asynchronous", "on_device"]


def is_asynchronous(device: torch.device) -> bool:
    """Whether work on the device goes on while the processor does something else, and copies beside it."""
    return device.type == "cuda"


def on_device(batches: Iterator[TrainingBatch], device: torch.device) -> Iterator[TrainingBatch]:
    """The same batches, images and labels on the device; lengths stay where `ctc_loss` reads them."""
    if is_asynchronous(device):
        return _copied_ahead(batches, device)
    return (_copied(batch, device) for batch in batches)


def _copied(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    # the layout in which convolutions are fastest, on CPUs and GPUs
    images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
    return replace(batch, images=images, labels=batch.labels.to(device, non_blocking=True))


def _copied_ahead(batches: Iterator[TrainingBatch], device: torch.device) -> Iterator[TrainingBatch]:
    """Copies go by a stream of their own, which a step waits for before it reads what they wrote."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begun() -> TrainingBatch | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(side):
            return _copied(batch, device)

    following = begun()
    while following is not None:
        batch, steps = following, torch.cuda.current_stream(device)
        steps.wait_stream(side)
        for tensor in (batch.images, batch.labels):
            tensor.record_stream(steps)  # or its memory could be given away while a step reads it
        following = begun()  # queued before the step of this batch, and so beside it
        yield batch
