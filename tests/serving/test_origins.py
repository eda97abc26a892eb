"""A web page of a stranger in the user's browser gets nothing from a server without tokens."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("starlette")

from starlette.types import Message, Receive, Scope, Send

from crnn_deploy.serving.origins import PAGE, SameOrigin


def call(
    method: str = "POST", *, loopback: bool = True, **headers: str | list[str]
) -> tuple[int, dict[str, object]]:
    """Status and problem of an answer; 200 where the application behind was reached."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sent.extend([{"status": 200}, {"body": b"{}"}])

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("the body is not read")

    given = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    scope: Scope = {"type": "http", "method": method, "path": "/v1/read", "headers": given, "state": {}}
    asyncio.run(SameOrigin(app, loopback=loopback)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


OWN = ["localhost", "localhost:8000", "LocalHost:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000"]


@pytest.mark.parametrize("host", OWN)
def test_programs_and_the_own_page_are_answered(host: str) -> None:
    assert call(host=host)[0] == 200  # curl, httpx
    assert call(host=host, sec_fetch_site="same-origin", origin=f"http://{host}")[0] == 200
    assert call(host=host, sec_fetch_site="none")[0] == 200
    assert call(host=host, origin=f"http://{host}")[0] == 200  # an old browser
    assert call("GET", host=host, sec_fetch_site="cross-site")[0] == 200  # a link
    assert call()[0] == 200  # HTTP/1.0


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example:8000", ""),
        *("evil.example@localhost.evil", "[::1].evil", "[::1", "[", "192.168.0.7:8000", "0.0.0.0", "\xff"),
        *("localhost:8000, evil.example", "evil.example#localhost", "localhost@evil.example"),
    ],
)
def test_a_name_that_was_made_to_resolve_to_loopback_is_refused(host: str) -> None:
    for method in ("GET", "POST"):
        status, problem = call(method, host=host, sec_fetch_site="same-origin", origin=f"http://{host}")
        assert status == 421 and "--token-file" in str(problem["detail"])
    # one that other machines reach may have any name
    assert call(host=host, sec_fetch_site="same-origin", loopback=False)[0] == 200


@pytest.mark.parametrize("loopback", [True, False])
def test_a_page_of_another_origin_cannot_post(loopback: bool) -> None:
    host = "127.0.0.1:8000"
    for headers in (
        {"sec_fetch_site": "cross-site", "origin": "https://evil.example"},
        {"sec_fetch_site": "same-site", "origin": "http://127.0.0.1:3000"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "cross-site", "origin": f"http://{host}"},
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": f"http://{host}@evil.example"},
        {"origin": "http://["},
    ):
        for method in ("POST", "PUT", "DELETE", "post"):
            status, problem = call(method, host=host, loopback=loopback, **headers)
            assert status == 403 and "another origin" in str(problem["detail"])


def test_two_hosts_or_two_sites_smuggle_nothing() -> None:
    assert call(host=["localhost", "evil.example"])[0] == 400
    assert call(host=["evil.example", "localhost"])[0] == 400
    assert call(host="localhost", sec_fetch_site=["same-origin", "cross-site"])[0] == 403
    assert call(host="localhost", sec_fetch_site=["cross-site", "same-origin"])[0] == 403
    assert call(host="localhost", origin=["http://localhost", "http://evil.example"])[0] == 403
    assert call(host="localhost", origin=["http://evil.example", "http://localhost"])[0] == 403


def test_the_page_may_load_only_what_is_its_own() -> None:
    rules = dict(rule.split(" ", 1) for rule in PAGE["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == "'self'" and rules["frame-ancestors"] == "'none'"
    assert rules["img-src"] == "'self' blob: data:" and "script-src" not in rules
