"""The servers that are compared, each ready, with the requests that it takes for the same images."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from benchmarks.serving.clients import Target
from benchmarks.serving.processes import ROOT, Server, crnn_deploy_server, free_port
from benchmarks.serving.wire import as_json, base64_of, inference, post, raw

__all__ = ["OURS", "PEERS", "Peer", "PeerMissing", "litserve_python", "opened"]

OURS = "crnn-deploy serve"
LITSERVE = "0.2.19"
TOGETHER = 32  # requests that LitServe collects for a call


class PeerMissing(RuntimeError):
    """A server that cannot be started here, and why."""


@dataclass(frozen=True)
class Peer:
    """A server that answers."""

    name: str
    pid: int
    target: Target
    text: Callable[[bytes], str]  # of an answer's body


def litserve_python() -> Path:
    """The Python that has LitServe and otherwise the very versions of this one; made where it is absent."""
    python = ROOT / ".benchmarks" / f"litserve-{LITSERVE}" / "bin" / "python"
    if not python.is_file():
        names = ("click", "numpy", "onnxruntime", "opencv-python-headless", "fastapi", "uvicorn")
        same = [f"{name}=={metadata.version(name)}" for name in names]
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        wanted = [f"litserve=={LITSERVE}", "uvloop", "httptools", *same]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


@contextmanager
def _read(model: Path, images: Sequence[bytes], folder: Path) -> Iterator[Peer]:
    with crnn_deploy_server(model, folder / "read.log") as server:
        requests = [post("/v1/read", raw(image)) for image in images]
        yield Peer(OURS, server.pid, Target(server.port, requests), _result)


@contextmanager
def _infer(model: Path, images: Sequence[bytes], folder: Path) -> Iterator[Peer]:
    with crnn_deploy_server(model, folder / "infer.log") as server:
        target = Target(server.port, _inferences(model.stem, images))
        yield Peer(f"{OURS}, Open Inference Protocol", server.pid, target, _inferred)


def _result(body: bytes) -> str:
    [result] = json.loads(body)["results"]
    return str(result["text"])


def _inferences(name: str, images: Sequence[bytes]) -> list[bytes]:
    return [post(f"/v2/models/{name}/infer", inference([image])) for image in images]


def _inferred(body: bytes) -> str:
    outputs = {output["name"]: output for output in json.loads(body)["outputs"]}
    return str(outputs["text"]["data"][0])


@contextmanager
def _litserve(together: int, model: Path, images: Sequence[bytes], folder: Path) -> Iterator[Peer]:
    port = free_port()
    call = f"from benchmarks.serving.litserve_app import run; run({str(model)!r}, {port}, {together})"
    server = Server(
        f"LitServe, {together} together",
        [str(litserve_python()), "-c", call],
        partial(_answers, port, "/health"),
        folder / f"litserve-{together}.log",
        environment={"PYTHONPATH": str(ROOT)},
    )
    with server:
        requests = [post("/predict", as_json({"image": base64_of(image)})) for image in images]
        yield Peer(server.name, server.pid, Target(port, requests), _predicted)


def _predicted(body: bytes) -> str:
    return str(json.loads(body)["text"])


def _answers(port: int, path: str, _: Server) -> int | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
            return port
    except OSError:
        return None


@contextmanager
def _triton(model: Path, images: Sequence[bytes], folder: Path) -> Iterator[Peer]:
    from benchmarks.serving.triton_server import find_triton, start_triton

    if isinstance(absent := find_triton(), str):
        raise PeerMissing(absent)
    repository = folder / "repository"
    made = [sys.executable, "-m", "crnn_deploy", "triton", str(model), "--layout", "python"]
    subprocess.run([*made, "-o", str(repository)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    with start_triton(repository, environment={"OMP_NUM_THREADS": "1"}) as server:
        host, port = server.http.split(":")
        [name] = (path.name for path in repository.iterdir() if path.is_dir())
        target = Target(int(port), _inferences(name, images), host)
        yield Peer("Triton, python backend", server.pid, target, _inferred)


PEERS: dict[str, Callable[[Path, Sequence[bytes], Path], AbstractContextManager[Peer]]] = {
    "read": _read,
    "infer": _infer,
    "litserve": partial(_litserve, 1),
    "litserve-together": partial(_litserve, TOGETHER),
    "triton": _triton,
}


@contextmanager
def opened(
    names: Sequence[str], model: Path, images: Sequence[bytes], folder: Path
) -> Iterator[tuple[dict[str, Peer], dict[str, str]]]:
    """The servers of these names, all running, and why others are missing."""
    peers: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        for name in names:
            try:
                peer = stack.enter_context(PEERS[name](model, images, folder))
                peers[peer.name] = peer
            except (PeerMissing, ImportError) as error:
                missing[name] = str(error)
        yield peers, missing
