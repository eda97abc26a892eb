"""The real server of NVIDIA, started on repositories and asked over HTTP and gRPC.

It is the one inside the wheel of nvidia-pytriton, which has the Python backend alone: a network that Triton's
onnxruntime backend would run is run by a Python model with ONNX Runtime in its place (`stand_in`). All else,
the ensemble and the dynamic batcher among it, is the server's own.
"""

from __future__ import annotations

import random
import re
import shlex
import subprocess
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from answers import Answer, answers_of, long_line, read_here
from served import Served
from stand_in import put_stand_in
from tritonclient.utils import InferenceServerException

from benchmarks.serving.triton_server import RunningTriton, find_triton, start_triton
from crnn_deploy.models import DEFAULT
from crnn_deploy.triton.repository import LAYOUTS, write_repository

_FOUND = find_triton()
pytestmark = pytest.mark.skipif(isinstance(_FOUND, str), reason=str(_FOUND))

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
SETS = ("scene_words_demo", "dev_scene_ic15", "dev_receipts_sroie", "scene_words_mmocr")


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """The project's own, one that is cut into parts, and two that cannot be read."""
    own = [path.read_bytes() for path in sorted((ROOT / "examples" / "images").glob("*.png"))]
    return [*own, long_line(own[1], 6000), b"no image", b""]


@pytest.fixture(scope="module", params=LAYOUTS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[RunningTriton, Path], None, None]:
    repository = tmp_path_factory.mktemp("triton") / "repository"
    write_repository(DEFAULT, repository, layout=request.param)
    if request.param != "python":
        put_stand_in(repository / "latin_network")
    with start_triton(repository) as running:
        yield running, repository


def ask(module: Any, client: Any, images: Sequence[bytes]) -> list[Answer]:
    """module: tritonclient.http or tritonclient.grpc"""
    given = module.InferInput("image", [len(images)], "BYTES")
    given.set_data_from_numpy(np.array(images, np.object_))
    said = client.infer("latin", [given])
    return answers_of({name: said.as_numpy(name) for name in ("text", "confidence", "error")})


def test_texts_and_confidences_are_those_of_infer(
    server: tuple[RunningTriton, Path], images: list[bytes]
) -> None:
    expected = read_here("latin", images)
    clients = (
        (tritonclient.http, tritonclient.http.InferenceServerClient(server[0].http, network_timeout=60.0)),
        (tritonclient.grpc, tritonclient.grpc.InferenceServerClient(server[0].grpc)),
    )
    for module, client in clients:
        assert [ask(module, client, [image])[0] for image in images] == expected
        assert ask(module, client, images) == expected


def test_a_client_moves_between_serve_and_triton_unchanged(
    server: tuple[RunningTriton, Path], images: list[bytes]
) -> None:
    served = Served("--model", "latin", "--workers", "1")
    try:
        clients = [
            tritonclient.http.InferenceServerClient(address, network_timeout=60.0)
            for address in (served.url.removeprefix("http://"), server[0].http)
        ]
        here, there = [ask(tritonclient.http, client, images) for client in clients]
        # each server has its own name for an image that it cannot read
        assert [(*one[:2], bool(one[2])) for one in here] == [(*one[:2], bool(one[2])) for one in there]
        assert (
            len({str(sorted(map(str, client.get_model_metadata("latin")["inputs"]))) for client in clients})
            == 1
        )
    finally:
        served.stop()


def test_they_are_under_load(server: tuple[RunningTriton, Path], images: list[bytes]) -> None:
    order = random.Random(2).choices(images, k=200)
    expected = dict(zip(images, read_here("latin", images), strict=True))
    check_under_load(server[0], order, expected)


def test_they_are_for_hundreds_of_real_images(server: tuple[RunningTriton, Path]) -> None:
    files = sorted(
        path
        for name in SETS
        for path in (DATA / name).rglob("*")
        if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    )
    if not files:
        pytest.skip(f"{DATA} is absent")
    images = [path.read_bytes() for path in random.Random(3).sample(files, 250)]
    expected = dict(zip(images, read_here("latin", images), strict=True))
    check_under_load(server[0], images, expected)


def check_under_load(server: RunningTriton, images: Sequence[bytes], expected: dict[bytes, Answer]) -> None:
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda image: ask(tritonclient.grpc, client, [image])[0], images)
        assert list(answers) == [expected[image] for image in images]


def test_a_wrong_request_costs_no_other(server: tuple[RunningTriton, Path], images: list[bytes]) -> None:
    client = tritonclient.grpc.InferenceServerClient(server[0].grpc)
    expected = read_here("latin", images[:1])
    for wrong, reason in (([], "holds 0"), (images[:1] * 257, "holds 257")):
        with pytest.raises(InferenceServerException, match=reason):
            ask(tritonclient.grpc, client, wrong)
        assert ask(tritonclient.grpc, client, images[:1]) == expected


def test_the_readmes_probe_gets_a_text(server: tuple[RunningTriton, Path]) -> None:
    readme = (server[1] / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^    (curl .*\n.*)", readme, re.MULTILINE)
    assert found is not None
    command = found[1].replace("\\\n", " ").replace("127.0.0.1:8000", server[0].http)
    subprocess.run(shlex.split(command), check=True)


def test_the_readmes_flags_are_taken(images: list[bytes], tmp_path: Path) -> None:
    """But for the one that this release does not have."""
    write_repository(DEFAULT, tmp_path / "r", layout="python")
    readme = (tmp_path / "r" / "README.md").read_text(encoding="utf-8")
    flags = re.findall(r"--(?:disable|http-restricted|grpc-restricted)\S*", readme)
    assert len(flags) == 3
    with start_triton(tmp_path / "r", flags=flags) as running:
        client = tritonclient.http.InferenceServerClient(running.http)
        assert ask(tritonclient.http, client, images[:1]) == read_here("latin", images[:1])
        with pytest.raises(InferenceServerException):
            client.get_model_repository_index()
        assert client.get_model_repository_index(headers={"admin-key": "SECRET"})
