"""How well the network reads so far, by the road that `infer` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from crnn_deploy.datasets import Dataset, RecordInvalid, Sample, record
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.evaluation.evaluate import failure_reason
from crnn_deploy.metrics import Score, score
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.decoding.ctc import Frames, Text
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.training.journal import Journal, ValidationReading
from crnn_deploy.training.model import Model

__all__ = ["validate"]

_CHUNK = 512  # images held at a time
_BATCH = 64
_SHOWN = 8  # readings of each dataset in the journal


class _Live:
    """The network as it is now, as a backend."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.manifest = model.manifest
        self._module = model.module.eval()
        self._device = device

    def run(self, images: NDArray[np.float32]) -> Frames:
        batch = torch.from_numpy(images).to(self._device, memory_format=torch.channels_last)
        with torch.inference_mode():
            return Frames.from_logits(self._module(batch).float().cpu().numpy())

    def close(self) -> None:
        pass


def validate(
    model: Model,
    datasets: Mapping[str, Dataset],
    device: torch.device,
    step: int,
    journal: Journal,
    *,
    ignore_case: bool,
    ended: Callable[[], bool],
) -> dict[str, Score]:
    """Read every image of every dataset; leaves the module in evaluation mode.

    A sample that is not whole or whose image cannot be read counts as wrong, and the journal names it.

    ignore_case: truths are lowered, as the labels were
    ended: asked between two chunks of images; once it says so nothing more is read, and there are no scores
    """
    backend = _Live(model, device)
    recognizer = Recognizer(backend, batch=_BATCH)
    scores = {}
    for name, dataset in datasets.items():
        total, failures = Score(), list[str]()
        for start in range(0, len(dataset), _CHUNK):
            if ended():
                return {}
            journal.validating(name, start, len(dataset))
            records = [record(dataset, i) for i in range(start, min(start + _CHUNK, len(dataset)))]
            samples = [one for one in records if isinstance(one, Sample)]
            broken = [one for one in records if isinstance(one, RecordInvalid)]
            texts = recognizer.try_read([sample.image for sample in samples])
            total += score(
                (
                    sample.text.lower() if ignore_case else sample.text,
                    text.text if isinstance(text, Text) else None,
                )
                for sample, text in zip(samples, texts, strict=True)
            )
            total += score(("", None) for _ in broken)
            failures += map(str, broken)
            failures += (
                failure_reason(sample.name, text)
                for sample, text in zip(samples, texts, strict=True)
                if not isinstance(text, Text)
            )
            if start == 0:
                journal.readings(step, name, [_reading(backend, sample) for sample in samples[:_SHOWN]])
        scores[name] = total
        journal.validated(step, name, total, failures)
    return scores


def _reading(backend: _Live, sample: Sample) -> ValidationReading:
    manifest = backend.manifest
    try:
        pixels = read_image(sample.image, decoded_grey=manifest.decoded_grey)
    except CrnnDeployError as error:
        return ValidationReading(None, sample.text, str(error), "")
    [indices] = backend.run(prepare(pixels, manifest)[None]).indices.tolist()
    raw = ctc.raw_decode(indices, manifest.alphabet, manifest.blank)
    return ValidationReading(
        pixels, sample.text, raw, ctc.decode_indices(indices, manifest.alphabet, manifest.blank)
    )
