"""What is wrong with labelled images, before a training finds out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b, sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.datasets import Dataset
from crnn_deploy.datasets.encoded import read_encoded
from crnn_deploy.datasets.shard_cache import ShardLost
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import StepRule, WidthRule
from crnn_deploy.recipes.recipe import Recipe
from crnn_deploy.runtime.decoding.ctc import steps_needed
from crnn_deploy.runtime.images.pixels import MAX_PIXELS

__all__ = ["DatasetReport", "Tally", "check", "steps_of"]

_EXAMPLES = 10  # of each finding
_ROWS = 16  # of the histogram, at most
_BAR = 40  # characters

_STEPS = {  # time steps of the families in crnn_deploy.networks that differ from the paper's network
    "compact": StepRule(4, 3),
    "gitycc": StepRule(4, -4),
    "clovaai-vgg": StepRule(4, -4),
    "easyocr-g2": StepRule(4, -4),
    "doctr-vgg16": StepRule(4, 0),
    "doctr-mobilenet-small": StepRule(4, 3),
    "doctr-mobilenet-large": StepRule(4, 3),
}


@dataclass
class Tally:
    """How often one thing was found, and where at first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example)


@dataclass
class DatasetReport:
    """What `check` found."""

    samples: int
    height: int  # pixels, of the network's input
    alphabet: int | None  # characters; None: not checked
    unreadable: Tally = field(default_factory=Tally)  # images, or samples that the dataset does not give
    unknown: Tally = field(default_factory=Tally)  # labels with characters outside the alphabet
    characters: dict[str, int] = field(default_factory=dict)  # outside the alphabet, and how often
    too_long: Tally = field(default_factory=Tally)  # labels that need more time steps than there are
    empty: Tally = field(default_factory=Tally)  # labels
    conflicts: Tally = field(default_factory=Tally)  # images that are there with different labels
    repeats: Tally = field(default_factory=Tally)  # further copies of an image, all with the same label
    widths: dict[int, int] = field(default_factory=dict)  # natural width in pixels, and how many images

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; repeats are told, and no fault."""
        wrong = (self.unreadable, self.unknown, self.too_long, self.empty, self.conflicts)
        return not any(finding.count for finding in wrong)

    def to_plain(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}

    def histogram(self) -> list[tuple[int, int, int]]:
        """Images by natural width: first and last width of each row in pixels, and how many."""
        if not self.widths:
            return []
        size = 8
        while max(self.widths) // size >= _ROWS:
            size *= 2
        rows: Counter[int] = Counter()
        for width, count in self.widths.items():
            rows[width // size] += count
        return [(at * size, at * size + size - 1, rows[at]) for at in range(min(rows), max(rows) + 1)]

    def table(self) -> str:
        """For a terminal."""
        findings = [
            ("unreadable images", self.unreadable),
            ("empty labels", self.empty),
            ("labels with unknown characters", self.unknown),
            ("labels too long for their image", self.too_long),
            ("images with different labels", self.conflicts),
            ("repeated images, same label", self.repeats),
        ]
        lines = [f"{'samples':32}{self.samples:>10,}"]
        for name, finding in findings:
            unchecked = finding is self.unknown and self.alphabet is None
            lines.append(f"{name:32}{'no alphabet' if unchecked else f'{finding.count:,}':>10}")
        for name, finding in findings:
            if finding.count:
                lines += ["", f"{name}:", *(f"  {_shown(example)}" for example in finding.examples)]
                if finding.count > len(finding.examples):
                    lines.append(f"  and {finding.count - len(finding.examples):,} more")
        if self.characters:
            lines += ["", "characters outside the alphabet:"]
            lines += [f"  {character!r:12}{count:>10,}" for character, count in self.characters.items()]
        if histogram := self.histogram():
            lines += ["", f"widths in pixels at height {self.height}:"]
            most = max(count for _, _, count in histogram)
            for first, last, count in histogram:
                bar = "#" * -(-count * _BAR // most)
                lines.append(f"  {f'{first}-{last}':>12}{count:>10,}  {bar}".rstrip())
        return "\n".join(lines)


def _shown(example: str) -> str:
    return example if example.isprintable() else repr(example)


def steps_of(recipe: Recipe) -> StepRule:
    """Time steps of a recipe's network; of one that is not built in, those of the paper's, width // 4 + 1."""
    return _STEPS.get(recipe.family or "", StepRule(4, 4))


def check(
    dataset: Dataset,
    *,
    height: int,
    width: WidthRule,
    steps: StepRule,
    alphabet: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[], None] = lambda: None,
) -> DatasetReport:
    """Read every sample once and report what is wrong with it.

    height, width, steps: the network's input height in pixels, the rule that gives its width for an image,
        and the one that gives the time steps for that width
    alphabet: tokens; of a text the longest that fits counts, as in `ctc.encode`
    max_pixels: an image of more counts as one that cannot be read
    progress: called after every sample
    Of a sample no more is kept than 41 bytes: its image's SHA-256, a digest of its label, a flag. One whose
    image cannot be read is not looked at further.
    """
    report = DatasetReport(len(dataset), height, None if alphabet is None else len(alphabet))
    split, known = _splitter(alphabet or ()), None if alphabet is None else frozenset(alphabet)
    images, labels = np.zeros(len(dataset), "S32"), np.zeros(len(dataset), np.uint64)
    readable = np.zeros(len(dataset), bool)
    characters: Counter[str] = Counter()
    widths: Counter[int] = Counter()

    for index in range(len(dataset)):
        try:
            sample = dataset[index]
            data, pixels = read_encoded(sample, max_pixels=max_pixels)
        except ShardLost:
            raise
        except CrnnDeployError as error:
            report.unreadable.add(str(error))
            progress()
            continue
        images[index] = sha256(data).digest()
        labels[index] = _label_digest(sample.text)
        readable[index] = True
        rows, columns = pixels.shape[:2]
        widths[width.natural(rows, columns, height)] += 1

        tokens = split(sample.text)
        if not tokens:
            report.empty.add(sample.name)
        if known is not None and (unknown := [token for token in tokens if token not in known]):
            characters.update(unknown)
            listed = " ".join(map(repr, dict.fromkeys(unknown)))
            report.unknown.add(f"{sample.name}: {sample.text!r} has {listed}")
        given, needed = steps(width.bucket(rows, columns, height)), steps_needed(tokens)
        if needed > given:
            report.too_long.add(
                f"{sample.name}: {sample.text!r} needs {needed} time steps, the image gives {given}"
            )
        progress()

    report.characters = dict(characters.most_common())
    report.widths = dict(sorted(widths.items()))
    _find_duplicates(report, dataset, images, labels, np.flatnonzero(readable))
    return report


def _splitter(alphabet: Sequence[str]) -> Callable[[str], list[str]]:
    """Cuts a text into tokens, the longest that fits first; what fits none is a token of one character."""
    long = sorted((token for token in alphabet if len(token) > 1), key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, long), "."]), re.DOTALL).findall


def _label_digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())


def _find_duplicates(
    report: DatasetReport,
    dataset: Dataset,
    images: NDArray[np.bytes_],
    labels: NDArray[np.uint64],
    readable: NDArray[np.intp],
) -> None:
    order = readable[np.argsort(images[readable], kind="stable")]
    starts = np.flatnonzero(np.concatenate(([True], images[order][1:] != images[order][:-1])))[: len(order)]
    groups = [group for group in np.split(order, starts[1:]) if len(group) > 1]
    for group in sorted(groups, key=lambda group: int(group[0])):
        first, *others = group.tolist()
        different = [other for other in others if labels[other] != labels[first]]
        if different:
            one, other = dataset[first], dataset[different[0]]
            report.conflicts.add(f"{one.name}: {one.text!r}, {other.name}: {other.text!r}")
            continue
        for other in others:
            if len(report.repeats.examples) < _EXAMPLES:
                report.repeats.add(f"{dataset[other].name} = {dataset[first].name}")
            else:
                report.repeats.count += 1
