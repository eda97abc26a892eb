"""One line of JSON for each request, on stderr."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crnn_deploy.serving.metrics import Metrics
from crnn_deploy.serving.origins import EVERY_ANSWER
from crnn_deploy.serving.problems import problem_response

__all__ = ["AccessLog", "internal_problem", "log_to_stderr"]

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_UNMATCHED = "unmatched"  # the route of paths that have none
_INVALID = "invalid"  # the route of what is no request
_GONE = 499  # status of a client that went away before its answer, as nginx has it
_LONGEST = 200  # characters of a text in a line
_LONGEST_LINE = 4000  # bytes
_LONGEST_PIECE = 4096  # bytes that a pipe takes at once, so that lines of several processes do not mix
_KEPT = 0.1  # seconds for which lines wait to be written together
_UNKNOWN = dict.fromkeys(
    ("time", "id", "client", "method", "path", "status", "bytes_in", "bytes_out", "milliseconds")
)
_FAILED = "the server failed at this; its log says why, under this id"
_errors = logging.getLogger("crnn_deploy.serving")
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode  # pure ASCII, so no line can be forged


class AccessLog:
    """The outermost layer of an application: names, times, counts and logs each request.

    It puts `request_id` into `scope["state"]` and into the answer, and logs what the application puts into
    `scope["state"]["log"]`. A route is known by `scope["route"]`, a string or what has a `path`. A server
    that knows that the client has gone sets `scope["state"]["gone"]`. What the application raises is logged
    with its traceback, and answered as a problem of status 500.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._lines = _Lines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            try:
                await self._app(scope, receive, send)
            finally:
                self._lines.write()
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = _request_id(scope["headers"])
        exchange = _Exchange(scope, receive, send)
        self._metrics.began()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if not (state.get("gone") and isinstance(error, (OSError, ClientDisconnect))):
                _errors.error("a request failed", exc_info=error, extra={"request_id": state["request_id"]})
                self._metrics.error("internal")
            if not exchange.status:
                await problem_response(scope, 500, _FAILED)(scope, exchange.receive, exchange.send)
            exchange.status = 500  # also of an answer that breaks off; the server closes the connection then
        finally:
            seconds = time.perf_counter() - exchange.begun
            # without a status, the server stopped waiting for the application
            status = _GONE if state.get("gone") or not exchange.status else exchange.status
            self._metrics.request(_route(scope), scope["method"], status, seconds)
            self._lines.add(_line(exchange.fields(status, seconds), state.get("log")))

    def refused(self, client: tuple[str, int] | None, status: int, detail: str) -> str:
        """Count and log what never became a request: what a server could not parse, or did not wait for.

        Returns its id.
        """
        request_id = uuid.uuid4().hex
        self._metrics.began()
        self._metrics.request(_INVALID, "other", status, 0.0)
        host = client[0] if client else None
        known = {"time": _iso(time.time()), "id": request_id, "client": host, "status": status}
        self._lines.add(_line({**_UNKNOWN, **known}, {"error": detail}))
        return request_id


class _Exchange:
    """A request and its answer, as they pass by."""

    __slots__ = ("_came", "_complete", "_given", "_receive", "_scope", "_send", "_taken", "begun", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.begun, self._came = time.perf_counter(), time.time()
        self.status, self._taken, self._given, self._complete = 0, 0, 0, False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._taken += len(message.get("body", b""))
        elif not self._complete:
            self._scope["state"]["gone"] = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            name = (b"x-request-id", self._scope["state"]["request_id"].encode("ascii"))
            message = {**message, "headers": [*message.get("headers", ()), *EVERY_ANSWER, name]}
        elif message["type"] == "http.response.body":
            self._given += len(message.get("body", b""))
        try:
            await self._send(message)
        except OSError:  # a server may tell so that the client is gone
            self._scope["state"]["gone"] = True
            raise
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    def fields(self, status: int, seconds: float) -> dict[str, Any]:
        client = self._scope.get("client")
        return {
            "time": _iso(self._came),
            "id": self._scope["state"]["request_id"],
            "client": client[0] if client else None,
            "method": self._scope["method"],
            "path": self._scope["path"],
            "status": status,
            "bytes_in": self._taken,
            "bytes_out": self._given,
            "milliseconds": round(seconds * 1000, 3),
        }


class _Lines:
    """Lines for stderr. They wait a moment for one another, since each time of writing costs a call."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []

    def add(self, line: str) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(_KEPT, self.write)
        self._waiting.append(line.encode("ascii") + b"\n")

    def write(self) -> None:
        """Write them, in pieces that a pipe takes whole."""
        lines, self._waiting = self._waiting, []
        piece: list[bytes] = []
        size = 0
        for line in lines:
            if piece and size + len(line) > _LONGEST_PIECE:
                self._put(piece)
                piece, size = [], 0
            piece.append(line)
            size += len(line)
        self._put(piece)

    def _put(self, piece: list[bytes]) -> None:
        with suppress(OSError):  # a disk that is full costs lines and nothing else
            os.write(sys.stderr.fileno(), b"".join(piece))


def log_to_stderr() -> None:
    """Write what the server has to say beside its requests as lines of JSON on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine())
    # what uvicorn says of requests that it cannot parse is in the access log
    for logger, level in ((_errors, logging.INFO), (logging.getLogger("uvicorn"), logging.ERROR)):
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


async def internal_problem(request: Request, error: Exception) -> Response:
    """The answer to an error of the program, for applications that answer it before AccessLog can."""
    return problem_response(request.scope, 500, _FAILED)


class _JsonLine(logging.Formatter):
    """A message of a logger, as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", None):
            fields["id"] = request_id
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return _encode(fields)


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's, where it gives exactly one that is well-formed."""
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and _ID.match(given[0]):
        return given[0].decode("ascii")
    return uuid.uuid4().hex


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return route if isinstance(route, str) else getattr(route, "path", _UNMATCHED)


def _iso(seconds: float) -> str:
    whole = int(seconds)
    return f"{_iso_second(whole)}.{int((seconds - whole) * 1000):03}Z"


@lru_cache(1)
def _iso_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _line(fields: dict[str, Any], more: Mapping[str, Any] | None) -> str:
    values = {**fields, **more, **fields} if more else fields
    line = _encode(_cut(values, _LONGEST))
    if len(line) > _LONGEST_LINE:
        line = _encode(_cut(values, _LONGEST // 5))
    return line if len(line) <= _LONGEST_LINE else _encode(_cut(fields, _LONGEST // 5))


def _cut(values: Mapping[str, Any], most: int) -> dict[str, Any]:
    return {name: value[:most] if isinstance(value, str) else value for name, value in values.items()}
