"""How fast the networks are on the GPU: batch by width, stage by stage, and from several threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn_deploy import ctc
from crnn_deploy.backends import Backend, open_backend
from crnn_deploy.backends.ort import OrtBackend
from crnn_deploy.ctc import Frames
from crnn_deploy.engine_file import read_sidecar
from crnn_deploy.errors import BackendMissing
from crnn_deploy.manifest import Manifest
from crnn_deploy.stages.benchmark import measure_grid
from gpu.device import Device, TorchBackend, best
from gpu.machine import tensorrt
from gpu.networks import DEFAULT_MODEL, Network, engines_of, networks
from gpu.plans import TorchEngine
from gpu.work import Work

__all__ = ["BATCHES", "WIDTHS", "stages", "threads", "throughput"]

BATCHES, WIDTHS = (1, 4, 16, 64), (104, 160, 320, 640)
_STAGED = ((1, 160), (8, 160), (64, 320))  # batch, width
_ROUNDS, _WARM = 20, 3  # runs; the second run of a shape records a graph
_THREADS, _JOBS = (1, 2, 4, 8), 64


def throughput(work: Work, gpu: Device) -> None:
    """Every way to run a network at every batch and width, from prepared images to the likeliest classes."""
    opened = {network: _backends(work, network, gpu) for network in networks(work.folder)}
    for width in WIDTHS:
        for batch in BATCHES:
            for network, backends in opened.items():
                _cell(work, network, backends, batch, width)


def _backends(work: Work, network: Network, gpu: Device) -> dict[str, Backend]:
    manifest = network.manifest()
    ways: dict[str, Callable[[], Backend]] = {}
    for kind, half in (("fp32", False), ("fp16", True)):
        for name, graphs in ((f"torch {kind}", False), (f"torch {kind}, CUDA graphs", True)):
            ways[name] = partial(_torch_backend, gpu, network, manifest, half, graphs)
    ways["ONNX Runtime CUDA fp32"] = partial(OrtBackend, network.onnx, device="cuda")
    built = engines_of(network, work.folder)
    ways |= {f"TensorRT {precision}": partial(open_backend, path) for precision, path in built.items()}
    if not built:
        ways["TensorRT"] = _no_engine
    found: dict[str, Backend] = {}
    for name, way in ways.items():
        work.attempt(partial(_open, found, name, way), network.name, "opened", name)
    return found


def _torch_backend(gpu: Device, network: Network, manifest: Manifest, half: bool, graphs: bool) -> Backend:
    return TorchBackend(gpu, network.module(), manifest, half=half, graphs=graphs)


def _open(found: dict[str, Backend], name: str, way: Callable[[], Backend]) -> bool:
    found[name] = way()
    return True


def _no_engine() -> Backend:
    tensorrt()
    raise BackendMissing("no engine was built")


def _cell(work: Work, network: Network, backends: dict[str, Backend], batch: int, width: int) -> None:
    place = network.name, f"batch {batch}, width {width}"
    images = _noise(network.manifest(), batch, width)
    usable = {
        (name, 0): backend
        for name, backend in backends.items()
        if work.attempt(partial(_warm, backend, images), *place, name)
    }
    work.attempt(partial(_timed, work, usable, batch, width, place), *place, "rounds")


def _timed(
    work: Work, backends: dict[tuple[str, int], Backend], batch: int, width: int, place: tuple[str, str]
) -> int:
    """The number of rounds; what they took is kept."""
    for cell in measure_grid(backends, (batch,), (width,), _ROUNDS):
        figures = asdict(cell)
        kept = ("p50_ms", "p95_ms", "images_per_second", "cpu_ms_per_image")
        work.keep({figure: figures[figure] for figure in kept}, *place, cell.model)
    return _ROUNDS


def _warm(backend: Backend, images: NDArray[np.float32]) -> str:
    for _ in range(_WARM):
        backend.run(images)
    return "it runs, not measured: the time of this part was spent"


def stages(work: Work, gpu: Device) -> None:
    """Host to device, compute, device to host, and decoding on the CPU, each by itself, in milliseconds."""
    for batch, width in _STAGED:
        for network in networks(work.folder):
            ways = {
                "torch fp32": partial(_torch, network, gpu, torch.float32),
                "torch fp16": partial(_torch, network, gpu, torch.float16),
            }
            for precision, path in engines_of(network, work.folder).items():
                ways[f"TensorRT {precision}"] = partial(_engine, path, gpu, width)
            for name, way in ways.items():
                task = partial(_apart, gpu, way, batch, width, network.manifest())
                work.attempt(task, network.name, f"batch {batch}, width {width}", name)


def _torch(network: Network, gpu: Device, kind: torch.dtype) -> Callable[[Tensor], Any]:
    module = network.module().to(gpu.device, kind)
    return lambda images: best(module(images.to(kind)))


def _engine(path: Path, gpu: Device, width: int) -> Callable[[Tensor], Any]:
    profiles = read_sidecar(path).profiles
    [at] = [at for at, p in enumerate(profiles) if p.width.minimum <= width <= p.width.maximum]
    return TorchEngine(tensorrt()[1], path.read_bytes(), gpu, at)


@torch.inference_mode()
def _apart(
    gpu: Device, way: Callable[[], Callable[[Tensor], Any]], batch: int, width: int, manifest: Manifest
) -> dict[str, float]:
    compute, images = way(), _noise(manifest, batch, width)
    staged = gpu.pinned(*images.shape)
    staged.copy_(torch.from_numpy(images))
    inputs = torch.zeros(images.shape, device=gpu.device)
    replay, outputs = gpu.captured(lambda: compute(inputs))
    hosts = [gpu.pinned(*output.shape, dtype=output.dtype) for output in outputs]

    def to_host() -> None:
        for host, output in zip(hosts, outputs, strict=True):
            host.copy_(output, non_blocking=True)

    spent = {
        "host to device": gpu.milliseconds(lambda: inputs.copy_(staged, non_blocking=True), _ROUNDS),
        "compute": gpu.milliseconds(lambda: compute(inputs), _ROUNDS),
        "compute, CUDA graph": gpu.milliseconds(replay, _ROUNDS),
        "device to host": gpu.milliseconds(to_host, _ROUNDS),
        "decode": [_decoded([host.numpy() for host in hosts], manifest) for _ in range(_ROUNDS)],
    }
    # logits, or indices and probabilities
    bytes_ = sum(host.numel() * host.element_size() for host in hosts)
    return {name: statistics.median(values) for name, values in spent.items()} | {"bytes to host": bytes_}


def _decoded(outputs: list[NDArray[Any]], manifest: Manifest) -> float:
    """Milliseconds from a network's outputs to texts."""
    start = time.perf_counter()
    if len(outputs) == 1:
        frames = Frames.from_logits(outputs[0])
    else:
        frames = Frames(*sorted(outputs, key=lambda output: output.dtype.kind == "f"))
    ctc.decode(frames, manifest.alphabet, manifest.blank, [(1.0, 1)] * len(frames.indices))
    return (time.perf_counter() - start) * 1e3


def threads(work: Work) -> None:
    """An engine shared by threads: whether they read what one thread reads, and how many images a second."""
    [network] = [network for network in networks(work.folder) if network.name == DEFAULT_MODEL]
    manifest = network.manifest()
    jobs = [_noise(manifest, (1, 4, 16)[at % 3], WIDTHS[at % len(WIDTHS)], at) for at in range(_JOBS)]
    built = engines_of(network, work.folder)
    if not built:
        work.attempt(_no_engine, "TensorRT")
    opened: dict[str, Backend] = {}
    for precision, path in built.items():
        work.attempt(partial(_open, opened, precision, partial(open_backend, path)), precision, "opened")
    for precision, backend in opened.items():
        for count in _THREADS:
            work.attempt(partial(_shared, backend, count, jobs), precision, f"{count} threads")


def _shared(backend: Backend, count: int, jobs: list[NDArray[np.float32]]) -> dict[str, float]:
    expected = [backend.run(images) for images in jobs]
    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        found = list(pool.map(backend.run, jobs))
        seconds = time.perf_counter() - start
    differing = sum(
        not np.array_equal(one.indices, other.indices) for one, other in zip(found, expected, strict=True)
    )
    return {
        "images_per_second": sum(map(len, jobs)) / seconds,
        "batches": len(jobs),
        "batches read otherwise": differing,
    }


def _noise(manifest: Manifest, batch: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    shape = (batch, manifest.channels, manifest.height, width)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
