"""What a saved file holds besides plain values: tensors and arrays, as they lie in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "AnotherFile",
    "FileBroken",
    "NamesCode",
    "NumpyArray",
    "Storage",
    "Stored",
    "whole",
    "with_tensors",
]

_MOST_AXES = 16
_LARGEST = 2**40  # of a size, a stride or an offset
_DEEPEST = 32  # containers within one another, in `with_tensors`


class FileBroken(Exception):
    """A file that torch.save did not write, a truncated one, or one that claims more than it holds."""


class AnotherFile(FileBroken):
    """A file of another kind; the message says which, and what to do with it."""


class NamesCode(Exception):
    """A file that names something to import or to call; the message is that name."""


@dataclass
class Storage:
    """The bytes of one or several tensors."""

    file: BinaryIO
    dtype: torch.dtype
    size: int  # bytes
    offset: int  # in the file; -1: not known yet
    swapped: bool = False  # whether its numbers have the bytes of another machine's order
    root: Storage | None = None  # whose part it is, from `offset` on
    _read: Tensor | None = None

    def bytes(self) -> Tensor:
        """(size,) uint8; read once."""
        if self.root is not None:
            return self.root.bytes()[self.offset : self.offset + self.size]
        if self._read is None:
            found = torch.empty(self.size, dtype=torch.uint8)
            self.file.seek(self.offset)
            if self.size and cast(Any, self.file).readinto(found.numpy()) != self.size:
                raise FileBroken("it ends within a tensor")
            if self.swapped and self.dtype.itemsize > 1:
                found = found.view(-1, self.dtype.itemsize).flip(1).reshape(-1)
            self._read = found
        return self._read


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in an open file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int  # in numbers
    storage: Storage = field(repr=False)

    def tensor(self) -> Tensor:
        """Its numbers. Raises FileBroken."""
        flat = self.storage.bytes()
        whole = flat[: len(flat) // self.dtype.itemsize * self.dtype.itemsize].view(self.dtype)
        return torch.as_strided(whole, self.shape, self.stride, self.offset)


@dataclass
class NumpyArray:
    """An array of NumPy: of numbers, or of words."""

    values: NDArray[Any] | None = None  # None: of neither
    texts: list[str] | None = None

    def tensor(self) -> Tensor:
        """Its numbers. Raises FileBroken."""
        if self.values is None:
            raise FileBroken("an array of NumPy holds no numbers")
        return torch.from_numpy(self.values)


def with_tensors(value: Any) -> Any:
    """A value with its tensors read, while the file is open. Raises FileBroken."""
    done: dict[int, Any] = {}

    def read(value: Any, depth: int) -> Any:
        if isinstance(value, NumpyArray):
            return value.texts if value.values is None else value.tensor()
        if isinstance(value, Stored):
            return value.tensor()
        if not isinstance(value, dict | list | tuple):
            return value
        if depth == _DEEPEST:
            raise FileBroken("its values are nested too deep")
        if id(value) not in done:
            if isinstance(value, dict):
                done[id(value)] = {name: read(inner, depth + 1) for name, inner in value.items()}
            else:
                done[id(value)] = type(value)(read(inner, depth + 1) for inner in value)
        return done[id(value)]

    return read(value, 0)


def whole(numbers: Iterable[Any]) -> tuple[int, ...]:
    numbers = tuple(numbers)
    if len(numbers) > _MOST_AXES or not all(type(n) is int and 0 <= n <= _LARGEST for n in numbers):
        raise FileBroken("a tensor has a size that no tensor has")
    return numbers
