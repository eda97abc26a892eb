"""A GPU of paper: streams queue, graphs record, and ONNX Runtime computes.

What a real GPU does late is done late here: copies and networks run when the stream is waited for, from the
memory as it is then. So buffers that threads share, or a graph whose context took another shape, show as
wrong text or as an error.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, IntFlag
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from crnn_deploy.runtime.backends.cuda import CudaFailed
from crnn_deploy.runtime.backends.engine_file import (
    EngineFile,
    EngineLayer,
    Profile,
    Range,
    digest,
    sidecar_of,
    system,
)
from crnn_deploy.runtime.backends.ort import OrtBackend

PROFILES = (
    Profile(Range(1, 2, 4), Range(100, 120, 140)),
    Profile(Range(2, 2, 4), Range(144, 160, 200)),
)


class PaperMemory:
    def __init__(self, cuda: PaperCuda, size: int) -> None:
        self.block = np.zeros(size, np.uint8)
        self.address = self.block.ctypes.data
        cuda.blocks[self.address] = self.block


class PaperGraph:
    def __init__(self, stream: PaperStream, work: list[Callable[[], None]]) -> None:
        self.stream, self.work = stream, work

    def launch(self) -> None:
        self.stream.cuda.calls.append("launch")
        self.stream.queue += self.work


class PaperStream:
    def __init__(self, cuda: PaperCuda) -> None:
        self.cuda, self.handle = cuda, len(cuda.streams) + 1
        self.queue: list[Callable[[], None]] = []
        cuda.streams[self.handle] = self

    def add(self, work: Callable[[], None]) -> None:
        assert self.cuda.local.depth > 0, "the context is not current"
        self.queue.append(work)

    def to_device(self, memory: PaperMemory, host: NDArray[Any]) -> None:
        bytes_ = host.reshape(-1).view(np.uint8)
        assert len(bytes_) <= len(memory.block)
        self.add(lambda: np.copyto(memory.block[: len(bytes_)], bytes_))

    def to_host(self, host: NDArray[Any], memory: PaperMemory) -> None:
        bytes_ = host.reshape(-1).view(np.uint8)
        assert bytes_.base is not None and len(bytes_) <= len(memory.block)
        self.add(lambda: np.copyto(bytes_, memory.block[: len(bytes_)]))

    def synchronize(self) -> None:
        if self.cuda.failing:
            raise CudaFailed("cuStreamSynchronize fails on the GPU: CUDA_ERROR_ILLEGAL_ADDRESS")
        work, self.queue = self.queue, []
        for one in work:
            one()

    def record(self, work: Callable[[], None]) -> PaperGraph | None:
        if not self.cuda.graphs:
            return None
        assert not self.queue
        work()
        recorded, self.queue = self.queue, []
        self.cuda.calls.append("record")
        return PaperGraph(self, recorded)


class PaperCuda:
    failures = (CudaFailed,)

    def __init__(self) -> None:
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self.streams: dict[int, PaperStream] = {}
        self.calls: list[str] = []
        self.failing, self.graphs = False, True
        self.local = threading.local()
        self.library: Any = None

    @contextmanager
    def active(self) -> Iterator[None]:
        self.local.depth = getattr(self.local, "depth", 0) + 1
        try:
            yield
        finally:
            self.local.depth -= 1

    def stream(self) -> PaperStream:
        return PaperStream(self)

    def memory(self, size: int) -> PaperMemory:
        return PaperMemory(self, size)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return np.zeros(size, np.uint8)


class PaperContext:
    def __init__(self, engine: PaperEngine) -> None:
        self.engine, self.profile = engine, -1
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, handle: int) -> bool:
        self.profile = profile
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        sizes = self.engine.profiles[self.profile]
        batch, width = sizes.batch, sizes.width
        fits = batch.minimum <= shape[0] <= batch.maximum and width.minimum <= shape[3] <= width.maximum
        if fits:
            self.shape = shape
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        zeros = np.zeros(self.shape, np.float32)
        return tuple(self.engine.session.run([name], {self.engine.names[0]: zeros})[0].shape)

    def is_stream_capturable(self, handle: int) -> bool:
        return True

    def execute_async_v3(self, handle: int) -> bool:
        shape, cuda = self.shape, self.engine.cuda

        def compute() -> None:
            assert self.shape == shape, "the context took another shape before the work ran"
            first, *rest = self.engine.names
            memory = cuda.blocks[self.addresses[first]]
            images = memory[: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)
            for name, output in zip(rest, self.engine.session.run(rest, {first: images}), strict=True):
                bytes_ = output.astype(self.engine.numbers[name]).reshape(-1).view(np.uint8)
                cuda.blocks[self.addresses[name]][: len(bytes_)] = bytes_

        cuda.streams[handle].add(compute)
        return not self.engine.refuses


class PaperEngine:
    def __init__(self, plan: bytes, cuda: PaperCuda, profiles: tuple[Profile, ...]) -> None:
        self.session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
        nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.names = [node.name for node in nodes]
        kinds = {"tensor(int64)": np.int32}  # TensorRT's indexes are 32 bits unless asked
        self.numbers = {node.name: np.dtype(kinds.get(node.type, np.float32)) for node in nodes}
        self.cuda, self.profiles, self.refuses = cuda, profiles, False
        self.num_optimization_profiles, self.num_io_tensors = len(profiles), len(nodes)
        self.get_tensor_name, self.get_tensor_dtype = self.names.__getitem__, self.numbers.__getitem__

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == self.names[0] else "out"

    def create_engine_inspector(self) -> PaperEngine:
        return self

    def get_engine_information(self, form: str) -> str:
        tensor = {"Name": "x", "Format/Datatype": "Half"}
        return json.dumps({"Layers": [{"Name": "all", "LayerType": "gemm", "Outputs": [tensor]}]})

    def create_execution_context(self, config: PaperConfig | None = None) -> PaperContext:
        self.cuda.calls.append("context" if config is None else f"context, {config.kernels}")
        return PaperContext(self)

    def create_runtime_config(self) -> PaperConfig:
        return PaperConfig()


class PaperConfig:
    """Of TensorRT for RTX: which kernels contexts run, and where they keep them."""

    kernels = ""

    def __setattr__(self, name: str, value: str) -> None:
        assert name == "dynamic_shapes_kernel_specialization_strategy"
        object.__setattr__(self, "kernels", value)

    def create_runtime_cache(self) -> object:
        return self

    def set_runtime_cache(self, cache: object) -> bool:
        return cache is self


class PaperTrt:
    """The names of the library that the runtime uses."""

    __version__ = "11.0.0"

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

        def __init__(self) -> None:
            pass

    class TensorIOMode:
        INPUT = "in"

    class LayerInformationFormat:
        JSON = "json"

    nptype = staticmethod(lambda kind: kind)

    def __init__(self, cuda: PaperCuda) -> None:
        self.cuda, self.profiles = cuda, PROFILES
        self.engines: list[PaperEngine] = []

    def Runtime(self, log: Any) -> PaperTrt:  # noqa: N802
        self.log = log
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> PaperEngine | None:
        try:
            engine = PaperEngine(plan, self.cuda, self.profiles)
        except Exception:
            self.log.log("error", "Serialization assertion magicTag failed")
            return None
        self.engines.append(engine)
        return engine


class PaperRtx(PaperTrt):
    """The names of TensorRT for RTX beside those of TensorRT."""

    class DynamicShapesKernelSpecializationStrategy:
        LAZY, EAGER, NONE = "lazy", "eager", "none"

    EngineValidity = Enum("EngineValidity", ["VALID", "SUBOPTIMAL", "INVALID"])
    EngineInvalidityDiagnostics = IntFlag(
        "EngineInvalidityDiagnostics", ["VERSION_MISMATCH", "UNSUPPORTED_CC"]
    )

    def __init__(self, cuda: PaperCuda, validity: str = "VALID") -> None:
        super().__init__(cuda)
        self.validity = validity

    def get_engine_validity(self, plan: bytes) -> tuple[Any, int]:
        return self.EngineValidity[self.validity], 2 * (self.validity != "VALID")


def write_engine(source: Path, path: Path, profiles: tuple[Profile, ...] = PROFILES) -> EngineFile:
    """An engine whose plan is the ONNX file, for the paper library."""
    plan = source.read_bytes()
    backend = OrtBackend(source)
    rule = replace(
        backend.manifest.width, minimum=profiles[0].width.minimum, maximum=profiles[-1].width.maximum
    )
    engine = EngineFile(
        manifest=replace(backend.manifest, width=rule),
        engine_sha256=digest(plan),
        engine_bytes=len(plan),
        onnx_sha256=digest(plan),
        builder="tensorrt",
        builder_version=PaperTrt.__version__,
        system=system(),
        cuda="13.0",
        driver=None,
        gpu="Paper",
        compute_capability="9.0",
        targets=(),
        precision="fp32",
        kept_fp32=(),
        layers=(EngineLayer("all", "ALL", "fp32"),),
        layers_from="network",
        profiles=profiles,
        verified=None,
        build_seconds=0.0,
        crnn_deploy="0",
        arguments=("tiny.onnx", "-o", str(path)),
    )
    path.write_bytes(plan)
    sidecar_of(path).write_text(engine.to_json(), encoding="utf-8")
    return engine
