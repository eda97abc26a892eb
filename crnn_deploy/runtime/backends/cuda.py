"""The CUDA driver's memory, streams and graphs: PyCUDA, or NVIDIA's cuda-bindings where that is absent.

The one file that touches them. Work happens in the device's primary context, which other libraries of the
process share, made current for as long as it is needed; never `pycuda.autoinit`, whose context is its own.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import BackendMissing, CrnnDeployError

__all__ = ["Cuda", "CudaFailed", "Graph", "Memory", "Stream", "open_cuda"]


class CudaFailed(CrnnDeployError, RuntimeError):
    """A call to the CUDA driver that did not succeed."""

    exit_code = 1


class Memory(Protocol):
    """Device memory, freed with this object."""

    @property
    def address(self) -> int: ...


class Graph(Protocol):
    """Work that was recorded on a stream, to be queued there again at once."""

    def launch(self) -> None: ...


class Stream(Protocol):
    """A queue of work; all but `synchronize` return before the work is done."""

    @property
    def handle(self) -> int: ...

    def to_device(self, memory: Memory, host: NDArray[Any]) -> None: ...

    def to_host(self, host: NDArray[Any], memory: Memory) -> None: ...

    def synchronize(self) -> None: ...

    def record(self, work: Callable[[], None]) -> Graph | None:
        """What `work` queues here, recorded and not run; None where the library cannot.

        Where it fails the stream is as it was before, with nothing queued.
        """
        ...


class Cuda(Protocol):
    """One GPU. Everything but `active` is called while that is entered. Calls raise what `failures` names."""

    @property
    def failures(self) -> tuple[type[Exception], ...]: ...

    def active(self) -> AbstractContextManager[None]:
        """The primary context, current in this thread."""
        ...

    def stream(self) -> Stream: ...

    def memory(self, size: int) -> Memory:
        """`size` bytes on the device."""
        ...

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes on the host that the device copies by itself."""
        ...


def open_cuda(device: int = 0) -> Cuda:
    """The driver of a GPU, through the library that is installed. Ask `driver.probe` first.

    Raises BackendMissing.
    """
    for kind in (_PyCuda, _CudaBindings):
        try:
            return kind(device)
        except ImportError:
            continue
    raise BackendMissing(
        "engines need PyCUDA or cuda-bindings to reach the GPU; run pip install 'crnn-deploy[pycuda]' "
        "(where that fails, bash benchmarks/gpu/install_pycuda.sh) or pip install 'crnn-deploy[cuda]'"
    )


class _PyCuda:
    def __init__(self, device: int) -> None:
        self._driver: Any = import_module("pycuda.driver")
        self._driver.init()
        self._context = self._driver.Device(device).retain_primary_context()
        self.failures: tuple[type[Exception], ...] = (self._driver.Error,)

    @contextmanager
    def active(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def stream(self) -> Stream:
        return _PyCudaStream(self._driver)

    def memory(self, size: int) -> Memory:
        return _PyCudaMemory(self._driver.mem_alloc(size))

    def pinned(self, size: int) -> NDArray[np.uint8]:
        array: NDArray[np.uint8] = self._driver.pagelocked_empty(size, np.uint8)
        return array


class _PyCudaMemory:
    def __init__(self, allocation: Any) -> None:
        self._allocation = allocation  # frees itself
        self.address = int(allocation)


class _PyCudaStream:
    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._stream = driver.Stream()
        self.handle = int(self._stream.handle)

    def to_device(self, memory: Memory, host: NDArray[Any]) -> None:
        self._driver.memcpy_htod_async(memory.address, host, self._stream)

    def to_host(self, host: NDArray[Any], memory: Memory) -> None:
        self._driver.memcpy_dtoh_async(host, memory.address, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def record(self, work: Callable[[], None]) -> Graph | None:
        return None  # PyCUDA 2026.1 has no graphs


class _CudaBindings:
    failures: tuple[type[Exception], ...] = (CudaFailed,)

    def __init__(self, device: int) -> None:
        self._driver: Any = import_module("cuda.bindings.driver")
        _call(self._driver.cuInit, 0)
        handle = _call(self._driver.cuDeviceGet, device)
        self._context = _call(self._driver.cuDevicePrimaryCtxRetain, handle)

    @contextmanager
    def active(self) -> Iterator[None]:
        _call(self._driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            _call(self._driver.cuCtxPopCurrent)

    def stream(self) -> Stream:
        return _BoundStream(self, self._driver)

    def memory(self, size: int) -> Memory:
        return _BoundMemory(self, self._driver, size)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        address = int(_call(self._driver.cuMemHostAlloc, size, 0))
        block = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(block, self.release, self._driver.cuMemFreeHost, address)
        return np.frombuffer(memoryview(block), np.uint8)

    def release(self, function: Any, handle: Any) -> None:
        """Free what a handle stands for, from a finalizer: in any thread, with no context current there.

        A process that ends may have lost the driver by then; nothing is left to free.
        """
        with suppress(CudaFailed), self.active():
            _call(function, handle)


class _BoundMemory:
    def __init__(self, cuda: _CudaBindings, driver: Any, size: int) -> None:
        allocation = _call(driver.cuMemAlloc, size)
        self.address = int(allocation)
        weakref.finalize(self, cuda.release, driver.cuMemFree, allocation)


class _BoundStream:
    def __init__(self, cuda: _CudaBindings, driver: Any) -> None:
        self._cuda, self._driver = cuda, driver
        self._stream = _call(driver.cuStreamCreate, int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self.handle = int(self._stream)
        weakref.finalize(self, cuda.release, driver.cuStreamDestroy, self._stream)

    def to_device(self, memory: Memory, host: NDArray[Any]) -> None:
        _call(self._driver.cuMemcpyHtoDAsync, memory.address, host.ctypes.data, host.nbytes, self._stream)

    def to_host(self, host: NDArray[Any], memory: Memory) -> None:
        _call(self._driver.cuMemcpyDtoHAsync, host.ctypes.data, memory.address, host.nbytes, self._stream)

    def synchronize(self) -> None:
        _call(self._driver.cuStreamSynchronize, self._stream)

    def record(self, work: Callable[[], None]) -> Graph | None:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _call(self._driver.cuStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BaseException:
            with suppress(CudaFailed):  # the stream leaves its recording; why `work` failed is what counts
                self._driver.cuGraphDestroy(_call(self._driver.cuStreamEndCapture, self._stream))
            raise
        graph = _call(self._driver.cuStreamEndCapture, self._stream)
        return _BoundGraph(self._cuda, self._driver, graph, self._stream)


class _BoundGraph:
    def __init__(self, cuda: _CudaBindings, driver: Any, graph: Any, stream: Any) -> None:
        self._driver, self._stream = driver, stream
        try:
            self._executable = _call(driver.cuGraphInstantiate, graph, 0)
        finally:
            driver.cuGraphDestroy(graph)
        weakref.finalize(self, cuda.release, driver.cuGraphExecDestroy, self._executable)

    def launch(self) -> None:
        _call(self._driver.cuGraphLaunch, self._executable, self._stream)


def _call(function: Any, *arguments: Any) -> Any:
    """The value that a function of cuda-bindings gives with its result code. Raises CudaFailed."""
    code, *values = function(*arguments)
    if int(code):
        raise CudaFailed(f"{function.__name__} fails on the GPU: {code.name}")
    return values[0] if values else None
