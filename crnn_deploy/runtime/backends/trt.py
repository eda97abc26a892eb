"""TensorRT and TensorRT for RTX: an engine on the GPU."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import BackendMissing, ModelClosed, ModelUnreadable, RunFailed
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.cuda import Cuda, Graph, open_cuda
from crnn_deploy.runtime.backends.engine_file import (
    BuilderName,
    EngineFile,
    EngineLayer,
    EngineStale,
    Precision,
    check_bytes,
    check_gpu,
    check_library,
    read_sidecar,
)
from crnn_deploy.runtime.backends.outputs import frames_of
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["Contexts", "Kernels", "TrtBackend", "check_engine", "import_tensorrt", "logger", "open_engine"]

# Of TensorRT for RTX, which compiles on the GPU that runs the engine. lazy: a shape that is new runs on
# kernels for all shapes until better ones are ready beside it; eager: it waits for them; none: all shapes run
# on the same kernels
Kernels = Literal["lazy", "eager", "none"]

_MODULES: dict[BuilderName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_WORKERS = 2  # of a profile: one computes while another's results are taken; each holds memory on the GPU
_GRAPHS = 16  # of a worker; each holds an execution context
# as the inspector writes the types of tensors, the first that is found
_INSPECTED: tuple[tuple[str, Precision], ...] = (
    ("int8", "int8"),
    *(("bf16", "bf16"), ("bfloat", "bf16")),
    *(("fp16", "fp16"), ("half", "fp16")),
    *(("fp32", "fp32"), ("float", "fp32")),
)
_MOVES = ("reformat", "constant", "noop", "no-op", "shuffle", "shape", "cast", "signal", "wait")


def import_tensorrt(builder: BuilderName) -> Any:
    """The library's module; it needs no GPU, its runtime does. Raises BackendMissing."""
    try:
        return import_module(_MODULES[builder])
    except (ImportError, OSError) as error:  # a library that it links to may be absent
        raise BackendMissing(
            f"{builder} is not usable here ({error}); run pip install 'crnn-deploy[{builder}]'"
        ) from error


def check_engine(path: Path) -> tuple[EngineFile, bytes]:
    """Hold an engine against its sidecar, the library and the GPU here. Its sidecar and its plan.

    Raises ModelNotFound, SidecarMissing, SidecarInvalid, ManifestInvalid, EngineChanged, EngineStale,
    BackendMissing.
    """
    engine = read_sidecar(path)
    plan = check_bytes(engine, path)
    check_library(engine, path, import_tensorrt(engine.builder).__version__)
    found = driver.probe()
    if found.problem is not None:
        raise BackendMissing(f"{path} needs an NVIDIA GPU: {found.problem}; run crnn-deploy doctor")
    check_gpu(engine, path, found.gpus[0])
    return engine, plan


def open_engine(path: Path, *, kernels: Kernels = "lazy") -> TrtBackend:
    """Load an engine that `check_engine` lets pass.

    The driver is asked before any runtime is made: without one, a runtime ends the process.
    Raises what `check_engine` raises, ModelUnreadable.
    """
    engine, plan = check_engine(path)
    return TrtBackend(import_tensorrt(engine.builder), plan, engine, path, open_cuda(), kernels=kernels)


class TrtBackend:
    """An engine, run on the first GPU.

    Threads share it: each run takes a worker of the profile that serves its width, or waits for one. A batch
    beyond the profile's largest runs in parts. A shape that comes again is recorded as a CUDA graph.

    path: for messages
    kernels: of TensorRT for RTX; TensorRT chose them when it built
    Raises ModelUnreadable; EngineStale where the library finds the plan invalid on this GPU.
    """

    def __init__(
        self,
        trt: Any,
        plan: bytes,
        engine: EngineFile,
        path: Path,
        cuda: Cuda,
        *,
        kernels: Kernels = "lazy",
    ) -> None:
        self.manifest = engine.manifest
        self.not_recorded: str | None = None  # why runs are not recorded as CUDA graphs; None: they are
        self._trt, self._file, self._path, self._cuda = trt, engine, path, cuda
        with cuda.active():
            log = logger(trt)
            log.errors.clear()
            self._runtime = trt.Runtime(log)  # must outlive its engine
            self.validity = _validity(trt, self._runtime, plan, engine, path)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            reason = " ".join(log.errors[-1:]) or "it gives no reason"
            raise ModelUnreadable(
                path, f"TensorRT does not load it: {reason}; build again: {engine.command(path)}"
            )
        count = self._engine.num_optimization_profiles
        if count != len(engine.profiles):
            raise ModelUnreadable(
                path,
                f"it has {count} profiles, and its sidecar names {len(engine.profiles)}; build again: "
                f"{engine.command(path)}",
            )
        with cuda.active():
            self._contexts = Contexts(trt, self._engine, kernels)
        self._pools = [_Pool(self, at) for at in range(count)]

    def run(self, images: NDArray[np.float32]) -> Frames:
        if not self._pools:
            raise ModelClosed(self._path)
        batch, channels, height, width = images.shape
        manifest = self.manifest
        found = [
            at
            for at, profile in enumerate(self._file.profiles)
            if profile.width.minimum <= width <= profile.width.maximum
        ]
        if (channels, height) != (manifest.channels, manifest.height) or not found or not batch:
            served = f"(N, {manifest.channels}, {manifest.height}, W), N from 1"
            widths = ", ".join(f"{p.width.minimum}-{p.width.maximum}" for p in self._file.profiles)
            raise RunFailed(self._path, images.shape, f"the engine takes {served} and W in {widths}")
        most = self._file.profiles[found[0]].batch.maximum
        parts = []
        try:
            with self._cuda.active(), self._pools[found[0]].worker() as worker:
                for start in range(0, batch, most):
                    parts.append(worker.run(images[start : start + most]))
        except self._cuda.failures as error:
            raise RunFailed(self._path, images.shape, str(error)) from error
        outputs = [np.concatenate(output) for output in zip(*parts, strict=True)]
        return frames_of(outputs, images, manifest, self._path)

    def layers(self) -> tuple[EngineLayer, ...]:
        """The layers that compute, as the engine inspector reads them back; none where it does not tell."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        try:
            return inspected(json.loads(text).get("Layers", []))
        except (ValueError, AttributeError):  # no JSON, or JSON of another form
            return ()

    def close(self) -> None:
        if self._pools:
            with self._cuda.active():
                self._pools.clear()
                del self._contexts, self._engine, self._runtime


def _validity(trt: Any, runtime: Any, plan: bytes, engine: EngineFile, path: Path) -> str | None:
    """What TensorRT for RTX says of a plan on this GPU, such as VALID. Raises EngineStale where it is not."""
    if not hasattr(runtime, "get_engine_validity"):
        return None  # TensorRT, whose plans are for one kind of GPU
    validity, found = runtime.get_engine_validity(plan)
    flags = trt.EngineInvalidityDiagnostics.__members__
    reasons = ", ".join(name for name, flag in flags.items() if int(found) & int(flag))
    said = f"{validity.name} ({reasons})" if reasons else validity.name
    if validity == trt.EngineValidity.INVALID:
        reason = f"TensorRT for RTX calls it {said} on this GPU, which may need --target current"
        raise EngineStale(path, reason, engine.command(path))
    return str(said)


class Contexts:
    """Makes the execution contexts of an engine; those of TensorRT for RTX share the kernels they compile."""

    def __init__(self, trt: Any, engine: Any, kernels: Kernels) -> None:
        self._engine, self._config = engine, None
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            strategy = getattr(trt.DynamicShapesKernelSpecializationStrategy, kernels.upper())
            self._config = engine.create_runtime_config()
            self._config.dynamic_shapes_kernel_specialization_strategy = strategy
            self._cache = self._config.create_runtime_cache()  # must live as long as the config
            self._config.set_runtime_cache(self._cache)

    def make(self) -> Any:
        """One more context; None where the GPU has no memory for it."""
        if self._config is None:
            return self._engine.create_execution_context()
        return self._engine.create_execution_context(self._config)


def inspected(layers: list[Any]) -> tuple[EngineLayer, ...]:
    """Layers that compute, of the inspector's list; int8 where an input is, else as the output is typed."""
    found = []
    for layer in layers:
        if not isinstance(layer, dict) or layer.get("LayerType", "").lower() in _MOVES:
            continue
        inputs = [_precision(tensor) for tensor in layer.get("Inputs", [])]
        outputs = [_precision(tensor) for tensor in layer.get("Outputs", [])]
        precision = "int8" if "int8" in inputs else next((kind for kind in outputs if kind), None)
        if precision is not None:
            found.append(EngineLayer(layer["Name"], layer.get("LayerType", ""), precision))
    return tuple(found)


def _precision(tensor: dict[str, Any]) -> Precision | None:
    text = f"{tensor.get('Format/Datatype', '')} {tensor.get('Datatype', '')}".lower()
    return next((precision for name, precision in _INSPECTED if name in text), None)


class _Pool:
    """The workers of one profile, made when they are needed; a thread has one to itself."""

    def __init__(self, backend: TrtBackend, profile: int) -> None:
        self._backend, self._profile = backend, profile
        self._free = threading.Semaphore(_WORKERS)
        self._idle: list[_Worker] = []  # append and pop are atomic

    @contextmanager
    def worker(self) -> Iterator[_Worker]:
        with self._free:
            try:
                worker = self._idle.pop()
            except IndexError:
                worker = _Worker(self._backend, self._profile)
            yield worker
            self._idle.append(worker)  # one that failed is thrown away


@dataclass
class _Output:
    name: str
    dtype: np.dtype[Any]
    tail: tuple[int, ...]  # behind (N, T)


class _Worker:
    """Stream, contexts, buffers and graphs of one thread at a time; a known shape allocates nothing."""

    def __init__(self, backend: TrtBackend, profile: int) -> None:
        self._backend, self._profile = backend, profile
        engine, cuda, manifest = backend._engine, backend._cuda, backend.manifest
        self._sizes = backend._file.profiles[profile]
        self._stream = cuda.stream()
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        mode = backend._trt.TensorIOMode.INPUT
        [self._input] = [name for name in names if engine.get_tensor_mode(name) == mode]
        expected: dict[str, tuple[int, ...]] = {"indices": (), "probabilities": ()}
        if manifest.output != "argmax":
            [logits] = [name for name in names if name != self._input]
            expected = {logits: (manifest.classes,)}
        if expected.keys() != set(names) - {self._input}:
            raise ModelUnreadable(backend._path, f"its manifest promises {[*expected]}, it has {names}")
        numbers = {name: np.dtype(backend._trt.nptype(engine.get_tensor_dtype(name))) for name in expected}
        self._outputs = [_Output(name, numbers[name], tail) for name, tail in expected.items()]
        batch, width = self._sizes.batch.maximum, self._sizes.width.maximum
        bytes_ = [4 * batch * manifest.channels * manifest.height * width]
        for output in self._outputs:
            frames = batch * manifest.steps(width)
            bytes_.append(frames * int(np.prod(output.tail, dtype=int)) * output.dtype.itemsize)
        self._host = [cuda.pinned(size) for size in bytes_]
        self._device = [cuda.memory(size) for size in bytes_]
        self._plain = self._context()
        self._seen: set[tuple[int, ...]] = set()
        self._graphs: OrderedDict[tuple[int, ...], tuple[Graph, Any]] = OrderedDict()
        self._capturable = True

    def _context(self) -> Any:
        context = self._backend._contexts.make()
        if context is None:
            raise RunFailed(self._backend._path, (), "the GPU has no memory left for an execution context")
        context.set_optimization_profile_async(self._profile, self._stream.handle)
        self._stream.synchronize()
        for name, memory in zip(
            [self._input, *(output.name for output in self._outputs)], self._device, strict=True
        ):
            context.set_tensor_address(name, memory.address)
        return context

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Outputs of at most the profile's largest batch."""
        count = len(images)
        shape = (max(count, self._sizes.batch.minimum), *images.shape[1:])
        steps = self._backend.manifest.steps(shape[3])
        staged = _view(self._host[0], np.dtype(np.float32), shape)
        staged[:count] = images
        staged[count:] = 0
        results = [
            _view(host, output.dtype, (shape[0], steps, *output.tail))
            for host, output in zip(self._host[1:], self._outputs, strict=True)
        ]
        if (graph := self._graph(shape, staged, results)) is not None:
            graph.launch()
        else:
            self._queue(self._plain, shape, staged, results)
        self._stream.synchronize()
        return [result[:count].copy() for result in results]

    def _queue(
        self, context: Any, shape: tuple[int, ...], staged: NDArray[Any], results: list[NDArray[Any]]
    ) -> None:
        path = self._backend._path
        if not context.set_input_shape(self._input, shape):
            raise RunFailed(path, shape, "the profile does not take this shape")
        promised = {output.name: result.shape for output, result in zip(self._outputs, results, strict=True)}
        given = {name: tuple(context.get_tensor_shape(name)) for name in promised}
        if given != promised:
            raise RunFailed(path, shape, f"its manifest promises outputs {promised}, it gives {given}")
        self._stream.to_device(self._device[0], staged)
        if not context.execute_async_v3(self._stream.handle):
            reason = " ".join(logger(self._backend._trt).errors[-1:]) or "TensorRT gives no reason"
            raise RunFailed(path, shape, reason)
        for result, memory in zip(results, self._device[1:], strict=True):
            self._stream.to_host(result, memory)

    def _graph(
        self, shape: tuple[int, ...], staged: NDArray[Any], results: list[NDArray[Any]]
    ) -> Graph | None:
        """The graph of a shape; recorded when the shape comes a second time."""
        if shape in self._graphs:
            self._graphs.move_to_end(shape)
            return self._graphs[shape][0]
        if shape not in self._seen or not self._capturable:
            self._seen.add(shape)
            return None
        # a graph holds to the state of its context, which another shape would change
        context = self._context()
        self._queue(context, shape, staged, results)  # what TensorRT does once for a shape is not recorded
        self._stream.synchronize()
        graph, reason = self._recorded(context, shape, staged, results)
        if graph is None:
            self._capturable = False
            self._backend.not_recorded = reason
            return None
        self._graphs[shape] = graph, context
        if len(self._graphs) > _GRAPHS:
            self._graphs.popitem(last=False)
        return graph

    def _recorded(
        self, context: Any, shape: tuple[int, ...], staged: NDArray[Any], results: list[NDArray[Any]]
    ) -> tuple[Graph | None, str]:
        """A graph of one run, or why there is none: not every loop can be recorded, and plain runs go on."""
        capturable = getattr(context, "is_stream_capturable", lambda handle: True)  # of TensorRT for RTX
        if not capturable(self._stream.handle):
            return None, "TensorRT for RTX says that this stream cannot be recorded"
        failures: tuple[type[Exception], ...] = (RunFailed, *self._backend._cuda.failures)
        try:
            graph = self._stream.record(lambda: self._queue(context, shape, staged, results))
        except failures as error:
            return None, str(error)
        return graph, "this library has no CUDA graphs"


def _view(buffer: NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The beginning of a buffer as an array."""
    return buffer[: int(np.prod(shape, dtype=int)) * dtype.itemsize].view(dtype).reshape(shape)


@cache
def logger(trt: Any) -> Any:
    """The one logger of a library, which keeps the first that it is given. Only errors are kept."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()
