"""One line of JSON for each request, on stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crnn_deploy.serving.metrics import Metrics
from crnn_deploy.serving.problems import PROBLEM, problem_body

__all__ = ["AccessLog", "internal_problem", "log_to_stderr"]

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_UNMATCHED = "unmatched"  # the route of paths that have none
_GONE = 499  # status of a client that went away before its answer, as nginx has it
_LONGEST = 200  # characters of a text in a line
_LONGEST_LINE = 4000  # bytes; a pipe takes 4096 at once, so lines of several processes do not mix
_FAILED = "the server failed at this; its log says why, under this id"
_log = logging.getLogger("crnn_deploy.access")
_errors = logging.getLogger("crnn_deploy.serving")
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode  # pure ASCII, so no line can be forged


class AccessLog:
    """The outermost layer of an application: names, times, counts and logs each request.

    It puts `request_id` into `scope["state"]` and into the answer, and logs what the application puts into
    `scope["state"]["log"]`. A route is known by `scope["route"]`, a string or what has a `path`. A server that
    knows that the client has gone sets `scope["state"]["gone"]`. What the application raises is logged with
    its traceback, and answered as a problem of status 500.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, came = time.perf_counter(), time.time()
        request_id = _request_id(scope["headers"])
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        status, taken, given, complete = 0, 0, 0, False

        async def counted_receive() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
            elif not complete:
                state["gone"] = True
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, given, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                name = (b"x-request-id", request_id.encode("ascii"))
                message = {**message, "headers": [*message.get("headers", ()), name]}
            elif message["type"] == "http.response.body":
                given += len(message.get("body", b""))
            try:
                await send(message)
            except OSError:  # a server may tell so that the client is gone
                state["gone"] = True
                raise
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        self._metrics.began()
        try:
            await self._app(scope, counted_receive, counted_send)
        except Exception as error:
            if not (state.get("gone") and isinstance(error, (OSError, ClientDisconnect))):
                _errors.error("a request failed", exc_info=error, extra={"request_id": request_id})
                self._metrics.error("internal")
            if not status:
                await _failed(request_id)(scope, counted_receive, counted_send)
            status = 500  # also of an answer that was not finished; the server closes the connection then
        finally:
            seconds = time.perf_counter() - begun
            status = _GONE if state.get("gone") else status
            self._metrics.request(_route(scope), scope["method"], status, seconds)
            if _log.isEnabledFor(logging.INFO):
                client = scope.get("client")
                fields = {
                    "time": _iso(came),
                    "id": request_id,
                    "client": client[0] if client else None,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "bytes_in": taken,
                    "bytes_out": given,
                    "milliseconds": round(seconds * 1000, 3),
                }
                _log.info(_line(fields, state.get("log", {})))


def log_to_stderr() -> None:
    """Write requests, and what else the server has to say, as lines of JSON on stderr."""
    for name, form in (("crnn_deploy.access", logging.Formatter()), ("crnn_deploy.serving", _JsonLine())):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(form)
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


async def internal_problem(request: Request, error: Exception) -> Response:
    """The answer to an error of the program, for applications that answer it before AccessLog can."""
    return _failed(request.scope["state"].get("request_id"))


def _failed(request_id: str | None) -> Response:
    return Response(problem_body(500, _FAILED, request_id), 500, media_type=PROBLEM)


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
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(fields: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    values = {**fields, **more, **fields}
    line = _encode(_cut(values, _LONGEST))
    if len(line) > _LONGEST_LINE:
        line = _encode(_cut(values, _LONGEST // 5))
    return line if len(line) <= _LONGEST_LINE else _encode(_cut(fields, _LONGEST // 5))


def _cut(values: Mapping[str, Any], most: int) -> dict[str, Any]:
    return {name: value[:most] if isinstance(value, str) else value for name, value in values.items()}
