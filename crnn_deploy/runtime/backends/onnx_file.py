"""Looks into an ONNX file without the onnx package: refuses what a runtime should not follow.

An ONNX file is a protocol buffer; a walk over its fields finds references to other files. ONNX Runtime
follows such references, hard links among them, and an EPContext node carries a compiled binary.

The walk reads fields as protobuf does: of a text that comes twice the last counts, a field of another wire
type than its own is passed over, parts of a message that comes twice belong to both. What protobuf takes in
more than one way, such as groups and overlong tags, no exporter writes, and is refused.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from crnn_deploy.errors import ModelUnreadable
from crnn_deploy.files import open_regular

__all__ = [
    "check_self_contained",
    "has_locations",
    "mapped",
    "messages",
    "numbers_of",
    "read_metadata",
    "varints",
]

_Message = Literal["model", "training", "graph", "function", "node", "attribute", "sparse", "tensor", "entry"]

# of onnx.proto: the messages within a message that lead to a tensor, by the number of their field
_WITHIN: dict[_Message, dict[int, _Message]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_NODE_OP_TYPE = 4
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_DEEPEST = 64  # graphs within graphs
_IN_MEMORY = "_ORT_MEM_ADDR_"  # a location that ONNX Runtime and OpenVINO take for an address in memory


def check_self_contained(path: Path) -> set[str]:
    """Refuse external data outside the model's folder (by path, symbolic or hard link) and EPContext nodes.

    The other files of that folder in which its weights lie.
    Raises ModelUnreadable.
    """
    try:
        model = mapped(path)
        if not any(number == _MODEL_GRAPH for number, _ in messages(model)):
            raise ValueError("no graph")
        locations = set(_locations(model, "model", path, 0))
    except ModelUnreadable:
        raise
    except OSError as error:
        raise ModelUnreadable(path, f"cannot be read: {error.strerror}") from error
    except (IndexError, ValueError) as error:
        raise ModelUnreadable(path, _no_onnx(path)) from error
    for location in locations:
        _check_location(path, location)
    return locations


def has_locations(model: bytes) -> bool:
    """Whether tensors of a valid model in memory lie in files."""
    return any(True for _ in _locations(memoryview(model), "model", Path(), 0))


def _no_onnx(path: Path) -> str:
    export = "; a checkpoint becomes one with: crnn-deploy export --checkpoint FILE"
    return "not an ONNX file, or a truncated one" + ("" if path.suffix == ".onnx" else export)


def read_metadata(path: Path) -> dict[str, str]:
    """The file's metadata, as text under text. Raises ModelUnreadable."""
    try:
        entries = [entry for number, entry in messages(mapped(path)) if number == _MODEL_METADATA]
        return dict(map(_entry, entries))
    except UnicodeDecodeError as error:
        raise ModelUnreadable(path, "its metadata is not UTF-8") from error
    except OSError as error:
        raise ModelUnreadable(path, f"cannot be read: {error.strerror}") from error
    except (IndexError, ValueError) as error:
        raise ModelUnreadable(path, _no_onnx(path)) from error


def mapped(path: Path) -> memoryview:
    """The file's bytes; only what is looked at is read, so weights cost neither time nor memory."""
    with open_regular(path) as file:
        if not file.peek(1):  # an empty file cannot be mapped
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _check_location(path: Path, location: str) -> None:
    if _IN_MEMORY in location:
        raise ModelUnreadable(path, f"its weights lie at an address in memory, {location!r}; refused")
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


def _locations(message: memoryview, kind: _Message, path: Path, depth: int) -> Iterator[str]:
    """Where the tensors in a message say that their weights lie. Raises ModelUnreadable."""
    if depth > _DEEPEST:
        raise ModelUnreadable(path, "its graphs are nested too deeply")
    within = _WITHIN[kind]
    for number, value in messages(message):
        if kind == "node" and number == _NODE_OP_TYPE and bytes(value) == b"EPContext":
            raise ModelUnreadable(path, "it holds an EPContext node (a compiled binary); refused")
        inner = within.get(number)
        if inner == "entry":
            key, text = _entry(value)
            if key == "location":
                yield text
        elif inner is not None:
            yield from _locations(value, inner, path, depth + (inner == "graph"))


def _entry(entry: memoryview) -> tuple[str, str]:
    """Key and value of a message of two texts."""
    texts = {number: bytes(value).decode() for number, value in messages(entry)}  # the last counts
    return texts.get(_ENTRY_KEY, ""), texts.get(_ENTRY_VALUE, "")


def messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and value of each field of a message that holds bytes, text or a message: views, not copies."""
    return ((number, value) for number, value in _fields(message) if isinstance(value, memoryview))


def numbers_of(message: memoryview) -> dict[int, int]:
    """The last value of each field of a message that holds an integer of variable length."""
    return {number: value for number, value in _fields(message) if isinstance(value, int)}


def varints(packed: memoryview) -> Iterator[int]:
    """The values of a packed field of integers of variable length, as unsigned ones of 64 bits."""
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value & 2**64 - 1


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if not number or tag >> 32 or at - start > 5:  # readers may keep the low 32 bits, another field
            raise ValueError("a tag that is none")
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:  # groups, which nothing in ONNX is, and what no version of protobuf knows
            raise ValueError(f"wire type {kind}")
        if at + size > end:
            raise ValueError("truncated")
        if kind == 2:
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
