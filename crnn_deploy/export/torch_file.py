"""Files of torch.save, read as data: nothing that they name is imported or called.

A pickle is a program for a small machine. This is that machine, with the instructions that plain values and
tensors need and a closed table of names; any other name would be code, and is refused. Nothing is larger than
the file: records lie in it uncompressed and apart from one another, and a tensor lies within its record. So
memory is taken only for bytes that are there.

`torch.load(weights_only=True)` calls no code either, but 300 bytes make it compute for ever (a key of tuples
within tuples), and 30 take as many zeros as they name (a bytearray); seen with torch 2.13.
"""

from __future__ import annotations

import argparse
import io
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn_deploy.export.file_kinds import kind_of_archive, kind_of_file

__all__ = ["AnotherFile", "FileBroken", "NamesCode", "NumpyArray", "Stored", "read_saved", "with_tensors"]

_MOST_INSTRUCTIONS = 4_000_000  # of a pickle: a training of a million steps notes its losses in a million
_MOST_AXES = 16
_LONGEST_LINE = 4096  # of a name, or of a number in digits
_LARGEST = 2**40  # of a size, a stride or an offset
_DEEPEST = 32  # containers within one another, in `with_tensors`
_MOST_SHARED = 8  # times the file: weights that are tied are declared more than once
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of files before torch 1.6
_ZIP, _PICKLES = b"PK", (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

_TYPES = {
    name: getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64", "bool"),
        *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    )
    if hasattr(torch, name)
}
_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "UntypedStorage": torch.uint8,
}
_NUMPY_TYPE = re.compile("[fiu][248]|[iu]1|b1|c8|c16|O8?|[Mm]8|[US][0-9]{1,4}")
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
# dictionaries by another name, as settings are kept in
_TABLES = (
    *("collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.dict"),
    *("easydict.EasyDict", "addict.addict.Dict", "munch.Munch", "yacs.config.CfgNode"),
    *("fvcore.common.config.CfgNode", "mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict"),
    *(
        f"{package}.utilities.{module}.AttributeDict"
        for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
        for module in ("parsing", "data")
    ),
)
# objects of which the attributes are kept
_RECORDS = (
    *("argparse.Namespace", "types.SimpleNamespace", _HISTORY),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")
    ),
)
# values that nothing here needs: only that they stood there is kept
_PASSED_OVER = (
    *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone"),
    *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "zoneinfo.ZoneInfo._unpickle"),
    *("builtins.range", "builtins.slice", "builtins.complex"),
    *("numpy.random._pickle.__randomstate_ctor", "numpy.random._pickle.__generator_ctor"),
    *("numpy.random._pickle.__bit_generator_ctor", "numpy.random.bit_generator.SeedSequence"),
    *("numpy.random.bit_generator.__pyx_unpickle_SeedSequence", "random.Random"),
)
_PATHS = tuple(
    f"{module}.{kind}"
    for module in ("pathlib", "pathlib._local")
    for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
)
_NAMED_TYPES = (
    *(
        ("numpy", "ndarray"),
        ("typing", "Any"),
        ("numpy.random._pcg64", "PCG64"),
        ("numpy.random._sfc64", "SFC64"),
    ),
    *(("numpy.random._mt19937", "MT19937"), ("numpy.random._philox", "Philox")),
    ("numpy.random._pcg64", "PCG64DXSM"),
)
# types that stand for themselves, as `defaultdict` names them
_PLAIN_TYPES = ("bool", "bytes", "complex", "float", "int", "list", "dict", "object", "set", "str", "tuple")


class FileBroken(Exception):
    """A file that torch.save did not write, a truncated one, or one that claims more than it holds."""


class AnotherFile(FileBroken):
    """A file of another kind; the message says which, and what to do with it."""


class NamesCode(Exception):
    """A file that names something to import or to call; the message is that name."""


@dataclass
class _Storage:
    """The bytes of one or several tensors."""

    file: BinaryIO
    dtype: torch.dtype
    size: int  # bytes
    offset: int  # in the file; -1: not known yet
    swapped: bool = False  # whether its numbers have the bytes of another machine's order
    root: _Storage | None = None  # whose part it is, from `offset` on
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
    storage: _Storage = field(repr=False)

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


@dataclass(frozen=True)
class _Name:
    """A name of the table, as `torch.FloatStorage`."""

    name: str


@dataclass(frozen=True)
class _NumpyType:
    code: str  # as f8


def read_saved(file: BinaryIO) -> Any:
    """What an open file holds: plain values, and `Stored` for tensors, which may be read while it is open.

    Raises FileBroken, AnotherFile, NamesCode.
    """
    if (kind := kind_of_file(file)) is not None:
        raise AnotherFile(kind)
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    start = file.read(2)
    file.seek(0)
    if start != _ZIP and start not in _PICKLES:
        raise FileBroken("it begins as no file of torch.save")
    try:
        return _read_zip(file, size) if start == _ZIP else _read_pickles(file, size)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise FileBroken(str(error) or "it ends too early") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FileBroken(f"no pickle of torch.save: {type(error).__name__}") from error
    except (OverflowError, MemoryError, RuntimeError, struct.error) as error:
        raise FileBroken(f"it asks for too much: {type(error).__name__}") from error


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


def _read_zip(file: BinaryIO, size: int) -> Any:
    entries = zipfile.ZipFile(file).infolist()
    if (kind := kind_of_archive(entries)) is not None:
        raise AnotherFile(kind)
    records: dict[str, tuple[int, int]] = {}  # offset and size of each
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise FileBroken("its records are compressed, which torch.save does not do")
        file.seek(entry.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04" or entry.flag_bits & 1:
            raise FileBroken("a record has no header")
        offset = entry.header_offset + 30 + sum(struct.unpack("<2H", header[26:30]))
        name = entry.filename.partition("/")[2]
        if entry.header_offset < end or offset + entry.file_size > size or name in records:
            raise FileBroken("its records overlap")
        records[name] = (offset, entry.file_size)
        end = offset + entry.file_size
    if "data.pkl" not in records:
        raise FileBroken("it holds no data.pkl")

    def read(name: str) -> bytes:
        offset, length = records[name]
        file.seek(offset)
        return file.read(length)

    order = read("byteorder") if "byteorder" in records else b"little"
    storages: dict[str, _Storage] = {}

    def storage(saved: tuple[Any, ...]) -> _Storage:
        kind, key, _, count = saved
        dtype, length = _length(kind, count)
        offset, there = records[f"data/{_word(key)}"]
        if length > there:
            raise FileBroken("it declares a record larger than it is")
        return storages.setdefault(key, _Storage(file, dtype, length, offset, order == b"big"))

    return _Machine(_Bytes(io.BytesIO(read("data.pkl")), records["data.pkl"][1]), storage, size).run()


def _read_pickles(file: BinaryIO, size: int) -> Any:
    """As torch wrote before 1.6: pickles one after the other, and the storages after them."""
    storages: dict[str, _Storage] = {}

    def storage(saved: tuple[Any, ...]) -> _Storage:
        kind, key, _, count, view = saved
        dtype, length = _length(kind, count)
        if length > size:
            raise FileBroken("it declares a tensor larger than the file")
        whole = storages.setdefault(_word(key), _Storage(file, dtype, length, -1))
        if view is None:
            return whole
        _, start, count = view
        [start, part] = (n * dtype.itemsize for n in _whole((start, count)))
        if start + part > whole.size:
            raise FileBroken("it declares a part larger than the whole")
        return _Storage(file, dtype, part, start, root=whole)

    stream = _Bytes(file, size)

    def next_value() -> Any:
        return _Machine(stream, storage, size).run()

    first = next_value()
    if isinstance(first, dict):
        return first  # a plain pickle, as of arrays of NumPy
    if first != _MAGIC or next_value() != _VERSION:
        raise FileBroken("a pickle that torch.save did not write")
    next_value()  # the machine that wrote it
    content = next_value()
    keys = next_value()
    at = file.tell()
    for key in keys:
        found = storages[_word(key)]
        file.seek(at)
        [count] = struct.unpack("<q", file.read(8))
        if count * found.dtype.itemsize != found.size or found.offset != -1 or at + 8 + found.size > size:
            raise FileBroken("it ends within its tensors")
        found.offset = at + 8
        at += 8 + found.size
    if any(found.offset == -1 for found in storages.values()):
        raise FileBroken("it lacks a tensor")
    return content


def _length(kind: Any, count: Any) -> tuple[torch.dtype, int]:
    """The type of a storage, and its bytes."""
    dtype = _STORAGES[kind.name.rpartition(".")[2]]
    [count] = _whole((count,))
    return dtype, count * dtype.itemsize


def _whole(numbers: Iterable[Any]) -> tuple[int, ...]:
    numbers = tuple(numbers)
    if len(numbers) > _MOST_AXES or not all(type(n) is int and 0 <= n <= _LARGEST for n in numbers):
        raise FileBroken("a tensor has a size that no tensor has")
    return numbers


class _Bytes:
    """A part of a file to `pickletools`, which asks for as many bytes as a pickle says."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)


_Maker = Callable[["_Machine", tuple[Any, ...]], Any]


class _Machine:
    """Runs one pickle.

    storage: finds what a pickle calls by a persistent id
    size: of the file
    """

    def __init__(self, stream: _Bytes, storage: Callable[[tuple[Any, ...]], _Storage], size: int) -> None:
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
            target[_key(name)] = value

    def add_all(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, set):
            raise FileBroken("it adds to what is no set")
        target.update(map(_key, items))

    def name(self, module: str, name: str) -> None:
        if module == "__builtin__":  # pickles of protocol 2 have Python 2's names
            module, name = "builtins", {"long": "int", "unicode": "str", "xrange": "range"}.get(name, name)
        whole = f"{module}.{name}"
        if whole not in _MAKERS and not _is_type(module, name):
            raise NamesCode(whole)
        self._stack.append(_Name(whole))

    def call(self, _: Any) -> None:
        arguments, what = self._stack.pop(), self._stack.pop()
        self._stack.append(self.make(what, arguments))

    def make(self, what: Any, arguments: Any) -> Any:
        """What calling a name of the table gives."""
        if not isinstance(what, _Name) or not isinstance(arguments, tuple):
            raise FileBroken("it calls what is no name")
        if what.name not in _MAKERS:
            raise NamesCode(what.name)
        return _MAKERS[what.name](self, arguments)

    def build(self, _: Any) -> None:
        """Attributes: of a namespace alone, for others they are notes of torch's own."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, argparse.Namespace) and isinstance(state, dict):
            vars(target).update((name, value) for name, value in state.items() if isinstance(name, str))
        elif isinstance(target, _NumpyType) and isinstance(state, tuple) and ">" in state[:2]:
            raise FileBroken("it holds NumPy's numbers in another machine's order")
        elif isinstance(target, NumpyArray):
            _fill(target, state)
        elif not isinstance(target, dict | list | str | argparse.Namespace | _NumpyType | Stored):
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
        if not isinstance(storage, _Storage):
            raise FileBroken("a tensor without a storage")
        dtype = storage.dtype if dtype is None else dtype
        [offset], shape, stride = _whole((offset,)), _whole(shape), _whole(stride)
        there, count = storage.size // dtype.itemsize, prod(shape)
        offset = offset if count else 0
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count and (last >= there or count > there):
            raise FileBroken("a tensor is declared larger than its storage")
        self._left -= count * dtype.itemsize
        if self._left < 0:
            raise FileBroken("its tensors are declared larger than the file")
        return Stored(dtype, shape, stride, offset, storage)


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise FileBroken("a name that is no word")
    return value


def _key(value: Any) -> Any:
    """A value that may be a key: hashing tuples within tuples, or writing them, can take for ever."""
    items = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, str | bytes | int | float | _Name | None) for item in items):
        raise FileBroken("a key that is neither a word nor a number")
    return value


def _is_type(module: str, name: str) -> bool:
    """Names that stand for themselves and are not called."""
    if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
        return True
    if (module, name) in _NAMED_TYPES:
        return True
    return (module == "torch" and name in _TYPES) or (module == "builtins" and name in _PLAIN_TYPES)


def _filled(machine: _Machine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """A dictionary of pairs; `defaultdict` names a factory in their place."""
    found: dict[Any, Any] = {}
    pairs = arguments[0] if arguments and not isinstance(arguments[0], _Name) else ()
    for name, value in pairs.items() if isinstance(pairs, dict) else pairs:
        found[_key(name)] = value
    return found


def _encoded(machine: _Machine, arguments: tuple[Any, ...]) -> bytes:
    text, encoding = arguments
    if encoding not in ("latin1", "latin-1"):
        raise FileBroken("bytes in another encoding than latin1")
    return bytes(text.encode("latin1"))


def _bytes(machine: _Machine, arguments: tuple[Any, ...]) -> bytes:
    data = _encoded(machine, arguments) if len(arguments) == 2 else arguments[0] if arguments else b""
    if not isinstance(data, bytes):  # bytearray(10**10) would be as many zeros
        raise FileBroken("bytes of no bytes")
    return data


def _set(machine: _Machine, arguments: tuple[Any, ...]) -> set[Any]:
    return set(map(_key, arguments[0] if arguments else ()))


def _numpy_type(machine: _Machine, arguments: tuple[Any, ...]) -> _NumpyType:
    if not _NUMPY_TYPE.fullmatch(arguments[0]):
        raise NamesCode("numpy.dtype")
    return _NumpyType(arguments[0])


def _numpy_number(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    kind, data = arguments
    if not isinstance(kind, _NumpyType) or not isinstance(data, bytes):
        raise FileBroken("a number of NumPy without its type")
    if kind.code[0] in "Mm":
        return argparse.Namespace()
    [number] = np.frombuffer(data, f"<{kind.code}")
    return number.item()


def _fill(array: NumpyArray, state: Any) -> None:
    """Give an array what its pickle says of it: version, shape, type, order of its axes, values."""
    _, shape, kind, fortran, data = state
    if not isinstance(kind, _NumpyType):
        raise FileBroken("an array of NumPy without its type")
    _set_values(array, kind, _whole(shape), data, "F" if fortran else "C")


def _set_values(array: NumpyArray, kind: _NumpyType, shape: tuple[int, ...], data: Any, order: str) -> None:
    if kind.code[0] == "O":
        if isinstance(data, list) and all(isinstance(item, str) for item in data):
            array.texts = list(data)
        return
    if kind.code[0] in "Mm":
        return
    if not isinstance(data, bytes | bytearray):
        raise FileBroken("an array of NumPy without its values")
    dtype = np.dtype(f"<{kind.code}")
    if len(data) != prod(shape) * dtype.itemsize:
        raise FileBroken("an array of NumPy is declared larger than it is")
    values = np.ndarray(shape, dtype, bytes(data), order="F" if order == "F" else "C")
    if dtype.kind == "U":
        array.texts = values.ravel().tolist()
    elif dtype.kind in "fiub":
        array.values = values.copy()  # its own, which tensors may write to


def _numpy_buffer(machine: _Machine, arguments: tuple[Any, ...]) -> NumpyArray:
    """`_frombuffer` of pickles of protocol 5."""
    data, kind, shape, order = arguments
    if not isinstance(kind, _NumpyType):
        raise FileBroken("an array of NumPy without its type")
    array = NumpyArray()
    _set_values(array, kind, _whole(shape), data, order)
    return array


def _record(machine: _Machine, arguments: tuple[Any, ...]) -> argparse.Namespace:
    return argparse.Namespace()


def _path(machine: _Machine, arguments: tuple[Any, ...]) -> str:
    return "/".join(map(_word, arguments))


def _list(machine: _Machine, arguments: tuple[Any, ...]) -> list[Any]:
    """A list, or a `deque`, whose greatest length may follow."""
    items = arguments[0] if arguments else ()
    if not isinstance(items, list | tuple | set | frozenset | dict):
        raise FileBroken("a list of what holds nothing")
    return list(items)


def _method(machine: _Machine, arguments: tuple[Any, ...]) -> argparse.Namespace:
    """The methods that mmengine's history of a training names; they are not looked up."""
    owner, _ = arguments
    if owner != _Name(_HISTORY):
        raise NamesCode("builtins.getattr")
    return argparse.Namespace()


def _typed(machine: _Machine, arguments: tuple[Any, ...]) -> Stored:
    """`_rebuild_tensor_v3`, whose type stands apart from its storage."""
    storage, offset, shape, stride, _, _, dtype, *_ = arguments
    module, _, name = dtype.name.rpartition(".")
    if module != "torch":
        raise FileBroken("a tensor of no type")
    return machine.tensor(storage, offset, shape, stride, _TYPES[name])


def _first(machine: _Machine, arguments: tuple[Any, ...]) -> Stored:
    """A parameter is the tensor in it."""
    if not isinstance(arguments[0], Stored):
        raise FileBroken("a parameter without a tensor")
    return arguments[0]


_MAKERS: Mapping[str, _Maker] = {
    **dict.fromkeys(_TABLES, _filled),
    **dict.fromkeys((*_RECORDS, *_PASSED_OVER), _record),
    **dict.fromkeys(_PATHS, _path),
    "builtins.list": _list,
    "collections.deque": _list,
    "builtins.getattr": _method,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.bytearray": _bytes,
    "_codecs.encode": _encoded,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_number,
    "numpy._core.multiarray.scalar": _numpy_number,
    **dict.fromkeys(
        ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        lambda machine, arguments: NumpyArray(),
    ),
    "numpy.core.numeric._frombuffer": _numpy_buffer,
    "numpy._core.numeric._frombuffer": _numpy_buffer,
    "torch.torch_version.TorchVersion": lambda machine, arguments: _word(arguments[0]),
    "torch.Size": lambda machine, arguments: tuple(arguments[0]),
    "torch.device": lambda machine, arguments: _word(arguments[0]),
    "torch.Tensor": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch._utils._rebuild_tensor": lambda machine, arguments: machine.tensor(*arguments[:4]),
    "torch._utils._rebuild_tensor_v2": lambda machine, arguments: machine.tensor(*arguments[:4]),
    "torch._utils._rebuild_tensor_v3": _typed,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": lambda machine, arguments: machine.make(
        arguments[0], arguments[2]
    ),
}

_PUSHED = frozenset(
    (
        *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_OLD_TEXTS = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))  # of Python 2
_IGNORED = frozenset(("PROTO", "FRAME"))


def _memoize(machine: _Machine, _: Any) -> None:
    machine._memo[len(machine._memo)] = machine._stack[-1]


def _put(machine: _Machine, index: int) -> None:
    machine._memo[index] = machine._stack[-1]


def _get(machine: _Machine, index: int) -> None:
    machine._stack.append(machine._memo[index])


def _pop(machine: _Machine, _: Any) -> None:
    if machine._stack:
        machine._stack.pop()
    else:
        machine._since_mark()


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine._since_mark()


def _dict_of_marked(machine: _Machine, _: Any) -> None:
    items = machine._since_mark()
    machine._stack.append({})
    machine.set_all(items)


def _pair(machine: _Machine, _: Any) -> None:
    value, name = machine._stack.pop(), machine._stack.pop()
    machine.set_all([name, value])


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine._stack.pop(), machine._stack.pop()
    machine.name(_word(module), _word(name))


_INSTRUCTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": _Machine.mark,
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
    "FROZENSET": lambda m, _: m.push(set(map(_key, m._since_mark()))),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": lambda m, argument: m.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
