"""What a model reads of labelled images, and what it does not."""

from __future__ import annotations

import heapq
import platform
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from crnn_deploy import files
from crnn_deploy.datasets import Dataset, RecordInvalid, Sample, record
from crnn_deploy.errors import CrnnDeployError, amount
from crnn_deploy.evaluation.bands import Band, banded
from crnn_deploy.manifest import Manifest
from crnn_deploy.metrics import Score, score, wilson
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.images.pixels import Pixels, use_image
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer

__all__ = [
    "DataEmpty",
    "Evaluation",
    "Failure",
    "Mistake",
    "Provenance",
    "compared",
    "evaluate",
    "failure_reason",
]

BINS = 10  # of the confidence
_WORST = 30  # images kept, of either kind
_FAILURES = 100_000  # kept with their reason; all are counted
_LARGEST = 640  # pixels of a side; a larger image is kept shrunk
_TABLE_CONFUSIONS = 10
_Key = TypeVar("_Key", str, tuple[str, str])
_PACKAGES = (
    *("crnn-deploy", "numpy", "onnxruntime", "onnxruntime-gpu", "opencv-python", "opencv-python-headless"),
    "torch",
)


class DataEmpty(CrnnDeployError, ValueError):
    """A dataset without a single image."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} holds no images; there is nothing to evaluate")


@dataclass(frozen=True)
class Mistake:
    """An image that was read wrong."""

    group: str
    name: str
    truth: str
    prediction: str
    confidence: float  # 0-1
    edits: int
    pixels: NDArray[np.uint8] = field(repr=False, compare=False)  # as read; a side beyond 640 is shrunk to it

    def to_plain(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "pixels"}


@dataclass(frozen=True)
class Failure:
    """An image that could not be read at all."""

    group: str
    name: str
    reason: str  # one line, which names the image


@dataclass(frozen=True)
class Evaluation:
    """What came of all images. Every image counts in `overall`, failed ones as wrong."""

    overall: Score
    by_group: Mapping[str, Score]  # by dataset, in the order given
    by_length: tuple[Band, ...]  # by code points of the truth
    by_width: tuple[Band, ...]  # by pixels of the network's input; of the images that were read
    outside: Score  # of the images whose label has characters outside the alphabet: none can be exact
    outside_characters: Mapping[str, int]  # these characters
    failed: int  # images that could not be read
    failures: tuple[Failure, ...]  # all of them, up to a hundred thousand
    confusions: Mapping[tuple[str, str], int]  # (truth, prediction); "" for what was inserted or deleted
    confidence_right: tuple[int, ...]  # images by confidence, in BINS equal bins from 0 to 1, read exactly
    confidence_wrong: tuple[int, ...]
    most_edits: tuple[Mistake, ...]  # farthest from the truth, then the most confident
    most_confident: tuple[Mistake, ...]
    seconds: float  # wall time of getting, reading and recognising all images

    @property
    def images_per_second(self) -> float:
        return self.overall.images / self.seconds

    def to_plain(self) -> dict[str, Any]:
        """All of it but the pixels, ready for JSON; the commonest confusions first."""
        return {
            "overall": self.overall.to_plain(),
            "by_group": {name: group.to_plain() for name, group in self.by_group.items()},
            "by_length": [band.to_plain() for band in self.by_length],
            "by_width": [band.to_plain() for band in self.by_width],
            "outside_alphabet": {**self.outside.to_plain(), "occurrences": dict(self.outside_characters)},
            "failed": self.failed,
            "failures": [asdict(failure) for failure in self.failures],
            "confusions": [
                {"truth": truth, "prediction": prediction, "count": count}
                for (truth, prediction), count in self.confusions.items()
            ],
            "confidence": [
                {"from": i / BINS, "to": (i + 1) / BINS, "right": right, "wrong": wrong}
                for i, (right, wrong) in enumerate(
                    zip(self.confidence_right, self.confidence_wrong, strict=True)
                )
            ],
            "most_edits": [mistake.to_plain() for mistake in self.most_edits],
            "most_confident": [mistake.to_plain() for mistake in self.most_confident],
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }

    def table(self) -> str:
        """The report as lines of text."""
        lines = [f"{'':24}{_HEADINGS}", _row("all", self.overall)]
        if len(self.by_group) > 1:
            lines += [_row(_on_one_line(name), part) for name, part in self.by_group.items()]
        lines += [_row(f"length {band.label}", band.score) for band in self.by_length]
        lines += [_row(f"width {band.label}", band.score) for band in self.by_width]
        common = [
            f"{_shown(truth)} as {_shown(prediction)} {count}"
            for (truth, prediction), count in list(self.confusions.items())[:_TABLE_CONFUSIONS]
        ]
        if common:
            lines.append(f"misread: {', '.join(common)}")
        if self.outside.images:
            characters = ", ".join(f"{c!r} {n}" for c, n in list(self.outside_characters.items())[:20])
            labels = amount(self.outside.images, "label holds", "labels hold")
            lines.append(f"{labels} characters outside the alphabet: {characters}")
        if self.failed:
            share = f"{self.failed} of {self.overall.images} images"
            lines.append(f"{share} could not be read; these count as wrong")
        lines.append(
            f"{self.overall.exact} of {self.overall.images} exact; "
            f"{self.seconds:.1f} s, {self.images_per_second:.0f} images/s"
        )
        return "\n".join(lines)


def compared(evaluations: Mapping[str, Evaluation]) -> str:
    """Figures of several decoders on the same images as lines of text: over all images and by dataset.

    evaluations: by the decoders' names
    """
    lines = [f"{'decoder':24}{_HEADINGS}  images/s"]
    for decoder, one in evaluations.items():
        lines.append(f"{_row(decoder, one.overall)}  {one.images_per_second:8.0f}")
    groups = next(iter(evaluations.values())).by_group
    if len(groups) > 1:
        for group in groups:
            lines.append(_on_one_line(group))
            lines += [_row(f"  {decoder}", one.by_group[group]) for decoder, one in evaluations.items()]
    return "\n".join(lines)


def _on_one_line(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _shown(character: str) -> str:
    return repr(character) if character else "nothing"


_HEADINGS = "  images    exact      95 % interval  alphanumeric      CER   1-NED"


def _row(name: str, part: Score) -> str:
    low, high = wilson(part.exact, part.images)
    return (
        f"{name:24}  {part.images:6}  {part.accuracy:7.2%}  {low:7.2%} -{high:8.2%}"
        f"  {part.alphanumeric_accuracy:12.2%}  {part.cer:7.2%}  {part.one_minus_ned:6.4f}"
    )


@dataclass(frozen=True)
class Provenance:
    """What an evaluation was made with."""

    model: str  # path
    sha256: str  # of that file
    source: Mapping[str, str]  # the manifest's: where the weights came from
    classes: int  # the blank included
    versions: Mapping[str, str]
    platform: str
    date: str  # ISO 8601, UTC

    @classmethod
    def of(cls, path: Path, manifest: Manifest) -> Provenance:
        installed = {d.name: d.version for d in metadata.distributions()}
        versions = {name: installed[name] for name in _PACKAGES if name in installed}
        versions["python"] = platform.python_version()
        date = datetime.now(UTC).isoformat(timespec="seconds")
        source = dict(manifest.source)
        return cls(
            str(path), files.sha256(path), source, manifest.classes, versions, platform.platform(), date
        )


@dataclass(frozen=True)
class _Outcome:
    """One image, read."""

    group: str
    name: str
    truth: str
    result: Text | Failure
    shape: tuple[int, ...]  # of its pixels; none when it could not be read
    pixels: NDArray[np.uint8] | None  # shrunk


def evaluate(
    recognizer: Recognizer,
    datasets: Mapping[str, Dataset],
    *,
    chunk: int = 32,
    workers: int = 1,
    progress: Callable[[int], object] = lambda images: None,
    failed: Callable[[Failure], object] = lambda failure: None,
) -> Evaluation:
    """Read every image of the datasets, which are the groups, and compare with its label.

    An image that cannot be read counts as wrong, all characters of its label missing, and is listed; so is a
    sample that is not whole, of which no label is known.
    chunk: images that are taken at a time; those of one width among them run together
    workers: threads, each with a chunk
    progress: called with the number of images that were added
    failed: called with each image that could not be read
    Raises DataEmpty, and what drawing a sample raises.
    """
    for name, dataset in datasets.items():
        if not len(dataset):
            raise DataEmpty(name)
    tally = _Tally(datasets, recognizer.manifest)
    start = time.perf_counter()
    for outcomes in _outcomes(recognizer, datasets, chunk, workers):
        for outcome in outcomes:
            tally.add(outcome)
            if isinstance(outcome.result, Failure):
                failed(outcome.result)
        progress(len(outcomes))
    return tally.evaluation(time.perf_counter() - start)


def _outcomes(
    recognizer: Recognizer, datasets: Mapping[str, Dataset], chunk: int, workers: int
) -> Iterator[list[_Outcome]]:
    """Chunk by chunk, in order, and taken only two chunks for each worker ahead."""
    waiting: deque[Future[list[_Outcome]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for group, dataset in datasets.items():
            for first in range(0, len(dataset), chunk):
                indices = range(first, min(first + chunk, len(dataset)))
                waiting.append(pool.submit(_read, recognizer, group, dataset, indices))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(recognizer: Recognizer, group: str, dataset: Dataset, indices: Iterable[int]) -> list[_Outcome]:
    records = [record(dataset, i) for i in indices]
    seen: list[tuple[tuple[int, ...], NDArray[np.uint8] | None]] = []

    def ready(pixels: Pixels) -> Prepared:
        prepared = recognizer.prepare(pixels)
        seen.append((pixels.shape, _shrunk(pixels)))
        return prepared

    def prepare(one: Sample | RecordInvalid) -> Prepared | CrnnDeployError:
        try:
            if isinstance(one, RecordInvalid):
                raise one
            grey = recognizer.manifest.decoded_grey
            return use_image(one.image, ready, max_pixels=recognizer.max_pixels, decoded_grey=grey)
        except CrnnDeployError as error:
            seen.append(((), None))
            return error

    results = recognizer.read_prepared(map(prepare, records))
    return [
        _Outcome(
            *(group, one.name, one.text if isinstance(one, Sample) else ""),
            result
            if isinstance(result, Text)
            else Failure(group, one.name, failure_reason(one.name, result)),
            *kept,
        )
        for one, result, kept in zip(records, results, seen, strict=True)
    ]


def failure_reason(name: str, error: CrnnDeployError) -> str:
    """Why a sample could not be read, in one line that names it."""
    if isinstance(error, RecordInvalid):
        return str(error)
    shown = _on_one_line(name)
    reason = re.sub(r"^<\w+>: ", "", " ".join(str(error).splitlines()))  # <bytes>: an image without a path
    named = reason.startswith(f"{shown}: ") or reason.endswith(f" {shown}")
    return reason if named else f"{shown}: {reason}"


class _Tally:
    """Everything that is counted, image by image."""

    def __init__(self, groups: Iterable[str], manifest: Manifest) -> None:
        self.manifest = manifest
        self.alphabet = frozenset("".join(manifest.alphabet))
        self.overall = self.outside = Score()
        self.by_group = dict.fromkeys(groups, Score())
        self.by_length: dict[int, Score] = {}
        self.by_width: dict[int, Score] = {}
        self.outside_characters: Counter[str] = Counter()
        self.failed = 0
        self.failures: list[Failure] = []
        self.confusions: Counter[tuple[str, str]] = Counter()
        self.confidence = {True: [0] * BINS, False: [0] * BINS}
        self.most_edits, self.most_confident = _Largest(), _Largest()

    def add(self, outcome: _Outcome) -> None:
        truth, result = outcome.truth, outcome.result
        prediction = result.text if isinstance(result, Text) else None
        one = score([(truth, prediction)])
        self.overall += one
        self.by_group[outcome.group] += one
        self.by_length[len(truth)] = self.by_length.get(len(truth), Score()) + one
        outside = [character for character in truth if character not in self.alphabet]
        if outside:
            self.outside += one
            self.outside_characters.update(outside)
        if isinstance(result, Text):
            assert outcome.pixels is not None
            self._add_text(outcome, result, outcome.pixels, one)
        else:
            self.failed += 1
            if self.failed <= _FAILURES:
                self.failures.append(result)

    def _add_text(self, outcome: _Outcome, text: Text, pixels: NDArray[np.uint8], one: Score) -> None:
        height, across = outcome.shape[:2]
        if text.rotated in (
            90,
            270,
            "column",
        ):  # a column's characters side by side are about as wide as it is tall
            height, across = across, height
        width = self.manifest.width.bucket(height, across, self.manifest.height)
        self.by_width[width] = self.by_width.get(width, Score()) + one
        self.confidence[bool(one.exact)][min(int(text.confidence * BINS), BINS - 1)] += 1
        if one.exact:
            return
        truth, prediction = outcome.truth, text.text
        for edit in Levenshtein.editops(truth, prediction):
            missed = "" if edit.tag == "insert" else truth[edit.src_pos]
            got = "" if edit.tag == "delete" else prediction[edit.dest_pos]
            self.confusions[missed, got] += 1
        mistake = Mistake(outcome.group, outcome.name, truth, prediction, text.confidence, one.edits, pixels)
        self.most_edits.add((one.edits, text.confidence), mistake)
        self.most_confident.add((text.confidence, one.edits), mistake)

    def evaluation(self, seconds: float) -> Evaluation:
        return Evaluation(
            overall=self.overall,
            by_group=self.by_group,
            by_length=banded(self.by_length),
            by_width=banded(self.by_width),
            outside=self.outside,
            outside_characters=_commonest(self.outside_characters),
            failed=self.failed,
            failures=tuple(self.failures),
            confusions=_commonest(self.confusions),
            confidence_right=tuple(self.confidence[True]),
            confidence_wrong=tuple(self.confidence[False]),
            most_edits=self.most_edits.items(),
            most_confident=self.most_confident.items(),
            seconds=seconds,
        )


class _Largest:
    """The _WORST mistakes of the largest rank; of equals those that came first."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, float], int, Mistake]] = []
        self._count = 0

    def add(self, rank: tuple[float, float], mistake: Mistake) -> None:
        self._count += 1
        entry = (rank, -self._count, mistake)  # the count differs, so mistakes are never compared
        if len(self._heap) < _WORST:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def items(self) -> tuple[Mistake, ...]:
        return tuple(mistake for _, _, mistake in sorted(self._heap, reverse=True))


def _commonest(counter: Counter[_Key]) -> dict[_Key, int]:
    """By falling count, then in code point order: the same whatever came first."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    scale = _LARGEST / max(height, width, _LARGEST)
    if scale == 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
