"""Looks into an ONNX file without the onnx package: refuses what a runtime should not follow.

An ONNX file is a protocol buffer; a walk over its fields finds references to other files. ONNX Runtime
follows such references, hard links among them, and an EPContext node carries a compiled binary.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from crnn_deploy.errors import ModelUnreadable

__all__ = ["check_self_contained", "read_metadata"]

_Field = tuple[int, int | memoryview]

# field numbers of onnx.proto
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NODE, _FUNCTION_DEFAULT = 7, 11
_NODE_OP_TYPE, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_EXTERNAL = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_DEEPEST = 64


def check_self_contained(path: Path) -> set[str]:
    """Refuse external data outside the model's folder (by path, symbolic or hard link) and EPContext nodes.

    The other files of that folder in which its weights lie.
    Raises ModelUnreadable.
    """
    try:
        locations = set(_external_locations(_mapped(path), path))
    except OSError as error:
        raise ModelUnreadable(path, f"cannot be read: {error.strerror}") from error
    except (IndexError, ValueError, RecursionError) as error:
        if isinstance(error, ModelUnreadable):
            raise
        raise ModelUnreadable(path, "not an ONNX file, or a truncated one") from error
    for location in locations:
        _check_location(path, location)
    return locations


def read_metadata(path: Path) -> dict[str, str]:
    """The file's metadata, as text under text. Raises ModelUnreadable."""
    found: dict[str, str] = {}
    try:
        for number, value in _fields(_mapped(path)):
            if number == _MODEL_METADATA and isinstance(value, memoryview):
                entry = dict(_fields(value))
                found[_bytes(entry.get(_ENTRY_KEY)).decode()] = _bytes(entry.get(_ENTRY_VALUE)).decode()
    except UnicodeDecodeError as error:
        raise ModelUnreadable(path, "its metadata is not UTF-8") from error
    except (OSError, IndexError, ValueError) as error:
        raise ModelUnreadable(path, "not an ONNX file, or a truncated one") from error
    return found


def _mapped(path: Path) -> memoryview:
    """The file's bytes; only what is looked at is read, so weights cost neither time nor memory."""
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _check_location(path: Path, location: str) -> None:
    folder = path.parent.resolve()
    try:
        target = (folder / location).resolve()
        if not target.is_relative_to(folder):
            raise ModelUnreadable(path, f"its weights lie outside its folder, in {location!r}; refused")
        status = os.stat(target)
    except FileNotFoundError as error:
        raise ModelUnreadable(path, f"its weights file {location!r} is missing") from error
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, a NUL
        if isinstance(error, ModelUnreadable):
            raise
        raise ModelUnreadable(path, f"its weights file {location!r} cannot be read") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelUnreadable(path, f"its weights file {location!r} is not a regular file")
    if status.st_nlink > 1:
        raise ModelUnreadable(
            path, f"its weights file {location!r} is a hard link to a file elsewhere; refused (copy the file)"
        )


def _external_locations(model: memoryview, path: Path) -> Iterator[str]:
    seen_graph = False
    for number, value in _fields(model):
        if not isinstance(value, memoryview):
            continue
        if number == _MODEL_GRAPH:
            seen_graph = True
            yield from _in_graph(value, path, 0)
        elif number == _MODEL_FUNCTIONS:
            for inner, part in _fields(value):
                if inner == _FUNCTION_NODE and isinstance(part, memoryview):
                    yield from _in_node(part, path, 0)
                elif inner == _FUNCTION_DEFAULT and isinstance(part, memoryview):
                    yield from _in_attribute(part, path, 0)
    if not seen_graph:
        raise ValueError("no graph")


def _in_graph(graph: memoryview, path: Path, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ModelUnreadable(path, "its graphs are nested too deeply")
    for number, value in _fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == _GRAPH_NODE:
            yield from _in_node(value, path, depth)
        elif number == _GRAPH_INITIALIZER:
            yield from _in_tensor(value)
        elif number == _GRAPH_SPARSE:
            yield from _in_sparse(value)


def _in_node(node: memoryview, path: Path, depth: int) -> Iterator[str]:
    for number, value in _fields(node):
        if not isinstance(value, memoryview):
            continue
        if number == _NODE_OP_TYPE and bytes(value) == b"EPContext":
            raise ModelUnreadable(path, "it holds an EPContext node (a compiled binary); refused")
        if number == _NODE_ATTRIBUTE:
            yield from _in_attribute(value, path, depth)


def _in_attribute(attribute: memoryview, path: Path, depth: int) -> Iterator[str]:
    for number, value in _fields(attribute):
        if not isinstance(value, memoryview):
            continue
        if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            yield from _in_tensor(value)
        elif number in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
            yield from _in_sparse(value)
        elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            yield from _in_graph(value, path, depth + 1)


def _in_sparse(sparse: memoryview) -> Iterator[str]:
    for number, value in _fields(sparse):
        if number in (_SPARSE_VALUES, _SPARSE_INDICES) and isinstance(value, memoryview):
            yield from _in_tensor(value)


def _in_tensor(tensor: memoryview) -> Iterator[str]:
    for number, value in _fields(tensor):
        if number == _TENSOR_EXTERNAL and isinstance(value, memoryview):
            entry = dict(_fields(value))
            if _bytes(entry.get(_ENTRY_KEY)) == b"location":
                yield _bytes(entry.get(_ENTRY_VALUE)).decode()


def _bytes(value: int | memoryview | None) -> bytes:
    return bytes(value) if isinstance(value, memoryview) else b""


def _fields(message: memoryview) -> Iterator[_Field]:
    """Number and value of each field of a protocol buffer message; bytes come as views, not copies."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        if tag >> 32:  # protobuf readers may keep the low 32 bits, which name another field
            raise ValueError("tag too large")
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if number == 0 or at + size > end:
            raise ValueError("truncated")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
