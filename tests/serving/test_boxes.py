"""Boxes of pages by `POST /v1/read`: the texts of `Recognizer.read_regions`, limits, and what is no box."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("onnxruntime")

import httpx
from drawn_pages import example_page
from served import Served

from crnn_deploy import Recognizer, Text
from crnn_deploy.regions.region import Region

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))
PIXELS, QUADS = example_page()
PAGE = cv2.imencode(".png", PIXELS)[1].tobytes()
SHIFTED = [[[x + 0.3, y + 0.7] for x, y in quad] for quad in QUADS]
# longer lists of points: those of a quadrilateral and the middles of its sides
OUTLINES = [
    [point for at in range(4) for point in (quad[at], np.mean([quad[at], quad[at - 3]], axis=0).tolist())]
    for quad in SHIFTED
]
BOXES = [*map(list, QUADS), *SHIFTED, *OUTLINES]
CROSSED = [[0, 0], [40, 40], [40, 0], [0, 40]]
AWAY = [[900, 900], [950, 900], [950, 950]]


def read(server: Served, **arguments: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/read", timeout=60, **arguments)


def image(boxes: Any = None, data: bytes = PAGE, **more: Any) -> dict[str, Any]:
    """An image of a body of JSON."""
    given = {"name": "page.png", "data": base64.b64encode(data).decode(), **more}
    return given if boxes is None else {**given, "boxes": boxes}


def page_parts(boxes: Any, data: bytes = PAGE) -> list[tuple[str, Any]]:
    """A page and its boxes as parts of a form."""
    content = boxes if isinstance(boxes, str | bytes) else json.dumps(boxes)
    return [("images", ("page.png", data)), ("boxes", (None, content))]


def found(results: Sequence[dict[str, Any]]) -> list[tuple[str, float | None]]:
    return [(one["text"], one["confidence"]) for one in results]


def expected(boxes: Sequence[Any], **settings: Any) -> list[tuple[str, float | None]]:
    return [(text.text, text.confidence) for text in Recognizer(**settings).read_regions(PAGE, boxes)]


def test_boxes_give_the_texts_of_a_recognizer(server: Served) -> None:
    texts = expected(BOXES)
    # the points of the outlines do not stand across in pairs, so nothing sensible is cut out there
    assert [text for text, _ in texts[:6]] == 2 * ["Printed", "Grüße aus Köln", "€ 1,299.00"]
    for answer in (read(server, json={"images": [image(BOXES)]}), read(server, files=page_parts(BOXES))):
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
        assert found(results) == texts  # every bit
        assert [one["box"] for one in results] == list(range(len(BOXES)))
        assert [one["polygon"] for one in results] == json.loads(json.dumps(BOXES))
        assert {one["name"] for one in results} == {"page.png"}
        assert list(results[0]) == ["name", "box", "text", "confidence", "status", "error", "polygon"]


def test_boxes_without_an_order_and_boxes_in_turns(server: Served) -> None:
    turned = [box[2:] + box[:2] for box in map(list, SHIFTED)]
    regions = [Region(tuple((x, y) for x, y in box), ordered=False) for box in turned]
    answer = read(server, json={"images": [image(turned, ordered=False)]}).json()
    assert found(answer["results"]) == expected(regions) == expected(SHIFTED) != expected(turned)
    answer = read(server, params={"rotate": "180", "chars": "true"}, json={"images": [image(turned)]}).json()
    assert found(answer["results"]) == expected(turned, rotate="180")
    assert {one["rotated"] for one in answer["results"]} == {180}
    assert all(one["chars"] for one in answer["results"])


def test_pages_and_whole_images_stand_in_one_request(server: Served) -> None:
    lone = EXAMPLES[0].read_bytes()
    plain = read(server, json={"images": [image(data=lone)]}).json()["results"]
    given = [image(QUADS), image(data=lone), image([]), image(QUADS[:1])]
    results = read(server, json={"images": given}).json()["results"]
    assert found(results) == [*expected(QUADS), *found(plain), *expected(QUADS[:1])]
    assert [one["box"] for one in results] == [0, 1, 2, None, 0]
    assert results[3] == {**plain[0], "box": None, "polygon": None}
    parts = [*page_parts(QUADS), ("images", ("page.png", lone)), *page_parts(QUADS[:1])]
    assert read(server, files=parts).json()["results"] == results


def test_an_answer_without_boxes_is_what_it_was(server: Served) -> None:
    """Byte for byte, but for the two times."""
    bad = {"name": "a", "data": "?"}
    given = read(server, json={"images": [bad, image(data=EXAMPLES[0].read_bytes())]})
    text, digest = Recognizer().read(EXAMPLES[0]), given.json()["digest"]
    error = "a: its data is not base64"
    results = (
        f'[{{"name": "a", "text": "", "confidence": null, "status": "error", "error": "{error}"}}, '
        f'{{"name": "page.png", "text": "{text.text}", "confidence": {text.confidence!r}, "status": "ok", '
        '"error": null}]'
    )
    times = r'"milliseconds": \{"queued": [\d.]+, "total": [\d.]+\}\}'
    begin = re.escape(f'{{"model": "latin", "digest": "{digest}", "results": {results}, ')
    assert re.fullmatch(begin + times, given.text)


def test_a_bad_box_fails_no_other(server: Served) -> None:
    answer = read(server, json={"images": [image([QUADS[0], CROSSED, AWAY, [], QUADS[1]])]})
    first, crossed, away, empty, last = answer.json()["results"]
    assert found([first, last]) == expected(QUADS[:2])
    assert [one["error"] for one in (crossed, away, empty)] == [
        "page.png: box 1 crosses itself",
        f"page.png: box 2 lies outside the page of {PIXELS.shape[1]} x {PIXELS.shape[0]} pixels",
        "page.png: box 3 has no points",
    ]
    assert (crossed["polygon"], empty["polygon"], away["status"]) == (CROSSED, [], "error")


def test_a_page_that_cannot_be_read_is_an_error_of_each_box(server: Served) -> None:
    given = [image(QUADS[:2], data=b"nonsense"), {**image(QUADS[:1]), "data": "?"}, image(QUADS[:1])]
    results = read(server, json={"images": given}).json()["results"]
    assert [one["status"] for one in results] == ["error"] * 3 + ["ok"]
    assert results[0]["error"] == results[1]["error"] and "not an image" in results[0]["error"]
    assert results[2]["error"] == "page.png: its data is not base64"
    answer = read(server, json={"images": [image([CROSSED])]})
    assert answer.status_code == 422 and answer.json()["results"][0]["polygon"] == CROSSED


POINT = [[0, 0]]
BAD_BOXES: dict[str, tuple[str, int, str]] = {
    "no list": ("3", 400, ": no list of boxes"),
    "text": ('"[[0,0]]"', 400, ": no list of boxes"),
    "an object": ("{}", 400, ": no list of boxes"),
    "numbers": ("[1,2,3]", 400, "[0]: it is not a list of points"),
    "numbers for points": ("[[1,2,3]]", 400, "[0][0]: it is not a point of two numbers"),
    "three numbers": ("[[[0,0],[1,2,3]]]", 400, "[0][1]: it is not a point of two numbers"),
    "texts for numbers": ('[[["0",0]]]', 400, "[0][0]: it is not a point of two numbers"),
    "true": ("[[[true,0]]]", 400, "[0][0]: it is not a point of two numbers"),
    "null": ("[[[0,null]]]", 400, "[0][0]: it is not a point of two numbers"),
    "NaN": ("[[[NaN,0]]]", 400, "[0][0]: it is not a point of two numbers"),
    "1e400": ("[[[1e400,0]]]", 400, "[0][0]: it is not a point of two numbers"),
    "a long number": ("[[[" + "9" * 4000 + ",0]]]", 400, "[0][0]: it is not a point of two numbers"),
    "deep lists": ("[" * 10_000 + "]" * 10_000, 400, ""),
    "many points": (json.dumps([POINT * 1001]), 413, "more than 1,000 points"),
    "many boxes": (json.dumps([[]] * 257), 413, "more than 256 images and boxes"),
    "a million boxes": ("[" + "[]," * 1_000_000 + "[]]", 413, "than 256 "),
    "a million points": ("[[" + "[0,0]," * 1_000_000 + "[0,0]]]", 413, "than 256 "),
    "millions of objects": ("[" + "{}," * 3_000_000 + "{}]", 413, "than 256 "),
    "no boxes": ("[]", 422, "no image of the request has a box"),
}


@pytest.mark.parametrize("form", ["JSON", "multipart"])
@pytest.mark.parametrize("what", BAD_BOXES)
def test_what_are_no_boxes_is_refused_in_a_line(server: Served, what: str, form: str) -> None:
    boxes, status, said = BAD_BOXES[what]
    before = memory(server)
    if form == "JSON":
        body = json.dumps({"images": [image("BOXES", data=b"x")]}).replace('"BOXES"', boxes)
        answer = read(server, content=body.encode(), headers={"Content-Type": "application/json"})
    else:
        answer = read(server, files=page_parts(boxes, data=b"x"))
    assert answer.status_code == status, answer.text[:300]
    assert answer.headers["content-type"] == "application/problem+json"
    detail = answer.json()["detail"]
    assert said in detail and "\n" not in detail and len(detail) < 500
    assert form == "multipart" or status != 400 or not said or f"images[0].boxes{said}" in detail
    assert memory(server) - before < 2**27  # what a million small lists take, and half of it


def memory(server: Served) -> int:
    """Most bytes that the workers have had, together."""
    found = [
        re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in server.workers()
    ]
    return sum(int(one[1]) * 1024 for one in found if one is not None)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([("boxes", (None, "[]"))], "belongs right behind the part of its image"),
        ([*page_parts(QUADS), ("boxes", (None, "[]"))], "belongs right behind the part of its image"),
        (page_parts("[[[0,0]"), "the part 'boxes' of image 1 is no JSON"),
        (page_parts(b"\xff"), "the part 'boxes' of image 1 is no JSON"),
        ([*page_parts(QUADS), ("ordered", (None, "false"))], "the part 'ordered' has no file name"),
    ],
)
def test_a_part_of_boxes_that_has_no_place_is_refused(server: Served, parts: Any, said: str) -> None:
    answer = read(server, files=parts)
    assert answer.status_code in (400, 422) and said in answer.json()["detail"], answer.text


def test_each_box_counts_as_an_image(serving: Callable[..., Served]) -> None:
    server = serving("--workers", "1", "--queue", "3", "--max-request-images", "4")
    three = read(server, json={"images": [image(QUADS)]})
    assert found(three.json()["results"]) == expected(QUADS)
    never = read(server, json={"images": [image(QUADS), image()]})
    assert never.status_code == 413 and "the queue has places (3)" in never.json()["detail"]
    many = read(server, files=page_parts([QUADS[0]] * 5))
    assert many.status_code == 413
    assert "more than 4 images and boxes in a request, 5" in many.json()["detail"]
    long = read(server, files=page_parts([[[9, 9]] * 1000]))  # a lone box of as many points as it may have
    assert long.status_code == 422 and "box 0 has no area" in long.json()["detail"]
    counted = httpx.get(f"{server.url}/metrics").text
    assert 'images_total{model="latin",status="ok"} 3' in counted
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.lines if "/v1/read" in line]
    assert [line.get("images") for line in lines] == [3, None, None, 1]


def test_texts_of_boxes_are_the_same_while_others_are_read(server: Served) -> None:
    lone = EXAMPLES[3].read_bytes()
    text = Recognizer().read(lone)
    lone_text: list[tuple[str, float | None]] = [(text.text, text.confidence)]
    boxes, texts = BOXES * 20, expected(BOXES) * 20
    wrong: list[Any] = []

    def ask(at: int) -> None:
        for turn in range(4):
            if at % 2:
                answer = read(server, content=lone, headers={"Content-Type": "image/png"})
                good = lone_text
            else:
                answer, good = read(server, json={"images": [image(boxes[turn:])]}), texts[turn:]
            if answer.status_code != 503 and found(answer.json()["results"]) != good:
                wrong.append(answer.json())

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_page_is_decoded_once_for_all_of_its_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = Recognizer()
    decoded: list[Any] = []
    decode = cv2.imdecode

    def counted(*given: Any) -> Any:
        decoded.append(given)
        return decode(*given)

    monkeypatch.setattr(cv2, "imdecode", counted)
    prepared = recognizer.prepare_regions(PAGE, [Region(quad) for quad in QUADS], name="a.png")
    assert len(prepared) == len(QUADS) and len(decoded) == 1
    texts = recognizer.read_prepared(prepared)
    assert [(one.text, one.confidence) for one in texts if isinstance(one, Text)] == expected(QUADS)
    [last] = recognizer.prepare_regions(PAGE, [Region(())] * 3, name="a.png", first=2)
    assert str(last) == "a.png: box 2 has no points"
