"""HTTP/1.1 on sockets: requests as bytes, and a connection that costs the one who measures little."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "Answer",
    "Body",
    "Connection",
    "as_json",
    "base64_images",
    "base64_of",
    "inference",
    "multipart",
    "post",
    "raw",
]

BOUNDARY = "----------------crnn"


@dataclass(frozen=True)
class Answer:
    """What a server said to one request."""

    status: int
    head: bytes
    body: bytes

    @property
    def ends(self) -> bool:
        """Whether the connection closes after it."""
        return b"\r\nconnection: close" in self.head.lower()


@dataclass(frozen=True)
class Body:
    """What a request carries, and the headers that say so."""

    data: bytes
    headers: Mapping[str, str]


def post(path: str, body: Body) -> bytes:
    """A whole request."""
    headers = {"Host": "127.0.0.1", "Content-Length": str(len(body.data)), **body.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body.data


def raw(image: bytes) -> Body:
    """One image as it is."""
    return Body(image, {"Content-Type": "application/octet-stream"})


def as_json(values: object) -> Body:
    return Body(json.dumps(values).encode(), {"Content-Type": "application/json"})


def multipart(images: Sequence[bytes], names: Sequence[str]) -> Body:
    """Images as the parts of multipart/form-data."""
    data = bytearray()
    for image, name in zip(images, names, strict=True):
        head = f'Content-Disposition: form-data; name="images"; filename="{name}"'
        data += f"--{BOUNDARY}\r\n{head}\r\nContent-Type: image/jpeg\r\n\r\n".encode() + image + b"\r\n"
    data += f"--{BOUNDARY}--\r\n".encode()
    return Body(bytes(data), {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def base64_images(images: Sequence[bytes], names: Sequence[str]) -> Body:
    """Images as JSON with base64."""
    pairs = zip(images, names, strict=True)
    return as_json({"images": [{"data": base64_of(image), "name": name} for image, name in pairs]})


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")


def inference(
    images: Sequence[bytes], *, binary: bool = True, parameters: Mapping[str, object] | None = None
) -> Body:
    """The Open Inference Protocol: encoded images as the input `image` of BYTES [N]."""
    tensor: dict[str, object] = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
    asked: dict[str, object] = {
        "inputs": [tensor],
        "outputs": [{"name": name} for name in ("text", "confidence")],
    }
    if parameters:
        asked["parameters"] = dict(parameters)
    if not binary:
        tensor["data"] = [base64_of(image) for image in images]
        return as_json(asked)
    raw = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps(asked).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    return Body(head + raw, {"Content-Type": "application/octet-stream", **length})


class Connection(asyncio.Protocol):
    """One connection that has one request on its way at a time."""

    def __init__(self) -> None:
        self.open = False
        self._buffer = bytearray()
        self._answer: asyncio.Future[Answer] | None = None

    @classmethod
    async def to(cls, host: str, port: int) -> Connection:
        _, made = await asyncio.get_running_loop().create_connection(cls, host, port)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.open = transport, True

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request. The future raises ConnectionError where the connection ends before the answer."""
        assert self._answer is None
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self.open:
            answer.set_exception(ConnectionResetError("the connection is closed"))
            return answer
        self._answer = answer
        self.transport.write(request)
        return answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._take()

    def _take(self, *, ended: bool = False) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        head = bytes(self._buffer[:end])
        at = head.lower().find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else len(self._buffer) - end - 4
        if len(self._buffer) < end + 4 + length or (at < 0 and not ended):
            return
        answer, self._answer = self._answer, None
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        if not answer.done():
            answer.set_result(Answer(int(head[9:12]), head, body))
        if answer.done() and not answer.cancelled() and answer.result().ends:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._take(ended=True)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the connection ended before the answer"))
        self._answer = None

    def close(self) -> None:
        self.open = False
        self.transport.close()
