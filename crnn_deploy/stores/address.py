"""What a person or a list calls a place: a local path, or file://, s3://, gs:// and hdfs://.

What follows the bucket is the object's key as it stands, as the command lines of these stores have it: `%20`
is three characters. A query at the end is one only where it holds nothing but known options, since `?` may
stand in a key and in a glob.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from crnn_deploy.errors import CrnnDeployError

__all__ = [
    "OPTIONS",
    "Address",
    "StoreAddressInvalid",
    "address_of",
    "environment",
    "has_scheme",
    "is_remote",
    "without_keys",
]

OPTIONS = {
    "s3": frozenset(
        {"endpoint_override", "scheme", "region", "allow_bucket_creation", "force_virtual_addressing"}
        | {"tls_ca_file_path", "anonymous"}
    ),
    "gs": frozenset({"endpoint_override", "scheme", "anonymous", "project_id"}),
    "hdfs": frozenset({"user", "replication", "buffer_size", "default_block_size", "kerb_ticket"}),
}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class StoreAddressInvalid(CrnnDeployError, ValueError):
    """An address that names no place."""

    def __init__(self, shown: str, reason: str) -> None:
        super().__init__(f"{shown}: {reason}")


@dataclass(frozen=True)
class Address:
    """A place: the store that it is in and the path within that."""

    scheme: str  # "file", "s3", "gs" or "hdfs"
    place: str  # the bucket, or the host and port; "/" of a local path
    path: str  # below it, without a "/" at its begin
    options: Mapping[str, str] = field(default_factory=dict)
    user: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    def shown(self, path: str | None = None) -> str:
        """The address of a path in the same store, without options and keys; as given where it is local."""
        path = self.path if path is None else path
        return self.place + path if self.scheme == "file" else f"{self.scheme}://{self.place}/{path}"


def has_scheme(address: str) -> bool:
    """Whether an address is no plain path."""
    return _SCHEME.match(address) is not None


def is_remote(address: str) -> bool:
    """Whether an address begins as that of an object store."""
    return has_scheme(address) and not address.lower().startswith("file:")


def without_keys(address: str) -> str:
    """An address for messages and files: without keys and options; a local path as given.

    Raises StoreAddressInvalid.
    """
    return address_of(address).shown() if is_remote(address) else address


def address_of(address: str) -> Address:
    """The parts of an address; a local path becomes an absolute one. Raises StoreAddressInvalid."""
    found = _SCHEME.match(address)
    if found is None or found[1].lower() == "file":
        return _local(address if found is None else _file(address))
    scheme = {"gcs": "gs", "s3a": "s3"}.get(found[1].lower(), found[1].lower())
    place, _, path = address[found.end() :].partition("/")
    keys, _, place = place.rpartition("@")
    options = environment(scheme)
    if scheme not in OPTIONS:
        shown = f"{scheme}://{place}/..."
        raise StoreAddressInvalid(shown, "name a local path or one that begins with s3://, gs:// or hdfs://")
    before, mark, query = (path or place).rpartition("?")
    given = parse_qsl(query, keep_blank_values=True) if mark else []
    if given and all(name in OPTIONS[scheme] for name, _ in given):
        options |= given
        place, path = (place, before) if path else (before, "")
    if not place and scheme != "hdfs":
        raise StoreAddressInvalid(f"{scheme}://{place}/{path}", "it names no bucket")
    user, _, secret = keys.partition(":")
    return Address(scheme, place, path, options, unquote(user), unquote(secret))


def environment(scheme: str) -> dict[str, str]:
    """The options that the environment gives: the server that other programs for S3 take too."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme != "s3" or not url:
        return {}
    protocol, _, host = url.rpartition("://")
    return {"endpoint_override": host.rstrip("/"), "scheme": protocol or "https"}


def _file(address: str) -> str:
    host, slash, path = address[len("file://") :].partition("/")
    if host not in ("", "localhost"):
        raise StoreAddressInvalid(address, "a file:// address begins with three slashes")
    return unquote(slash + path)


def _local(path: str) -> Address:
    whole = os.path.abspath(path)
    drive, tail = os.path.splitdrive(whole)
    return Address("file", drive + os.sep, tail.lstrip(os.sep).replace(os.sep, "/"))
