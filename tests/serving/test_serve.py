"""`crnn-deploy serve` as its users meet it: texts of `infer`, errors of their own, models that change."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")
pytest.importorskip("onnxruntime")

import httpx
from served import Served

from crnn_deploy import Recognizer
from crnn_deploy.models import DEFAULT, DEFAULT_INT8

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))
Start = Callable[..., Served]


def read(server: Served, **arguments: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/read", timeout=60, **arguments)


def parts(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (path.name, path.read_bytes())) for path in paths]


def in_json(*paths: Path) -> dict[str, Any]:
    return {
        "images": [
            {"name": path.name, "data": base64.b64encode(path.read_bytes()).decode()} for path in paths
        ]
    }


def inferred(*options: str, images: Sequence[Path] = EXAMPLES) -> list[dict[str, Any]]:
    """The records that `infer` gives of images, as the server calls their fields."""
    command = [sys.executable, "-m", "crnn_deploy", "infer", "--format", "jsonl", *options]
    done = subprocess.run([*command, *map(str, images)], capture_output=True, text=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == len(images), done.stderr
    return [{"name": Path(record.pop("path")).name, **record} for record in records]


def test_all_kinds_of_body_give_what_infer_gives(server: Served) -> None:
    expected = inferred()
    for answer in (read(server, files=parts(*EXAMPLES)), read(server, json=in_json(*EXAMPLES))):
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
        assert answer.json()["results"] == expected  # confidences as floats, every bit
        assert answer.json()["model"] == "latin"
    for path, record in zip(EXAMPLES, expected, strict=True):
        for kind in ("image/png", "application/octet-stream"):
            answer = read(server, content=path.read_bytes(), headers={"Content-Type": kind})
            assert answer.json()["results"] == [{**record, "name": "image"}]


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("decoder=beam&nbest=3&beam_width=7", ("--decoder", "beam", "--nbest", "3", "--beam-width", "7")),
        ("allow=0123456789", ("--allow", "0123456789")),
        ("mask=Aaaa", ("--mask", "Aaaa")),
        ("pattern=%5Ba-z%5D%2B", ("--pattern", "[a-z]+")),
        ("min_length=3&max_length=5", ("--min-length", "3", "--max-length", "5")),
        (
            "decoder=beam&hotwords=Frinted&hotwords=word&boost=4",
            ("--decoder", "beam", "--hotword", "Frinted", "--hotword", "word", "--boost", "4"),
        ),
        ("min_confidence=0.9995", ("--min-confidence", "0.9995")),
        ("rotate=180", ("--rotate", "180")),
        ("chars=true", ("--show-chars",)),
        ("chars=true&rotate=auto", ("--show-chars", "--rotate", "auto")),
    ],
)
def test_options_do_what_those_of_infer_do(server: Served, query: str, options: tuple[str, ...]) -> None:
    answer = httpx.post(f"{server.url}/v1/read?{query}", files=parts(*EXAMPLES), timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"] == inferred(*options)


def test_one_bad_image_fails_no_other(server: Served) -> None:
    good = EXAMPLES[0]
    given = [*parts(good), ("images", ("b.png", b"no image")), *parts(good)]
    first, second, third = read(server, files=given).json()["results"]
    assert first == third and first["status"] == "ok"
    assert (second["status"], second["text"], second["confidence"]) == ("error", "", None)
    assert second["error"].startswith("b.png: not an image")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ({"content": b"no image", "headers": {"Content-Type": "image/png"}}, 422, "image: not an image"),
        ({"content": b"", "headers": {"Content-Type": "image/png"}}, 400, "the body is empty"),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "Content-Type text/plain is not"),
        ({"content": b"x"}, 415, "Content-Type unknown is not read"),
        ({"json": {"images": []}}, 400, "the JSON does not have the right form at images"),
        ({"json": {"images": [{"data": "?"}]}}, 422, "image 1: its data is not base64"),
        ({"json": {"image": []}}, 400, "the JSON does not have the right form"),
        (
            {"params": {"model": "other"}, "content": b"x"},
            404,
            "no model is called 'other'; served",
        ),
        (
            {"params": {"beam": "1"}, "content": b"x"},
            422,
            "there is no option beam (did you mean beam_width?); there are model",
        ),
        ({"params": {"nbest": "3"}, "files": parts(EXAMPLES[0])}, 422, "nbest needs decoder=beam"),
        ({"params": {"nbest": "x"}, "content": b"x"}, 422, "nbest='x': input should be a valid integer"),
        ({"params": {"decoder": ["beam", "beam"]}, "content": b"x"}, 422, "decoder stands twice"),
        ({"params": {"pattern": "("}, "files": parts(EXAMPLES[0])}, 422, "pattern"),
        ({"data": {"decoder": "beam"}, "files": parts(EXAMPLES[0])}, 422, "the part 'decoder' has no file"),
    ],
)
def test_a_problem_says_in_a_line_what_to_do(
    server: Served, arguments: dict[str, Any], status: int, said: str
) -> None:
    answer = read(server, **arguments)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and said in problem["detail"], problem
    assert "\n" not in problem["detail"] and "Traceback" not in answer.text
    assert problem["request_id"]


def test_an_address_that_is_not_there_and_a_method_that_is_not_answered(server: Served) -> None:
    assert httpx.get(f"{server.url}/nothing").json()["detail"].startswith("there is nothing at this address")
    answer = httpx.get(f"{server.url}/v1/read")
    assert answer.status_code == 405 and answer.json()["title"] == "Method Not Allowed"
    assert answer.headers["allow"] == "POST"
    for path in ("/v1/read", "/v2/models/latin/infer"):
        assert "this address does not answer GET; send an image by POST" in httpx.get(server.url + path).text
    for path in ("/", "/v1/models"):
        said = httpx.post(server.url + path, content=b"x").json()["detail"]
        assert said == "this address does not answer POST; images are read by POST /v1/read"


AT = "; is the @ missing in --data-binary @FILE?"


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/json"])
def test_the_name_of_a_file_is_no_file(kind: str, server: Served) -> None:
    """As `curl --data-binary FILE` sends it."""
    headers = {"Content-Type": kind}
    for name in ("examples/images/01.png", "Bilder/Größe 1.png"):
        answer = read(server, content=name.encode(), headers=headers)
        assert answer.status_code in (400, 422) and answer.json()["detail"].endswith(AT)
    for other in (b"", b"\x89PNG", b"P6\n1 1\n255\n", b"a" * 5000, b'{"images": [', b"[1]"):
        answer = read(server, content=other, headers=headers)
        assert answer.status_code in (400, 422) and "missing" not in answer.json()["detail"], other
    answer = httpx.post(f"{server.url}/v2/models/latin/infer", content=b"request.json")
    assert answer.status_code == 400 and answer.json()["error"].endswith(AT)
    answer = read(server, files=[("images", ("a.png", b"a.png"))])
    assert answer.status_code == 422 and "missing" not in answer.json()["detail"]


def test_an_image_that_is_short_text_is_read(server: Served) -> None:
    """A PBM file may be one line of digits."""
    header = {"Content-Type": "image/x-portable-bitmap"}
    answer = read(server, content=b"P1 8 8 " + b"0" * 64, headers=header)
    assert answer.status_code == 200, answer.text


def test_several_models_are_served_by_name(serving: Start) -> None:
    server = serving("--workers", "1", "--model", "latin", "--model", DEFAULT_INT8)
    listed = httpx.get(f"{server.url}/v1/models").json()["models"]
    assert [model["name"] for model in listed] == ["latin", "latin.int8"]
    for name, file in (("latin", DEFAULT), ("latin.int8", DEFAULT_INT8)):
        answer = read(server, params={"model": name}, files=parts(*EXAMPLES)).json()
        assert answer["model"] == name
        expected = Recognizer(file).read(EXAMPLES)
        found = [(one["text"], one["confidence"]) for one in answer["results"]]
        assert found == [(text.text, text.confidence) for text in expected]


def test_decoding_that_the_model_holds_is_that_of_infer(serving: Start, tmp_path: Path) -> None:
    """A beam search with alternatives, kept in the file by `set-decoding`."""
    file = tmp_path / "latin.onnx"
    command = [sys.executable, "-m", "crnn_deploy", "set-decoding", str(DEFAULT), "--decoder", "beam"]
    subprocess.run([*command, "--nbest", "2", "-o", str(file)], check=True, capture_output=True)
    server = serving("--workers", "1", "--model", file)
    unsure = EXAMPLES[1:]  # the first one is read so surely that no beam finds a second text
    answer = read(server, files=parts(*unsure)).json()
    assert answer["results"] == inferred("--model", str(file), images=unsure)
    assert all(len(one["alternatives"]) == 2 for one in answer["results"])


def test_an_unknown_model_is_told_of_in_a_short_line(serving: Start, tmp_path: Path) -> None:
    files = [tmp_path / f"{at}{'m' * 180}.onnx" for at in range(3)]
    for file in files:
        file.symlink_to(DEFAULT)
    server = serving("--workers", "1", *(word for file in files for word in ("--model", file)))
    detail = read(server, params={"model": "x" * 1000}, files=parts(EXAMPLES[0])).json()["detail"]
    assert "served are 0mm" in detail and len(detail) < 500


def test_the_openapi_document_names_all_options(server: Served) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    operation = document["paths"]["/v1/read"]["post"]
    assert {"model", "decoder", "hotwords", "rotate"} <= {one["name"] for one in operation["parameters"]}
    assert set(operation["requestBody"]["content"]) >= {
        "multipart/form-data",
        "application/json",
        "image/png",
    }


def test_the_examples_of_the_openapi_document_are_some(server: Served) -> None:
    operation = httpx.get(f"{server.url}/openapi.json").json()["paths"]["/v1/read"]["post"]
    given = operation["requestBody"]["content"]["application/json"]["examples"]
    shown = operation["responses"]["200"]["content"]["application/json"]["examples"]
    assert given.keys() == shown.keys() == {"images", "boxes"}
    for name, example in given.items():
        answer = read(server, json=example["value"]).json()
        [result], [expected] = answer["results"], shown[name]["value"]["results"]
        sure = expected.pop("confidence")  # to the last bits, CPUs differ
        assert result.pop("confidence") == pytest.approx(sure, abs=1e-5)
        assert {key: value for key, value in result.items() if value is not None} == {
            key: value for key, value in expected.items() if value is not None
        }
        assert answer.keys() == shown[name]["value"].keys()


def test_more_images_than_the_queue_holds_are_refused_and_the_rest_is_read(serving: Start) -> None:
    server = serving("--workers", "1", "--queue", "2", "--max-request-images", "4")
    assert read(server, files=parts(*EXAMPLES[:1]) * 2).status_code == 200
    never = read(server, files=parts(*EXAMPLES[:1]) * 3)
    assert never.status_code == 413 and "the queue has" in never.json()["detail"]
    many = read(server, files=parts(*EXAMPLES[:1]) * 5)
    assert many.status_code == 413 and "more than 4 images in a request" in many.json()["detail"]
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.extend(read(server, files=parts(*EXAMPLES[:1]) * 2) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
            assert "places of the queue are taken" in answer.json()["detail"]
        else:
            assert [one["text"] for one in answer.json()["results"]] == ["Printed", "Printed"]


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_a_model_that_changes_takes_the_place_of_the_old_one(serving: Start, tmp_path: Path) -> None:
    file = tmp_path / "words.onnx"
    shutil.copy(DEFAULT, file)
    server = serving("--workers", "1", "--model", file)

    def digest() -> str:
        answer = read(server, files=parts(EXAMPLES[0])).json()
        assert answer["results"][0]["text"] == "Printed"
        return str(answer["digest"])

    before = digest()
    file.write_bytes(b"half of a model")
    assert wait_for(lambda: any("a changed model is not taken" in line for line in server.lines))
    assert digest() == before
    new = tmp_path / "new"
    shutil.copy(DEFAULT_INT8, new)
    new.replace(file)
    assert wait_for(lambda: digest() != before)


def test_a_body_that_comes_while_the_model_is_swapped_is_read_by_the_new_one(
    serving: Start, tmp_path: Path
) -> None:
    file = tmp_path / "words.onnx"
    shutil.copy(DEFAULT, file)
    server = serving("--workers", "1", "--model", file)
    before = read(server, files=parts(EXAMPLES[0])).json()["digest"]
    image = EXAMPLES[0].read_bytes()
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/read HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nConnection: close\r\n"
        f"Content-Length: {len(image)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(head.encode() + image[:100])
        new = tmp_path / "new"
        shutil.copy(DEFAULT_INT8, new)
        new.replace(file)
        assert wait_for(lambda: read(server, files=parts(EXAMPLES[0])).json()["digest"] != before)
        connection.sendall(image[100:])
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body["results"][0]["text"] == "Printed" and body["digest"] != before


def test_what_was_accepted_is_answered_before_the_server_ends(serving: Start) -> None:
    server = serving("--workers", "1")
    statuses: list[int] = []
    image = parts(EXAMPLES[0])
    begun = threading.Barrier(9)

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            client.get(f"{server.url}/v2/health/ready")
            begun.wait()
            statuses.append(client.post(f"{server.url}/v1/read", files=image * 40).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.wait()
    time.sleep(0.15)  # the requests are there, and not all of them are read
    assert server.stop() == 0, server.lines
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8


def test_a_signal_to_all_processes_ends_the_server_in_good_order(serving: Start) -> None:
    """As systemd and `timeout` send it."""
    server = serving("--workers", "2")
    for pid in (server.process.pid, *server.workers()):
        os.kill(pid, signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert not any("another takes its place" in line for line in server.lines), server.lines


def test_a_job_in_the_background_ignores_ctrl_c(serving: Start) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a script's `command &`
    try:
        server = serving("--workers", "2")
    finally:
        signal.signal(signal.SIGINT, before)
    workers = server.workers()
    for pid in (server.process.pid, *workers):
        os.kill(pid, signal.SIGINT)
    time.sleep(1.5)
    assert server.workers() == workers, server.lines
    assert read(server, files=parts(EXAMPLES[0])).status_code == 200


def test_a_worker_that_is_killed_is_replaced(serving: Start) -> None:
    server = serving("--workers", "2")
    killed, left = server.workers()
    os.kill(killed, signal.SIGKILL)
    assert wait_for(lambda: len(server.workers()) == 2 and killed not in server.workers())
    assert left in server.workers()
    assert all(read(server, files=parts(EXAMPLES[0])).status_code == 200 for _ in range(4))
    assert any(f"worker {killed} ended (signal 9)" in line for line in server.lines)


def test_a_worker_that_cannot_begin_again_ends_no_other(serving: Start, tmp_path: Path) -> None:
    file = tmp_path / "plates.onnx"
    shutil.copy(DEFAULT, file)
    server = serving("--model", file, "--workers", "2")
    file.write_bytes(b"no model")
    os.kill(server.workers()[0], signal.SIGKILL)
    said = "a worker cannot begin: "
    assert wait_for(lambda: any(said in line and "plates.onnx" in line for line in server.lines))
    assert read(server, files=parts(EXAMPLES[0])).json()["results"][0]["text"] == "Printed"
    shutil.copy(DEFAULT, file)
    assert server.process.poll() is None and server.stop() == 0


def test_a_model_whose_file_name_is_no_utf_8_is_served(serving: Start, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"pl\xfftes.onnx")
    shutil.copy(DEFAULT, file)
    server = serving("--model", file, "--workers", "1")
    address = f"{server.url}/v1/read?model=pl%EF%BF%BDtes"
    assert httpx.post(address, files=parts(EXAMPLES[0])).json()["model"] == "pl\ufffdtes"
    assert 'model="pl\ufffdtes"' in httpx.get(f"{server.url}/metrics").text


@pytest.mark.parametrize("path", ["/", "/v2/health/live", "/v2/health/ready"])
def test_load_balancers_may_ask_by_head(server: Served, path: str) -> None:
    answer = httpx.head(f"{server.url}{path}")
    assert answer.status_code == 200 and not answer.content


def test_workers_do_not_outlive_the_process_that_watches_them(serving: Start) -> None:
    server = serving("--workers", "2")
    workers = server.workers()
    server.process.kill()

    def gone(pid: int) -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rsplit(") ", 1)[1].startswith("Z")

    assert wait_for(lambda: all(map(gone, workers)))


def failing(*options: str | Path) -> str:
    """The error of a server that cannot begin."""
    command = [sys.executable, "-m", "crnn_deploy", "serve", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_a_server_that_cannot_begin_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    assert "broken.onnx" in failing("--model", broken, "--port", "0")
    assert "no model file" in failing("--model", tmp_path / "absent.onnx", "--port", "0")
    folder = tmp_path / "crops.onnx"
    folder.mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    for options in ((), ("--backend", "auto"), ("--precision", "int8")):
        said = failing("--model", folder, "--port", "0", *options)
        assert said.startswith(f"Error: {folder} is a folder; give an .onnx") and said.count("\n") == 1
    assert failing("--model", tmp_path / "pipe.onnx", "--port", "0").startswith("Error: no model file at ")
    again = ("--model", DEFAULT, "--model", DEFAULT, "--port", "0")
    assert "two models would be served as latin" in failing(*again)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in failing("--port", port)
    assert "--host is empty" in failing("--host", "")
    assert "leave one out" in failing("--no-token", "--token-file", broken)
