"""Parity of two backends: logits, every frame's argmax and the text, as a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from crnn_deploy.errors import RunFailed, amount
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.fidelity import log_softmax, max_delta

__all__ = [
    "LARGE",
    "TIE",
    "TOLERANCE",
    "Case",
    "Exact",
    "InFloat64",
    "ParityReport",
    "compare",
]

TIE = 1e-5  # a top-2 margin that rounding in fp32 may turn; a frame below it has no argmax to speak of
TOLERANCE = 1e-4  # of logits in fp32
FARTHER = 2  # times as far from float64 as the reference a candidate may be
ROUNDING = 1e-2  # of logits in fp32, at most: what is farther from float64 is more than rounding
LARGE = 10.0  # fp32 rounds in proportion: of logits beyond this the tolerance is as much larger


@dataclass(frozen=True)
class Flip:
    """A frame whose likeliest class differs."""

    batch: int  # images in its batch
    width: int  # pixels
    image: int  # which of the batch
    frame: int
    reference: int  # class
    candidate: int  # class
    margin: float  # the reference's top-2 margin there, in logits


@dataclass(frozen=True)
class Exact:
    """How far both are from the reference's network in float64: what fp32 alone costs each of them."""

    reference: float  # largest |delta|, of what `Case.max_delta` is of
    candidate: float
    scale: float  # largest |logit| in float64

    @property
    def passed(self) -> bool:
        """Whether the candidate is no farther from float64 than twice the reference, or than the tolerance.

        Never with NaN. A reference that is itself far from float64 proves nothing.
        """
        large = max(1, self.scale / LARGE)
        allowed = max(FARTHER * self.reference, TOLERANCE * large)
        return self.reference <= ROUNDING * large and self.candidate <= allowed


@dataclass(frozen=True)
class Case:
    """One batch through both backends."""

    batch: int  # images
    width: int  # pixels
    steps: int  # time steps
    scale: float  # largest |logit| of the reference
    max_delta: float  # largest |delta|: of logits, of log-probabilities, or of the best class's probability
    flips: tuple[Flip, ...]  # every frame whose argmax differs
    changed: tuple[int, ...]  # images whose text differs
    edits: int  # edit distance of all texts
    characters: int  # of the reference's texts
    error: str | None = None  # why there is nothing to compare
    exact: Exact | None = (
        None  # both against the reference in float64, where they are too far from each other
    )

    def holds(self, tolerance: float) -> bool:
        """Whether the logits agree: with each other, or as well with float64 as the reference does."""
        close = self.max_delta <= tolerance * max(1, self.scale / LARGE)
        return close or (self.exact is not None and self.exact.passed)

    def ties(self, tie: float) -> int:
        """Frames whose argmax differs and whose margin rounding may turn: below `tie`, or twice the
        reference's distance from float64 where that was measured."""
        return sum(flip.margin < self._tie(tie) for flip in self.flips)

    def _tie(self, tie: float) -> float:
        return tie if self.exact is None or not self.exact.passed else max(tie, 2 * self.exact.reference)

    def text_changes(self, tie: float) -> int:
        """Images whose text differs, those left out whose only flips are ties."""
        turned = {flip.image for flip in self.flips}
        broken = {flip.image for flip in self.flips if not flip.margin < self._tie(tie)}  # of NaN too
        return sum(image in broken or image not in turned for image in self.changed)


@dataclass(frozen=True)
class ParityReport:
    """What a candidate does differently from its reference."""

    cases: tuple[Case, ...]
    tolerance: float  # allowed max_delta of logits up to 10, in proportion beyond
    tie: float = TIE  # margin of a frame's two likeliest classes below which rounding may turn it
    inexact: str | None = None  # why the reference did not run in float64, where that was tried

    @property
    def max_delta(self) -> float:
        """NaN where one of them is."""
        return float(np.max([0.0, *(case.max_delta for case in self.cases)]))

    @property
    def images(self) -> int:
        return sum(case.batch for case in self.cases)

    @property
    def frames(self) -> int:
        return sum(case.batch * case.steps for case in self.cases)

    @property
    def flips(self) -> int:
        """Frames whose argmax differs, ties left out."""
        return sum(len(case.flips) - case.ties(self.tie) for case in self.cases)

    @property
    def text_changes(self) -> int:
        return sum(case.text_changes(self.tie) for case in self.cases)

    @property
    def cer(self) -> float:
        """Character error rate of the candidate's text against the reference's."""
        return sum(case.edits for case in self.cases) / max(1, sum(case.characters for case in self.cases))

    @property
    def passed(self) -> bool:
        return (
            bool(self.cases)
            and all(case.holds(self.tolerance) for case in self.cases)
            and self.flips == 0
            and self.text_changes == 0
        )

    def to_plain(self) -> dict[str, Any]:
        names = (
            "passed",
            "tolerance",
            "tie",
            "max_delta",
            "images",
            "frames",
            "flips",
            "text_changes",
            "cer",
            "inexact",
        )
        return {name: getattr(self, name) for name in names} | {
            "cases": [asdict(case) for case in self.cases]
        }

    def table(self) -> str:
        """The report as lines of text, flipped frames last."""
        lines = ["batch  width  steps  max |logit|  max |delta|  argmax flips  ties  texts changed"]
        lines += [
            f"{c.batch:5}  {c.width:5}  {c.steps:5}  {c.scale:11.2f}  {c.max_delta:11.2e}"
            f"  {len(c.flips) - c.ties(self.tie):12}  {c.ties(self.tie):4}  {c.text_changes(self.tie):13}"
            for c in self.cases
        ]
        lines += [f"batch {c.batch} width {c.width}: {c.error}" for c in self.cases if c.error is not None]
        lines += [
            f"batch {c.batch} width {c.width}: from float64 the reference is {c.exact.reference:.1e} and the "
            f"candidate {c.exact.candidate:.1e} (allowed {FARTHER} times as far), from each other "
            f"{c.max_delta:.1e}"
            for c in self.cases
            if c.exact is not None
        ]
        lines += [f"not compared with float64: {self.inexact}"] if self.inexact is not None else []
        flips = [flip for case in self.cases for flip in case.flips]
        lines += [
            f"flip: batch {f.batch} width {f.width} image {f.image} frame {f.frame}: "
            f"class {f.reference} -> {f.candidate}, margin {f.margin:.2e}"
            for f in sorted(flips, key=lambda f: -f.margin)[:10]
        ]
        large = f" per {LARGE:.0f} of max |logit|" if any(c.scale > LARGE for c in self.cases) else ""
        lines.append(
            f"{'PASSED' if self.passed else 'FAILED'}: {amount(self.images, 'image')}, "
            f"{amount(self.frames, 'frame')}; max |delta| {self.max_delta:.2e} "
            f"(allowed {self.tolerance:.0e}{large}), {amount(self.flips, 'argmax flip')}, "
            f"{amount(self.text_changes, 'text')} changed, CER {self.cer:.4f}"
        )
        return "\n".join(lines)


def compare(
    reference: Backend,
    candidate: Backend,
    batches: Iterable[NDArray[np.float32]],
    *,
    tolerance: float | None = None,
    progress: Callable[[Case], object] = lambda case: None,
) -> ParityReport:
    """Run batches (N, C, H, W) through both. The reference puts out logits or log-probabilities.

    tolerance: allowed max_delta of logits up to 10, in proportion beyond. None: `TOLERANCE`; where a batch
        fails it and the reference's network runs in float64, how far both are from that decides
    progress: called after each batch
    """
    cases, inexact = [], None
    for images in batches:
        case, expected, actual = _compare_batch(reference, candidate, images)
        if tolerance is None and inexact is None and actual is not None and isinstance(reference, InFloat64):
            rounding = ParityReport((case,), TOLERANCE)
            if not rounding.passed and np.isfinite(case.max_delta):
                exact = reference.exact(images)
                if isinstance(exact, str):
                    inexact = exact
                else:
                    case = replace(case, exact=_exact(exact, expected, actual, reference, candidate))
        cases.append(case)
        progress(case)
    return ParityReport(tuple(cases), TOLERANCE if tolerance is None else tolerance, inexact=inexact)


@runtime_checkable
class InFloat64(Protocol):
    """A backend that can run its network in float64."""

    def exact(self, images: NDArray[np.float32]) -> NDArray[np.float64] | str:
        """Logits (N, T, classes); or why the network does not run so."""
        ...


def _exact(
    logits: NDArray[np.float64], expected: Frames, actual: Frames, reference: Backend, candidate: Backend
) -> Exact | None:
    """How far both are from logits in float64, as `max_delta` measures it; None where those do not fit."""
    if expected.logits is None or expected.logits.shape != logits.shape:
        return None
    if actual.logits is None:
        best = np.exp(log_softmax(logits)).max(axis=2)
        distances = [np.abs(frames.probabilities - best).max() for frames in (expected, actual)]
    elif reference.manifest.output == candidate.manifest.output:
        distances = [np.abs(found - logits).max() for found in (expected.logits, actual.logits)]
    else:
        wanted = log_softmax(logits)
        distances = [np.abs(log_softmax(found) - wanted).max() for found in (expected.logits, actual.logits)]
    return Exact(float(distances[0]), float(distances[1]), float(np.abs(logits).max()))


def _compare_batch(
    reference: Backend, candidate: Backend, images: NDArray[np.float32]
) -> tuple[Case, Frames, Frames | None]:
    """The batch's case, and what both put out; of the candidate nothing where that does not compare."""
    batch, width = images.shape[0], images.shape[3]
    expected = reference.run(images)
    steps = expected.indices.shape[1]
    try:
        actual = candidate.run(images)
    except RunFailed as error:
        said = str(error)
        return (
            Case(batch, width, steps, 0.0, float("inf"), (), tuple(range(batch)), 0, 0, said),
            expected,
            None,
        )
    if actual.indices.shape != expected.indices.shape:
        return Case(batch, width, steps, 0.0, float("inf"), (), tuple(range(batch)), 0, 0), expected, None
    flips = tuple(
        Flip(
            batch,
            width,
            int(image),
            int(frame),
            int(expected.indices[image, frame]),
            int(actual.indices[image, frame]),
            _margin(expected, int(image), int(frame)),
        )
        for image, frame in zip(*np.nonzero(expected.indices != actual.indices), strict=True)
    )
    pairs = list(zip(_texts(expected, reference.manifest), _texts(actual, candidate.manifest), strict=True))
    silent = [
        name
        for name, frames in (("the reference", expected), ("the candidate", actual))
        if not np.isfinite(frames.probabilities).all()
    ]
    case = Case(
        batch=batch,
        width=width,
        steps=steps,
        scale=0.0 if expected.logits is None else float(np.abs(expected.logits).max()),
        max_delta=max_delta(expected, actual, reference.manifest, candidate.manifest),
        flips=flips,
        changed=tuple(image for image, (a, b) in enumerate(pairs) if a != b),
        edits=sum(Levenshtein.distance(a, b) for a, b in pairs),
        characters=sum(len(a) for a, _ in pairs),
        error=f"{' and '.join(silent)} put out NaN" if silent else None,
    )
    return case, expected, actual


def _margin(frames: Frames, image: int, frame: int) -> float:
    if frames.logits is None:
        return float("nan")
    second, first = np.sort(frames.logits[image, frame])[-2:].tolist()
    return float(first - second)


def _texts(frames: Frames, manifest: Manifest) -> Sequence[str]:
    return [ctc.decode_indices(row, manifest.alphabet, manifest.blank) for row in frames.indices.tolist()]
