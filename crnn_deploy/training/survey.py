"""What of the training images can be trained on, told before the first step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from crnn_deploy.datasets import Labelled, RecordInvalid
from crnn_deploy.datasets.check import Tally
from crnn_deploy.errors import CharacterUnknown, CrnnDeployError, shortened
from crnn_deploy.evaluation.evaluate import failure_reason
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.training.sources import Sharded

__all__ = ["Survey", "survey"]

_LABELS = 1_000_000  # whose text is looked at, and whether their image is there
_IMAGES = 10_000  # that are read
_SHARDS = 4  # of a set of tars that are looked at: each is fetched whole
_CHARACTERS = 8  # outside the alphabet, named
_SHOWN = 100  # characters of an example

_UNKNOWN = "characters outside the alphabet"
_REASONS = {  # of a fault, in the order of the message
    "image missing": "image missing",
    "label missing": "label missing",
    "label unreadable": "label that cannot be read",
    "empty": "empty label",
    "unknown": _UNKNOWN,
    "unreadable": "image that cannot be read",
    "too long": "label longer than its image has time steps",
}


@dataclass
class Survey:
    """Of one source: how many samples can be used, and why the others cannot."""

    samples: int
    looked_at: int = 0  # their labels, and whether their images are there
    read: int = 0  # images, of those whose label is sound
    by_label: int = 0  # left out for what the labels say
    by_image: int = 0  # left out for what the images show
    faults: dict[str, Tally] = field(default_factory=dict)
    characters: Counter[str] = field(default_factory=Counter)  # outside the alphabet

    @property
    def share(self) -> float:
        """Of the samples that are left out, 0-1; estimated where not all were looked at."""
        of_sound = Fraction(self.by_image, max(self.read, 1))
        return float((self.by_label + (self.looked_at - self.by_label) * of_sound) / self.looked_at)

    def told(self) -> str:
        """How many are used and left out, in one line."""
        dropped = self.by_label + self.by_image
        if self.read == self.looked_at - self.by_label:
            used = f"{self.looked_at - dropped:,} of {self.looked_at:,} samples are used"
        else:
            used = (
                f"{self.looked_at - self.by_label:,} of {self.looked_at:,} samples have a sound label, and "
                f"{self.read - self.by_image:,} of {self.read:,} images that were read are used"
            )
        if self.looked_at < self.samples:
            used = f"of {self.samples:,} samples {self.looked_at:,} were looked at: {used}"
        reasons = [
            f"{self.faults[fault].count:,} {said}{self._example(fault)}"
            for fault, said in _REASONS.items()
            if fault in self.faults
        ]
        return f"{used}; left out: {', '.join(reasons)}" if reasons else used

    def _example(self, fault: str) -> str:
        if fault == "unknown":
            common = [repr(character) for character, _ in self.characters.most_common(_CHARACTERS)]
            more = ", ..." if len(self.characters) > _CHARACTERS else ""
            return f" ({', '.join(common)}{more}; {self.faults[fault].examples[0]})"
        example = self.faults[fault].examples[0]
        return f" ({example if len(example) <= _SHOWN else f'...{example[-_SHOWN:]}'})"

    def add(self, fault: str, example: str) -> None:
        self.faults.setdefault(fault, Tally()).add(example)


def survey(
    dataset: Labelled,
    manifest: Manifest,
    *,
    ignore_case: bool,
    progress: Callable[[], None] = lambda: None,
) -> Survey:
    """Look at the labels of a source, at whether their images are there, and at some images.

    ignore_case: texts are lowered
    progress: called after every label
    Of more than a million samples a million is looked at, of more than 10,000 images 10,000 are read, both
    in equal distances; of more than four shards four are looked at.
    """
    found = Survey(len(dataset))
    encode = ctc.Encoder(manifest.alphabet, manifest.blank)
    known = frozenset("".join(manifest.alphabet))
    sound: list[tuple[int, int]] = []  # sample, time steps that its label needs
    for index in _looked_at(dataset):
        found.looked_at += 1
        needed = _needed(dataset, index, found, encode, known, ignore_case)
        if needed is None:
            found.by_label += 1
        else:
            sound.append((index, needed))
        progress()
    for at in _spread(len(sound), _IMAGES):
        found.read += 1
        found.by_image += not _fits(dataset, *sound[at], found, manifest)
    return found


def _needed(
    dataset: Labelled,
    index: int,
    found: Survey,
    encode: ctc.Encoder,
    known: frozenset[str],
    ignore_case: bool,
) -> int | None:
    """Time steps that a label needs; None where it cannot be trained on."""
    try:
        text = dataset.glance(index)
    except RecordInvalid as error:
        found.add(error.fault, error.name)
        return None
    text = text.lower() if ignore_case else text
    try:
        labels = encode(text)
    except CharacterUnknown as error:
        found.characters.update(set(text) - known or {error.character})
        found.add("unknown", f"as in {shortened(repr(text))}")
        return None
    if not labels:
        found.add("empty", dataset[index].name)
        return None
    return ctc.steps_needed(labels)


def _fits(dataset: Labelled, index: int, needed: int, found: Survey, manifest: Manifest) -> bool:
    name = f"sample {index}"
    try:
        sample = dataset[index]
        name = sample.name
        pixels = read_image(sample.image)
    except CrnnDeployError as error:
        found.add("unreadable", failure_reason(name, error))
        return False
    height, width = pixels.shape[:2]
    given = manifest.steps(manifest.width.bucket(height, width, manifest.height))
    if needed <= given:
        return True
    found.add("too long", f"{shortened(repr(sample.text))} needs {needed}, {sample.name} gives {given}")
    return False


def _looked_at(dataset: Labelled) -> Iterator[int]:
    if not isinstance(dataset, Sharded):
        yield from _spread(len(dataset), _LABELS)
        return
    filled = np.flatnonzero(np.diff(dataset.starts)).tolist()  # a part of the samples may lie in some alone
    shards = [filled[at] for at in _spread(len(filled), _SHARDS)]
    dataset.fetch_ahead(shards)
    for at in shards:
        first, end = int(dataset.starts[at]), int(dataset.starts[at + 1])
        yield from (first + place for place in _spread(end - first, _LABELS // _SHARDS))


def _spread(count: int, most: int) -> Sequence[int]:
    """All of `count` places, or `most` of them in equal distances."""
    if count <= most:
        return range(count)
    places: list[int] = np.linspace(0, count - 1, most).astype(int).tolist()
    return places
