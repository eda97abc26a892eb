"""What hostile clients send: each gets a problem of one line at once, and the server answers the next one."""

from __future__ import annotations

import json
import socket
import time
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("httpx")
pytest.importorskip("onnxruntime")

import httpx
from served import Served

EXAMPLE = Path(__file__).parents[2] / "examples" / "images" / "01.png"
MOST_SECONDS = (
    5.0  # for what took a minute or more before it was bounded; most of it is the test's own machine
)


def refused(server: Served, path: str, content: bytes, content_type: str) -> httpx.Response:
    """The answer to a request, which is a problem of one line, given soon."""
    begun = time.monotonic()
    headers = {"Content-Type": content_type}
    answer = httpx.post(server.url + path, content=content, headers=headers, timeout=60)
    assert time.monotonic() - begun < MOST_SECONDS
    assert 400 <= answer.status_code < 500, answer.text[:300]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"] and "\n" not in problem["detail"] and len(problem["detail"]) < 1000
    return answer


BODIES = {
    "millions of numbers": (b'{"images":[' + b"1," * 8_000_000 + b"1]}", 413),
    "millions of images": (b'{"images":[' + b'{"data":""},' * 1_000_000 + b"0]}", 413),
    "numbers for images": (b'{"images":[' + b"1," * 100_000 + b"1]}", 413),
    "many keys": (b'{"images":[],' + b",".join(b'"%d":0' % at for at in range(200_000)) + b"}", 400),
    "many keys of an image": (
        b'{"images":[{' + b",".join(b'"%d":0' % at for at in range(200_000)) + b"}]}",
        400,
    ),
    "nested arrays": (b"[" * 5_000_000, 413),
    "nested objects": (b'{"images":' * 10_000, 400),
    "a long number": (b'{"images":' + b"9" * 5_000_000 + b"}", 400),
    "half a surrogate": (b'{"images":[{"data":"AAAA","name":"\\ud800"}]}', 400),
    "no UTF-8": (b'{"images":[{"data":"\xff"}]}', 400),
    "UTF-16": ('{"images":[]}'.encode("utf-16"), 400),
}


@pytest.mark.parametrize("what", BODIES)
def test_json_is_bounded_before_it_is_understood(server: Served, what: str) -> None:
    content, status = BODIES[what]
    answer = refused(server, "/v1/read", content, "application/json")
    assert answer.status_code == status, answer.text


def test_an_unknown_key_of_json_is_named(server: Served) -> None:
    for content in (b'{"images":[{"data":""}],"other":1}', b'{"images":[{"data":"","other":1}]}'):
        answer = refused(server, "/v1/read", content, "application/json")
        assert answer.status_code == 400 and "other: Extra inputs" in answer.text


@pytest.mark.parametrize(
    "content_type",
    [
        f"multipart/form-data; boundary={'x' * 10_000}",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary*0*=bogus''%ff; boundary*99999999999999=x",
        "multipart/form-data; " + "; ".join(f'a{at}="{at}' for at in range(3000)),
    ],
    ids=["long", "empty", "in parts", "many parameters"],
)
def test_a_boundary_that_is_none_is_refused(server: Served, content_type: str) -> None:
    assert refused(server, "/v1/read", b"--x\r\n", content_type).status_code == 400


PART = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\nx\r\n'
PARTS = {
    "ten thousand": (PART * 10_000 + b"--b--\r\n", 413),
    "no end": (PART, 400),
    "no disposition": (b"--b\r\n\r\nx\r\n--b--\r\n", 422),
    "a long header": (b"--b\r\nX: " + b"a" * 20_000_000, 400),
    "many headers": (b"--b\r\n" + b"X: a\r\n" * 1_000_000, 400),
    "boundaries that are none": (b"--b\r\n\r\n" + b"\r\n--" * 2_000_000 + b"\r\n--b--\r\n", 422),
}


@pytest.mark.parametrize("what", PARTS)
def test_multipart_is_bounded(server: Served, what: str) -> None:
    content, status = PARTS[what]
    answer = refused(server, "/v1/read", content, "multipart/form-data; boundary=b")
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("path", ["/v1/read/", "/v1/models/", "/page/page.css/"])
def test_no_address_leads_elsewhere(server: Served, path: str) -> None:
    """A redirect would go to whatever host the client names."""
    answer = httpx.get(server.url + path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    "query",
    [
        *("model=../../etc/passwd", "model=%00%0a", "allow=%ff%fe%zz", "other=1", "max_length=10000"),
        *("beam_width=100000&decoder=beam", "decoder=beam&" + "&".join(["hotwords=a"] * 4000)),
        *("min_confidence=nan", "decoder=beam&hotwords=a&boost=inf", "nbest=1e9&decoder=beam"),
        *(
            f"pattern={urllib.parse.quote(one)}"
            for one in ("(?=a)b", "a{999999999}", "(" * 60, "(?P<n>a)(?P=n)")
        ),
        "pattern=" + urllib.parse.quote("((a{1,30}){1,30}){1,30}"),
        "pattern=" + urllib.parse.quote(".*[ab].{60}x"),
    ],
    ids=lambda query: query[:30],
)
def test_options_are_bounded(server: Served, query: str) -> None:
    refused(server, f"/v1/read?{query}", b"x", "image/png")


def test_large_bodies_that_do_not_end_shut_out_no_small_one(serving: Callable[..., Served]) -> None:
    server = serving("--workers", "1", "--max-bytes", str(2**20))
    address = urllib.parse.urlsplit(server.url)
    fields = ("POST /v1/read HTTP/1.1", "Host: localhost", "Content-Type: image/png")
    head = "\r\n".join([*fields, f"Content-Length: {2**20}", "", ""])
    held = [socket.create_connection((address.hostname, address.port)) for _ in range(16)]
    try:
        for one in held:
            one.sendall(head.encode() + bytes(2**20 - 1))
        until = time.monotonic() + 10
        refusals = 0
        for one in held:
            one.settimeout(max(0.1, (until - time.monotonic()) / 16))
            with suppress(TimeoutError):
                refusals += one.recv(100).startswith(b"HTTP/1.1 503")
        assert refusals >= 4  # beyond the room for bodies of this size
        content = EXAMPLE.read_bytes()
        answer = httpx.post(f"{server.url}/v1/read", content=content, headers={"Content-Type": "image/png"})
        assert answer.status_code == 200
    finally:
        for one in held:
            one.close()


def answered(server: Served, request: bytes) -> bytes:
    """All that comes back until the server closes the connection."""
    address = urllib.parse.urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), 20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


def get(padding: int, then: str = "close", path: str = "/v1/models") -> bytes:
    """A request with a header of so many bytes."""
    fields = (f"GET {path} HTTP/1.1", "Host: localhost", f"Connection: {then}", f"X-Long: {'x' * padding}")
    return "\r\n".join([*fields, "", ""]).encode()


def test_long_headers_are_refused_in_one_piece_and_in_many(server: Served) -> None:
    assert answered(server, get(60_000)).startswith(b"HTTP/1.1 200 ")
    for request in (
        get(70_000),
        get(70_000).removesuffix(b"\r\n\r\n"),
        get(0, path="/v1/models?" + "x" * 70_000),
        get(0).replace(b"X-Long: ", b"X: y\r\n" * 12_000 + b"Z: "),
        get(70_000).replace(b"GET /v1/models", b"POST /v1/read") + b"x" * 100,
    ):
        answer = answered(server, request)
        assert answer.startswith(b"HTTP/1.1 431 ") and answer.count(b"HTTP/1.1") == 1
        assert b"the headers have more than 65,536 bytes" in answer and b"request_id" in answer


def test_what_follows_long_headers_is_no_request(server: Served) -> None:
    answer = answered(server, get(70_000, "keep-alive") + get(0))
    assert answer.startswith(b"HTTP/1.1 431 ") and answer.count(b"HTTP/1.1") == 1


def test_a_body_does_not_count_as_headers(server: Served) -> None:
    head = "POST /v1/read HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/png\r\n"
    answer = answered(server, head.encode() + b"Content-Length: 100000\r\n\r\n" + bytes(100_000))
    assert answer.startswith(b"HTTP/1.1 422 ")


def test_the_server_is_well_afterwards(server: Served) -> None:
    assert server.process.poll() is None and len(server.workers()) == 2
    for _ in range(8):  # each worker
        assert httpx.get(f"{server.url}/v1/models").status_code == 200
    assert not [line for line in server.lines if "Traceback" in line]
    assert json.loads(httpx.get(f"{server.url}/v1/models").content)["models"]
