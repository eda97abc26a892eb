"""Where training images come from: labelled ones on disk or in a store, and drawn ones."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.datasets import Dataset, Labelled, Sample, open_dataset
from crnn_deploy.datasets.shard_cache import ShardCache, ShardLost
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.images.pixels import load_bytes, read_image
from crnn_deploy.synthesis.chinese_texts import CHINESE_KINDS
from crnn_deploy.synthesis.chinese_words import read_chinese_words
from crnn_deploy.synthesis.coverage import as_drawn
from crnn_deploy.synthesis.dataset import Drawer, SyntheticDataset
from crnn_deploy.synthesis.documents import DocumentRenderer
from crnn_deploy.synthesis.font_pack import Material
from crnn_deploy.synthesis.fonts import Face, scan
from crnn_deploy.synthesis.lexicon import read_vocabularies
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.scene import SceneRenderer
from crnn_deploy.synthesis.texts import WORD_LISTS, TextSource, read_words
from crnn_deploy.training.config import Config, DataConfig, SyntheticConfig

__all__ = ["Sharded", "TrainingDataInvalid", "faces_of", "open_source", "open_sources"]


class TrainingDataInvalid(CrnnDeployError, ValueError):
    """Images that cannot be trained on."""


@runtime_checkable
class Sharded(Labelled, Protocol):
    """A dataset whose samples lie in shards, each of which is fetched whole."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """(shards + 1,): the first sample of each shard, and the end of the last."""
        ...

    def fetch_ahead(self, shards: Sequence[int]) -> None:
        """Shards that are read next, counted from 0; they may be fetched in the background."""
        ...


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


@dataclass(frozen=True)
class _SomeSharded(_Some):
    """Some samples of shards, in their order."""

    whole: Sharded

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.searchsorted(self.indices, self.whole.starts).astype(np.int64)

    def fetch_ahead(self, shards: Sequence[int]) -> None:
        self.whole.fetch_ahead(shards)


def open_source(
    source: DataConfig,
    alphabet: Sequence[str],
    seed: int,
    material: Material | None = None,
    told: Callable[[str], object] = lambda line: None,
    cache: ShardCache | None = None,
) -> Labelled | SyntheticDataset:
    """The images of one source.

    seed: of drawn images
    material: what is drawn from; None: the machine's word lists, and the fonts in the source's folders
    told: called with a line where labels could be of two kinds
    cache: of shards in a store; None: as for `open_dataset`
    Raises TrainingDataInvalid, what `open_dataset` raises, FontsMissing, CharactersNotCovered.
    """
    if source.synthetic is not None:
        return _drawn(source.synthetic, alphabet, seed, material)
    assert source.path is not None
    found = open_dataset(
        source.path,
        kind=source.kind,
        images=source.images,
        characters=source.characters,
        told=told,
        cache=cache,
    )
    low, high = source.part
    if (low, high) == (0, 1):
        return found
    inside = [i for i in range(len(found)) if low <= _place(found, i) < high]
    if not inside:
        raise TrainingDataInvalid(f"{source.path} has no images in the part from {low} to {high}")
    places = np.array(inside, np.int64)
    return _SomeSharded(found, places) if isinstance(found, Sharded) else _Some(found, places)


def open_sources(
    config: Config,
    alphabet: Sequence[str],
    material: Material | None = None,
    told: Callable[[str], object] = lambda line: None,
) -> list[tuple[Labelled | SyntheticDataset, float]]:
    """Every source of training images, and its weight. Raises what `open_source` raises."""
    cache = config.cache.opened()
    return [
        (open_source(source, alphabet, config.seed + 1 + at, material, told, cache), source.weight)
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
        empty=config.empty,
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
    except ShardLost:
        raise
    except CrnnDeployError:
        return 0.0
    digest = hashlib.sha256(content if isinstance(content, bytes) else read_image(source).tobytes()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
