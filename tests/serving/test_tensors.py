"""Bodies of the Open Inference Protocol: read back by tritonclient, and every broken one gives one line."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.serving.tensors import (
    OUTPUTS,
    InferenceRequest,
    TensorsInvalid,
    encode_response,
    parse_request,
)

MOST = 8
IMAGES = st.lists(st.binary(max_size=40), min_size=1, max_size=MOST)


def triton_body(images: Sequence[bytes], column: bool = False, **options: Any) -> tuple[bytes, str | None]:
    """A request as tritonclient writes it, and its header."""
    array = np.empty((len(images), 1) if column else len(images), object)
    array.ravel()[:] = images
    tensor = triton.InferInput("image", list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array)
    body, length = triton.InferenceServerClient.generate_request_body([tensor], **options)
    return body, None if length is None else str(length)


def json_body(images: Sequence[bytes], **more: Any) -> bytes:
    data = [base64.b64encode(image).decode() for image in images]
    tensor = {"name": "image", "shape": [len(images)], "datatype": "BYTES", "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def refused(body: bytes, header: str | None = None) -> str:
    with pytest.raises(TensorsInvalid) as caught:
        parse_request(body, header, max_images=MOST)
    line = str(caught.value)
    assert line and "\n" not in line and len(line) < 400
    return line


@given(IMAGES, st.booleans(), st.text("abc1", max_size=5))
def test_what_tritonclient_writes_is_read(images: list[bytes], column: bool, name: str) -> None:
    body, header = triton_body(images, column, request_id=name, parameters={"decoder": "beam", "boost": 2})
    found = parse_request(body, header, max_images=MOST)
    assert found.images == images
    assert found.shape == ((len(images), 1) if column else (len(images),))
    assert found.id == (name or None)
    assert found.parameters == {"decoder": "beam", "boost": 2}
    assert found.outputs == dict.fromkeys(OUTPUTS, True)  # it asks for binary data where it names no output


@given(IMAGES)
def test_json_holds_base64(images: list[bytes]) -> None:
    found = parse_request(json_body(images), None, max_images=MOST)
    assert found.images == images and found.id is None and found.parameters == {}
    assert found.outputs == dict.fromkeys(OUTPUTS, False)
    rows = [[base64.b64encode(image).decode()] for image in images]
    tensor = {"name": "image", "shape": [len(images), 1], "datatype": "BYTES", "data": rows}
    assert parse_request(json.dumps({"inputs": [tensor]}).encode(), None, max_images=MOST).images == images


@given(
    st.lists(
        st.tuples(st.text('aZ9 \u00e4\u6c49\U0001f600"\\\n\0'), st.floats(0, 1), st.text("xyz ")),
        min_size=1,
        max_size=MOST,
    ),
    st.lists(st.sampled_from(sorted(OUTPUTS)), min_size=1, unique=True),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_tritonclient_reads_what_is_answered(
    rows: list[tuple[str, float, str]], names: list[str], binary: list[bool]
) -> None:
    request = InferenceRequest(
        [b""] * len(rows), (len(rows),), "7", {}, dict(zip(names, binary, strict=False))
    )
    values: dict[str, list[Any]] = dict(zip(OUTPUTS, map(list, zip(*rows, strict=True)), strict=True))
    body, length = encode_response("latin", "1", request, values)
    assert (length is None) == (not any(binary[: len(names)]))
    result = triton.InferResult.from_response_body(body, header_length=length)
    assert {key: result.get_response()[key] for key in ("id", "model_name", "model_version")} == {
        "id": "7",
        "model_name": "latin",
        "model_version": "1",
    }
    for name in OUTPUTS:
        found = result.as_numpy(name)
        if name not in names:
            assert found is None
        elif name == "confidence":
            assert found.dtype == np.float64 and found.tolist() == values[name]
        else:
            texts = [one.decode() if isinstance(one, bytes) else one for one in found]
            assert texts == values[name]


def test_outputs_say_for_themselves_whether_they_are_binary() -> None:
    outputs = [
        {"name": "confidence", "parameters": {"binary_data": False}},
        {"name": "text"},
        {"name": "error", "parameters": {"binary_data": True}},
    ]
    for all_binary in (False, True):
        body = json_body([b"x"], outputs=outputs, parameters={"binary_data_output": all_binary})
        found = parse_request(body, None, max_images=MOST).outputs
        assert list(found.items()) == [("confidence", False), ("text", all_binary), ("error", True)]


TENSOR = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGk="]}
BROKEN: dict[str, tuple[Any, str]] = {
    "no inputs": ({}, "inputs: field required"),
    "not an object": ([], "the inference request: input should be an object"),
    "an empty list": ({"inputs": []}, "must have the input image once; it has it 0 times"),
    "twice": ({"inputs": [TENSOR, TENSOR]}, "once; it has it 2 times"),
    "another input": ({"inputs": [TENSOR | {"name": "x" * 999}]}, "no input 'xxx.*the only one is image"),
    "another type": ({"inputs": [TENSOR | {"datatype": "FP32"}]}, "is FP32; it must be BYTES"),
    "no shape": ({"inputs": [TENSOR | {"shape": []}]}, r"the shape \[\]; it must be \[N\]"),
    "of zero": ({"inputs": [TENSOR | {"shape": [0], "data": []}]}, "N at least 1"),
    "negative": ({"inputs": [TENSOR | {"shape": [-1]}]}, "N at least 1"),
    "two axes": ({"inputs": [TENSOR | {"shape": [1, 2]}]}, r"\[N, 1\]"),
    "a huge axis": ({"inputs": [TENSOR | {"shape": [10**30]}]}, "more than the limit of 8|shape"),
    "a fraction": ({"inputs": [TENSOR | {"shape": [1.5]}]}, "inputs.0.shape.0"),
    "many": (
        {"inputs": [TENSOR | {"shape": [9], "data": ["aGk="] * 9}]},
        "9 images are more than the limit of 8",
    ),
    "too few": ({"inputs": [TENSOR | {"shape": [2]}]}, "has 1 elements, but its shape says 2"),
    "a number": ({"inputs": [TENSOR | {"data": [1]}]}, "element 0 of image is not text"),
    "a text": ({"inputs": [TENSOR | {"data": ["h\u00e4"]}]}, "element 0 of image is not base64"),
    "no data": (
        {"inputs": [{k: v for k, v in TENSOR.items() if k != "data"}]},
        "neither data nor binary_data_size",
    ),
    "shared memory": (
        {"inputs": [TENSOR | {"parameters": {"shared_memory_region": "a"}}]},
        "shared_memory_region in the inference request is not known here; leave it out",
    ),
    "no header": (
        {"inputs": [TENSOR | {"parameters": {"binary_data_size": 4}}]},
        "no header Inference-Header",
    ),
    "a list": ({"inputs": [TENSOR], "parameters": {"a": [1]}}, "parameter a must be a text, a number"),
    "binary of 1": ({"inputs": [TENSOR], "parameters": {"binary_data_output": 1}}, "must be true or false"),
    "another output": (
        {"inputs": [TENSOR], "outputs": [{"name": "logits"}]},
        "no output 'logits'; there are text",
    ),
    "an output twice": ({"inputs": [TENSOR], "outputs": [{"name": "text"}] * 2}, "text is asked for twice"),
    "classes": (
        {"inputs": [TENSOR], "outputs": [{"name": "text", "parameters": {"classification": 2}}]},
        "classification in the inference request is not known here",
    ),
    "a long id": ({"inputs": [TENSOR], "id": "x" * 2000}, "id: string should have at most 1024"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said(name: str) -> None:
    value, said = BROKEN[name]
    line = refused(json.dumps(value).encode())
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not the JSON of an inference request"),
        (b"\x89PNG", "not the JSON"),
        (b"[" * 100, "not the JSON"),
        (b"[" * 2**24, "too many values"),
        (b'{"inputs":[' + b"1," * 2**22, "too many values"),
        (b'{"id":"\\ud800"}', "not the JSON"),
        (b'{"parameters":{"a":' + b"9" * 5000 + b"}}", "not the JSON"),
    ],
)
def test_json_is_bounded_before_it_is_parsed(body: bytes, said: str) -> None:
    assert said in refused(body)


def test_lengths_of_binary_data_must_add_up() -> None:
    body, header = triton_body([b"one", b"three"])
    assert header is not None
    assert "binary_data_size of image is 16, but 17 bytes" in refused(body + b"x", header)
    assert "but 15 bytes follow" in refused(body[:-1], header)
    assert "must be the bytes of the JSON" in refused(body, "-1")
    assert "must be the bytes of the JSON" in refused(body, "\u0663")
    assert "but the body has" in refused(body, "9" * 19)
    at = int(header)
    assert "element 0 of image goes beyond" in refused(body[:at] + b"\xff" * 4 + body[at + 4 :], header)
    two = body[:at] + b"\3\0\0\0one" + b"\4\0\0\0thre" + b"x"
    assert "element 2 of image goes beyond" in refused(two.replace(b"[2]", b"[3]"), header)
    assert "goes on after its 1 elements" in refused(body.replace(b"[2]", b"[1]"), header)
    assert "has 2 elements, but its shape says 3" in refused(body.replace(b"[2]", b"[3]"), header)
    extra = json_body([b"x"])
    assert "3 bytes follow the JSON, but no input says binary_data_size" in refused(
        extra + b"abc", str(len(extra))
    )


@settings(max_examples=300)
@given(IMAGES, st.data())
def test_a_mutated_body_is_read_or_refused_in_a_line(images: list[bytes], data: st.DataObject) -> None:
    body, header = triton_body(images) if data.draw(st.booleans()) else (json_body(images), None)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        match data.draw(st.sampled_from(["cut", "byte", "insert", "drop"])):
            case "cut":
                del changed[at:]
            case "byte" if at < len(changed):
                changed[at] = data.draw(st.integers(0, 255))
            case "insert":
                changed[at:at] = data.draw(
                    st.binary(max_size=8) | st.sampled_from([b"[", b'"', b"{", b"9" * 30])
                )
            case _:
                del changed[at : at + data.draw(st.integers(1, 9))]
    if data.draw(st.booleans()):
        header = data.draw(
            st.none() | st.text("0123456789- x\u0663", max_size=5) | st.integers(-5, 500).map(str)
        )
    try:
        found = parse_request(bytes(changed), header, max_images=MOST)
    except TensorsInvalid as error:
        assert "\n" not in str(error) and len(str(error)) < 400
    else:
        assert 1 <= len(found.images) <= MOST and sum(map(len, found.images)) <= len(changed)
