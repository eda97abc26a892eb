"""A Parquet file's footer, read here: pyarrow ends the process where one names a codec that it does not know.

A footer is a struct of Thrift's compact protocol (parquet-format, parquet.thrift).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

__all__ = ["SNAPPY", "ColumnChunk", "Footer", "footer_of"]

SNAPPY = 1

_MOST_BYTES = 2**22
_DEEPEST = 16  # structs and lists in one another
_MAGIC = b"PAR1"
_TYPES, _FOREIGN = b"ARROW:schema", b"ARROW:extension:name"

# numbers of fields in parquet.thrift
_ROW_GROUPS, _METADATA = 4, 5  # of FileMetaData
_KEY, _VALUE = 1, 2  # of KeyValue
_COLUMNS = 1  # of RowGroup
_META_DATA = 3  # of ColumnChunk
_PATH, _CODEC, _COMPRESSED = 3, 4, 7  # of ColumnMetaData


class ColumnChunk(NamedTuple):
    """The values of a column in a row group."""

    path: str  # names of columns in one another, with dots
    codec: int
    compressed: int  # bytes


def footer_of(file: BinaryIO, limit: int = _MOST_BYTES) -> bytes:
    """The footer of an open file, of `limit` bytes at most. Raises ValueError."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length + 8 > size:
        raise ValueError("it has no footer")
    if length > limit:
        raise ValueError(f"its footer has more than {limit:,} bytes")
    file.seek(size - 8 - length)
    return file.read(length)


class Footer:
    """What a footer says. Raises ValueError, LookupError, TypeError, AttributeError."""

    def __init__(self, data: bytes) -> None:
        self._values = _Compact(data).struct(0)

    @property
    def has_foreign_types(self) -> bool:
        """Whether pyarrow would ask other libraries for its types; ray.data's may read pickles then."""
        entries = [entry for entry in self._values.get(_METADATA, ()) if entry[_KEY] == _TYPES]
        return any(_FOREIGN in base64.b64decode(entry[_VALUE]) for entry in entries)

    def column_chunks(self) -> Iterator[ColumnChunk]:
        """The column chunks of all row groups."""
        for group in self._values[_ROW_GROUPS]:
            for column in group[_COLUMNS]:
                found = column[_META_DATA]
                path, codec, compressed = found[_PATH], found[_CODEC], found[_COMPRESSED]
                yield ColumnChunk(b".".join(path).decode(), int(codec), int(compressed))


class _Compact:
    """Values of the compact protocol, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        """Values by the numbers of their fields."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._whole()
            if number in found:  # one reader takes the first, another the last
                raise ValueError(f"its footer has field {number} twice")
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("its footer is nested too deeply")
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._whole()
            case 7:
                return struct.unpack("<d", self._bytes(8))[0]
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                head = self._byte()
                size = head >> 4 if head >> 4 < 15 else self._varint()
                return [self._value(head & 15, depth + 1) for _ in range(size)]
            case 12:
                return self.struct(depth)
        raise ValueError(f"its footer has a value of kind {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        begin, self._at = self._at, self._at + count
        if self._at > len(self._data):
            raise ValueError("its footer is cut short")
        return self._data[begin : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ValueError("its footer has a number of too many bytes")

    def _whole(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
