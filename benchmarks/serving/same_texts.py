"""Whether the server reads what `Recognizer` reads, to the bit, whichever requests come together.

    python -m benchmarks.serving.same_texts [--images 5000] [--model latin] [--clients 32] [--workers 1]
        [--seed 0] [--json FILE]

The images are words, lines, upright and turned images, and broken files. They come in random groups of 1 to
20, with random options, at random moments, from many clients at once. The requests are raw bytes, multipart,
JSON, and both forms of the Open Inference Protocol. For each image the answer is compared with the record of
`crnn-deploy infer` for the same bytes: text, confidence, turn, characters, other texts, and whether there is
an error. If one differs, the exit code is 1. The script needs the extras [cpu,serve], and [export] for
networks of `benchmarks.common`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, cast, get_args
from urllib.parse import urlencode

import cv2
import numpy as np

from benchmarks.common import Network, export_networks, write
from benchmarks.serving.processes import HOST, crnn_deploy_server
from benchmarks.serving.wire import Answer, Body, Connection, base64_images, inference, multipart, post, raw
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.models import shipped
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.records import Jsonl, Record

__all__ = ["main"]

# how images are sent, and how likely each is
KINDS = {"raw": 5, "multipart": 1, "JSON": 1, "inference, JSON": 1, "inference, binary": 1}
ONLY_READ = {
    "chars",
    "nbest",
    "min_confidence",
}  # options that the Open Inference Protocol has no outputs for
# of a request, and how likely each is
OPTIONS: tuple[tuple[dict[str, Any], int], ...] = (
    ({}, 10),
    ({"chars": True}, 3),
    ({"rotate": "auto"}, 2),
    ({"rotate": "90", "chars": True}, 2),
    ({"rotate": "180"}, 1),
    ({"decoder": "beam", "nbest": 3}, 2),
    ({"decoder": "beam", "beam_width": 5}, 1),
    ({"min_length": 2, "max_length": 6}, 1),
    ({"min_confidence": 0.9}, 2),
)


@dataclass(frozen=True)
class Request:
    """Some images, how they are sent, and how they are to be read."""

    kind: str
    options: int  # place in OPTIONS
    images: tuple[int, ...]  # places of the images

    def data(self, images: Sequence[bytes], model: str) -> bytes:
        options, _ = OPTIONS[self.options]
        some = [images[at] for at in self.images]
        names = [f"{at}.img" for at in self.images]
        if self.kind.startswith("inference"):
            body = inference(some, binary=self.kind == "inference, binary", parameters=options)
            return post(f"/v2/models/{model}/infer", body)
        bodies: dict[str, Body] = {"multipart": multipart(some, names), "JSON": base64_images(some, names)}
        query = urlencode({name: str(value).lower() for name, value in options.items()})
        return post(f"/v1/read?{query}", bodies.get(self.kind) or raw(some[0]))


def pictures(count: int, random: Random) -> list[bytes]:
    """Words and lines, some of them turned, grown or broken."""
    drawn = [bytes(word) for word in draw_images("words", count - count // 20)]
    drawn += [bytes(line) for line in draw_images("lines", count // 20)]
    random.shuffle(drawn)
    made = []
    for data in drawn:
        how = random.random()
        if how < 0.02:
            data = data[: random.randrange(1, len(data))]
        elif how < 0.25:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            assert pixels is not None
            pixels = np.rot90(pixels, random.randrange(4))
            pixels = cv2.resize(pixels, None, fx=(scale := random.uniform(0.5, 3)), fy=scale)
            data = cv2.imencode(random.choice((".png", ".jpg", ".webp", ".bmp")), pixels)[1].tobytes()
        made.append(data)
    return made


def groups(count: int, random: Random) -> Iterator[Request]:
    """Every image once, in random groups."""
    order = random.sample(range(count), count)
    while order:
        [kind] = random.choices([*KINDS], [*KINDS.values()])
        some = 1 if kind == "raw" else random.randint(1, 20)
        taken, order = order[:some], order[some:]
        protocol = kind.startswith("inference")
        likely = [0 if protocol and ONLY_READ & given.keys() else weight for given, weight in OPTIONS]
        [options] = random.choices(range(len(OPTIONS)), likely)
        yield Request(kind, options, tuple(taken))


def expected(
    model: str | Path, images: Sequence[bytes], requests: Sequence[Request]
) -> dict[int, dict[str, Any]]:
    """What `infer` records of each image with the options that it is sent with."""
    found: dict[int, dict[str, Any]] = {}
    fields = {field for field in DecodingRule.__dataclass_fields__}
    for at, (options, _) in enumerate(OPTIONS):
        places = [place for request in requests if request.options == at for place in request.images]
        rule = {name: value for name, value in options.items() if name in fields}
        recognizer = Recognizer.load(
            model,
            decoder=decoder_of(DecodingRule(**rule)) if rule else None,
            rotate=options.get("rotate", "none"),
        )
        chars = bool(options.get("chars"))
        form = Jsonl(show_chars=chars, nbest="nbest" in options, rotated="rotate" in options)
        for place, result in zip(
            places, recognizer.try_read([images[place] for place in places]), strict=True
        ):
            record = Record.of("", result, options.get("min_confidence", 0.0), with_chars=chars)
            found[place] = json.loads(form.encode(record))
    return found


def told(request: Request, answer: Answer) -> list[dict[str, Any]]:
    """What an answer says of each image, in order."""
    values = json.loads(answer.body)
    if not request.kind.startswith("inference"):
        return list(values["results"])
    columns = {one["name"]: one["data"] for one in values["outputs"]}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def differences(record: dict[str, Any], said: dict[str, Any], protocol: bool) -> list[str]:
    """Names of what differs; an error's text, which names the image, only by its presence."""
    if protocol:  # text, confidence and nothing else
        if record["error"] is not None:
            return [] if said["text"] == "" else ["error"]
        return [name for name in ("text", "confidence") if said[name] != record[name]]
    names = record.keys() - {"path", "error"}
    found = [name for name in sorted(names) if name not in said or said[name] != record[name]]
    return found + ["error"] * ((record["error"] is None) != (said["error"] is None))


async def sent(
    requests: Sequence[Request], data: Sequence[bytes], port: int, clients: int, seed: int
) -> list[Answer]:
    """The answers, in order; each client waits for a random moment before each of its requests."""
    random, turns = Random(seed), iter(range(len(requests)))
    answers: dict[int, Answer] = {}

    async def one() -> None:
        connection = await Connection.to(HOST, port)
        for turn in turns:
            await asyncio.sleep(random.choice((0, 0, random.expovariate(50))))
            if not connection.open:
                connection = await Connection.to(HOST, port)
            answers[turn] = await connection.ask(data[turn])
        connection.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return [answers[at] for at in range(len(requests))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="Send this many images.")
    parser.add_argument(
        "--model", default="latin", help="Serve this shipped model, or network of benchmarks.common."
    )
    parser.add_argument("--clients", type=int, default=32, help="Send from this many clients at once.")
    parser.add_argument("--workers", type=int, default=1, help="Start the server with this many workers.")
    parser.add_argument("--seed", type=int, default=0, help="Draw with this seed.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    given = parser.parse_args(arguments)
    random = Random(given.seed)
    images = pictures(given.images, random)
    requests = [*groups(given.images, random)]
    model: str | Path = given.model
    if model not in shipped():
        assert model in get_args(Network)
        [model] = export_networks([cast(Network, model)]).values()
    with (
        tempfile.TemporaryDirectory() as folder,
        crnn_deploy_server(model, Path(folder) / "log", "--workers", given.workers) as server,
    ):
        data = [request.data(images, Path(model).stem) for request in requests]
        answers = asyncio.run(sent(requests, data, server.port, given.clients, given.seed))
    records = expected(model, images, requests)
    row = compared(requests, answers, records)
    print(json.dumps(row, indent=1))
    write("serving_same_texts", {str(given.model): row}, given.json)
    return 0 if not row["different"] and not row["unanswered"] else 1


def compared(
    requests: Sequence[Request], answers: Sequence[Answer], records: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """How many images were compared, and what differs."""
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    examples: list[str] = []
    for request, answer in zip(requests, answers, strict=True):
        kinds[request.kind] += len(request.images)
        protocol = request.kind.startswith("inference")
        failed = all(records[place]["error"] is not None for place in request.images)
        if answer.status != 200 and not (failed and answer.status in (400, 422)):
            counts["unanswered"] += len(request.images)
            examples.append(f"{request}: {answer.status} {answer.body[:200]!r}")
            continue
        counts["errors"] += sum(records[place]["error"] is not None for place in request.images)
        if protocol and answer.status != 200:
            counts["compared"] += len(request.images)
            continue
        for place, said in zip(request.images, told(request, answer), strict=True):
            counts["compared"] += 1
            if found := differences(records[place], said, protocol):
                counts["different"] += 1
                examples.append(
                    f"{request.kind} {OPTIONS[request.options][0]} {found}: {records[place]} {said}"
                )
    return {
        "images": sum(kinds.values()),
        "requests": len(requests),
        **{name: counts[name] for name in ("compared", "errors", "different", "unanswered")},
        "kinds": dict(kinds),
        "first_examples": examples[:10],
    }


if __name__ == "__main__":
    sys.exit(main())
