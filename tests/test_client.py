"""The client reads by a real server what a Recognizer reads here, bit for bit, and bears faulty servers."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from drawn_pages import example_page
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from served import Served

from crnn_deploy import CrnnDeployError, Manifest, Recognizer, Text
from crnn_deploy.client import (
    AddressInvalid,
    AnswerInvalid,
    Client,
    ServerBusy,
    ServerRefused,
    ServerTooSlow,
    ServerUnreachable,
)
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import ReadFailed
from crnn_deploy.models import DEFAULT
from crnn_deploy.regions.region import Region
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.images.crop import RegionUnreadable

IMAGES = sorted((Path(__file__).parents[1] / "examples" / "images").glob("*.png"))
PICTURE = IMAGES[0]
BGR: Any = cv2.imread(str(PICTURE))


@pytest.fixture(scope="module")
def decoders_grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network with a manifest by which files become grey as OpenCV decodes them."""
    model = onnx.load(DEFAULT)
    for entry in model.metadata_props:
        if entry.key == "crnn_deploy.manifest":
            entry.value = replace(Manifest.from_json(entry.value), grey="decoder").to_json()
    path = tmp_path_factory.mktemp("grey") / "decoder.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def both(decoders_grey: Path) -> Iterator[Served]:
    pytest.importorskip("fastapi")
    served = Served("--model", "latin", "--model", decoders_grey, "--workers", "1")
    yield served
    assert served.stop() == 0, served.lines


@pytest.fixture(scope="module")
def pairs(both: Served, decoders_grey: Path) -> Sequence[tuple[Client, Recognizer]]:
    """A client and a recogniser of the same model, of each of two."""
    return [
        (Client(both.url, chars=True), Recognizer()),
        (Client(both.url, model="decoder", chars=True), Recognizer(decoders_grey)),
    ]


def comparable(result: object) -> object:
    """What must be the same of a text, or of an error."""
    return (type(result), str(result)) if isinstance(result, CrnnDeployError) else result


def lying(kind: str) -> bytes:
    """The picture on its side, and an EXIF that turns it."""
    image, exif, file = Image.fromarray(np.rot90(BGR)), Image.Exif(), io.BytesIO()
    exif[274] = 6
    image.save(file, kind, exif=exif)
    return file.getvalue()


def opened(kind: str) -> Image.Image:
    return Image.open(io.BytesIO(lying(kind)))


def of_mode(mode: str) -> Image.Image:
    image = Image.open(PICTURE).convert("RGB")
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    image = image.convert("RGBA") if mode in ("La", "RGBa") else image
    return image.convert("LA").convert("La") if mode == "La" else image.convert(mode)


ENCODED = {
    kind: cv2.imencode(kind, BGR)[1].tobytes() for kind in (".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm")
}
SOURCES: dict[str, Callable[[], Any]] = {
    "a text": lambda: str(PICTURE),
    "a path": lambda: PICTURE,
    **{f"bytes of {kind}": partial(bytes, data) for kind, data in ENCODED.items()},
    "a bytearray": lambda: bytearray(ENCODED[".png"]),
    "a memoryview": lambda: memoryview(ENCODED[".png"]),
    **{f"a {kind} turned by its EXIF": partial(lying, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF")},
    **{
        f"a Pillow image turned by the EXIF of a {kind}": partial(opened, kind)
        for kind in ("JPEG", "PNG", "TIFF")
    },
    **{
        f"a Pillow image of mode {mode}": partial(of_mode, mode)
        for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "La", "RGBa", "CMYK", "YCbCr", "I;16", "I", "F")
    },
    "no file": lambda: "absent.png",
    "a folder": lambda: PICTURE.parent,
    "an address": lambda: "http://127.0.0.1/a.png",
    "an empty path": lambda: "",
    "a NUL": lambda: "a\0b.png",
    "a name that is no text": lambda: b"\xff.png".decode(errors="surrogateescape"),
    "no bytes": lambda: b"",
    "other bytes": lambda: b"rubbish",
    "half a file": lambda: ENCODED[".png"][:300],
    "a corrupt file": lambda: ENCODED[".jpg"][:200] + b"\xff\xd9",
    "nothing": lambda: None,
    "a mapping": lambda: {"a": BGR},
    "floats": lambda: BGR / 255,
    "a stack": lambda: np.stack([BGR, BGR]),
    "no pixels": lambda: BGR[:0],
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_gives_what_a_recognizer_gives(
    pairs: Sequence[tuple[Client, Recognizer]], name: str, tmp_path: Path
) -> None:
    for client, recognizer in pairs:
        expected = recognizer.try_read(SOURCES[name]())
        assert comparable(client.try_read(SOURCES[name]())) == comparable(expected)
        assert comparable(*client.try_read([SOURCES[name]()])) == comparable(expected)
        if isinstance(expected, CrnnDeployError):
            with pytest.raises(type(expected)):
                client.read(SOURCES[name]())
            with pytest.raises(type(expected)):
                client.read([PICTURE, SOURCES[name]()])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_an_array_of_any_kind_gives_the_same_bits(
    pairs: Sequence[tuple[Client, Recognizer]], data: st.DataObject
) -> None:
    channels = data.draw(st.sampled_from([(), (1,), (2,), (3,), (4,)]))
    shape = (data.draw(st.integers(1, 70)), data.draw(st.integers(1, 200)), *channels)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    levels: Any = rng.integers(0, 65536, shape)
    kind = data.draw(st.sampled_from(["uint8", "uint16", "bool", "letters", "float32"]))
    if kind == "letters":  # smooth, as images are
        pixels: Any = cv2.resize(BGR, (shape[1], shape[0]))
        pixels = pixels if channels == (3,) else pixels[..., 0]
    else:
        pixels = (levels >> 8).astype(np.uint8) if kind == "uint8" else levels.astype(kind)
    for client, recognizer in pairs:
        assert comparable(client.try_read(pixels)) == comparable(recognizer.try_read(pixels))


def test_a_line_beyond_the_widest_webp_is_read_too(pairs: Sequence[tuple[Client, Recognizer]]) -> None:
    line = np.tile(BGR, (1, 120, 1))
    client, recognizer = pairs[0]
    assert line.shape[1] > 16_383
    assert client.read(line) == recognizer.read(line)


SEVERAL: dict[str, Callable[[], Any]] = {
    "a list": lambda: [PICTURE, BGR],
    "a generator": lambda: (one for one in (PICTURE, BGR)),
    "a deque": lambda: deque([PICTURE, BGR]),
    "an array of texts": lambda: np.array([str(PICTURE)] * 2),
    "nothing in it": lambda: [],
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_images_give_a_list(pairs: Sequence[tuple[Client, Recognizer]], name: str) -> None:
    client, recognizer = pairs[0]
    expected = recognizer.read(SEVERAL[name]())
    assert client.read(SEVERAL[name]()) == client.try_read(SEVERAL[name]()) == expected


def test_many_images_come_in_order_and_are_taken_as_they_are_sent(
    pairs: Sequence[tuple[Client, Recognizer]],
) -> None:
    client, recognizer = pairs[0]
    rng = np.random.default_rng(0)
    expected = [comparable(one) for one in recognizer.try_read([*IMAGES, b"rubbish", "absent.png"])]
    order = rng.integers(0, len(expected), 700)
    sources = [*IMAGES, b"rubbish", "absent.png"]
    results = client.try_read(sources[at] for at in order)
    assert [comparable(one) for one in results] == [expected[at] for at in order]


def test_settings_are_those_of_a_decoder_and_turns(both: Served) -> None:
    def recognizer(**rule: Any) -> Recognizer:
        return Recognizer(decoder=decoder_of(DecodingRule(**rule)))

    with Client(both.url, decoder="beam", nbest=3, chars=True) as client:
        expected = recognizer(decoder="beam", nbest=3).read(IMAGES)
        assert client.read(IMAGES) == expected
        assert all(text.alternatives and text.chars for text in expected if text.text)
    for settings_, other in (
        ({"allow": "0123456789", "max_length": 4}, recognizer(allow="0123456789", max_length=4)),
        (
            {"decoder": "beam", "hotwords": ("Frinted", "a b&c=d"), "boost": 8.0},
            recognizer(decoder="beam", hotwords=("Frinted", "a b&c=d"), boost=8.0),
        ),
        ({"rotate": "180"}, Recognizer(rotate="180")),
    ):
        found = Client(both.url, chars=True, **settings_).read(IMAGES)
        assert found == other.read(IMAGES)
    upside_down = cv2.rotate(BGR, cv2.ROTATE_180)
    assert Client(both.url, rotate="180").read(upside_down).rotated == 180
    assert Client(both.url).read(PICTURE).chars == ()


def test_a_text_that_may_not_be_is_an_error_of_its_image(both: Served) -> None:
    pattern = "[0-9]{200}"
    error = Client(both.url, pattern=pattern).try_read(PICTURE)
    expected = Recognizer(decoder=decoder_of(DecodingRule(pattern=pattern))).try_read(PICTURE)
    assert isinstance(expected, ReadFailed) and comparable(error) == comparable(expected)


def test_what_the_server_refuses_is_said(both: Served) -> None:
    for settings_, said in (
        ({"model": "absent"}, "answers 404: no model is called 'absent'; served are latin, decoder"),
        ({"nbest": 3}, "answers 422: nbest needs decoder=beam"),
        ({"pattern": "["}, "answers 422: the pattern"),
    ):
        with pytest.raises(ServerRefused) as caught:
            Client(both.url, **settings_).read(PICTURE)
        assert said in str(caught.value) and both.url in str(caught.value)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.status) == (str(caught.value), caught.value.status)
    with pytest.raises(
        TypeError, match=r"no setting 'beam' \(did you mean beam_width\?\); there are decoder"
    ):
        Client(both.url, beam=3)  # type: ignore[call-arg]


PAGE, QUADS = example_page()
REGIONS: list[Any] = [
    *QUADS,
    np.array(QUADS[0]) + 0.3,
    Region(QUADS[1][2:] + QUADS[1][:2], ordered=False),  # upside down, and it promises nothing
    Region((*QUADS[2][1:], (20.0, 144.0), QUADS[2][0], (90.0, 128.0)), ordered=False),
    [],
    [[0, 0], [9, 9], [9, 0], [0, 9]],
    [[np.nan, 0], [9, 0], [9, 9]],
    [[1e301, 0], [9, 0], [9, 9]],
    [[900, 900], [950, 900], [950, 950]],
]


@pytest.mark.parametrize("kind", ["a file", "an array", "a colour array", "bytes"])
def test_boxes_of_a_page_give_what_a_recognizer_gives(
    pairs: Sequence[tuple[Client, Recognizer]], kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "page.jpg"
    cv2.imwrite(str(file), PAGE)
    colour = np.stack([PAGE, PAGE // 2, PAGE], axis=2)
    page: Any = {"a file": file, "an array": PAGE, "a colour array": colour, "bytes": file.read_bytes()}[kind]
    # the decoder's grey of a colour array is made before boxes are cut out there, and behind that here
    for client, recognizer in pairs[:1] if kind == "a colour array" else pairs:
        wanted = recognizer.try_read_regions(page, REGIONS)
        assert [type(one) for one in wanted[:6]] == [Text] * 6 and wanted[4] == wanted[1]
        found = client.try_read_regions(page, iter(REGIONS))
        assert [comparable(one) for one in found] == [comparable(one) for one in wanted]
        assert client.read_regions(page, QUADS) == recognizer.read_regions(page, QUADS)
        with pytest.raises(RegionUnreadable, match="box 6 has no points"):
            client.read_regions(page, REGIONS)
        assert client.read_regions(page, []) == []


def test_more_boxes_than_a_server_takes_go_in_several_requests() -> None:
    pytest.importorskip("fastapi")
    served = Served("--workers", "1", "--max-request-images", "50", "--queue", "60")
    regions = [*REGIONS, QUADS[0] * 300] * 20  # a box of 1,200 points among them
    [*wanted] = map(comparable, Recognizer().try_read_regions(PAGE, regions))
    found = Client(served.url, chars=True).try_read_regions(PAGE, regions)
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if number % (len(REGIONS) + 1) == len(REGIONS):
            assert isinstance(one, CrnnDeployError) and f"box {number}" in str(one)
        else:
            assert comparable(one) == other
    assert served.stop() == 0, served.lines


@pytest.mark.parametrize("page", [b"rubbish", "absent.png", None, ENCODED[".jpg"][:200] + b"\xff\xd9"])
@pytest.mark.parametrize("boxes", [QUADS, []])
def test_a_page_that_is_none_is_told_as_a_recognizer_tells_it(both: Served, page: Any, boxes: Any) -> None:
    with pytest.raises(CrnnDeployError) as wanted:
        Recognizer().try_read_regions(page, boxes)
    with pytest.raises(type(wanted.value)) as found:
        Client(both.url).try_read_regions(page, boxes)
    assert str(found.value) == str(wanted.value)


def test_a_text_that_may_not_be_is_an_error_of_its_box(both: Served) -> None:
    pattern = "[0-9]{200}"
    recognizer = Recognizer(decoder=decoder_of(DecodingRule(pattern=pattern)))
    wanted = recognizer.try_read_regions(PAGE, QUADS)
    found = Client(both.url, pattern=pattern).try_read_regions(PAGE, QUADS)
    assert {type(one) for one in wanted} == {ReadFailed}
    assert [comparable(one) for one in found] == [comparable(one) for one in wanted]


def _first(client: Client) -> str:
    return client.read(str(PICTURE)).text


def test_threads_and_processes_share_a_client(both: Served) -> None:
    client = Client(both.url)
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda at: client.read([IMAGES[at % 12]] * 3)[-1], range(60)))
    expected = Recognizer().read(IMAGES)
    assert [(text.text, text.confidence) for text in texts] == [
        (expected[at % 12].text, expected[at % 12].confidence) for at in range(60)
    ]
    for method in ("fork", "spawn"):  # with connections open
        with multiprocessing.get_context(method).Pool(2) as processes:
            assert processes.map(_first, [client] * 4) == [_first(client)] * 4
    client.close()
    assert _first(client) == expected[0].text


def test_a_server_that_is_started_again_is_waited_for() -> None:
    pytest.importorskip("fastapi")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    client = Client(f"http://127.0.0.1:{port}", retries=20)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):  # at first nothing listens, then connections are gone that the client holds
            waiting = pool.submit(lambda: [text.text for text in client.read([PICTURE, PICTURE])])
            served = Served("--port", port, "--workers", "1")
            assert waiting.result() == ["Printed", "Printed"]
            assert served.stop() == 0, served.lines


# a server that fails by the book


OK = {"name": "image", "text": "a", "confidence": 0.5, "status": "ok", "error": None}
Answer = tuple[int, dict[str, str], bytes]


class Stub:
    """Answers as a list says, one element for each request and the last for ever."""

    def __init__(self, *answers: Answer | str) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""


def problem(status: int, detail: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"status": status, "detail": detail}).encode()


def answer(*results: dict[str, Any]) -> Answer:
    return 200, {}, json.dumps({"model": "m", "results": results}).encode()


@contextmanager
def stub(*answers: Answer | str) -> Iterator[Stub]:
    told = Stub(*answers)
    lock = threading.Lock()
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                told.times.append(time.monotonic())
                told.headers.append(dict(self.headers))
                what = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
            if what == "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
            elif what == "drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                self.wfile.flush()
                while not released.wait(0.1):
                    self.connection.sendall(b" ")
            elif what == "hang":
                released.wait(20)
                self.close_connection = True
            else:
                assert not isinstance(what, str)
                status, headers, body = what
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield told
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()


BUSY = problem(503, "the queue is full", Retry_After="0", X_Request_ID="r-1")


@pytest.mark.parametrize(
    "failing", [[BUSY] * 3, ["reset"] * 3, [(502, {}, b"<html>")], [problem(504, "late")]]
)
def test_what_passes_is_tried_again(failing: list[Answer | str]) -> None:
    with stub(*failing, answer(OK)) as server:
        assert Client(server.url).read(b"x") == Text("a", 0.5, ())
        assert len(server.times) == len(failing) + 1


def test_the_wait_is_as_long_as_the_server_asks() -> None:
    with stub(problem(503, "full", Retry_After="1"), answer(OK)) as server:
        assert Client(server.url).read(b"x").text == "a"
        assert server.times[1] - server.times[0] >= 1


def test_a_server_that_stays_busy_is_given_up() -> None:
    with stub(BUSY) as server, Client(server.url, retries=2) as client:
        with pytest.raises(ServerBusy, match="answers 503: the queue is full") as caught:
            client.read(b"x")
        assert (len(server.times), caught.value.status, caught.value.request_id) == (3, 503, "r-1")
    with stub(problem(503, "full", Retry_After="3600")) as server:
        begun = time.monotonic()
        with pytest.raises(ServerBusy):  # at once, since its time would be over
            Client(server.url).read([b"x", b"y"])
        assert len(server.times) == 1 and time.monotonic() - begun < 10
    date = "Fri, 31 Dec 2099 23:59:59 GMT"
    with stub(problem(503, "full", Retry_After=date)) as server, pytest.raises(ServerBusy):
        Client(server.url).read(b"x")


@pytest.mark.parametrize("status", [400, 401, 404, 415, 422, 500])
def test_what_does_not_pass_is_not_tried_again(status: int) -> None:
    with stub(problem(status, "the reason", X_Request_ID="r-2")) as server:
        with pytest.raises(ServerRefused, match=f"answers {status}: the reason") as caught:
            Client(server.url).read(b"x")
        assert len(server.times) == 1 and caught.value.request_id == "r-2"


def test_a_request_that_is_too_large_is_halved() -> None:
    too_large = problem(413, "too many images")
    with stub(too_large, too_large, answer(OK), answer(OK), too_large, too_large, too_large) as server:
        results = Client(server.url).try_read([b"1", b"2", b"3", b"4"])
        assert [comparable(one) for one in results[:2]] == [Text("a", 0.5, ())] * 2
        assert [str(one) for one in results[2:]] == ["<bytes>: too many images"] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        (200, {}, b"<html>"),
        (200, {}, b"[" * 100_000),
        (200, {}, b"{}"),
        (200, {}, b'{"results": [1]}'),
        (200, {}, b'{"results": [{"status": "ok", "text": 1, "confidence": 1.0}]}'),
        (200, {}, b'{"results": [{"status": "ok", "text": "a", "confidence": null}]}'),
        (200, {}, b'{"results": [{"status": "error", "error": null}]}'),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        answer(OK, OK),
        (301, {"Location": "http://127.0.0.1:1/"}, b""),
        (404, {}, b"<html>"),
        (404, {}, b"[]"),
    ],
)
def test_what_is_no_such_server_is_said(wrong: Answer) -> None:
    with stub(wrong) as server:
        with pytest.raises(AnswerInvalid, match="check the address") as caught:
            Client(server.url).read(b"x")
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        assert len(server.times) == 1


def test_ctrl_c_does_not_wait_for_a_server_that_hangs() -> None:
    program = """if True:
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
        from crnn_deploy.client import Client
        Client(sys.argv[1]).read([b"x" * 9] * 300)"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        child = subprocess.Popen([sys.executable, "-c", program, address], stderr=subprocess.PIPE, text=True)
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            begun = time.monotonic()
            child.send_signal(signal.SIGINT)
            assert "KeyboardInterrupt" in child.communicate(timeout=70)[1]
            assert time.monotonic() - begun < 20


def test_time_and_connections_have_an_end() -> None:
    for slow in ("hang", "drip"):
        with stub(slow) as server, pytest.raises(ServerTooSlow, match=r"does not answer within 0\.3 s"):
            Client(server.url, timeout=0.3).read(b"x")
    with stub("reset") as server:
        with pytest.raises(ServerUnreachable, match="cannot be reached") as broken:
            Client(server.url, retries=1).read([b"x", b"y"])
        assert "start one" not in str(broken.value)
        assert len(server.times) == 2
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(
            ConnectionError, match=r"cannot be reached.*refused; start one with crnn-deploy serve$"
        ):
            Client(address, retries=1).read(b"x")


def test_the_token_is_sent_and_a_path_before_the_service_is_kept() -> None:
    with stub(answer(OK)) as server:
        client = Client(f"{server.url}/ocr/", token="s3cret")
        assert pickle.loads(pickle.dumps(client)).read(b"x").text == "a"
        assert server.headers[0]["Authorization"] == "Bearer s3cret"
        assert "s3cret" not in repr(client)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "no address of a server"),
        ("localhost:8000", "no address of a server"),
        ("ftp://host", "no address of a server"),
        ("http://host:99999", "no address"),
        ("http://a b\n", "no address"),
        ("http://user:secret@host", "has no user"),
        ("http://host?model=x", "pass token, model and settings by name"),
    ],
)
def test_an_address_is_looked_at_first(url: str, said: str) -> None:
    with pytest.raises(AddressInvalid, match=said) as caught:
        Client(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "\u00e4"])
def test_a_token_that_no_header_takes_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token is empty or has characters"):
        Client("http://127.0.0.1:1", token=token)
