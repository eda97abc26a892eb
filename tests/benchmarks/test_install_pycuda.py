"""benchmarks/gpu/install_pycuda.sh up to the download: the library that PyCUDA is linked against."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "install_pycuda.sh"

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "g++", "gcc"))), reason="needs bash and a C++ compiler"
)


def install(root: Path, stub: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_ROOT": str(root), "ONLY_STUB": str(stub)}
    return subprocess.run(["bash", str(SCRIPT)], env=environment, capture_output=True, text=True)


def test_the_stub_has_the_names_that_the_headers_give_functions(tmp_path: Path) -> None:
    """A header maps cuMemAlloc to cuMemAlloc_v2; the profiler's functions stand in a header of their own."""
    include = tmp_path / "include"
    include.mkdir()
    (include / "cuda.h").write_text(
        "#define cuMemAlloc cuMemAlloc_v2\nint cuInit(unsigned);\nint cuMemAlloc(void **, long);\n"
    )
    (include / "cudaProfiler.h").write_text("int cuProfilerStart(void);\n")
    stub = tmp_path / "libcuda.so"
    done = install(tmp_path, stub)
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(stub))
    assert all(hasattr(library, name) for name in ("cuInit", "cuMemAlloc_v2", "cuProfilerStart"))
    assert not hasattr(library, "cuMemAlloc")


def test_no_headers_is_one_line(tmp_path: Path) -> None:
    done = install(tmp_path, tmp_path / "libcuda.so")
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [f"Error: no {tmp_path}/include/cuda.h; set CUDA_ROOT to where CUDA's headers are"],
    )
