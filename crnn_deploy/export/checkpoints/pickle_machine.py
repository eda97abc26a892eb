"""The small machine that a pickle is a program for, with the instructions that values and tensors need."""

from __future__ import annotations

import argparse
import pickletools
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, BinaryIO

import torch

from crnn_deploy.export.checkpoints.pickle_names import (
    MAKERS,
    NumpyType,
    PickledName,
    fill,
    is_type,
    key_of,
    word,
)
from crnn_deploy.export.checkpoints.stored import FileBroken, NamesCode, NumpyArray, Storage, Stored, whole

__all__ = ["BytesOfFile", "PickleMachine"]

_MOST_INSTRUCTIONS = 4_000_000  # of a pickle: a training of a million steps notes its losses in a million
_LONGEST_LINE = 4096  # of a name, or of a number in digits
_MOST_SHARED = 8  # times the file: weights that are tied are declared more than once


class BytesOfFile:
    """A part of a file to `pickletools`, which asks for as many bytes as a pickle says."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)


class PickleMachine:
    """Runs one pickle.

    storage: finds what a pickle calls by a persistent id
    size: of the file
    """

    def __init__(self, stream: BytesOfFile, storage: Callable[[tuple[Any, ...]], Storage], size: int) -> None:
        self._stream, self._storage = stream, storage
        self._left = _MOST_SHARED * size + 2**16  # bytes that tensors may still declare
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks before each mark
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for count, (code, argument, _) in enumerate(pickletools.genops(self._stream)):  # type: ignore[arg-type]
            if count == _MOST_INSTRUCTIONS:
                raise FileBroken(f"its pickle has more than {_MOST_INSTRUCTIONS:,} instructions")
            if code.name == "STOP":
                return self._stack.pop()
            if code.name in _PUSHED:
                self._stack.append(argument)
            elif code.name in _OLD_TEXTS:
                self._stack.append(str(argument).encode("latin-1").decode())
            elif code.name not in _IGNORED:
                _INSTRUCTIONS[code.name](self, argument)
        raise FileBroken("it ends too early")

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def push_tuple(self, count: int) -> None:
        self._stack.append(tuple([self._stack.pop() for _ in range(count)][::-1]))

    def append_all(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise FileBroken("it appends to what is no list")
        target.extend(items)

    def set_all(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise FileBroken("it sets an item of what is no dictionary")
        for name, value in zip(items[::2], items[1::2], strict=True):
            target[key_of(name)] = value

    def add_all(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, set):
            raise FileBroken("it adds to what is no set")
        target.update(map(key_of, items))

    def name(self, module: str, name: str) -> None:
        if module == "__builtin__":  # pickles of protocol 2 have Python 2's names
            module, name = "builtins", {"long": "int", "unicode": "str", "xrange": "range"}.get(name, name)
        whole = f"{module}.{name}"
        if whole not in MAKERS and not is_type(module, name):
            raise NamesCode(whole)
        self._stack.append(PickledName(whole))

    def call(self, _: Any) -> None:
        arguments, what = self._stack.pop(), self._stack.pop()
        self._stack.append(self.make(what, arguments))

    def make(self, what: Any, arguments: Any) -> Any:
        """What calling a name of the table gives."""
        if not isinstance(what, PickledName) or not isinstance(arguments, tuple):
            raise FileBroken("it calls what is no name")
        if what.name not in MAKERS:
            raise NamesCode(what.name)
        return MAKERS[what.name](self, arguments)

    def build(self, _: Any) -> None:
        """Attributes: of a namespace alone, for others they are notes of torch's own."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, argparse.Namespace) and isinstance(state, dict):
            vars(target).update((name, value) for name, value in state.items() if isinstance(name, str))
        elif isinstance(target, NumpyType) and isinstance(state, tuple) and ">" in state[:2]:
            raise FileBroken("it holds NumPy's numbers in another machine's order")
        elif isinstance(target, NumpyArray):
            fill(target, state)
        elif not isinstance(target, dict | list | str | argparse.Namespace | NumpyType | Stored):
            raise FileBroken("it gives attributes to what has none")

    def persistent(self, _: Any) -> None:
        saved = self._stack.pop()
        if not isinstance(saved, tuple) or saved[0] != "storage":
            raise FileBroken("it refers to what is no storage")
        self._stack.append(self._storage(saved[1:]))

    def tensor(
        self, storage: Any, offset: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> Stored:
        """A tensor within its storage."""
        if not isinstance(storage, Storage):
            raise FileBroken("a tensor without a storage")
        dtype = storage.dtype if dtype is None else dtype
        [offset], shape, stride = whole((offset,)), whole(shape), whole(stride)
        there, count = storage.size // dtype.itemsize, prod(shape)
        offset = offset if count else 0
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count and (last >= there or count > there):
            raise FileBroken("a tensor is declared larger than its storage")
        self._left -= count * dtype.itemsize
        if self._left < 0:
            raise FileBroken("its tensors are declared larger than the file")
        return Stored(dtype, shape, stride, offset, storage)


_PUSHED = frozenset(
    (
        *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_OLD_TEXTS = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))  # of Python 2
_IGNORED = frozenset(("PROTO", "FRAME"))


def _memoize(machine: PickleMachine, _: Any) -> None:
    machine._memo[len(machine._memo)] = machine._stack[-1]


def _put(machine: PickleMachine, index: int) -> None:
    machine._memo[index] = machine._stack[-1]


def _get(machine: PickleMachine, index: int) -> None:
    machine._stack.append(machine._memo[index])


def _pop(machine: PickleMachine, _: Any) -> None:
    if machine._stack:
        machine._stack.pop()
    else:
        machine._since_mark()


def _pop_mark(machine: PickleMachine, _: Any) -> None:
    machine._since_mark()


def _dict_of_marked(machine: PickleMachine, _: Any) -> None:
    items = machine._since_mark()
    machine._stack.append({})
    machine.set_all(items)


def _pair(machine: PickleMachine, _: Any) -> None:
    value, name = machine._stack.pop(), machine._stack.pop()
    machine.set_all([name, value])


def _stack_global(machine: PickleMachine, _: Any) -> None:
    name, module = machine._stack.pop(), machine._stack.pop()
    machine.name(word(module), word(name))


_INSTRUCTIONS: Mapping[str, Callable[[PickleMachine, Any], None]] = {
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": PickleMachine.mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda m, _: m.push(m._stack[-1]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.push(tuple(m._since_mark())),
    "TUPLE1": lambda m, _: m.push_tuple(1),
    "TUPLE2": lambda m, _: m.push_tuple(2),
    "TUPLE3": lambda m, _: m.push_tuple(3),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "LIST": lambda m, _: m.push(m._since_mark()),
    "APPEND": lambda m, _: m.append_all([m._stack.pop()]),
    "APPENDS": lambda m, _: m.append_all(m._since_mark()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "DICT": _dict_of_marked,
    "SETITEM": _pair,
    "SETITEMS": lambda m, _: m.set_all(m._since_mark()),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "ADDITEMS": lambda m, _: m.add_all(m._since_mark()),
    "FROZENSET": lambda m, _: m.push(set(map(key_of, m._since_mark()))),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": lambda m, argument: m.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": PickleMachine.call,
    "NEWOBJ": PickleMachine.call,
    "BUILD": PickleMachine.build,
    "BINPERSID": PickleMachine.persistent,
}
