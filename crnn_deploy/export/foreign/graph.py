"""Another tool's graph as it is run and changed, until a runtime takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from crnn_deploy.errors import ModelInvalid, ModelUnreadable, first_line
from crnn_deploy.export.foreign.inputs import Feed
from crnn_deploy.export.foreign.outputs import ForeignScores, Sample, find_scores
from crnn_deploy.export.scores import kind_of
from crnn_deploy.export.steps import probed_widths, step_rule
from crnn_deploy.graph.ends import opset, padded, questioned, scored
from crnn_deploy.graph.model import session_of
from crnn_deploy.manifest import Manifest, StepRule
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["ForeignGraph"]

_CLOSE = 1e-3  # an image's scores alone and in a batch, relative to the largest
_CLOSE_HALF = 2e-2  # of a graph in half precision, whose kernels round in another order
_SLICE_TAKES_INPUTS = 10  # from this opset on
_BUCKETS, _FAR = 40, 14  # widths that the steps are told at: the smallest ones, and some of all
_MANY = 0.5  # of the frames of plain images: what has them is most likely the blank


class ForeignGraph:
    """A graph on its way to one that a runtime takes.

    images: how many are probed together
    """

    def __init__(
        self, path: Path, recipe: Recipe, feed: Feed, images: int, given: tuple[tuple[str, ...], ...]
    ) -> None:
        self.feed = feed
        self.notes: list[str] = []
        self.max_batch: int | None = None
        self._path, self._recipe, self._images = path, recipe, images
        self.model, _ = questioned(feed.model)
        self._session = session_of(self.model, path)
        width = feed.width.minimum
        first = self.sample(self.noise(images, width))
        others = {}
        if feed.frees_width:
            others["width"] = self._try_sample(self.noise(images, 2 * width))
        if images > 1 and not feed.batch:
            others["batch"] = self._try_sample(self.noise(images, width)[:1])
        self.found: ForeignScores = find_scores(first, others, images, given, self._moved, str(path))

    def noise(self, batch: int, width: int, contrast: float = 1) -> NDArray[np.float32]:
        """Prepared images (N, C, H, W) of noise."""
        channels = 1 if self._recipe.color == "gray" else 3
        grey = np.random.default_rng(0).random((batch, channels, self._recipe.height, width), np.float32)
        return self._prepared(contrast * (grey - 0.5) + 0.5)

    def _prepared(self, grey: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (N, C, H, W) of values from 0 to 1 as the network takes them."""
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.feed.mean, self.feed.std))
        return ((grey - mean) / std).astype(np.float32)

    def sample(self, images: NDArray[np.float32]) -> Sample:
        """All tensors that may hold scores. Raises ModelUnreadable."""
        [value] = self._session.get_inputs()
        try:
            found = self._session.run(None, {value.name: images})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelUnreadable(
                self._path,
                f"it does not run on {images.shape}: choose the recipe's height, color and [width] to fit "
                f"({first_line(error)[:160]})",
            ) from error
        names = [output.name for output in self._session.get_outputs()]
        return {
            name: tensor
            for name, tensor in zip(names, found, strict=True)
            if isinstance(tensor, np.ndarray) and tensor.ndim
        }

    def _try_sample(self, images: NDArray[np.float32]) -> Sample | None:
        try:
            return self.sample(images)
        except ModelUnreadable:
            return None

    def _moved(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """|Change| of a tensor where the left third of the images changes, and where the right one does."""
        images = self.noise(self._images, self.feed.width.minimum)
        third = images.shape[3] // 3
        left, right = images.copy(), images.copy()
        left[..., :third] = -left[..., :third]
        right[..., -third:] = -right[..., -third:]
        base = self.sample(images)[name]
        changed = [np.abs(self.sample(image)[name].astype(np.float64) - base) for image in (left, right)]
        return changed[0], changed[1]

    def check_repeats(self) -> None:
        """Refuse a graph of chance. Raises ModelInvalid."""
        images = self.noise(self._images, self.feed.width.minimum)
        name = self.found.place.name
        if not np.array_equal(self.sample(images)[name], self.sample(images)[name], equal_nan=True):
            raise ModelInvalid(
                f"{self._path} puts out other scores each time it runs on the same images: it holds dropout "
                "or random numbers; export it again after model.eval(), and without random operators"
            )

    def scored(self) -> None:
        """Make the graph put out scores alone. Raises ModelInvalid."""
        width = self.feed.width.minimum
        samples = [self.sample(self.noise(self._images, width, contrast)) for contrast in (1, 8)]
        place = self.found.place
        kind = kind_of([place.arranged(s[place.name], self._images) for s in samples], str(self._path))
        self.found = replace(self.found, kind=kind)
        self.model = scored(self.feed.model, place, samples[0][place.name], log=kind == "probabilities")
        self._session = session_of(self.model, self._path)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (N, T, classes), once the graph puts out these alone. Raises ModelUnreadable."""
        size = self.max_batch or len(images)
        parts = [self.sample(images[at : at + size]) for at in range(0, len(images), size)]
        return np.concatenate([next(iter(part.values())) for part in parts])

    def free_batch(self, scales: bool) -> None:
        """Let the graph run any number of images, or as many as it can, each as if it were alone.

        scales: whether it takes scales of what runs together. Raises ModelInvalid.
        """
        frozen = self.feed.batch or (1 if self._images == 1 else None)
        images = self.noise(max(self._images, 3), self.feed.width.minimum)
        fixed = self._try_run(images[:frozen]) if frozen and not scales else None
        given = self.model
        if frozen:
            self._set(_with_free_batch(given))
        if scales:
            self.max_batch = 1
            self.notes.append(
                "it takes the scales of its 8-bit numbers while it runs, so images run one at a time "
                "(max_batch 1)"
            )
        if self._reads_alike(images, fixed):
            return
        if not frozen:
            raise ModelInvalid(
                f"{self._path} reads an image otherwise in a batch than alone; export it again with a "
                "dynamic batch axis, and no operator that joins the images of a batch"
            )
        if frozen > 1 and opset(given) >= _SLICE_TAKES_INPUTS:
            self._set(padded(given, frozen))
        self.max_batch = 1 if scales else frozen
        if not self._reads_alike(images, fixed):
            raise ModelInvalid(
                f"{self._path} is made for batches of {frozen} and reads an image otherwise in a batch than "
                "alone; export it again with a dynamic batch axis, and no operator that joins the images"
            )
        self.notes.append(
            f"its graph is made for batches of {frozen}, so no more images run together (max_batch "
            f"{self.max_batch}); export it with a dynamic batch axis for speed"
        )

    def _set(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._session = session_of(model, self._path)

    def _try_run(self, images: NDArray[np.float32]) -> NDArray[np.float32] | None:
        try:
            return self.run(images)
        except (ModelUnreadable, ValueError):
            return None

    def _reads_alike(self, images: NDArray[np.float32], fixed: NDArray[np.float32] | None) -> bool:
        """Whether the images alone and together give the same scores.

        fixed: what the graph as it came makes of the first ones
        """
        alone = [self._try_run(image[None]) for image in images]
        together = [self._try_run(images), self._try_run(images[:2])]
        if any(one is None for one in (*alone, *together)):
            return False
        expected = np.concatenate([one for one in alone if one is not None])
        close = _CLOSE_HALF if _is_half(self.model) else _CLOSE
        tolerance = close * float(np.abs(expected).max())
        compared = [one for one in (*together, fixed) if one is not None]
        return all(
            one.shape == expected[: len(one)].shape
            and np.allclose(one, expected[: len(one)], rtol=0, atol=tolerance, equal_nan=True)
            for one in compared
        )

    def steps(self) -> StepRule:
        """Time steps by width, told at the widths that the recipe gives. Raises ModelInvalid."""
        rule = self.feed.width
        if rule.fixed:
            return step_rule({rule.minimum: self._steps(rule.minimum)})
        try:
            return step_rule({width: self._steps(width) for width in probed_widths(rule)})
        except ModelUnreadable:  # some networks take multiples alone
            buckets = rule.buckets()
        chosen = [*buckets[:_BUCKETS], *(buckets[len(buckets) * at // _FAR] for at in range(_FAR))]
        try:
            return step_rule({width: self._steps(width) for width in chosen})
        except ModelUnreadable as error:
            raise ModelInvalid(
                f"{self._path} runs on images {rule.minimum} pixels wide and not on others that the recipe "
                f"gives ({first_line(error.__cause__ or error)[:120]}); export it again with a dynamic "
                f"width, or give a recipe file with [width] minimum = {rule.minimum}, "
                f"maximum = {rule.minimum}"
            ) from error

    def _steps(self, width: int) -> int:
        return int(self.run(self.noise(1, width)).shape[1])

    def blank_hint(self, manifest: Manifest) -> str | None:
        """What to say where plain images speak for the blank at the other end of the classes."""
        shape = (1, manifest.channels, manifest.height, manifest.width.minimum)
        plain = [np.full(shape, grey, np.float32) for grey in (0.05, 0.5, 0.95)]
        classes = np.concatenate([self.run(self._prepared(image)).argmax(axis=2) for image in plain])
        other = manifest.classes - 1 - manifest.blank
        if manifest.blank not in (0, manifest.classes - 1):
            return None
        if (classes == other).mean() <= _MANY or (classes == manifest.blank).any():
            return None
        here, there = ("first", "last") if manifest.blank == 0 else ("last", "first")
        return (
            f"on images without text its likeliest class is the {there} one; if that is the blank, as Keras "
            f"and mmocr have it last, describe it again with --blank {there} (now it is the {here} one)"
        )


def _is_half(model: onnx.ModelProto) -> bool:
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(tensor.data_type in half for tensor in model.graph.initializer)


def _with_free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the batch that its exporter declared."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    [images] = result.graph.input
    images.type.tensor_type.shape.dim[0].dim_param = "batch"
    del result.graph.value_info[:]  # shapes that speak of the frozen one
    return result
