"""Who may call: tokens in a file, and addresses that need them."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.serving.tokens import (
    Exposed,
    RequireToken,
    Tokens,
    TokensInvalid,
    check_exposure,
    is_loopback,
)

TOKEN = "0123456789abcdef"
OTHER = "a-longer/token+of=another~one.which_ends"
visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=1024)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.txt"
    path.touch(0o600)
    return path


def test_a_file_has_one_token_a_line(file: Path) -> None:
    file.write_text(f"# of the shop\n{TOKEN}\n\n  {OTHER}  \r\n#{TOKEN}x\n")
    tokens = Tokens.read(file)
    assert tokens.warning is None
    for scheme in ("Bearer", "bearer", "BEARER", "Bearer  "):
        for token in (TOKEN, OTHER):
            assert tokens.allow(f"{scheme} {token}".encode())
    assert not tokens.allow(f"Bearer #{TOKEN}x".encode())


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        TOKEN.encode(),
        b"Basic " + TOKEN.encode(),
        b"Bearer" + TOKEN.encode(),
        b"Bearer " + TOKEN[:-1].encode(),
        b"Bearer " + TOKEN.encode() + b"0",
        b"Bearer " + TOKEN.upper().encode(),
        b"Bearer " + TOKEN.encode() + b", Bearer x",
        b"Bearer " + TOKEN.encode() + b"\n",
        b"Bearer " + TOKEN.encode() + b"\x00",
        b"\nBearer " + TOKEN.encode(),
        "Bearer t\u00f6ken-of-a-stranger".encode(),
        b"Bearer " + b"\xff" * 20,
        b"Bearer " + TOKEN.encode() * 4000,
        b"Bearer " + b" " * 60_000 + b"\xff",
    ],
)
def test_what_is_not_a_known_token_is_refused(value: bytes | None) -> None:
    assert not Tokens([TOKEN]).allow(value)


@given(known=st.lists(visible, min_size=1, max_size=5), tried=visible)
def test_exactly_the_known_tokens_are_allowed(known: list[str], tried: str) -> None:
    tokens = Tokens(known)
    assert all(tokens.allow(b"Bearer " + token.encode()) for token in known)
    assert tokens.allow(b"Bearer " + tried.encode()) == (tried in known)


@given(st.binary(max_size=200))
def test_no_header_is_an_error(value: bytes) -> None:
    assert not Tokens([TOKEN]).allow(value) and not Tokens([TOKEN]).allow(b"Bearer " + value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no token is in it"),
        (b"# only a comment\n\n", "no token is in it"),
        (b"short\n", "line 1 has 5 characters; 16 to 1024 are taken"),
        (b"# one\n" + b"x" * 1025, "line 2 has 1025 characters"),
        (TOKEN.encode() + b"\nwith a blank inside it\n", "line 2 has characters other than"),
        ("t\u00f6ken-of-a-stranger".encode(), "line 1 has characters other than visible ASCII"),
        (b"with\x00a-nul-inside-it-too", "line 1 has characters other than"),
        (b"\xff\xfe" + TOKEN.encode("utf-16-le"), "it is no text file"),
        (b"".join(b"%020d\n" % number for number in range(1001)), "more than 1000 tokens"),
        (b"x" * 3_000_000, "more than 2,048,000 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_line_without_tokens(
    file: Path, content: bytes, reason: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(TokensInvalid) as raised:
        Tokens.read(file)
    message = str(raised.value)
    assert reason in message and str(file) in message and "\n" not in message
    assert TOKEN not in message and "stranger" not in message


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "none", tmp_path / "fifo", Path("a\0b")):
        with pytest.raises(TokensInvalid):
            Tokens.read(path)


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_read_gives_a_warning(file: Path, mode: int, warns: bool) -> None:
    file.write_text(TOKEN)
    file.chmod(mode)
    warning = Tokens.read(file).warning
    assert (warning is not None) == warns
    if warning is not None:
        assert "chmod 600" in warning and str(file) in warning


def call(scope: dict[str, Any], *authorizations: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of an answer; 200 where the application behind was reached."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sent.extend([{"status": 200, "headers": []}, {"body": b"reached"}])

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("the body is not read")

    headers = [(b"host", b"a.example"), *((b"authorization", value) for value in authorizations)]
    kind = {"type": "http", "method": "GET", "path": "/"}
    full = {
        **(scope if "type" in scope else kind | scope),
        "headers": headers,
        "state": {"request_id": "abc"},
    }
    asyncio.run(RequireToken(app, Tokens([TOKEN]))(full, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.parametrize(
    "path", ["/", "/page/page.css", "/page/page.js", "/v2/health/live", "/v2/health/ready"]
)
def test_the_page_and_health_are_open(path: str) -> None:
    assert call({"path": path})[0] == call({"path": path, "method": "HEAD"})[0] == 200
    for method in ("POST", "PUT", "OPTIONS", "get"):
        assert call({"path": path, "method": method})[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/v1/read",
            "/v1/models",
            "/v2",
            "/v2/models/latin",
            "/metrics",
            "/openapi.json",
            "/page",
            "",
            "//",
        ),
        *("/PAGE/page.css", "/v2/health/live/", "/v2/health/live/../../models", "/v2/health", "/.", "/%2e"),
    ],
)
def test_everything_else_needs_a_token(path: str) -> None:
    for method in ("GET", "POST"):
        assert call({"path": path, "method": method})[0] == 401
        assert call({"path": path, "method": method}, b"Bearer " + TOKEN.encode())[0] == 200


def test_a_refusal_is_a_problem_that_says_what_to_send() -> None:
    status, headers, body = call({"path": "/v1/read", "method": "POST"})
    problem = json.loads(body)
    assert status == problem["status"] == 401 and headers[b"www-authenticate"] == b"Bearer"
    assert headers[b"content-type"] == b"application/problem+json" and headers[b"connection"] == b"close"
    assert problem["request_id"] == "abc" and "Authorization: Bearer TOKEN" in problem["detail"]
    status, headers, body = call({"path": "/v1/models"}, b"Bearer " + OTHER.encode())
    assert status == 401 and headers[b"www-authenticate"] == b'Bearer error="invalid_token"'
    assert b"connection" not in headers and OTHER.encode() not in body


def test_a_second_header_does_not_smuggle_a_token_in() -> None:
    good = b"Bearer " + TOKEN.encode()
    for pair in ((good, b"Bearer x"), (b"Bearer x", good), (good, good)):
        assert call({"path": "/v1/read"}, *pair)[0] == 401


def test_a_socket_of_another_kind_needs_a_token_too() -> None:
    assert call({"type": "websocket", "path": "/"})[0] == 401


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.8.7", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"]
)
def test_on_loopback_tokens_are_optional(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, None, False)


@pytest.mark.parametrize(
    "host",
    [
        *("0.0.0.0", "::", "192.168.0.7", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "example.com", ""),
        *("localhost.example.com", "127.0.0.1.example.com", "128.0.0.1", "127.1", "0177.0.0.1", "localhost "),
    ],
)
def test_another_host_needs_tokens_or_a_word(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(Exposed, match=r"give --token-file FILE, or say --no-token"):
        check_exposure(host, None, False)
    check_exposure(host, Tokens([TOKEN]), False)
    check_exposure(host, None, True)
    assert issubclass(Exposed, CrnnDeployError) and Exposed(host).exit_code == 2
