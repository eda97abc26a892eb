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
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu.device import KINDS, Device, TorchBackend, best, products_in_tf32
from benchmarks.gpu.machine import tensorrt
from benchmarks.gpu.networks import DEFAULT_MODEL, Network, engines_of, networks
from benchmarks.gpu.plans import TorchEngine
from benchmarks.gpu.work import Work
from crnn_deploy.errors import BackendMissing
from crnn_deploy.evaluation.speed import measure_grid
from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.backends.engine_file import read_sidecar
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.backends.trt import TrtBackend, open_engine
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["BATCHES", "WIDTHS", "engine_throughput", "noise", "stages", "threads", "throughput"]

Ways = dict[str, Callable[[], Backend]]

BATCHES, WIDTHS = (1, 4, 16, 64), (104, 160, 320, 640)
_STAGED = ((1, 160), (8, 160), (64, 320))  # batch, width
_ROUNDS, _WARM = 20, 3  # runs; the second run of a shape records a graph
_BUSY = 0.2  # seconds of work before anything is measured, so that the clocks are up and kernels are made
_MOST = 100  # runs of it
_THREADS, _JOBS = (1, 2, 4, 8), 64


def throughput(work: Work, gpu: Device) -> None:
    """PyTorch and ONNX Runtime at every batch and width, from prepared images to the likeliest classes."""
    _grid(work, gpu, _libraries)


def engine_throughput(work: Work, gpu: Device) -> None:
    """The same of engines, apart: a TensorRT that does not run on this GPU costs no row of PyTorch's."""
    _grid(work, gpu, _engines)


def _grid(work: Work, gpu: Device, ways: Callable[[Device, Network, Path], Ways]) -> None:
    opened: dict[Network, dict[str, Backend]] = {}
    for network in networks(work.folder):
        found = opened[network] = {}
        for name, way in ways(gpu, network, work.folder).items():
            work.attempt(partial(_open, found, name, way), network.name, "opened", name, again=True)
    for width in WIDTHS:
        for batch in BATCHES:
            for network, backends in opened.items():
                _cell(work, gpu, network, backends, batch, width)
    for network, backends in opened.items():
        for name, backend in backends.items():
            if isinstance(backend, TrtBackend):
                work.keep(backend.not_recorded or "recorded", network.name, "CUDA graphs", name)


def _libraries(gpu: Device, network: Network, folder: Path) -> Ways:
    ways: Ways = {}
    for kind in ("fp32", "tf32", "fp16"):
        for name, graphs in ((f"torch {kind}", False), (f"torch {kind}, CUDA graphs", True)):
            ways[name] = partial(_torch_backend, gpu, network, kind, graphs)
    for kind in ("fp32", "tf32"):
        ways[f"ONNX Runtime CUDA {kind}"] = partial(_onnxruntime, network, folder, kind == "tf32")
    return ways


def _engines(gpu: Device, network: Network, folder: Path) -> Ways:
    built = engines_of(network, folder)
    if not built:
        return {"TensorRT": _no_engine}
    beside = {"torch fp16, CUDA graphs": partial(_torch_backend, gpu, network, "fp16", True)}
    # eager, or kernels change while they are measured
    engines = {
        f"TensorRT {precision}": partial(open_engine, path, kernels="eager")
        for precision, path in built.items()
    }
    return {**beside, **engines}


def _torch_backend(gpu: Device, network: Network, kind: str, graphs: bool) -> Backend:
    return TorchBackend(gpu, network.module(), network.manifest(), kind=kind, graphs=graphs)


def _onnxruntime(network: Network, folder: Path, tf32: bool) -> Backend:
    """The likeliest class is taken on the GPU, as by PyTorch and engines."""
    path = folder / f"{network.onnx.stem}-argmax.onnx"
    if not path.exists():
        whole = path.with_name(f".{path.name}")
        onnx.save(with_argmax(load_onnx(network.onnx)), whole)
        whole.replace(path)
    return OrtBackend(path, device="cuda", tf32=tf32)


def _open(found: dict[str, Backend], name: str, way: Callable[[], Backend]) -> bool:
    found[name] = way()
    return True


def _no_engine() -> Backend:
    tensorrt()
    raise BackendMissing("no engine was built")


def _cell(
    work: Work, gpu: Device, network: Network, backends: dict[str, Backend], batch: int, width: int
) -> None:
    place = network.name, f"batch {batch}, width {width}"
    if work.kept(*place, "rounds") is not None:
        return
    images = noise(network.manifest(), batch, width)
    gpu.busy(_BUSY)
    crashed = _crashed(work, network)  # a backend that did so once is not waited for in each cell
    usable = {
        (name, 0): backend
        for name, backend in backends.items()
        if name not in crashed and work.attempt(partial(_warm, backend, images), *place, name, again=True)
    }
    work.attempt(partial(_timed, work, usable, batch, width, place), *place, "rounds")


def _crashed(work: Work, network: Network) -> set[str]:
    cells = (work.kept(network.name) or {}).values()
    rows = (row for cell in cells if isinstance(cell, dict) for row in cell.items())
    return {name for name, row in rows if isinstance(row, dict) and "crashed" in row}


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
    end, runs = time.perf_counter() + _BUSY, 0
    while runs < _WARM or (time.perf_counter() < end and runs < _MOST):
        backend.run(images)
        runs += 1
    return "it runs, not measured: the time of this part was spent"


def stages(work: Work, gpu: Device) -> None:
    """Host to device, compute, device to host, and decoding on the CPU, each by itself, in milliseconds."""
    for batch, width in _STAGED:
        for network in networks(work.folder):
            ways = {f"torch {kind}": partial(_torch, network, gpu, kind) for kind in ("fp32", "tf32", "fp16")}
            for precision, path in engines_of(network, work.folder).items():
                ways[f"TensorRT {precision}"] = partial(_engine, path, gpu, width)
            for name, way in ways.items():
                task = partial(_apart, gpu, way, batch, width, network.manifest())
                with products_in_tf32(name == "torch tf32"):
                    work.attempt(task, network.name, f"batch {batch}, width {width}", name)


def _torch(network: Network, gpu: Device, kind: str) -> Callable[[Tensor], Any]:
    module = network.module().to(gpu.device, KINDS[kind], memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda images: best(module(images.to(KINDS[kind])))


def _engine(path: Path, gpu: Device, width: int) -> Callable[[Tensor], Any]:
    profiles = read_sidecar(path).profiles
    [at] = [at for at, p in enumerate(profiles) if p.width.minimum <= width <= p.width.maximum]
    return TorchEngine(tensorrt()[1], path.read_bytes(), gpu, at)


@torch.inference_mode()
def _apart(
    gpu: Device, way: Callable[[], Callable[[Tensor], Any]], batch: int, width: int, manifest: Manifest
) -> dict[str, float]:
    compute, images = way(), noise(manifest, batch, width)
    staged = gpu.pinned(*images.shape)
    staged.copy_(torch.from_numpy(images))
    inputs = torch.zeros(images.shape, device=gpu.device)
    replay, outputs = gpu.captured(lambda: compute(inputs))
    hosts = [gpu.pinned(*output.shape, dtype=output.dtype) for output in outputs]

    def to_host() -> None:
        for host, output in zip(hosts, outputs, strict=True):
            host.copy_(output, non_blocking=True)

    gpu.busy(_BUSY)
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
    jobs = [noise(manifest, (1, 4, 16)[at % 3], WIDTHS[at % len(WIDTHS)], at) for at in range(_JOBS)]
    built = engines_of(network, work.folder)
    if not built:
        work.attempt(_no_engine, "TensorRT")
    opened: dict[str, Backend] = {}
    for precision, path in built.items():
        # eager, or kernels change meanwhile, and with them the rounding
        way = partial(open_engine, path, kernels="eager")
        work.attempt(partial(_open, opened, precision, way), precision, "opened", again=True)
    for precision, backend in opened.items():
        for count in _THREADS:
            work.attempt(partial(_shared, backend, count, jobs), precision, f"{count} threads")


def _shared(backend: Backend, count: int, jobs: list[NDArray[np.float32]]) -> dict[str, float]:
    expected = [backend.run(images) for images in jobs]
    with ThreadPoolExecutor(count) as pool:
        for _ in range(_WARM):  # each worker makes its contexts and records its graphs
            list(pool.map(backend.run, jobs))
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


def noise(manifest: Manifest, batch: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Images (N, C, H, W) of noise."""
    shape = (batch, manifest.channels, manifest.height, width)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
