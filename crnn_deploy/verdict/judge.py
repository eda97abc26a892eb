"""Does a candidate read the text that its reference reads? Whole strings are counted, with intervals.

Without labels a change of a string is neither better nor worse. What counts is whether the reference was sure
of it: of the strings whose every frame it gave more than 0.8, none of 3,000 changed in an INT8 model that
lost no accuracy, while 3-10 % of all strings did, all of them ones that it was unsure of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import amount
from crnn_deploy.manifest import Manifest
from crnn_deploy.metrics import Score, Z, score, wilson
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = [
    "CONFIDENT",
    "Budget",
    "Change",
    "Check",
    "Rate",
    "Reading",
    "Verdict",
    "judge",
    "margin_change",
    "readings",
]

CONFIDENT = 0.8  # of a text's least probable frame
_MOST_IMAGES = 10_000_000  # that anyone would gather

Answer = Literal["PASSED", "FAILED", "NOT ENOUGH IMAGES"]


@dataclass(frozen=True)
class Reading:
    """What a model reads in one image."""

    text: str
    min_probability: float  # smallest probability among the frames' likeliest classes, 0-1; NaN where one is
    indices: NDArray[np.int64]  # (T,) likeliest class of each frame
    margins: NDArray[np.float32]  # (T,) difference of its two best logits; NaN where the graph has none


@dataclass(frozen=True)
class Budget:
    """What a candidate may change. Shares of 1."""

    confident_flips: float = 0.001  # of the strings that the reference was sure of
    confidence: float = CONFIDENT  # above which it was
    accuracy_loss: float = 0.002  # net, of all images; asked with labels alone
    cer_increase: float = 0.0005  # of the truths' characters; asked with labels alone


@dataclass(frozen=True)
class Rate:
    """A share of images and its interval."""

    count: int
    images: int

    @property
    def share(self) -> float:
        return self.count / self.images if self.images else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % (Wilson)."""
        return wilson(self.count, self.images)

    def to_plain(self) -> dict[str, Any]:
        return {**vars(self), "share": self.share, "interval": self.interval}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.images} ({self.share:.2%}, 95 %: {low:.2%}-{high:.2%})"


@dataclass(frozen=True)
class Check:
    """One figure against its budget."""

    name: str
    answer: Answer
    value: float
    interval: tuple[float, float]  # 95 %
    allowed: float
    # images that would settle it, if they are as `provided` says; None: it is settled, or no number would
    more_images: int | None = None
    settles_as: Answer | None = None  # what it then is
    provided: str = "like these"

    def line(self) -> str:
        """The answer, the figure, its interval, what is allowed, and what is lacking."""
        low, high = self.interval
        text = (
            f"{self.answer}: {self.name} {self.value:.3%} "
            f"(95 %: {low:.3%} to {high:.3%}, allowed {self.allowed:.3%})"
        )
        if self.answer != "NOT ENOUGH IMAGES":
            return text
        if self.more_images is None:
            return f"{text}; no number of further images {self.provided} would settle it"
        more = f"about {amount(self.more_images, 'further image')} {self.provided}"
        return f"{text}; {more} would settle it as {self.settles_as}"


@dataclass(frozen=True)
class Change:
    """An image that the two read otherwise."""

    image: int  # its place among the images
    reference: str
    candidate: str
    truth: str | None
    confident: bool
    min_probability: float  # of the reference
    margin: float  # smallest difference of the reference's two best logits at a frame that flipped


@dataclass(frozen=True)
class Verdict:
    """What a candidate changes, and whether its budget allows it."""

    images: int
    flips: Rate  # of all strings
    confident_flips: Rate  # of the strings the reference was sure of
    changes: tuple[Change, ...]  # the surest first
    checks: tuple[Check, ...]
    right_to_wrong: Rate | None = None  # this and what follows with labels alone
    wrong_to_right: Rate | None = None
    exact: tuple[int, int] | None = None  # right readings of reference and candidate
    cer: tuple[float, float] | None = None  # character error rates of both

    @property
    def answer(self) -> Answer:
        """FAILED where a check is; else NOT ENOUGH IMAGES where one is."""
        answers = {check.answer for check in self.checks}
        if "FAILED" in answers:
            return "FAILED"
        return "NOT ENOUGH IMAGES" if "NOT ENOUGH IMAGES" in answers else "PASSED"

    @property
    def passed(self) -> bool:
        return self.answer == "PASSED"

    def to_plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain: dict[str, Any] = {
            "answer": self.answer,
            "images": self.images,
            "strings_changed": self.flips.to_plain(),
            "confident_strings_changed": self.confident_flips.to_plain(),
            "checks": [vars(check) for check in self.checks],
            "changes": [vars(change) for change in self.changes],
        }
        if self.right_to_wrong is not None and self.wrong_to_right is not None:
            assert self.exact is not None and self.cer is not None
            plain |= {
                "right_to_wrong": self.right_to_wrong.to_plain(),
                "wrong_to_right": self.wrong_to_right.to_plain(),
                "exact": {"reference": self.exact[0], "candidate": self.exact[1]},
                "cer": {"reference": self.cer[0], "candidate": self.cer[1]},
            }
        return plain

    def table(self) -> str:
        """The figures as lines of text; at the end the answer, and below it each check."""
        lines = [f"strings changed: {self.flips}", f"confident strings changed: {self.confident_flips}"]
        if self.right_to_wrong is not None:
            assert self.exact is not None and self.cer is not None
            lines += [
                f"right to wrong: {self.right_to_wrong}",
                f"wrong to right: {self.wrong_to_right}",
                f"exact: {self.exact[0]} -> {self.exact[1]} of {self.images}; "
                f"CER {self.cer[0]:.3%} -> {self.cer[1]:.3%}",
            ]
        lines += [
            f"changed: {change.reference!r} -> {change.candidate!r}, "
            f"smallest probability {change.min_probability:.2f}, margin {change.margin:.2f}"
            for change in self.changes[:5]
        ]
        return "\n".join([*lines, self.line(), *(f"  {check.line()}" for check in self.checks)])

    def line(self) -> str:
        """The answer in short, as for an error: which checks failed, or how many images would settle them."""
        text = f"{self.answer}: {amount(self.images, 'image')}"
        if self.answer == "FAILED":
            beyond = [check.name for check in self.checks if check.answer == "FAILED"]
            return f"{text}; beyond what is allowed: {', '.join(beyond)}"
        more = [check.more_images for check in self.checks if check.answer == "NOT ENOUGH IMAGES"]
        numbers = [number for number in more if number is not None]
        if not more or len(numbers) < len(more):
            return text
        return f"{text}; about {max(numbers):,} more would settle {'it' if len(more) == 1 else 'all checks'}"


def judge(
    reference: Sequence[Reading],
    candidate: Sequence[Reading],
    truths: Sequence[str] | None = None,
    *,
    budget: Budget = Budget(),
) -> Verdict:
    """Compare two models' readings of the same images in the same order.

    A check is PASSED where the whole 95 % interval of its figure is within the budget, FAILED where all of it
    is beyond, and there are NOT ENOUGH IMAGES to tell where the budget lies inside. A candidate that puts out
    NaN for an image has changed it.
    """
    changes = []
    for at, (mine, theirs) in enumerate(zip(reference, candidate, strict=True)):
        if mine.text != theirs.text or not np.isfinite(theirs.min_probability):
            changes.append(
                Change(
                    at,
                    mine.text,
                    theirs.text,
                    None if truths is None else truths[at],
                    mine.min_probability > budget.confidence,
                    mine.min_probability,
                    _margin_at_flips(mine, theirs),
                )
            )
    sure = sum(reading.min_probability > budget.confidence for reading in reference)
    confident = Rate(sum(change.confident for change in changes), sure)
    check = _check(
        "confident strings changed",
        confident.share,
        confident.images,
        lambda strings: wilson(confident.share * strings, strings),
        budget.confident_flips,
        images_each=len(reference) / sure if sure else math.inf,
    )
    verdict = Verdict(
        images=len(reference),
        flips=Rate(len(changes), len(reference)),
        confident_flips=confident,
        changes=tuple(sorted(changes, key=lambda change: -change.min_probability)),
        checks=(check,),
    )
    return verdict if truths is None else _with_truths(verdict, reference, candidate, truths, budget)


def _with_truths(
    verdict: Verdict,
    reference: Sequence[Reading],
    candidate: Sequence[Reading],
    truths: Sequence[str],
    budget: Budget,
) -> Verdict:
    before, after = (
        [score([(truth, reading.text)]) for truth, reading in zip(truths, readings, strict=True)]
        for readings in (reference, candidate)
    )
    loss = np.array([a.exact - b.exact for a, b in zip(before, after, strict=True)], np.float64)
    edits = np.array([b.edits - a.edits for a, b in zip(before, after, strict=True)], np.float64)
    totals = [sum(scores, Score()) for scores in (before, after)]
    length = max(1.0, totals[0].characters / max(1, verdict.images))  # characters an image
    return replace(
        verdict,
        checks=(
            *verdict.checks,
            _mean_check("loss of exact accuracy", loss, budget.accuracy_loss),
            _mean_check("increase of the CER", edits / length, budget.cer_increase),
        ),
        right_to_wrong=Rate(int((loss > 0).sum()), verdict.images),
        wrong_to_right=Rate(int((loss < 0).sum()), verdict.images),
        exact=(totals[0].exact, totals[1].exact),
        cer=(totals[0].cer, totals[1].cer),
    )


def _mean_check(name: str, values: NDArray[np.float64], allowed: float) -> Check:
    """The check of a mean of paired differences, with its 95 % interval by the normal approximation.

    Differences that are all zero tell no spread; the interval then reaches as far as one image in Wilson's.
    How many images more would settle it is told for images that change nothing on average: a mean that is not
    told from zero says nothing of the next images, and their spread does.
    """
    mean = float(values.mean()) if len(values) else 0.0
    spread = float(values.std()) if len(values) else 0.0

    def interval(images: int) -> tuple[float, float]:
        """With images that are added to these and change nothing on average."""
        if not images:
            return -1.0, 1.0
        reach = Z * spread / math.sqrt(images) or wilson(0, images)[1]
        pooled = mean * len(values) / images
        return pooled - reach, pooled + reach

    return _check(name, mean, len(values), interval, allowed, provided="that change nothing on average")


def _check(
    name: str,
    value: float,
    count: int,
    interval: Callable[[int], tuple[float, float]],
    allowed: float,
    images_each: float = 1.0,
    provided: str = "like these",
) -> Check:
    """A figure against its budget.

    count: of what it was measured on
    interval: that of the figure on any other count, of images as `provided` says
    images_each: images for one more of them; infinite where none of the images gave one
    """

    def answer(number: int) -> Answer:
        low, high = interval(number)
        if high <= allowed:
            return "PASSED"
        return "FAILED" if low > allowed else "NOT ENOUGH IMAGES"

    found, more, then = answer(count), None, None
    if found == "NOT ENOUGH IMAGES":
        enough = _first(lambda number: answer(number) != "NOT ENOUGH IMAGES", count)
        if enough is not None and math.isfinite(images_each):
            more, then = math.ceil((enough - count) * images_each), answer(enough)
    return Check(name, found, value, interval(count), allowed, more, then, provided)


def _first(settles: Callable[[int], bool], beyond: int) -> int | None:
    """The smallest number above `beyond` that settles a check; None where ten million do not."""
    few, many = beyond, max(1, 2 * beyond)
    while not settles(many):
        few, many = many, 2 * many
        if few > _MOST_IMAGES:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if settles(middle) else (middle, many)
    return many


def _margin_at_flips(mine: Reading, theirs: Reading) -> float:
    """The smallest margin of the reference at a frame whose likeliest class differs."""
    if mine.indices.shape != theirs.indices.shape:
        return math.nan
    return float(mine.margins[mine.indices != theirs.indices].min(initial=math.inf))


def margin_change(reference: Sequence[Reading], candidate: Sequence[Reading]) -> float:
    """Mean |change| of the difference of the two best logits, over all frames; NaN without logits."""
    changes = [
        np.abs(mine.margins - theirs.margins) for mine, theirs in zip(reference, candidate, strict=True)
    ]
    return float(np.concatenate(changes).mean())


def readings(frames: Frames, manifest: Manifest) -> list[Reading]:
    """What a model reads in each image of a batch."""
    if frames.logits is None:
        margins = np.full(frames.indices.shape, np.nan, np.float32)
    else:
        best = np.partition(frames.logits, -2, axis=2)[:, :, -2:]
        margins = best[:, :, 1] - best[:, :, 0]
    return [
        Reading(
            ctc.decode_indices(indices.tolist(), manifest.alphabet, manifest.blank),
            float(probabilities.min(initial=1.0)),
            indices,
            margin,
        )
        for indices, probabilities, margin in zip(frames.indices, frames.probabilities, margins, strict=True)
    ]
