"""NVIDIA's cuda-bindings, replaced by a driver of paper that knows which context is current where."""

from __future__ import annotations

import gc
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crnn_deploy.runtime.backends.cuda import Cuda, CudaFailed, open_cuda

CODES = {0: "CUDA_SUCCESS", 201: "CUDA_ERROR_INVALID_CONTEXT", 901: "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}


class Code(int):
    @property
    def name(self) -> str:
        return CODES[self]


class Driver(ModuleType):
    """Functions of the driver; what needs a current context fails without one, as the real one does."""

    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    FREE = ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent", "cuCtxPopCurrent")

    def __init__(self) -> None:
        super().__init__("cuda.bindings.driver")
        self.local = threading.local()
        self.held: dict[str, set[int]] = {"memory": set(), "host": set(), "stream": set(), "graph": set()}
        self.blocks: dict[int, Any] = {}
        self.capturing = self.invalid = False

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            stack = self.local.__dict__.setdefault("stack", [])
            if name not in self.FREE and not stack:
                return (Code(201),)
            return self.answer(name, stack, *arguments)

        call.__name__ = name
        return call

    def answer(self, name: str, stack: list[Any], *arguments: Any) -> tuple[Any, ...]:
        kinds = {"cuMemAlloc": "memory", "cuMemHostAlloc": "host", "cuStreamCreate": "stream"}
        ends = {"cuMemFree": "memory", "cuMemFreeHost": "host", "cuStreamDestroy": "stream"}
        ends |= {"cuGraphExecDestroy": "graph", "cuGraphDestroy": "graph"}
        value: Any = None
        if name == "cuCtxPushCurrent":
            stack.append(arguments[0])
        elif name == "cuCtxPopCurrent":
            value = stack.pop()
        elif name in kinds:
            block = np.zeros(arguments[0] if "Alloc" in name else 8, np.uint8)
            value = block.ctypes.data
            self.blocks[value] = block
            self.held[kinds[name]].add(value)
        elif name in ends:
            self.held[ends[name]].remove(arguments[0])
        elif name == "cuStreamBeginCapture":
            self.capturing = True
        elif name == "cuStreamEndCapture":
            self.capturing = False
            if self.invalid:
                return Code(901), None
            value = len(self.held["graph"]) + 1000
            self.held["graph"].add(value)
        elif name == "cuGraphInstantiate":
            value = arguments[0] + 1000
            self.held["graph"].add(value)
        return (Code(0), value)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", made)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    return made


def hold(cuda: Cuda) -> list[Any]:
    """One of everything that the driver must free."""
    with cuda.active():
        stream = cuda.stream()
        return [stream, cuda.memory(64), cuda.pinned(32), stream.record(lambda: None)]


@pytest.mark.parametrize("thread", [False, True])
def test_what_is_no_longer_used_is_freed_wherever_it_ends(thread: bool, driver: Driver) -> None:
    """Where the last name of it goes, no context is current; the driver frees nothing then."""
    cuda = open_cuda()
    held = hold(cuda)
    assert {kind: len(handles) for kind, handles in driver.held.items()} == {
        **{"memory": 1, "host": 1, "stream": 1, "graph": 1},
    }
    if thread:
        ending = threading.Thread(target=held.clear)
        ending.start()
        ending.join()
    else:
        held.clear()
    gc.collect()
    assert not any(driver.held.values())
    assert not driver.local.__dict__.get("stack")


def test_a_recording_that_fails_leaves_the_stream_and_holds_nothing(driver: Driver) -> None:
    cuda = open_cuda()

    def refused() -> None:
        assert driver.capturing
        raise RuntimeError("TensorRT gives no reason")

    with cuda.active():
        stream = cuda.stream()
        with pytest.raises(RuntimeError, match="TensorRT gives no reason"):
            stream.record(refused)
        assert not driver.capturing and not driver.held["graph"]
        driver.invalid = True
        with pytest.raises(RuntimeError, match="TensorRT gives no reason"):
            stream.record(refused)
        with pytest.raises(CudaFailed, match="cuStreamEndCapture fails on the GPU: CUDA_ERROR_STREAM"):
            stream.record(lambda: None)
        assert not driver.capturing and not driver.held["graph"]
        driver.invalid = False
        assert stream.record(lambda: None) is not None
