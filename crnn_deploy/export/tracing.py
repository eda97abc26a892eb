"""Tracing a network of the user's own: what the exporter gets wrong is put right, errors name their line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from crnn_deploy.export import recurrence
from crnn_deploy.export.recurrence import ExportImpossible
from crnn_deploy.export.witness import Line, caller, cause, shown

__all__ = ["traced"]

_FIXED_WIDTH = re.compile(r"static shape of \d+ for dimension .*\.shape\[3\]")


def traced(module: nn.Module, images: Tensor, dynamic: dict[int, object], **how: Any) -> Any:
    """`torch.onnx.export` of a module that takes images.

    dynamic: the axes of the images that stay free
    how: further arguments of `torch.onnx.export`
    Raises ExportImpossible with the line of the network that stops it.
    """
    how = {**how, "dynamo": True, "verbose": False}
    whole: list[Line] = []
    try:
        with _noted(whole), _Traceable():
            return torch.onnx.export(module, (images,), dynamic_shapes=(dynamic,), **how)
    except Exception as error:  # the exporter's, and what the user's code raises
        if (
            whole
        ):  # `int(x.shape[0])` stays free where the code itself is read, which is slower and takes less
            with suppress(Exception):
                torch.compiler.allow_in_graph(recurrence.node)  # type: ignore[no-untyped-call]
                program = torch.export.export(module, (images,), dynamic_shapes=(dynamic,), strict=True)
                return torch.onnx.export(program, **how)
        raise _impossible(error, whole) from error


class _Traceable(TorchFunctionMode):
    """Within `with`, calls that the exporter would fix to the traced sizes keep these free.

    `squeeze()` without an axis takes the axes of size 1 that are not free: what is traced has several images,
    and a graph's own squeeze would drop the batch of one. Adaptive average pooling becomes a product with a
    matrix that is made of the free size.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "squeeze" and len(args) == 1 and not kwargs:
            tensor: Tensor = args[0]
            return func(tensor, tuple(a for a, n in enumerate(tensor.shape) if type(n) is int and n == 1))
        if name in ("adaptive_avg_pool1d", "adaptive_avg_pool2d") and len(args) == 2 and not kwargs:
            features, size = args
            axes = (-1,) if name.endswith("1d") else (-2, -1)
            sizes = tuple(size) if isinstance(size, tuple | list) else (size,) * len(axes)
            if any(_is_free(features, axis, n) for axis, n in zip(axes, sizes, strict=True)):
                for axis, n in zip(axes, sizes, strict=True):
                    features = features if n is None else _pooled(features, axis, n)
                return features
        return func(*args, **(kwargs or {}))


def _is_free(features: Tensor, axis: int, size: int | None) -> bool:
    """Whether pooling an axis to a size needs a number that is known only when the graph runs."""
    return size not in (None, 1) and type(features.shape[axis]) is not int


def _pooled(features: Tensor, axis: int, size: int) -> Tensor:
    """An axis as so many means, of the places that PyTorch's adaptive pooling takes."""
    length = features.shape[axis]
    first = torch.arange(size) * length // size
    end = ((torch.arange(size) + 1) * length + size - 1) // size
    places = torch.arange(length)[:, None]
    weights = ((places >= first) & (places < end)).to(features.dtype) / (end - first)
    return (features.transpose(axis, -1) @ weights).transpose(axis, -1)


@contextmanager
def _noted(lines: list[Line]) -> Iterator[None]:
    """Within it, the lines that make a number of a free size, such as `int(x.shape[0])`, are noted."""
    kept = {name: getattr(torch.SymInt, name) for name in ("__int__", "__index__")}

    def noting(name: str) -> Any:
        def method(size: torch.SymInt) -> Any:
            if (line := caller(sys._getframe(1))) is not None:
                lines.append(line)
            return kept[name](size)

        return method

    for name in kept:
        setattr(torch.SymInt, name, noting(name))
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(torch.SymInt, name, method)


def _impossible(error: BaseException, whole: list[Line]) -> ExportImpossible:
    chain = [error]
    # an error that is raised once more, as by a second attempt, comes to stand before itself
    while (earlier := chain[-1].__cause__ or chain[-1].__context__) is not None and earlier not in chain:
        chain.append(earlier)
    for link in chain:
        if isinstance(link, ExportImpossible):
            return link
    if whole:
        return ExportImpossible(
            "the network makes a number of a size that stays free in a graph, the batch or the width; "
            f"leave int() out there ({shown(whole[0])})"
        )
    if any(_FIXED_WIDTH.search(str(link)) for link in chain):
        return ExportImpossible(
            "the network fixes the width while it is traced, as affine_grid does; give the recipe one "
            "[width] (minimum = maximum)"
        )
    said = [cause(link) for link in chain]
    located = next((text for text in said if "(at " in text), cause(error.__cause__ or error))
    return ExportImpossible(f"PyTorch cannot export this network: {located}")
