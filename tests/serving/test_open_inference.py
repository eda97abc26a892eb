"""The Open Inference Protocol of a real server, spoken by tritonclient, which knows nothing of this one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from served import Served
from tritonclient.utils import InferenceServerException

from crnn_deploy import CrnnDeployError, Recognizer, __version__
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.runtime.decoding.build import decoder_of

IMAGES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))
FILES = [path.read_bytes() for path in IMAGES]


@pytest.fixture(scope="module")
def own() -> Iterator[Served]:
    pytest.importorskip("fastapi")
    served = Served("--max-request-images", "40", "--max-bytes", "1000000", "--workers", "1")
    yield served
    assert served.stop() == 0, served.lines


@pytest.fixture(scope="module")
def client(own: Served) -> Iterator[Any]:
    with triton.InferenceServerClient(own.url.removeprefix("http://"), concurrency=8) as client:
        yield client


@pytest.fixture(scope="module")
def expected() -> list[tuple[str, float]]:
    return [(text.text, text.confidence) for text in Recognizer().read(FILES)]


def images(files: list[Any], *, binary: bool = True, column: bool = False) -> list[Any]:
    """The input of a request."""
    array = np.empty((len(files), 1) if column else len(files), object)
    array.ravel()[:] = files if binary else [base64.b64encode(one) for one in files]
    tensor = triton.InferInput("image", list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return [tensor]


def wanted(*names: str, binary: bool) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def texts(result: Any) -> list[tuple[str, float]]:
    read = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("text").ravel()]
    return list(zip(read, result.as_numpy("confidence").ravel().tolist(), strict=True))


def test_a_server_says_what_it_is(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata() == {
        "name": "crnn-deploy",
        "version": __version__,
        "extensions": ["binary_tensor_data", "parameters"],
    }
    for version in ("", "1"):
        assert client.is_model_ready("latin", version)
        assert client.get_model_metadata("latin", version) == {
            "name": "latin",
            "versions": ["1"],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "text", "datatype": "BYTES", "shape": [-1]},
                {"name": "confidence", "datatype": "FP64", "shape": [-1]},
                {"name": "error", "datatype": "BYTES", "shape": [-1]},
            ],
        }
    assert not client.is_model_ready("absent") and not client.is_model_ready("latin", "2")


@pytest.mark.parametrize("column", [False, True], ids=["row", "column"])
@pytest.mark.parametrize("binary_out", [False, True], ids=["to JSON", "to binary"])
@pytest.mark.parametrize("binary_in", [False, True], ids=["JSON", "binary"])
def test_the_texts_are_those_of_a_recogniser(
    client: Any, expected: list[tuple[str, float]], binary_in: bool, binary_out: bool, column: bool
) -> None:
    outputs = wanted("text", "confidence", binary=binary_out)
    for version in ("", "1"):
        given = images(FILES, binary=binary_in, column=column)
        result = client.infer("latin", given, version, outputs=outputs, request_id="a-7")
        assert texts(result) == expected  # confidences to the last bit
        assert result.as_numpy("text").shape == ((12, 1) if column else (12,))
        assert result.as_numpy("error") is None  # was not asked for
        answer = result.get_response()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a-7", "latin", "1")


def test_requests_at_the_same_time_are_each_answered(client: Any, expected: list[tuple[str, float]]) -> None:
    pending = [client.async_infer("latin", images([FILES[at % 12]])) for at in range(100)]
    assert [texts(one.get_result()) for one in pending] == [[expected[at % 12]] for at in range(100)]


def test_an_image_that_cannot_be_read_costs_no_other(client: Any, expected: list[tuple[str, float]]) -> None:
    broken = [b"rubbish", FILES[0], b"", FILES[1][:200]]
    result = client.infer("latin", images(broken))
    assert texts(result) == [("", 0.0), expected[0], ("", 0.0), ("", 0.0)]
    assert [one.decode() for one in result.as_numpy("error")] == [
        "image 1: not an image (PNG, JPEG, WebP, BMP, TIFF, GIF, PNM)",
        "",
        "image 3: empty file",
        "image 4: truncated PNG",
    ]


def test_parameters_are_the_options_of_reading(client: Any) -> None:
    rule = DecodingRule(decoder="beam", beam_width=5, hotwords=("Frinted", "a b"), boost=8.0)
    parameters = {"decoder": "beam", "beam_width": 5, "hotwords": "Frinted\na b", "boost": 8}
    result = client.infer("latin", images(FILES), parameters=parameters)
    read = Recognizer(decoder=decoder_of(rule)).read(FILES)
    assert texts(result) == [(text.text, text.confidence) for text in read]
    result = client.infer("latin", images(FILES), parameters={"rotate": "180"})
    assert texts(result) == [(text.text, text.confidence) for text in Recognizer(rotate="180").read(FILES)]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "another model": ({"model_name": "absent"}, "404", "no model is called 'absent'; served are latin"),
    "another version": ({"model_version": "2"}, "404", "latin has no version '2', but 1 alone"),
    "another output": ({"outputs": wanted("logits", binary=True)}, "400", "there is no output 'logits'"),
    "another input": ({"inputs": [triton.InferInput("x", [1], "BYTES")]}, "400", "there is no input 'x'"),
    "an option's value": ({"parameters": {"decoder": "best"}}, "422", "decoder='best'"),
    "an unknown option": (
        {"parameters": {"beam": 3}},
        "400",
        "there is no parameter 'beam' (did you mean beam_width?); there are decoder",
    ),
    "an option of reading alone": (
        {"parameters": {"nbest": 3}},
        "400",
        "nbest has no output in this protocol; use POST /v1/read",
    ),
    "a priority": ({"priority": 1}, "400", "there is no parameter 'priority'"),
    "a sequence": ({"sequence_id": 1}, "400", "there is no parameter 'sequence"),
    "many images": ({"inputs": images(FILES * 4)}, "400", "48 images are more than the limit of 40"),
    "many bytes": ({"inputs": images([b"x" * 1_000_000])}, "413", "more than 1,000,000 bytes"),
    "gzip": ({"request_compression_algorithm": "gzip"}, "415", "Content-Encoding gzip is not read"),
    "deflate": ({"request_compression_algorithm": "deflate"}, "415", "Content-Encoding deflate is not read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said_in_a_line(client: Any, name: str) -> None:
    given, status, said = REFUSED[name]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(**{"model_name": "latin", "inputs": images(FILES[:1]), **given})
    assert caught.value.status() == status
    assert said in caught.value.message() and "\n" not in caught.value.message()


def test_an_answer_may_be_asked_for_compressed(client: Any, expected: list[tuple[str, float]]) -> None:
    result = client.infer("latin", images(FILES), response_compression_algorithm="gzip")
    assert texts(result) == expected


def test_what_is_no_request_gets_an_error_of_this_protocol(own: Served) -> None:
    with httpx.Client(base_url=own.url) as http:
        infer = "/v2/models/latin/infer"
        for method, path, body, status in (
            ("POST", infer, b"", 400),
            ("POST", infer, b"{", 400),
            ("POST", infer, b"[" * 900_000, 400),
            ("POST", infer, b"\x89PNG", 400),
            ("GET", infer, b"", 405),
            ("GET", "/v2/models/latin/config", b"", 404),
            ("GET", "/v2/models/absent", b"", 404),
            ("GET", "/v2/models/absent/ready", b"", 404),
            ("POST", "/v2/repository/index", b"{}", 404),
            ("DELETE", "/v2", b"", 405),
        ):
            answer = http.request(method, path, content=body)
            assert answer.status_code == status, (path, answer.text)
            assert answer.headers["Content-Type"] == "application/json"
            [(key, line)] = answer.json().items()
            assert key == "error" and line and "\n" not in line


def test_an_image_is_read_once_however_the_request_is_written(own: Served) -> None:
    data = base64.b64encode(FILES[0]).decode()
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [data]}
    plain = httpx.post(f"{own.url}/v2/models/latin/infer", content=json.dumps({"inputs": [tensor]}))
    assert plain.headers["Content-Type"] == "application/json"
    assert "Inference-Header-Content-Length" not in plain.headers
    [text, confidence, error] = plain.json()["outputs"]
    [read] = Recognizer().try_read(FILES[:1])
    assert not isinstance(read, CrnnDeployError)
    assert (text["data"], confidence["data"], error["data"]) == ([read.text], [read.confidence], [""])
