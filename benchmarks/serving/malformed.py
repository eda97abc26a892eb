"""Requests that nobody should send, of every kind, as many as wanted; the same seed gives the same requests.

A request is bytes for a connection of its own. Some are valid after all, since a mutated image may still be
an image. No request may end a server, make it answer 5xx other than 503, or show a traceback.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from benchmarks.serving.wire import Body, as_json, base64_images, base64_of, inference, multipart, post, raw

__all__ = ["KINDS", "malformed"]

READ = "/v1/read"
_NAMES = ("a.jpg", "b.jpg", "c.jpg")
_PNG = b"\x89PNG\r\n\x1a\n"


def malformed(images: Sequence[bytes], model: str, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` requests with the names of their kinds, every kind as often as every other.

    images: some that are valid, to be broken
    model: the name of a served model
    """
    random, names = Random(seed), [*KINDS]
    for at in range(count):
        name = names[at % len(names)]
        yield name, KINDS[name](random, images, model)


def _mutated(random: Random, data: bytes) -> bytes:
    """Bytes changed, cut out, put in twice or cut off."""
    made = bytearray(data)
    for _ in range(random.randint(1, 12)):
        start = random.randrange(len(made) + 1)
        end = min(len(made), start + random.randint(1, 40))
        how = random.randrange(4)
        if how == 0:
            made[start:end] = random.randbytes(end - start)
        elif how == 1:
            del made[start:end]
        elif how == 2:
            made[start:start] = made[start:end]
        else:
            made[start:end] = random.choice(
                (b"\r\n", b"\r\n\r\n", b"--", b"\x00" * 9, b'"', b"=", b"{", b"\xff")
            )
    if random.random() < 0.2:
        del made[random.randrange(len(made) + 1) :]
    return bytes(made)


def _with(body: Body, **headers: str) -> Body:
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(body, headers={**body.headers, **changed})


def _mutated_multipart(random: Random, images: Sequence[bytes], model: str) -> bytes:
    body = multipart(random.sample(images, 3), _NAMES)
    return post(READ, replace(body, data=_mutated(random, body.data)))


def _odd_multipart(random: Random, images: Sequence[bytes], model: str) -> bytes:
    body = multipart(images[:1], ["a.jpg"])
    kinds = (
        *("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"),
        *(
            "multipart/form-data; boundary=" + "b" * 5000,
            'multipart/form-data; boundary="',
            "multipart/mixed",
        ),
        *("multipart/form-data; boundary=\xff\xfe", "multipart/form-data; boundary=a; boundary=b"),
    )
    head = b'Content-Disposition: form-data; name="images"; filename="'
    start, end = b"------------------crnn\r\n", b"\r\n------------------crnn--\r\n"
    datas = (
        *(
            b"",
            start,
            end,
            start + end,
            start + b"\r\n" + end,
            start + head + b"a" * 100_000 + b'"\r\n\r\n' + end,
        ),
        *(
            start + b"X: y\r\n" * 5000 + b"\r\n" + end,
            start + b": \r\n\r\n" + end,
            start + b"\x00\r\n\r\n" + end,
        ),
        start + head + b"../../etc/passwd\x00\xff\xd8\x1b[2J" + b'"\r\n\r\n' + images[0] + end,
        start + b'Content-Disposition: form-data; name="decoder"\r\n\r\nbeam' + end,
        start + b"Content-Disposition: form-data; filename*=UTF-8''%ff%00\r\n\r\nabc" + end,
        start + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64_of(images[0]).encode() + end,
    )
    if random.random() < 0.5:
        return post(READ, _with(body, Content_Type=random.choice(kinds)))
    return post(READ, replace(body, data=random.choice(datas)))


def _many_parts(random: Random, images: Sequence[bytes], model: str) -> bytes:
    count = random.choice((300, 1000, 10_000))
    data = random.choice((b"", b"x", images[0] if count < 2000 else b""))
    return post(READ, multipart([data] * count, ["a.jpg"] * count))


def _json_rubbish(random: Random, images: Sequence[bytes], model: str) -> bytes:
    deep = random.choice((500, 20_000, 200_000))
    texts: tuple[bytes, ...] = (
        *(b"", b"{", b"null", b"[]", b"{}", b'"images"', b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"NaN"),
        *(
            b"[" * deep,
            b"[" * deep + b"]" * deep,
            b'{"images":' * deep,
            b'{"images":' * deep + b"1" + b"}" * deep,
        ),
        *(
            b'{"images": 1e999}',
            b'{"images": ' + b"9" * 20_000 + b"}",
            b'{"images": [' + b"0," * 50_000 + b"0]}",
        ),
        *(b'{"images": [{"data": "\\ud800"}]}', b'{"images": [{"data": "", "name": "\\ud800\\u0000"}]}'),
        *(
            b'{"images": [{}]}',
            b'{"images": [null]}',
            b'{"images": [{"data": 5}]}',
            b'{"images": {"data": "QQ=="}}',
        ),
        *(
            b'{"images": [], "images": [{"data": "QQ=="}]}',
            b'{"images": [{"data": "QQ==", "path": "/etc/passwd"}]}',
        ),
        *(
            b'{"images": [{"data": ["QQ=="]}]}',
            b'{"a":' * 100 + b"1" + b"}" * 100,
            b'{"images": [{"data": "QQ=="},]}',
        ),
    )
    return post(READ, Body(random.choice(texts), {"Content-Type": "application/json"}))


def _mutated_json(random: Random, images: Sequence[bytes], model: str) -> bytes:
    body = base64_images(random.sample(images, 2), _NAMES[:2])
    return post(READ, replace(body, data=_mutated(random, body.data)))


def _base64_rubbish(random: Random, images: Sequence[bytes], model: str) -> bytes:
    good = base64_of(images[0])
    datas = (
        *("", "=", "====", "A", "AB=C", "*" * 50, "\u00e9" * 8, " " * 50, good[:-1], good + "=", good * 2),
        *(
            good.replace("A", "-", 3),
            "data:image/jpeg;base64," + good,
            good[:40] + "\n" + good[40:],
            "A" * 1_000_001,
        ),
    )
    images_ = [{"data": random.choice(datas), "name": "x"} for _ in range(random.randint(1, 4))]
    return post(READ, as_json({"images": images_}))


def _mutated_image(random: Random, images: Sequence[bytes], model: str) -> bytes:
    return post(READ, raw(_mutated(random, random.choice(images))))


def _odd_image(random: Random, images: Sequence[bytes], model: str) -> bytes:
    side = random.choice((0, 1, 30_000, 65_535, 2**31 - 1, 2**32 - 1))
    ihdr = b"IHDR" + struct.pack(">II", side, random.choice((0, 1, side))) + bytes([8, 2, 0, 0, 0])
    bmp = struct.pack(
        "<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, side % 2**31, 2**30, 1, 24, 0, 0, 0, 0, 0, 0
    )
    datas = (
        *(
            b"",
            b"\x00",
            b"\x00" * 5000,
            random.randbytes(300),
            b"GIF89a" + random.randbytes(50),
            b"\xff\xd8\xff",
        ),
        *(
            _PNG,
            _PNG + struct.pack(">I", 13) + ihdr + b"\x00" * 4,
            bmp,
            b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 30,
        ),
        *(
            b"II*\x00\x08\x00\x00\x00\xff\xff" + b"\xff" * 90,
            b"P6\n99999 99999\n255\n",
            b"#?RADIANCE\n\n-Y 99999 +X 9\n",
        ),
        *(
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"%PDF-1.7",
            b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03",
        ),
    )
    return post(READ, raw(random.choice(datas)))


def _content_types(random: Random, images: Sequence[bytes], model: str) -> bytes:
    kinds = (
        *("", "text/plain", "image", "image/", "/", ";", "application/json; charset=utf-7", "image/svg+xml"),
        *(
            "application/x-www-form-urlencoded",
            "a" * 5000,
            "\xff",
            "application/json;;;",
            "multipart/form-data",
        ),
        *("application/xml", "application/pdf", "text/html", "image/jpeg, application/json"),
    )
    body = random.choice((raw(images[0]), base64_images(images[:1], ["a"]), multipart(images[:1], ["a"])))
    body = _with(body, Content_Type=random.choice(kinds))
    if random.random() < 0.3:
        codings = ("gzip", "br", "deflate", "identity", "gzip, gzip", "compress", "\xff")
        body = _with(body, Content_Encoding=random.choice(codings))
    return post(READ, body)


def _lengths(random: Random, images: Sequence[bytes], model: str) -> bytes:
    body = raw(images[0])
    given = (
        *(
            str(2**31),
            str(2**32 + 5),
            "9" * 30,
            "-1",
            "",
            "abc",
            "1e3",
            "0x10",
            "+5",
            "5, 5",
            "5\r\nContent-Length: 6",
        ),
        *(str(len(body.data) - 10), str(len(body.data) + 10), "0"),
    )
    return post(READ, _with(body, Content_Length=random.choice(given)))


def _chunks(random: Random, images: Sequence[bytes], model: str) -> bytes:
    head = (
        f"POST {READ} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: ".encode()
    )
    bodies = (
        *(
            b"0\r\n\r\n",
            b"-5\r\nabcde\r\n0\r\n\r\n",
            b"FFFFFFFFFFFFFFFF\r\nabc",
            b"FFFFFFFFFFFFFFFFF\r\nabc",
            b"zz\r\nabc",
        ),
        *(
            b"5;" + b"x" * 50_000 + b"\r\nabcde\r\n0\r\n\r\n",
            b"5\r\nabcdefgh\r\n0\r\n\r\n",
            b"5\nabcde\n0\n\n",
            b"5\r\nab",
        ),
        *(
            b"1\r\na\r\n" * 5000 + b"0\r\n\r\n",
            b"0\r\nX: y\r\n\r\n",
            b"0\r\n" + b"X: y\r\n" * 9000 + b"\r\n",
            b"\r\n\r\n",
        ),
    )
    coding = random.choice(
        (b"chunked", b"chunked", b"chunked", b"gzip, chunked", b"identity", b"chunked\r\nContent-Length: 5")
    )
    return head + coding + b"\r\n\r\n" + random.choice(bodies)


def _options(random: Random, images: Sequence[bytes], model: str) -> bytes:
    queries = (
        *(
            "decoder=",
            "decoder=x",
            "nbest=-1",
            "nbest=5",
            "nbest=1e9",
            "nbest=99999999999999999999",
            "beam_width=1000000",
        ),
        *(
            "decoder=beam&beam_width=-5",
            "decoder=beam&nbest=100000",
            "allow=",
            "allow=%00",
            "block=%ff%fe",
            "mask=%",
        ),
        *(
            "mask=" + "9" * 5000,
            "pattern=(",
            "pattern=((a*)*)*b",
            "pattern=(a|b)*a(a|b){60}",
            "pattern=" + "(" * 900,
        ),
        *(
            "pattern=.{1,100000}",
            "pattern=(?P<x>a)(?P=x)",
            "pattern=[^%00-%ff]",
            "pattern=a{2,1}",
            "pattern=\\",
        ),
        *(
            "min_length=5&max_length=2",
            "max_length=-1",
            "max_length=1e99",
            "min_confidence=nan",
            "min_confidence=2",
        ),
        *(
            "min_confidence=inf",
            "rotate=45",
            "rotate=auto&rotate=90",
            "chars=maybe",
            "model=",
            "model=../../etc/passwd",
        ),
        *(
            "model=x&model=y",
            "hotwords=" + "w" * 3000,
            "decoder=beam&" + "&".join(["hotwords=word"] * 500),
            "boost=nan",
        ),
        *(
            "a=b",
            "%",
            "%zz=1",
            "&&&=",
            "=" * 3000,
            "x" * 60_000,
            "decoder=beam&boost=1e308",
            "decoder[]=beam",
            "nbest=\xff",
        ),
        *("decoder=beam&pattern=([a-z]{1,20}[0-9]{1,20}){1,20}", "decoder=beam&mask=" + "*" * 128, "\x00"),
    )
    return post(f"{READ}?{random.choice(queries)}", raw(images[0]))


def _paths(random: Random, images: Sequence[bytes], model: str) -> bytes:
    body = raw(images[0])
    paths = (
        *(
            "/",
            "/v1/read/",
            "/v1/../v1/read",
            "/page/../../etc/passwd",
            "/page/%2e%2e/%2e%2e/app.py",
            "/%00",
            "//v1/read",
        ),
        *(
            "/v2/models//infer",
            "/v2/models/x/infer",
            f"/v2/models/{model}/versions/2/infer",
            "/v2/models/%ff/infer",
        ),
        *(
            "/metrics",
            "/openapi.json",
            "/docs",
            "/" + "a" * 60_000,
            "*",
            "http://other/v1/read",
            "/v2/repository/index",
        ),
    )
    made = post(random.choice(paths), body)
    method = random.choice(
        (
            b"POST",
            b"GET",
            b"PUT",
            b"DELETE",
            b"HEAD",
            b"OPTIONS",
            b"TRACE",
            b"CONNECT",
            b"PATCH",
            b"LOCK",
            b"x",
        )
    )
    return method + made[4:]


def _rubbish(random: Random, images: Sequence[bytes], model: str) -> bytes:
    good = post(READ, raw(images[0]))
    line_end = good.index(b"\r\n")
    head_end = good.index(b"\r\n\r\n")
    made = (
        *(
            random.randbytes(200),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(300),
            b"\r\n" * 3000,
        ),
        *(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET  /  HTTP/1.1\r\n\r\n",
        ),
        *(
            b"POST /v1/read HTTP/1.0\r\n\r\n",
            b"a" * 200_000,
            good[:line_end] + b"\r\nX: " + b"y" * 200_000 + good[line_end:],
        ),
        *(
            good[:line_end] + b"\r\nX: y" * 20_000 + good[line_end:],
            good[:line_end] + b"\r\n X" + good[line_end:],
        ),
        *(
            good[:line_end] + b"\r\nX\x00: \x00" + good[line_end:],
            good[:line_end] + b"\r\nExpect: 200-ok" + good[line_end:],
        ),
        good[:line_end] + b"\r\nUpgrade: websocket\r\nConnection: upgrade" + good[line_end:],
        good[:line_end] + b"\r\nX-Request-ID: \x1b[2J%s{}" + b"z" * 500 + good[line_end:],
        good[:line_end] + b"\r\nAuthorization: Bearer \xff\xfe" + good[line_end:],
        _mutated(random, good[:head_end]) + good[head_end:],
        *(good + random.randbytes(100), good[: random.randrange(len(good))]),
    )
    return random.choice(made)


def _infer_json(random: Random, images: Sequence[bytes], model: str) -> bytes:
    tensor: dict[str, Any] = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64_of(images[0])],
    }
    asked: dict[str, Any] = {"inputs": [tensor]}
    changes: tuple[tuple[str, Any], ...] = (
        *(
            ("name", "x"),
            ("name", None),
            ("name", 5),
            ("datatype", "FP32"),
            ("datatype", "x"),
            ("datatype", None),
        ),
        *(
            ("shape", []),
            ("shape", [0]),
            ("shape", [-1]),
            ("shape", [2]),
            ("shape", [10**18]),
            ("shape", [1.5]),
        ),
        *(
            ("shape", [[1]]),
            ("shape", "1"),
            ("shape", [1] * 5000),
            ("shape", [True]),
            ("data", None),
            ("data", []),
        ),
        *(
            ("data", [5]),
            ("data", "x"),
            ("data", [[base64_of(images[0])]]),
            ("data", ["*"]),
            ("data", [None]),
        ),
        *(("data", {"a": 1}), ("parameters", 5), ("parameters", {"binary_data_size": 5})),
        *(("parameters", {"shared_memory_region": "x", "shared_memory_byte_size": 10**9}),),
    )
    outer: tuple[tuple[str, Any], ...] = (
        *(
            ("inputs", None),
            ("inputs", []),
            ("inputs", [tensor] * 2),
            ("inputs", [5]),
            ("inputs", {}),
            ("id", 5),
        ),
        *(
            ("outputs", [{"name": "x"}]),
            ("outputs", 5),
            ("outputs", [5]),
            ("outputs", [{"name": "text"}] * 5000),
        ),
        *(
            ("outputs", [{"name": "text", "parameters": {"binary_data": "x"}}]),
            ("parameters", []),
            ("id", "\x00" * 99),
        ),
        *(
            ("parameters", {"nbest": -1}),
            ("parameters", {"x": 1}),
            ("parameters", {"decoder": {}}),
            ("parameters", {"binary_data_output": 7}),
        ),
        *(
            ("outputs", [{"name": "text", "parameters": {"classification": 10**9}}]),
            ("parameters", {"sequence_id": 1}),
        ),
    )
    if random.random() < 0.5:
        key, value = random.choice(changes)
        tensor[key] = value
    else:
        key, value = random.choice(outer)
        asked[key] = value
    body = as_json(asked)
    if random.random() < 0.2:
        body = replace(body, data=_mutated(random, body.data))
    return post(f"/v2/models/{model}/infer", body)


def _infer_binary(random: Random, images: Sequence[bytes], model: str) -> bytes:
    body = inference(random.sample(images, 2))
    length = int(body.headers["Inference-Header-Content-Length"])
    head, tail = json.loads(body.data[:length]), body.data[length:]
    how = random.randrange(6)
    if how == 0:
        lengths = (
            "0",
            "-1",
            "abc",
            "",
            "1",
            str(length - 1),
            str(length + 1),
            str(10**9),
            "9" * 30,
            "\xb2",
            "1_0",
            " 5 ",
        )
        return post(
            f"/v2/models/{model}/infer", _with(body, Inference_Header_Content_Length=random.choice(lengths))
        )
    if how == 1:  # a length of an element that is a lie
        lies = (0, 1, len(images[0]) + 1, 2**31, 2**32 - 1, len(tail), len(tail) - 4)
        tail = struct.pack("<I", random.choice(lies)) + tail[4:]
    elif how == 2:
        sizes = (0, -1, 1, 3, len(tail) - 1, len(tail) + 1, 2**40, "5", None, 1.5, True, [5])
        head["inputs"][0]["parameters"]["binary_data_size"] = random.choice(sizes)
    elif how == 3:
        head["inputs"][0]["shape"] = random.choice(([1], [3], [0], [-2], [2**62], [2, 1], [2**31, 2**33], []))
    elif how == 4:
        tail = random.choice((b"", tail[:3], tail[:-1], tail + b"\x00", b"\x00" * 8, b"\xff" * len(tail)))
    else:
        tail = _mutated(random, tail)
    made = json.dumps(head).encode()
    return post(
        f"/v2/models/{model}/infer",
        _with(replace(body, data=made + tail), Inference_Header_Content_Length=str(len(made))),
    )


KINDS: dict[str, Callable[[Random, Sequence[bytes], str], bytes]] = {
    "multipart, mutated": _mutated_multipart,
    "multipart, odd": _odd_multipart,
    "multipart, many parts": _many_parts,
    "JSON, rubbish": _json_rubbish,
    "JSON, mutated": _mutated_json,
    "base64, rubbish": _base64_rubbish,
    "image, mutated": _mutated_image,
    "image, odd": _odd_image,
    "content types": _content_types,
    "content lengths": _lengths,
    "chunks": _chunks,
    "options": _options,
    "paths and methods": _paths,
    "no HTTP": _rubbish,
    "inference, JSON": _infer_json,
    "inference, binary": _infer_binary,
}
