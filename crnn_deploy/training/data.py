"""Training images: where they come from, and how they become batches of one width.

The stream of samples is a function of the seed and the position alone, so that a run which resumes at a step
sees what an uninterrupted one would have seen, whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data

from crnn_deploy.datasets import Dataset, Labelled, Sample, open_dataset
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.images.pixels import load_bytes, read_image
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.synthesis.chinese_texts import CHINESE_KINDS
from crnn_deploy.synthesis.chinese_words import read_chinese_words
from crnn_deploy.synthesis.coverage import as_drawn
from crnn_deploy.synthesis.dataset import Drawer, SyntheticDataset
from crnn_deploy.synthesis.documents import DocumentRenderer
from crnn_deploy.synthesis.effects import augmented
from crnn_deploy.synthesis.font_pack import Material
from crnn_deploy.synthesis.fonts import Face, scan
from crnn_deploy.synthesis.lexicon import read_vocabularies
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.scene import SceneRenderer
from crnn_deploy.synthesis.texts import WORD_LISTS, TextSource, read_words
from crnn_deploy.training.config import Config, DataConfig, SyntheticConfig

__all__ = [
    "BatchStream",
    "TrainingBatch",
    "TrainingDataInvalid",
    "batches_from",
    "faces_of",
    "open_source",
    "open_sources",
]

_AHEAD = 2  # windows of each worker where a GPU waits: one that is done early draws on until its turn
_SHARED = Path("/dev/shm")

TrainingSample = tuple[NDArray[np.uint8], str, list[int]]  # pixels, text and labels


class TrainingDataInvalid(CrnnDeployError, ValueError):
    """Images that cannot be trained on."""


@dataclass(frozen=True)
class TrainingBatch:
    """Images of one width and their labels."""

    images: Tensor  # (N, C, H, W) float32
    labels: Tensor  # (all labels,) int64, one image after the other
    lengths: Tensor  # (N,) int64, labels of each image
    texts: tuple[str, ...]


@dataclass(frozen=True)
class _SentWindow:
    """Batches on their way from a worker: three tensors, since each that a process sends takes a descriptor.

    Where the memory that processes share is small, the images go by a pipe, as an array.
    """

    images: Tensor | NDArray[np.float32]  # (numbers of all batches,) float32
    labels: Tensor  # (all labels,) int64
    lengths: Tensor  # (all images,) int64
    batches: tuple[tuple[tuple[int, ...], tuple[str, ...], int], ...]  # shape of the images, texts, labels

    @classmethod
    def of(cls, batches: Sequence[TrainingBatch], shared: bool) -> _SentWindow:
        images = torch.cat([batch.images.flatten() for batch in batches])
        return cls(
            images if shared else images.numpy(),
            torch.cat([batch.labels for batch in batches]),
            torch.cat([batch.lengths for batch in batches]),
            tuple((tuple(batch.images.shape), batch.texts, len(batch.labels)) for batch in batches),
        )

    def pin_memory(self) -> _SentWindow:
        """The same in memory that a GPU copies from by itself; called by a thread of DataLoader."""
        images = torch.as_tensor(self.images).pin_memory()
        return replace(self, images=images, labels=self.labels.pin_memory())

    def split(self) -> list[TrainingBatch]:
        shapes, texts, labels = zip(*self.batches, strict=True)
        return [
            TrainingBatch(images.view(shape), own, lengths, names)
            for images, shape, own, lengths, names in zip(
                torch.split(torch.as_tensor(self.images), [math.prod(shape) for shape in shapes]),
                shapes,
                torch.split(self.labels, list(labels)),
                torch.split(self.lengths, [shape[0] for shape in shapes]),
                texts,
                strict=True,
            )
        ]


@dataclass(frozen=True)
class _Some:
    """Some of a dataset's samples."""

    whole: Labelled
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.whole[int(self.indices[index])]

    def glance(self, index: int) -> str:
        return self.whole.glance(int(self.indices[index]))


def open_source(
    source: DataConfig,
    alphabet: Sequence[str],
    seed: int,
    material: Material | None = None,
    told: Callable[[str], object] = lambda line: None,
) -> Labelled | SyntheticDataset:
    """The images of one source.

    seed: of drawn images
    material: what is drawn from; None: the machine's word lists, and the fonts in the source's folders
    told: called with a line where labels could be of two kinds
    Raises TrainingDataInvalid, what `open_dataset` raises, FontsMissing, CharactersNotCovered.
    """
    if source.synthetic is not None:
        return _drawn(source.synthetic, alphabet, seed, material)
    assert source.path is not None
    found = open_dataset(
        source.path, kind=source.kind, images=source.images, characters=source.characters, told=told
    )
    low, high = source.part
    if (low, high) == (0, 1):
        return found
    inside = [i for i in range(len(found)) if low <= _place(found, i) < high]
    if not inside:
        raise TrainingDataInvalid(f"{source.path} has no images in the part from {low} to {high}")
    return _Some(found, np.array(inside, np.int64))


def open_sources(
    config: Config,
    alphabet: Sequence[str],
    material: Material | None = None,
    told: Callable[[str], object] = lambda line: None,
) -> list[tuple[Labelled | SyntheticDataset, float]]:
    """Every source of training images, and its weight. Raises what `open_source` raises."""
    return [
        (open_source(source, alphabet, config.seed + 1 + at, material, told), source.weight)
        for at, source in enumerate(config.train)
    ]


def _drawn(
    config: SyntheticConfig, alphabet: Sequence[str], seed: int, material: Material | None
) -> SyntheticDataset:
    faces = [face for face in faces_of(config, material) if face.split == config.split]
    if not faces:
        raise TrainingDataInvalid(
            f"no font here belongs to the split {config.split!r}; install those that "
            f"`crnn-deploy dataset fonts --tier {config.fonts} --packages` lists"
        )
    words = read_words(config.split, material.word_lists if material else WORD_LISTS)
    frequencies = material.frequencies if material else None
    by_frequency = {"sentence", "sign"} & config.kinds.keys()
    vocabularies = read_vocabularies(config.split, frequencies) if by_frequency else ()
    in_chinese = set(CHINESE_KINDS) & config.kinds.keys()
    chinese_file = material.chinese if material else None
    chinese = read_chinese_words(config.split, chinese_file) if in_chinese else None
    return SyntheticDataset(
        texts=TextSource(alphabet, words, config.kinds, vocabularies, chinese),
        renderer=_drawer(config, [as_drawn(face, alphabet) for face in faces], alphabet),
        seed=seed,
        augmented=config.augmented,
        polarity=config.polarity,
        size=config.size or sys.maxsize,
    )


def _drawer(config: SyntheticConfig, faces: Sequence[Face], alphabet: Sequence[str]) -> Drawer:
    """Raises CharactersNotCovered, TrainingDataInvalid."""
    if config.style == "print":
        return Renderer(faces, alphabet)
    if config.style == "document":
        return DocumentRenderer(faces, alphabet)
    photographs = sorted(config.photographs.glob("*.jpg")) if config.photographs else []
    if config.photographs and not photographs:
        raise TrainingDataInvalid(
            f"there are no photographs (.jpg) in {config.photographs}; fetch them (python training/fetch.py "
            "photographs), or leave `photographs` out"
        )
    return SceneRenderer(faces, alphabet, photographs)


def faces_of(config: SyntheticConfig, material: Material | None = None) -> list[Face]:
    """Every face of the tier, of both splits, in the folders or what is drawn from in their place."""
    return _scanned(config.fonts, material.folders if material else config.folders)


_scanned = cache(scan)


def _place(dataset: Dataset, index: int) -> float:
    """Where an image stands between 0 and 1: by its bytes, so that equal images stay together.

    One that cannot be read stands at 0; it is left out wherever it stands.
    """
    try:
        source = dataset[index].image
        content = load_bytes(source) if isinstance(source, str) else source
    except CrnnDeployError:
        return 0.0
    digest = hashlib.sha256(content if isinstance(content, bytes) else read_image(source).tobytes()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class BatchStream(data.Dataset[list[TrainingBatch]]):
    """Endless batches: item `w` is one window of them, sorted by width together, in random order.

    sources: datasets and their weights
    manifest: how images are prepared, and the alphabet of their texts
    rank, world: this process of how many
    """

    def __init__(
        self,
        sources: Sequence[tuple[Dataset, float]],
        manifest: Manifest,
        config: Config,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for dataset, _ in sources:
            if not len(dataset):
                raise TrainingDataInvalid("a source of training images is empty")
        self._datasets = [dataset for dataset, _ in sources]
        self._counts = _shares([weight for _, weight in sources], config.batch * config.window * world)
        self._manifest = manifest
        self._encode = ctc.Encoder(manifest.alphabet, manifest.blank)
        self._window, self._seed = config.window, config.seed
        self._augment, self._ignore_case = config.augment, config.ignore_case
        self._rank, self._world = rank, world
        self._order = lru_cache(maxsize=2 * len(sources))(self._permutation)

    def __getitem__(self, window: int) -> list[TrainingBatch]:
        """Raises TrainingDataInvalid where too few samples of the window can be used."""
        prepared = sorted(self.samples(window), key=lambda item: item[0].shape[1] / item[0].shape[0])
        if len(prepared) < self._window:
            raise TrainingDataInvalid(
                f"of {sum(self._counts)} training images only {len(prepared)} can be read, have no character "
                "outside the alphabet and enough time steps for their text; see crnn-deploy dataset check"
            )
        cuts = np.linspace(0, len(prepared), self._window + 1).round().astype(int).tolist()
        batches = [self._batch(prepared[a:b]) for a, b in pairwise(cuts)]
        order = np.random.default_rng((self._seed, window)).permutation(self._window)
        return [batches[i] for i in order]

    def samples(self, window: int) -> Iterator[TrainingSample]:
        """This process's samples of a window. In the place of one on disk that cannot be used stands another.

        A drawn text that is too long for its image is left out. Raises TrainingDataInvalid, and what drawing
        raises.
        """
        at = 0
        for source, (dataset, count) in enumerate(zip(self._datasets, self._counts, strict=True)):
            drawn = isinstance(dataset, SyntheticDataset)
            for position in range(window * count, (window + 1) * count):
                at += 1
                if at % self._world != self._rank:
                    continue
                found = self._usable(source, position) if drawn else self._on_disk(source, position)
                if found is not None:
                    yield found

    def _on_disk(self, source: int, position: int) -> TrainingSample:
        """The sample at a position, or else the first usable one from half an epoch away on, in its order."""
        size = len(self._datasets[source])
        start = position - position % size
        away = (start + (position + size // 2 + step) % size for step in range(size))
        for place in chain([position], away):
            with suppress(CrnnDeployError):  # told by the survey, or by `dataset check`
                if (found := self._usable(source, place)) is not None:
                    return found
        raise TrainingDataInvalid(
            f"none of the {size} images of train.{source} can be trained on; see crnn-deploy dataset check"
        )

    def _usable(self, source: int, position: int) -> TrainingSample | None:
        """The sample at a position, varied; None where it cannot be used. Raises what reading raises."""
        dataset, manifest = self._datasets[source], self._manifest
        sample = dataset[self._index(source, position)]
        labels = self._encode(sample.text.lower() if self._ignore_case else sample.text)
        pixels = read_image(sample.image, decoded_grey=manifest.decoded_grey)
        if self._augment and not isinstance(dataset, SyntheticDataset):
            pixels = augmented(pixels, np.random.default_rng((self._seed, source, position)))
        width = _bucket(pixels, manifest)
        if not labels or ctc.steps_needed(labels) > manifest.steps(width):
            return None
        return pixels, sample.text, labels

    def _index(self, source: int, position: int) -> int:
        """Every image once, in another order in each epoch; drawn ones in their own."""
        size = len(self._datasets[source])
        if size > 2**31:
            return position
        epoch, at = divmod(position, size)
        return int(self._order(source, epoch % 2**32)[at])

    def _permutation(self, source: int, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self._seed, source, epoch))
        return rng.permutation(len(self._datasets[source]))

    def _batch(self, items: Sequence[TrainingSample]) -> TrainingBatch:
        """Images at the width of the widest one."""
        manifest, rule = self._manifest, self._manifest.width
        width = max(_bucket(pixels, manifest) for pixels, _, _ in items)
        at_width = replace(manifest, width=replace(rule, minimum=width, maximum=width))
        images = np.stack([prepare(pixels, at_width) for pixels, _, _ in items])
        return TrainingBatch(
            images=torch.from_numpy(images),
            labels=torch.tensor([label for _, _, labels in items for label in labels]),
            lengths=torch.tensor([len(labels) for _, _, labels in items]),
            texts=tuple(text for _, text, _ in items),
        )


def _bucket(pixels: NDArray[np.uint8], manifest: Manifest) -> int:
    return manifest.width.bucket(pixels.shape[0], pixels.shape[1], manifest.height)


def _shares(weights: Sequence[float], total: int) -> list[int]:
    """How many of `total` each weight gets: at least one each, by largest remainders."""
    exact = np.array(weights) * (total / sum(weights))
    counts = np.maximum(np.floor(exact).astype(int), 1)
    for i in np.argsort(np.floor(exact) - exact)[: max(0, total - int(counts.sum()))]:
        counts[i] += 1
    return [int(count) for count in counts]


def batches_from(
    stream: BatchStream, step: int, steps: int, window: int, workers: int, *, pinned: bool = False
) -> Iterator[TrainingBatch]:
    """The batches of steps `step` to `steps`. Raises TrainingDataInvalid, whatever the stream raised.

    pinned: images and labels lie in memory that a GPU copies from by itself
    """
    first, last = step // window, -(-steps // window)
    ahead = _AHEAD if pinned else 1
    windows = data.DataLoader(
        _Windows(stream, workers * (ahead + 1)),
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pinned,
        prefetch_factor=ahead if workers else None,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # its own: a resumed run must not draw from the trainer's once more
    )
    every = (batch for window in windows for batch in _sound(window).split())
    return islice(every, step % window, None)


class _Windows(data.Dataset["_SentWindow | str"]):
    """A stream whose errors leave a worker process as their message, which DataLoader would rewrite.

    held: how many windows there may be at a time
    """

    def __init__(self, stream: BatchStream, held: int) -> None:
        self._stream, self._held = stream, held

    def __getitem__(self, window: int) -> _SentWindow | str:
        try:
            batches = self._stream[window]
        except CrnnDeployError as error:
            return str(error)
        return _SentWindow.of(batches, self._fits(sum(batch.images.nbytes for batch in batches)))

    def _fits(self, size: int) -> bool:
        """Whether all windows fit into the memory that processes share, where the system has a folder for it.

        A container often gives 64 MiB, and a process that writes beyond it ends by SIGBUS.
        """
        if self._held == 0 or not _SHARED.is_dir():
            return True
        return shutil.disk_usage(_SHARED).total > 2 * size * self._held


def _sound(window: _SentWindow | str) -> _SentWindow:
    if isinstance(window, str):
        raise TrainingDataInvalid(window)
    return window


def _as_it_is(window: Any) -> Any:
    return window


def _ignore_signals(_: int) -> None:
    """Of a worker: a signal to the whole group stops the trainer, and the trainer stops its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
