"""How far confidences can be trusted, and the temperature at which they can.

One temperature for the logits (Guo et al. 2017, arXiv 1706.04599), fitted to whole lines: how
likely a text is right is what is to be said. Texts do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.datasets import Dataset, RecordInvalid, record
from crnn_deploy.decoding_rule import Aggregate, DecodingRule
from crnn_deploy.errors import CrnnDeployError, VerdictFailed
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.decoding.alignment import Decode
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.confidence import (
    TEMPERATURES,
    Reliability,
    best_temperature,
    log_loss,
    reliability,
    restated,
)
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer

__all__ = ["Calibration", "ConfidenceUnfit", "calibrate"]

_FEWEST = 20  # images of either half
_FEWEST_WRONG = 3  # of the half that is fitted to


class ConfidenceUnfit(CrnnDeployError, ValueError):
    """Images that tell nothing of confidences."""


@dataclass(frozen=True)
class Calibration:
    """A temperature, and how confidences agreed with what was right on images that it was not fitted to."""

    rule: DecodingRule  # with the temperature
    fitted: int  # images
    before: Reliability  # at temperature 1, of the images held out
    after: Reliability
    log_loss: tuple[float, float]  # before and after, of the images held out
    failed: int  # images that could not be read, and count for nothing

    @property
    def held_out(self) -> int:
        return sum(self.before.images)

    def to_plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "aggregate": self.rule.aggregate,
            "temperature": self.rule.temperature,
            "fitted_images": self.fitted,
            "held_out_images": self.held_out,
            "failed": self.failed,
            "ece_before": self.before.ece,
            "ece_after": self.after.ece,
            "log_loss_before": self.log_loss[0],
            "log_loss_after": self.log_loss[1],
            "before": self.before.to_plain(),
            "after": self.after.to_plain(),
        }

    def lines(self) -> str:
        """The report as lines of text."""
        shown = ["confidence    before        mean    right     after        mean    right"]
        for at in range(len(self.before.images)):
            cells = [f"{at / 10:.1f} to {(at + 1) / 10:.1f}".ljust(12)]
            for one in (self.before, self.after):
                figures = f"{one.confidence[at]:10.3f}  {one.accuracy[at]:7.2%}" if one.images[at] else ""
                cells.append(f"{one.images[at]:6}  {figures:19}")
            shown.append("  ".join(cells).rstrip())
        shown.append(
            f"expected calibration error {self.before.ece:.4f}, at temperature {self.rule.temperature:.3f} "
            f"{self.after.ece:.4f}; log loss {self.log_loss[0]:.4f} and {self.log_loss[1]:.4f} "
            f"({self.held_out} images held out, {self.fitted} fitted to)"
        )
        return "\n".join(shown)


def calibrate(
    recognizer: Recognizer,
    datasets: Mapping[str, Dataset],
    aggregate: Aggregate,
    *,
    batch: int = 8,
    progress: Callable[[int], object] = lambda images: None,
) -> Calibration:
    """Fit a temperature to half of the images, with the decoder of the model's manifest.

    batch: images that run together
    progress: called with the number of images that were read
    Raises ConfidenceUnfit; VerdictFailed where confidences are no better on the other half; LogitsMissing.
    """
    manifest = recognizer.manifest
    plain = decoder_of(replace(manifest.decoding, aggregate="min", temperature=1.0))
    decode = plain.bind(manifest.alphabet, manifest.blank)
    tokens = (*manifest.alphabet[: manifest.blank], "", *manifest.alphabet[manifest.blank :])
    rows: list[NDArray[np.float64]] = []  # of each image a confidence for each temperature
    right: list[bool] = []
    places: list[int] = []  # of the images, for the halves must not depend on the batches
    total = sum(map(len, datasets.values()))
    for some in _batches(recognizer, datasets, batch):
        frames = recognizer.run([prepared for _, _, prepared in some])
        for row, (place, truth, _) in enumerate(some):
            found = _confidences(frames.row(row), decode, tokens, manifest.blank, aggregate)
            if found is not None:
                rows.append(found[1])
                right.append(found[0] == truth)
                places.append(place)
        progress(len(some))
    order = np.argsort(places)
    halves = np.random.default_rng(0).permutation(total)[np.array(places, int)[order]] % 2 == 0
    confidences, correct = np.array(rows).reshape(-1, len(TEMPERATURES))[order], np.array(right, bool)[order]
    _check(correct, halves)
    best = best_temperature(confidences[halves], correct[halves])
    rule = replace(manifest.decoding, aggregate=aggregate, temperature=TEMPERATURES[best])
    columns = (TEMPERATURES.index(1.0), best)
    before, after = (reliability(confidences[~halves, at], correct[~halves]) for at in columns)
    losses = log_loss(confidences[~halves][:, columns], correct[~halves, None])
    if losses[1] > losses[0]:
        raise VerdictFailed(
            f"at temperature {rule.temperature:.3f} the log loss of the {sum(before.images)} images held out "
            f"is {losses[1]:.4f}, without it {losses[0]:.4f}; nothing is written"
        )
    return Calibration(
        rule, int(halves.sum()), before, after, (float(losses[0]), float(losses[1])), total - len(rows)
    )


def _check(right: NDArray[np.bool_], halves: NDArray[np.bool_]) -> None:
    fitted, wrong = int(halves.sum()), int((~right[halves]).sum())
    if min(fitted, len(right) - fitted) < _FEWEST:
        raise ConfidenceUnfit(f"{len(right)} images were read; give {3 * _FEWEST} or more")
    if wrong < _FEWEST_WRONG or wrong == fitted:
        raise ConfidenceUnfit(
            f"of the {fitted} images to fit to, {wrong} are read wrong; there must be {_FEWEST_WRONG} or "
            f"more, and right ones too"
        )


def _batches(
    recognizer: Recognizer, datasets: Mapping[str, Dataset], size: int
) -> Iterator[list[tuple[int, str, Prepared]]]:
    """Images of one width with their places and truths; those that cannot be read are left out."""
    groups: Groups[tuple[int, str, Prepared]] = Groups(size)
    records = (record(dataset, at) for dataset in datasets.values() for at in range(len(dataset)))
    for place, sample in enumerate(records):
        if isinstance(sample, RecordInvalid):
            continue
        try:
            prepared = recognizer.prepare(sample.image)
        except CrnnDeployError:
            continue
        if full := groups.add(prepared.columns, (place, sample.text, prepared)):
            yield full
    while groups:
        yield groups.pop_oldest()


def _confidences(
    frames: Frames, decode: Decode, tokens: Sequence[str], blank: int, aggregate: Aggregate
) -> tuple[str, NDArray[np.float64]] | None:
    """The text of one image and its confidence at each temperature; None where nothing can be read."""
    if not np.isfinite(frames.probabilities).all():
        return None
    try:
        texts = decode(frames, [(1.0, frames.indices.shape[1])])
    except CrnnDeployError:  # nothing that is allowed
        return None
    found = [
        restated(texts, frames.at_temperature(temperature), tokens, blank, aggregate)[0].confidence
        for temperature in TEMPERATURES
    ]
    return texts[0].text, np.array(found)
