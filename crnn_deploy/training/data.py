"""Training images: how they become batches of one width.

The stream of samples is a function of the seed and the position alone, so that a run which resumes at a step
sees what an uninterrupted one would have seen, whatever the number of workers.
"""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data

from crnn_deploy.datasets import Dataset
from crnn_deploy.datasets.shard_cache import ShardLost
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.synthesis.dataset import SyntheticDataset
from crnn_deploy.synthesis.effects import augmented
from crnn_deploy.training.config import Config
from crnn_deploy.training.order import ByShards, Order, Permuted
from crnn_deploy.training.sources import Sharded, TrainingDataInvalid

__all__ = ["BatchStream", "TrainingBatch", "batches_from"]

_AHEAD = 2  # windows of each worker where a GPU waits: one that is done early draws on until its turn
_SHARED = Path("/dev/shm")
_MOST_ORDERED = 2**31  # samples; a source of more is drawn without end

TrainingSample = tuple[NDArray[np.uint8], str, list[int]]  # pixels, text and labels


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
        self._orders = [
            _order(dataset, config, at) if len(dataset) <= _MOST_ORDERED else None
            for at, dataset in enumerate(self._datasets)
        ]

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
            if isinstance(order := self._orders[source], ByShards) and isinstance(dataset, Sharded):
                dataset.fetch_ahead(order.ahead(window * count))
            for position in range(window * count, (window + 1) * count):
                at += 1
                if at % self._world != self._rank:
                    continue
                found = self._usable(source, position) if drawn else self._on_disk(source, position)
                if found is not None:
                    yield found

    def _on_disk(self, source: int, position: int) -> TrainingSample:
        """The sample at a position, or else the first usable one from half an epoch away on, in its order."""
        order = self._orders[source]
        for place in chain([position], order.instead(position) if order else ()):
            try:
                if (found := self._usable(source, place)) is not None:
                    return found
            except ShardLost:  # another sample in its place would be other training
                raise
            except CrnnDeployError:  # told by the survey, or by `dataset check`
                continue
        raise TrainingDataInvalid(
            f"none of the {len(self._datasets[source])} images of train.{source} can be trained on; "
            "see crnn-deploy dataset check"
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
        meant = bool(labels) or isinstance(dataset, SyntheticDataset)  # on disk, an empty label is a fault
        if not meant or ctc.steps_needed(labels) > manifest.steps(width):
            return None
        return pixels, sample.text, labels

    def _index(self, source: int, position: int) -> int:
        """Every image once, in another order in each epoch; drawn ones in their own."""
        order = self._orders[source]
        return position if order is None else order.index(position)

    def _batch(self, items: Sequence[TrainingSample]) -> TrainingBatch:
        """Images at the width of the widest one."""
        manifest, rule = self._manifest, self._manifest.width
        width = max(_bucket(pixels, manifest) for pixels, _, _ in items)
        at_width = replace(manifest, width=replace(rule, minimum=width, maximum=width))
        images = np.stack([prepare(pixels, at_width) for pixels, _, _ in items])
        return TrainingBatch(
            images=torch.from_numpy(images),
            labels=torch.tensor([label for _, _, labels in items for label in labels], dtype=torch.int64),
            lengths=torch.tensor([len(labels) for _, _, labels in items]),
            texts=tuple(text for _, text, _ in items),
        )


def _order(dataset: Dataset, config: Config, source: int) -> Order:
    if isinstance(dataset, Sharded):
        return ByShards(dataset.starts, config.train[source].joined, config.seed, source)
    return Permuted(len(dataset), config.seed, source)


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
