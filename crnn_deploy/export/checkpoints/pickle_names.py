"""The names that a pickle may use, and what calling each of them gives; any other name would be code.

Nothing is looked up or called: a dictionary by another name becomes a dictionary, settings become a
namespace, and of values that nobody needs here it is kept that they stood there.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import torch

from crnn_deploy.export.checkpoints.stored import FileBroken, NamesCode, NumpyArray, Stored, whole

__all__ = ["MAKERS", "STORAGES", "NumpyType", "PickledName", "fill", "is_type", "key_of", "word"]

TYPES = {
    name: getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64", "bool"),
        *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    )
    if hasattr(torch, name)
}
STORAGES = {
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


@dataclass(frozen=True)
class PickledName:
    """A name of the table, as `torch.FloatStorage`."""

    name: str


@dataclass(frozen=True)
class NumpyType:
    code: str  # as f8


class Maker(Protocol):
    """What a name may ask of the machine that runs its pickle."""

    def tensor(
        self, storage: Any, offset: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> Stored: ...

    def make(self, what: Any, arguments: Any) -> Any: ...


def word(value: Any) -> str:
    if not isinstance(value, str):
        raise FileBroken("a name that is no word")
    return value


def key_of(value: Any) -> Any:
    """A value that may be a key: hashing tuples within tuples, or writing them, can take for ever."""
    items = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, str | bytes | int | float | PickledName | None) for item in items):
        raise FileBroken("a key that is neither a word nor a number")
    return value


def is_type(module: str, name: str) -> bool:
    """Names that stand for themselves and are not called."""
    if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
        return True
    if (module, name) in _NAMED_TYPES:
        return True
    return (module == "torch" and name in TYPES) or (module == "builtins" and name in _PLAIN_TYPES)


def _filled(machine: Maker, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """A dictionary of pairs; `defaultdict` names a factory in their place."""
    found: dict[Any, Any] = {}
    pairs = arguments[0] if arguments and not isinstance(arguments[0], PickledName) else ()
    for name, value in pairs.items() if isinstance(pairs, dict) else pairs:
        found[key_of(name)] = value
    return found


def _encoded(machine: Maker, arguments: tuple[Any, ...]) -> bytes:
    text, encoding = arguments
    if encoding not in ("latin1", "latin-1"):
        raise FileBroken("bytes in another encoding than latin1")
    return bytes(text.encode("latin1"))


def _bytes(machine: Maker, arguments: tuple[Any, ...]) -> bytes:
    data = _encoded(machine, arguments) if len(arguments) == 2 else arguments[0] if arguments else b""
    if not isinstance(data, bytes):  # bytearray(10**10) would be as many zeros
        raise FileBroken("bytes of no bytes")
    return data


def _set(machine: Maker, arguments: tuple[Any, ...]) -> set[Any]:
    return set(map(key_of, arguments[0] if arguments else ()))


def _numpy_type(machine: Maker, arguments: tuple[Any, ...]) -> NumpyType:
    if not _NUMPY_TYPE.fullmatch(arguments[0]):
        raise NamesCode("numpy.dtype")
    return NumpyType(arguments[0])


def _numpy_number(machine: Maker, arguments: tuple[Any, ...]) -> Any:
    kind, data = arguments
    if not isinstance(kind, NumpyType) or not isinstance(data, bytes):
        raise FileBroken("a number of NumPy without its type")
    if kind.code[0] in "Mm":
        return argparse.Namespace()
    [number] = np.frombuffer(data, f"<{kind.code}")
    return number.item()


def fill(array: NumpyArray, state: Any) -> None:
    """Give an array what its pickle says of it: version, shape, type, order of its axes, values."""
    _, shape, kind, fortran, data = state
    if not isinstance(kind, NumpyType):
        raise FileBroken("an array of NumPy without its type")
    _set_values(array, kind, whole(shape), data, "F" if fortran else "C")


def _set_values(array: NumpyArray, kind: NumpyType, shape: tuple[int, ...], data: Any, order: str) -> None:
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


def _numpy_buffer(machine: Maker, arguments: tuple[Any, ...]) -> NumpyArray:
    """`_frombuffer` of pickles of protocol 5."""
    data, kind, shape, order = arguments
    if not isinstance(kind, NumpyType):
        raise FileBroken("an array of NumPy without its type")
    array = NumpyArray()
    _set_values(array, kind, whole(shape), data, order)
    return array


def _record(machine: Maker, arguments: tuple[Any, ...]) -> argparse.Namespace:
    return argparse.Namespace()


def _path(machine: Maker, arguments: tuple[Any, ...]) -> str:
    return "/".join(map(word, arguments))


def _list(machine: Maker, arguments: tuple[Any, ...]) -> list[Any]:
    """A list, or a `deque`, whose greatest length may follow."""
    items = arguments[0] if arguments else ()
    if not isinstance(items, list | tuple | set | frozenset | dict):
        raise FileBroken("a list of what holds nothing")
    return list(items)


def _method(machine: Maker, arguments: tuple[Any, ...]) -> argparse.Namespace:
    """The methods that mmengine's history of a training names; they are not looked up."""
    owner, _ = arguments
    if owner != PickledName(_HISTORY):
        raise NamesCode("builtins.getattr")
    return argparse.Namespace()


def _typed(machine: Maker, arguments: tuple[Any, ...]) -> Stored:
    """`_rebuild_tensor_v3`, whose type stands apart from its storage."""
    storage, offset, shape, stride, _, _, dtype, *_ = arguments
    module, _, name = dtype.name.rpartition(".")
    if module != "torch":
        raise FileBroken("a tensor of no type")
    return machine.tensor(storage, offset, shape, stride, TYPES[name])


def _first(machine: Maker, arguments: tuple[Any, ...]) -> Stored:
    """A parameter is the tensor in it."""
    if not isinstance(arguments[0], Stored):
        raise FileBroken("a parameter without a tensor")
    return arguments[0]


MAKERS: Mapping[str, Callable[[Maker, tuple[Any, ...]], Any]] = {
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
    "torch.torch_version.TorchVersion": lambda machine, arguments: word(arguments[0]),
    "torch.Size": lambda machine, arguments: tuple(arguments[0]),
    "torch.device": lambda machine, arguments: word(arguments[0]),
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
