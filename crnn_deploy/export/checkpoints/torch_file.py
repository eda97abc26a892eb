"""Files of torch.save, read as data: nothing that they name is imported or called.

A pickle is a program for a small machine. This is that machine, with the instructions that plain values and
tensors need and a closed table of names; any other name would be code, and is refused. Nothing is larger than
the file: records lie in it uncompressed and apart from one another, and a tensor lies within its record. So
memory is taken only for bytes that are there.

`torch.load(weights_only=True)` calls no code either, but 300 bytes make it compute for ever (a key of tuples
within tuples), and 30 take as many zeros as they name (a bytearray); seen with torch 2.13.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any, BinaryIO

import torch

from crnn_deploy.export.checkpoints.file_kinds import kind_of_archive, kind_of_file
from crnn_deploy.export.checkpoints.pickle_machine import BytesOfFile, PickleMachine
from crnn_deploy.export.checkpoints.pickle_names import STORAGES, word
from crnn_deploy.export.checkpoints.stored import AnotherFile, FileBroken, Storage, whole

__all__ = ["read_saved"]

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of files before torch 1.6
_ZIP, _PICKLES = b"PK", (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


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
    storages: dict[str, Storage] = {}

    def storage(saved: tuple[Any, ...]) -> Storage:
        kind, key, _, count = saved
        dtype, length = _length(kind, count)
        offset, there = records[f"data/{word(key)}"]
        if length > there:
            raise FileBroken("it declares a record larger than it is")
        return storages.setdefault(key, Storage(file, dtype, length, offset, order == b"big"))

    stream = BytesOfFile(io.BytesIO(read("data.pkl")), records["data.pkl"][1])
    return PickleMachine(stream, storage, size).run()


def _read_pickles(file: BinaryIO, size: int) -> Any:
    """As torch wrote before 1.6: pickles one after the other, and the storages after them."""
    storages: dict[str, Storage] = {}

    def storage(saved: tuple[Any, ...]) -> Storage:
        kind, key, _, count, view = saved
        dtype, length = _length(kind, count)
        if length > size:
            raise FileBroken("it declares a tensor larger than the file")
        entire = storages.setdefault(word(key), Storage(file, dtype, length, -1))
        if view is None:
            return entire
        _, start, count = view
        [start, part] = (n * dtype.itemsize for n in whole((start, count)))
        if start + part > entire.size:
            raise FileBroken("it declares a part larger than the whole")
        return Storage(file, dtype, part, start, root=entire)

    stream = BytesOfFile(file, size)

    def next_value() -> Any:
        return PickleMachine(stream, storage, size).run()

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
        found = storages[word(key)]
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
    dtype = STORAGES[kind.name.rpartition(".")[2]]
    [count] = whole((count,))
    return dtype, count * dtype.itemsize
