"""One line for each request, whatever the client sends and however the application fails."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crnn_deploy.serving.access_log import AccessLog, internal_problem, log_to_stderr
from crnn_deploy.serving.metrics import Metrics

FIELDS = ["time", "id", "client", "method", "path", "status", "bytes_in", "bytes_out", "milliseconds"]


class Counted:
    """Metrics that remember what they were told."""

    def __init__(self) -> None:
        self.flying = 0
        self.requests: list[tuple[str, str, int]] = []
        self.errors: list[str] = []

    def began(self) -> None:
        self.flying += 1

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self.flying -= 1
        self.requests.append((route, method, status))
        assert 0 <= seconds < 10

    def error(self, kind: str) -> None:
        self.errors.append(kind)


@contextmanager
def written() -> Iterator[list[str]]:
    """The lines that come to stderr within the block, once it is left."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as file:
        with redirect_stderr(file):
            yield lines
        file.seek(0)
        lines += file.read().removesuffix("\n").split("\n")


def logging_of(app: ASGIApp, metrics: Any) -> AccessLog:
    async def http(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    return AccessLog(http, metrics)


async def run(app: AccessLog, scope: Scope, receive: Any, send: Any) -> None:
    """A request, and the end of the server."""
    await app(scope, receive, send)
    await app({"type": "lifespan"}, receive, send)


class Client:
    """Calls an application as a server does."""

    def __init__(self, app: ASGIApp) -> None:
        self.metrics = Counted()
        self.app = logging_of(app, self.metrics)
        self.sent: list[Message] = []
        self.closes = False  # after the body

    def call(self, path: str = "/", method: str = "GET", body: bytes = b"", *headers: Any) -> dict[str, Any]:
        """What is logged of a request."""
        self.sent.clear()
        coming = [{"type": "http.request", "body": body, "more_body": False}]
        if self.closes:
            coming.append({"type": "http.disconnect"})

        async def receive() -> Message:
            return coming.pop(0) if coming else await asyncio.Future()

        async def send(message: Message) -> None:
            self.sent.append(message)

        scope: Scope = {
            **{"type": "http", "path": path, "raw_path": b"", "method": method, "headers": [*headers]},
            **{"query_string": b"", "client": ("192.0.2.7", 40000), "state": {}, "http_version": "1.1"},
        }
        with written() as lines:
            asyncio.run(run(self.app, scope, receive, send))
        assert len(lines) == 1 and self.metrics.flying == 0
        line = lines[0]
        assert line.isascii() and line.isprintable() and len(line) < 4096
        logged: dict[str, Any] = json.loads(line)
        assert list(logged)[: len(FIELDS)] == FIELDS
        return logged

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers with its length."""
    body = (await receive())["body"]
    scope["route"] = "/v1/read"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(len(body)).encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b" bytes"})


def test_a_request_is_one_line_with_all_that_is_known() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["log"] = {"model": "latin", "images": 3}
        await answers(scope, receive, send)

    client = Client(app)
    logged = client.call("/v1/read", "POST", b"x" * 1000)
    moment = datetime.strptime(logged["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 10
    assert logged["client"] == "192.0.2.7" and logged["method"] == "POST" and logged["path"] == "/v1/read"
    assert logged["status"] == 200 and logged["bytes_in"] == 1000 and logged["bytes_out"] == len("1000 bytes")
    assert 0 <= logged["milliseconds"] < 10_000
    assert logged["model"] == "latin" and logged["images"] == 3
    assert client.headers[b"x-request-id"] == logged["id"].encode()
    assert client.headers[b"content-type"] == b"text/plain" and client.body == b"1000 bytes"
    assert client.metrics.requests == [("/v1/read", "POST", 200)]


@pytest.mark.parametrize("given_id", [b"a", b"Ab.9_-", b"x" * 64])
def test_a_well_formed_id_of_the_client_is_kept(given_id: bytes) -> None:
    client = Client(answers)
    assert client.call("/", "GET", b"", (b"x-request-id", given_id))["id"] == given_id.decode()
    assert client.headers[b"x-request-id"] == given_id


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b""],
        [b"x" * 65],
        [b"a b"],
        [b"a\n"],
        [b"a\r\nSet-Cookie: b=c"],
        [b"\xc3\xa4"],
        [b'","status":200,"x":"'],
        [b"one", b"two"],
    ],
)
def test_any_other_id_is_replaced(headers: list[bytes]) -> None:
    client = Client(answers)
    ids = set()
    for _ in range(2):
        logged = client.call("/", "GET", b"", *((b"x-request-id", value) for value in headers))
        assert re.fullmatch("[0-9a-f]{32}", logged["id"])
        ids.add(logged["id"])
    assert len(ids) == 2


@settings(deadline=None, max_examples=200)
@given(
    path=st.text(max_size=300),
    method=st.text(max_size=20),
    error=st.text(max_size=5000),
)
def test_no_client_forges_a_line(path: str, method: str, error: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["log"] = {"error": error, "status": 200, "id": "forged", "more": "m" * 300}
        await send({"type": "http.response.start", "status": 422})
        await send({"type": "http.response.body"})

    async def nothing(_: Any = None) -> Any:
        return None

    scope: Scope = {"type": "http", "path": path, "method": method, "headers": [], "state": {}}
    with written() as lines:
        asyncio.run(run(logging_of(app, Metrics()), scope, nothing, nothing))
    assert len(lines) == 1 and lines[0].isascii() and lines[0].isprintable() and len(lines[0]) < 4096
    values = json.loads(lines[0])
    assert values["status"] == 422 and values["id"] != "forged" and values["client"] is None
    assert path[:200].startswith(values["path"]) and len(values["path"]) >= min(len(path), 40)


def routed() -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_exception_handler(Exception, internal_problem)

    @app.get("/v2/models/{name}")
    async def model(name: str) -> str:
        return name

    @app.post("/fails")
    async def fails(request: Request) -> None:
        raise ValueError("a secret of the program")

    return app


def test_a_route_is_known_by_its_template() -> None:
    client = Client(routed())
    for number in range(100):
        assert client.call(f"/v2/models/{number}")["status"] == 200
        assert client.call(f"/v2/models/{number}", "POST")["status"] == 405
        assert client.call(f"/{number}/../etc")["status"] == 404
    assert set(client.metrics.requests) == {
        ("/v2/models/{name}", "GET", 200),
        ("/v2/models/{name}", "POST", 405),
        ("unmatched", "GET", 404),
    }


async def fails_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("a secret of the program")


@pytest.mark.parametrize("app", [fails_at_once, routed()])
def test_an_error_of_the_program_is_a_problem_and_its_traceback_is_logged(
    app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(app)
    logged = client.call("/fails", "POST", b"abc")
    assert logged["status"] == client.sent[0]["status"] == 500
    assert client.headers[b"content-type"] == b"application/problem+json"
    problem = json.loads(client.body)
    assert problem["status"] == 500 and problem["request_id"] == logged["id"]
    assert client.headers[b"x-request-id"] == logged["id"].encode()
    assert b"secret" not in client.body and b"Traceback" not in client.body
    errors = [record for record in caplog.records if record.name == "crnn_deploy.serving"]
    assert len(errors) == 1 and errors[0].exc_info is not None
    assert "a secret" in str(errors[0].exc_info[1]) and vars(errors[0])["request_id"] == logged["id"]
    assert client.metrics.errors == ["internal"]


def test_an_answer_that_breaks_off_is_not_begun_anew() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("no more")

    client = Client(app)
    assert client.call()["status"] == 500
    assert [message["type"] for message in client.sent] == ["http.response.start", "http.response.body"]


async def waits_for_more(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] == "http.request":
        pass
    raise ClientDisconnect


async def answers_late(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] == "http.request":
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


async def cannot_send(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["gone"] = True
    raise OSError("the connection is gone")


@pytest.mark.parametrize("app", [waits_for_more, answers_late, cannot_send])
def test_a_client_that_goes_away_is_no_error(
    app: Callable[[Scope, Receive, Send], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(app)
    client.closes = True
    assert client.call("/v1/read", "POST", b"abc")["status"] == 499
    assert client.metrics.requests == [("unmatched", "POST", 499)] and client.metrics.errors == []
    assert not caplog.records


def test_a_request_that_is_cancelled_is_logged_too() -> None:
    client = Client(waits_for_more)

    async def never(_: Any = None) -> Any:
        return await asyncio.Future()

    async def cancelled() -> None:
        scope = {"type": "http", "path": "/", "method": "GET", "headers": []}
        task = asyncio.create_task(client.app(scope, never, never))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.app({"type": "lifespan"}, never, never)

    with written() as lines:
        asyncio.run(cancelled())
    assert client.metrics.flying == 0 and client.metrics.requests == [("unmatched", "GET", 499)]
    assert len(lines) == 1 and json.loads(lines[0])["status"] == 499


def test_what_is_no_request_is_logged_too() -> None:
    client = Client(answers)

    async def refuse() -> str:
        request_id = client.app.refused(("192.0.2.7", 40000), 400, "this is no valid HTTP request")
        await asyncio.sleep(0.2)  # lines are written a moment later, whether or not the server ends
        return request_id

    with written() as lines:
        request_id = asyncio.run(refuse())
    logged = json.loads(lines[0])
    assert list(logged) == [*FIELDS, "error"] and len(lines) == 1
    assert (logged["id"], logged["status"], logged["client"]) == (request_id, 400, "192.0.2.7")
    assert logged["method"] is logged["path"] is None
    assert client.metrics.requests == [("invalid", "other", 400)] and client.metrics.flying == 0


def test_many_lines_are_written_whole_and_in_pieces_that_a_pipe_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda number, piece: pieces.append(piece))
    client = Client(answers)

    async def several() -> None:
        for number in range(200):
            client.app.refused(None, 400, f"{number} " + "x" * number)
        await client.app({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    with written():
        asyncio.run(several())
    assert (
        max(map(len, pieces)) <= 4096 and len(pieces) < 30 and all(piece.endswith(b"\n") for piece in pieces)
    )
    errors = [json.loads(line)["error"] for line in b"".join(pieces).splitlines()]
    assert [error.split()[0] for error in errors] == [str(number) for number in range(200)]


def test_what_else_the_server_says_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("crnn_deploy.serving", "uvicorn")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    try:
        log_to_stderr()
        log_to_stderr()  # twice is once
        try:
            raise ValueError("first\nsecond \x1b[31m")
        except ValueError:
            loggers[0].exception("a model\nis gone", extra={"request_id": "abc"})
        logging.getLogger("uvicorn.error").error("it broke")
        logging.getLogger("uvicorn.error").warning("nothing")
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and json.loads(lines[1])["message"] == "it broke"
    said = json.loads(lines[0])
    assert said["level"] == "error" and said["message"] == "a model\nis gone" and said["id"] == "abc"
    assert said["traceback"].startswith("Traceback") and said["traceback"].endswith("second \x1b[31m")
    assert lines[0].isascii() and lines[0].isprintable()
