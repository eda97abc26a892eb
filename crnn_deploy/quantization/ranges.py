"""How large activations get, as histograms, and how much of that INT8 shall cover."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from crnn_deploy.files import replacing

__all__ = ["METHODS", "Method", "Ranges"]

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

_BINS = 2048  # at first; wider values add some
_PERCENTILE = 99.999  # of |values|
_LEVELS = 128  # of |values| in int8
_ENTROPY_BINS = 512  # the search is quadratic in them


class Ranges:
    """Histograms of |values| by tensor."""

    def __init__(self) -> None:
        self._collector = HistogramCollector("entropy", True, _BINS, _LEVELS, _PERCENTILE, "same")

    def add(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        self._collector.collect_absolute_value(values)

    def of(self, method: Method) -> dict[str, float]:
        """Range of each tensor: the largest |value| that is not clipped.

        minmax: the largest there is; percentile: 99.999 %; mse: the least squared error of 7-bit levels;
        entropy: the least Kullback-Leibler divergence (Migacz, GTC 2017), as ONNX Runtime searches for it
        """
        if method == "minmax":  # the outermost bin may miss the largest value by a rounding
            found = self._collector.histogram_dict.items()
            return {name: float(max(-low, high)) for name, (_, _, low, high) in found}
        find = {"percentile": _percentile, "entropy": self._entropy, "mse": _least_error}
        return {name: find[method](counts, edges) for name, (counts, edges) in self._histograms()}

    def coarse(self, bins: int) -> dict[str, tuple[float, tuple[int, ...]]]:
        """Of each tensor the largest |value| and the counts in equal bins from 0 to it."""
        return {
            name: (float(edges[-1]), tuple(_folded(counts, bins).astype(int).tolist()))
            for name, (counts, edges) in self._histograms()
        }

    def save(self, path: Path, key: str, done: int) -> None:
        """Write what was collected from `done` batches; `key` tells of which images."""
        content: dict[str, Any] = {"key": key, "done": done, "names": list(self._collector.histogram_dict)}
        for at, (counts, edges, low, high) in enumerate(self._collector.histogram_dict.values()):
            limits = np.array([low, high], np.float32)
            content |= {f"counts {at}": counts, f"edges {at}": edges, f"limits {at}": limits}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)

    def load(self, path: Path, key: str) -> int:
        """Take over what an earlier run of the same images saved; its batches, 0 where there is nothing."""
        try:
            with np.load(path, allow_pickle=False) as content:
                if str(content["key"]) != key:
                    return 0
                self._collector.histogram_dict = {
                    name: (content[f"counts {at}"], content[f"edges {at}"], *content[f"limits {at}"])
                    for at, name in enumerate(content["names"].tolist())
                }
                return int(content["done"])
        except (OSError, ValueError, KeyError):
            return 0

    def _histograms(self) -> list[tuple[str, tuple[NDArray[Any], NDArray[Any]]]]:
        return [(name, found[:2]) for name, found in self._collector.histogram_dict.items()]

    def _entropy(self, counts: NDArray[Any], edges: NDArray[Any]) -> float:
        half = _folded(counts, _ENTROPY_BINS)
        both = np.concatenate([half[::-1], half])
        around = np.linspace(-edges[-1], edges[-1], len(both) + 1)
        found = self._collector.get_entropy_threshold((both, around, *around[[0, -1]], edges[-1]), _LEVELS)
        return float(np.max(np.abs(found)))


def _percentile(counts: NDArray[Any], edges: NDArray[Any]) -> float:
    share = np.cumsum(counts) / counts.sum()
    return float(edges[np.searchsorted(share, _PERCENTILE / 100) + 1])


def _least_error(counts: NDArray[Any], edges: NDArray[Any]) -> float:
    middles = (edges[:-1] + edges[1:]) / 2
    best, least = float(edges[-1]), math.inf
    for limit in np.linspace(0.2, 1, 81) * edges[-1]:
        step = max(float(limit), 1e-30) / (_LEVELS - 1)
        error = float(counts @ (middles - np.minimum(np.rint(middles / step), _LEVELS - 1) * step) ** 2)
        if error < least:
            best, least = float(limit), error
    return best


def _folded(counts: NDArray[Any], bins: int) -> NDArray[Any]:
    """The same counts in fewer bins."""
    return np.bincount(np.arange(len(counts)) * bins // len(counts), counts, bins)
