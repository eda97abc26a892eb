"""A connection that says neither too much nor too slowly before its request begins."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle, Transport
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from crnn_deploy.serving.access_log import AccessLog
from crnn_deploy.serving.problems import PROBLEM, problem_body

__all__ = ["Connection"]

_MOST_HEADER = 2**16  # bytes of a request's first line and headers
_BETWEEN = 4  # bytes of a header beside its name and value: colon, space and the line's end
_HEADER_TIME = 10.0  # seconds in which they must have come


class _Joining:
    """A transport that sends in one piece what is written in one turn of the event loop.

    An answer's head and body are written apart, and each piece that is sent costs a call of the kernel.
    """

    def __init__(self, transport: Any, loop: AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._send)
        self._pieces.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._pieces:
            self._transport.write(b"".join(self._pieces))
            self._pieces.clear()


class _HeadersTooLong(Exception):
    """Ends the parser's work on a request that has its answer."""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, which has no limits of its own for what comes before a request's body."""

    app: AccessLog
    _timer: TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = cast(Transport, _Joining(transport, self.loop))
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.scope["state"]["gone"] = True  # for the access log
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._begin()
        if self._timer is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._header_bytes > _MOST_HEADER:
            self._refuse_long()

    def on_headers_complete(self) -> None:
        self._end()
        size = len(self.url) + sum(len(name) + len(value) + _BETWEEN for name, value in self.headers)
        if size > _MOST_HEADER:
            self._refuse_long()
            raise _HeadersTooLong
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no valid HTTP request")

    def _begin(self) -> None:
        self._header_bytes = 0
        self._timer = self.loop.call_later(_HEADER_TIME, self._too_slow)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self._header_bytes:
            self._refuse(408, f"no request came within {_HEADER_TIME:g} seconds")
        else:  # browsers open connections that they do not need
            self._end()
            self.transport.close()

    def _refuse_long(self) -> None:
        self._refuse(431, f"the headers have more than {_MOST_HEADER:,} bytes")

    def _refuse(self, status: int, detail: str) -> None:
        self._end()
        if self.transport.is_closing():
            return
        request_id = self.app.refused(self.client, status, detail)
        body = problem_body(status, detail, request_id)
        head = (
            f"HTTP/1.1 {status} \r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
