"""A running server of two workers, as those see it who watch over it and those who have no token."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("onnxruntime")

import httpx
from prometheus_client.parser import text_string_to_metric_families
from served import Served

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="workers are found in /proc")

TOKEN = "c0ffee-c0ffee-c0ffee"
PNG = {"Content-Type": "image/png"}
IMAGE = next((Path(__file__).parents[2] / "examples" / "images").glob("*.png")).read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    file.write_text(TOKEN)
    file.chmod(0o644)
    served = Served("--workers", "2", "--token-file", file)
    yield served
    assert served.stop() == 0
    for line in served.lines:
        assert line.startswith("ready: ") or json.loads(line)  # nothing that is no JSON


def call(server: Served, method: str, path: str, **arguments: Any) -> httpx.Response:
    """A request with the token, on a connection of its own, so that any worker may get it."""
    headers = {"Authorization": f"Bearer {TOKEN}", **arguments.pop("headers", {})}
    return httpx.request(method, f"{server.url}{path}", headers=headers, timeout=60, **arguments)


def value(server: Served, name: str, **labels: str) -> float:
    """A value of /metrics; 0 where there is none."""
    for family in text_string_to_metric_families(call(server, "GET", "/metrics").text):
        for sample in family.samples:
            if sample.name == f"crnn_deploy_{name}" and sample.labels == labels:
                return sample.value
    return 0.0


def becomes(server: Served, expected: float, name: str, **labels: str) -> bool:
    """Whether a value becomes what is expected; workers may tell each other a moment later."""
    until = time.monotonic() + 40
    while (found := value(server, name, **labels)) != expected and time.monotonic() < until:
        time.sleep(0.1)
    return found == expected


def logged(server: Served, **wanted: Any) -> dict[str, Any]:
    """The first line of the log that has these values; it may come a moment later than the answer."""
    for _ in range(200):
        for line in server.lines:
            values: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if wanted.items() <= {name: values.get(name) for name in wanted}.items():
                return values
        time.sleep(0.05)
    raise AssertionError(server.lines)


def test_only_those_with_a_token_may_read(server: Served) -> None:
    for headers in ({}, {"Authorization": "Bearer c0ffee-c0ffee-decaf"}, {"Authorization": TOKEN}):
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v2/models/latin", "/nowhere"):
            answer = httpx.get(f"{server.url}{path}", headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
        answer = httpx.post(f"{server.url}/v1/read", content=IMAGE, headers=headers)
        assert answer.status_code == 401 and "results" not in answer.json()
        problem = answer.json()
        assert problem["request_id"] == answer.headers["x-request-id"]
        line = logged(server, id=problem["request_id"])
        assert line["status"] == 401 and line["error"] == problem["detail"]
    for path in ("/v2/health/live", "/v2/health/ready", "/"):
        assert httpx.get(f"{server.url}{path}").status_code != 401
    assert call(server, "GET", "/v1/models").status_code == 200


def test_a_token_that_others_can_read_is_told_of(server: Served) -> None:
    assert "chmod 600" in logged(server, level="warning")["message"]
    assert not any(TOKEN in line for line in server.lines)


def test_a_request_is_found_in_the_log_by_its_id(server: Served) -> None:
    answer = call(server, "POST", "/v1/read", content=IMAGE, headers={**PNG, "X-Request-ID": "order-66"})
    assert answer.status_code == 200 and answer.headers["x-request-id"] == "order-66"
    line = logged(server, id="order-66")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/read", 200)
    assert line["bytes_in"] == len(IMAGE) and line["bytes_out"] == len(answer.content)
    assert (line["client"], line["model"], line["images"]) == ("127.0.0.1", "latin", 1)
    bad = call(server, "POST", "/v1/read", content=b"no image", headers={**PNG, "X-Request-ID": "order-67"})
    assert bad.status_code >= 400
    assert "error" in logged(server, id="order-67")


def test_counters_are_of_all_workers_and_outlive_one_that_is_killed(server: Served) -> None:
    labels = {"route": "/v1/read", "method": "POST", "status": "200"}
    for number in range(20):
        headers = {**PNG, "X-Request-ID": f"one-{number}"}
        assert call(server, "POST", "/v1/read", content=IMAGE, headers=headers).status_code == 200
        logged(server, id=f"one-{number}")
    count = sum('"path":"/v1/read","status":200' in line for line in server.lines)
    assert count >= 20 and becomes(server, count, "requests_total", **labels)
    images = value(server, "images_total", model="latin", status="ok")
    assert images >= 20 and value(server, "confidence_count", model="latin") == images
    assert value(server, "queue_seconds_count") >= 20 and value(server, "prepare_seconds_count") >= 20
    digest = call(server, "GET", "/v1/models").json()["models"][0]["digest"]
    assert becomes(server, 2, "model_workers", model="latin", digest=digest)
    os.kill(server.workers()[0], signal.SIGKILL)
    assert becomes(server, 1, "model_workers", model="latin", digest=digest)
    assert value(server, "requests_total", **labels) == count
    assert becomes(server, 1, "requests_in_flight")  # the one that asks
    assert becomes(server, 2, "model_workers", model="latin", digest=digest)
    assert value(server, "requests_total", **labels) == count


def test_a_client_that_leaves_is_logged_as_such(server: Served) -> None:
    host, port = re.findall(r"//(.*):(\d+)", server.url)[0]
    head = f"POST /v1/read HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}X-Request-ID: left\r\nContent-Length: 999\r\n\r\nab".encode())
    line = logged(server, id="left")
    assert (line["status"], line["bytes_in"]) == (499, 2)
    assert becomes(server, 1, "requests_total", route="/v1/read", method="POST", status="499")


def test_what_is_no_request_has_an_id_too(server: Served) -> None:
    host, port = re.findall(r"//(.*):(\d+)", server.url)[0]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/read HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
        answer = connection.makefile("rb").read().decode()
    request_id = json.loads(answer.split("\r\n\r\n")[1])["request_id"]
    assert f"X-Request-ID: {request_id}" in answer
    assert logged(server, id=request_id)["status"] == 400
    assert becomes(server, 1, "requests_total", route="invalid", method="other", status="400")
