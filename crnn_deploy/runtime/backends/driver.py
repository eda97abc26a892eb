"""What NVIDIA's driver says of this machine, asked through ctypes: needs no CUDA library and no GPU."""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Driver", "Gpu", "probe"]

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_REASONS = {  # of CUresult, those that people meet
    3: "the driver is not initialised",
    34: "the library found is a stub for linking, not a driver",
    100: "no CUDA-capable GPU is detected",
    803: "the driver and its library have different versions",
    804: "the GPU does not support forward compatibility of the driver's library",
}


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU."""

    name: str
    compute_capability: str  # as "9.0"
    memory: int  # bytes

    @property
    def target(self) -> str:
        """As compilers call it: sm_90."""
        return f"sm_{self.compute_capability.replace('.', '')}"


@dataclass(frozen=True)
class Driver:
    """The driver and its GPUs."""

    cuda: str | None = None  # newest CUDA version that it serves
    version: str | None = None  # of the driver, where the system tells it
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None  # why there is no GPU


def probe() -> Driver:
    """Ask the driver; TensorRT's runtime crashes where there is none, so this comes first."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        if result := library.cuInit(0):
            reason = _REASONS.get(result, f"error {result}")
            return Driver(version=_driver_version(), problem=f"the NVIDIA driver does not start: {reason}")
        number = ctypes.c_int()
        library.cuDriverGetVersion(ctypes.byref(number))
        cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
        library.cuDeviceGetCount(ctypes.byref(number))
        gpus = tuple(_gpu(library, at) for at in range(number.value))
    except OSError:
        return Driver(problem=f"no NVIDIA driver ({_LIBRARY} is not found)")
    except AttributeError:
        return Driver(problem=f"{_LIBRARY} is not NVIDIA's driver")
    problem = None if gpus else "the NVIDIA driver shows no GPU (see CUDA_VISIBLE_DEVICES)"
    return Driver(cuda, _driver_version(), gpus, problem)


def _gpu(library: ctypes.CDLL, at: int) -> Gpu:
    device, value = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGet(ctypes.byref(device), at)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGetName(name, len(name), device)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    memory = ctypes.c_size_t()
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(name.value.decode(errors="replace"), ".".join(capability), memory.value)


def _driver_version() -> str | None:
    """From the kernel module, on Linux."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else None
