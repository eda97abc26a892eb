"""Which shards a dataset has: a pattern of names, the folder that they lie in, and its index.

The index is shards.json as the library wids has it, written beside the shards by `dataset pack`: of each its
name, size, SHA-256 and number of samples. So to open a thousand shards takes one small read and one listing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from crnn_deploy.datasets import DatasetInvalid, DatasetNotFound
from crnn_deploy.errors import amount
from crnn_deploy.files import parse_json
from crnn_deploy.stores.address import address_of
from crnn_deploy.stores.store import Entry, Store, Stores

__all__ = [
    "INDEX",
    "NOT_WHOLE",
    "Index",
    "PackProgress",
    "Shard",
    "expanded",
    "find_shards",
    "is_pattern",
    "read_index",
    "within",
]

INDEX = "shards.json"
NOT_WHOLE = "not all of its shards are packed yet; repeat crnn-deploy dataset pack with --resume"
_MOST_INDEX = 2**28  # bytes; a million shards have half of that
_MOST_NAMES = 2**20  # of a pattern
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_GLOB = re.compile(r"[*?\[]")
_NAME = re.compile(r"[^/\\\0]{1,255}")  # of a shard, in the folder of its index


@dataclass(frozen=True)
class PackProgress:
    """How far a packing has come."""

    total: int  # samples of the dataset
    read: int = 0  # of these, how many were read
    written: int = 0  # of these, how many were written; the others cannot be read
    digest: str = ""  # of the names and texts that were read

    @property
    def failed(self) -> int:
        return self.read - self.written

    @property
    def whole(self) -> bool:
        return self.read == self.total

    @classmethod
    def of_plain(cls, plain: Any) -> PackProgress | None:
        """None where the value is not what `asdict` gives."""
        match plain:
            case {"total": int(total), "read": int(read), "written": int(written), "digest": str(digest)}:
                if 0 <= written <= read <= total:
                    return cls(total, read, written, digest)
        return None


@dataclass(frozen=True)
class Shard:
    """A file of a dataset."""

    store: Store
    path: str  # in the store
    size: int  # bytes
    samples: int | None = None  # None: nothing tells
    sha256: str | None = None

    @property
    def name(self) -> str:
        return self.store.name(self.path)


@dataclass(frozen=True)
class Listed:
    """A shard as an index has it."""

    name: str
    samples: int
    size: int | None = None  # bytes
    sha256: str | None = None


@dataclass(frozen=True)
class Index:
    """What shards.json holds."""

    shards: tuple[Listed, ...] = ()
    packing: PackProgress | None = None  # where `dataset pack` wrote it
    samples_per_shard: int = 0

    def encoded(self) -> bytes:
        listed = [
            {"url": one.name, "nsamples": one.samples, "filesize": one.size, "sha256": one.sha256}
            for one in self.shards
        ]
        plain: dict[str, Any] = {"__kind__": "wids-shards-v1", "wids_version": 1, "shardlist": listed}
        if self.packing is not None:
            plain["crnn_deploy"] = {**asdict(self.packing), "samples_per_shard": self.samples_per_shard}
        return json.dumps(plain, indent=0).encode()


def read_index(store: Store, folder: str) -> Index:
    """That of a folder. Raises DatasetInvalid, and what reading raises."""
    path = within(folder, INDEX)
    try:
        plain = parse_json(store.read(path, limit=_MOST_INDEX))
    except ValueError as error:
        raise DatasetInvalid(store.name(path), f"is not JSON: {error}") from None
    rows = plain.get("shardlist") if isinstance(plain, dict) else None
    if not isinstance(rows, list):
        raise DatasetInvalid(
            store.name(path), "has no list of shards (shardlist); remove the file, or pack the shards anew"
        )
    shards = []
    for at, row in enumerate(rows):
        match row:
            case {"url": str(url), "nsamples": int(samples)} if _NAME.fullmatch(url) and samples >= 0:
                size, digest = row.get("filesize"), row.get("sha256")
                shards.append(
                    Listed(
                        *(url, samples, size if isinstance(size, int) else None),
                        digest if isinstance(digest, str) else None,
                    )
                )
            case _:
                raise DatasetInvalid(
                    store.name(path),
                    f"the shard at position {at} has no url (the name of a file beside the index) or "
                    "no nsamples",
                )
    packed = plain.get("crnn_deploy")
    of_each = packed.get("samples_per_shard") if isinstance(packed, dict) else None
    return Index(tuple(shards), PackProgress.of_plain(packed), of_each if isinstance(of_each, int) else 0)


def is_pattern(spec: str) -> bool:
    """Whether an address stands for several: {000..099}, {a,b}, or *, ? and [...] in its last part."""
    return bool(_BRACES.search(spec) or _GLOB.search(address_of(spec).path.rpartition("/")[2]))


def expanded(spec: str) -> list[str]:
    """The addresses that braces stand for, in their order. Raises DatasetInvalid."""
    found = [spec]
    while any(_BRACES.search(one) for one in found):
        more: list[str] = []
        for one in found:
            more += _first_braces(spec, one)
            if len(more) > _MOST_NAMES:
                raise DatasetInvalid(spec, f"stands for more than {_MOST_NAMES:,} shards")
        found = more
    return found


def _first_braces(spec: str, one: str) -> Iterator[str]:
    braces = _BRACES.search(one)
    if braces is None:
        yield one
        return
    before, after = one[: braces.start()], one[braces.end() :]
    if bounds := _RANGE.fullmatch(braces[1]):
        first, last = int(bounds[1]), int(bounds[2])
        if not first <= last < first + _MOST_NAMES:
            raise DatasetInvalid(
                spec, f"{braces[0]} must be a range such as {{000..099}} of at most {_MOST_NAMES:,} shards"
            )
        width = len(bounds[1]) if bounds[1].startswith("0") else 0
        yield from (f"{before}{number:0{width}d}{after}" for number in range(first, last + 1))
    else:
        yield from (before + part + after for part in braces[1].split(","))


def find_shards(spec: str, told: Callable[[str], object]) -> list[Shard]:
    """The tars that an address names: one, those in a folder, or those of a pattern.

    told: called with a line where an index is not that of the shards
    Raises DatasetNotFound, DatasetInvalid, and what the store raises.
    """
    stores = Stores([spec])
    if not is_pattern(spec):
        store, path = stores.open(spec)
        if store.is_folder(path):
            return list(_of_folder(spec, store, path.rstrip("/"), None, told))
    groups: dict[tuple[str, str], tuple[Store, list[str]]] = {}
    for address in expanded(spec):
        store, path = stores.open(address)
        folder, _, last = path.rpartition("/")
        groups.setdefault((store.uri, folder), (store, []))[1].append(last)
    shards: list[Shard] = []
    for (_, folder), (store, names) in groups.items():
        shards += _of_folder(spec, store, folder, names, told)
    return shards


def _of_folder(
    spec: str, store: Store, folder: str, names: Sequence[str] | None, told: Callable[[str], object]
) -> Iterator[Shard]:
    """names: of shards, or globs; None: all tars"""
    there = {_last(entry): entry for entry in store.folder(folder).files} if _exists(store, folder) else {}
    index = read_index(store, folder) if INDEX in there else Index()
    listed = {one.name: one for one in index.shards}
    whole = index.packing is None or index.packing.whole
    if not whole and names is None:
        raise DatasetInvalid(spec, NOT_WHOLE)
    wanted = _wanted(spec, there, listed, names)
    if not whole and listed.keys() & wanted:
        raise DatasetInvalid(spec, NOT_WHOLE)
    if missing := [name for name in wanted if name not in there]:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise DatasetInvalid(
            spec, f"the shard {store.name(within(folder, missing[0]))}{more} cannot be found"
        )
    unlisted = []
    for name in wanted:
        entry, known = there[name], listed.get(name)
        if known is not None and known.size in (None, entry.size):
            yield Shard(store, entry.path, entry.size, known.samples, known.sha256)
            continue
        unlisted.append(name)
        yield Shard(store, entry.path, entry.size)
    if unlisted and listed:
        told(
            f"{store.name(within(folder, INDEX))} does not list {amount(len(unlisted), 'shard')} of its "
            f"folder, such as {unlisted[0]}, whose samples must be counted; pack the folder "
            "anew, or remove the index"
        )


def _wanted(
    spec: str, there: Mapping[str, Entry], listed: Mapping[str, Listed], names: Sequence[str] | None
) -> dict[str, None]:
    """Names of shards, in their order."""
    tars = sorted(name for name in there if name.lower().endswith(".tar") and not name.startswith("."))
    if names is None:
        names = [*tars, *(name for name in listed if name not in there)]  # one of these is missing
    found: dict[str, None] = {}
    for name in names:
        globbed = _GLOB.search(name) and name not in there
        found |= dict.fromkeys([one for one in tars if fnmatchcase(one, name)] if globbed else [name])
    if not found:
        raise DatasetNotFound(spec)
    return found


def _exists(store: Store, folder: str) -> bool:
    return not folder or store.exists(folder)


def _last(entry: Entry) -> str:
    return entry.path.rpartition("/")[2]


def within(folder: str, name: str) -> str:
    """The path of a file in a folder; the root is an empty one."""
    return f"{folder}/{name}" if folder else name
