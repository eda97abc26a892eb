"""NVIDIA Triton Inference Server on this machine, started on a model repository and stopped again.

The wheel of `nvidia-pytriton` holds the server's program with its Python backend, and no other backend. It
needs no GPU. It lies in a virtual environment of its own, since that backend (2.51) was built for NumPy 1:

    python3.11 -m venv FOLDER
    FOLDER/bin/pip install nvidia-pytriton 'numpy<2' onnxruntime click
    FOLDER/bin/pip install --no-deps opencv-python-headless
    export TRITON_VENV=FOLDER

OpenCV's metadata asks for NumPy 2, but its code also runs with NumPy 1.26. The models' Python code finds this
toolkit where it lies. From the project's root:

    python -m benchmarks.serving.triton_server REPOSITORY
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__ = ["SERVER_FLAGS", "RunningTriton", "TritonFiles", "find_triton", "start_triton"]

ROOT = Path(__file__).parents[2]
SERVER_FLAGS = ("--model-control-mode=none", "--exit-timeout-secs=10", "--allow-gpu-metrics=false")
_PATIENCE = 120.0  # seconds until it is ready; a machine that does much else starts it in 10


@dataclass(frozen=True)
class TritonFiles:
    """Where the server's program and its Python lie."""

    packages: Path  # the folder `site-packages` that holds pytriton

    @property
    def home(self) -> Path:
        return self.packages / "pytriton" / "tritonserver"

    @property
    def version(self) -> str:
        """Of Python, as in 3.11."""
        return self.packages.parent.name.removeprefix("python")


def find_triton() -> TritonFiles | str:
    """The server in the virtual environment TRITON_VENV or in this one, or why there is none."""
    if venv := os.environ.get("TRITON_VENV"):
        found = sorted(Path(venv).glob("lib/python3.*/site-packages/pytriton/tritonserver/bin/tritonserver"))
        if not found:
            return f"TRITON_VENV is {venv}, where no nvidia-pytriton is installed"
        return TritonFiles(found[0].parents[3])
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        return "no Triton server: TRITON_VENV names no environment with nvidia-pytriton"
    return TritonFiles(Path(spec.origin).parents[1])


@dataclass(frozen=True)
class RunningTriton:
    """A server that is ready."""

    http: str  # host:port, as tritonclient.http.InferenceServerClient takes it
    grpc: str
    metrics: str  # URL of Prometheus metrics
    pid: int  # of the server; the Python backend's processes are its children
    log: Path


@contextmanager
def start_triton(
    repository: Path, *, flags: Sequence[str] = (), environment: dict[str, str] | None = None
) -> Generator[RunningTriton, None, None]:
    """The server on a model repository, ready; it is stopped when the block ends.

    flags: further ones of tritonserver
    environment: further variables, which the models' processes inherit
    Raises RuntimeError with the end of its log where there is no server or it does not start.
    """
    files = find_triton()
    if isinstance(files, str):
        raise RuntimeError(files)
    with tempfile.TemporaryDirectory(prefix="triton-") as scratch:
        log = Path(scratch) / "server.log"
        ports = _free_ports(3)
        command = [
            *(str(files.home / "bin" / "tritonserver"), f"--model-repository={repository.resolve()}"),
            f"--backend-directory={_backends(files, Path(scratch))}",
            *("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"),
            *(f"--http-port={ports[0]}", f"--grpc-port={ports[1]}", f"--metrics-port={ports[2]}"),
            *(*SERVER_FLAGS, *flags),
        ]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**_environment(files, Path(scratch)), **(environment or {})},
                start_new_session=True,  # so that whatever is left of it can be ended
            )
        http = f"127.0.0.1:{ports[0]}"
        try:
            _wait(process, http, log)
            yield RunningTriton(
                http, f"127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[2]}/metrics", process.pid, log
            )
        finally:
            _stop(process)


def _backends(files: TritonFiles, scratch: Path) -> Path:
    """A folder of backends as the server wants it: the wheel has the stub of each Python elsewhere."""
    made = scratch / "backends" / "python"
    made.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (made / name).symlink_to(files.home / "backends" / "python" / name)
    stub = "triton_python_backend_stub"  # it finds its libraries beside the file that is called
    shutil.copy(files.home / "python_backend_stubs" / files.version / stub, made / stub)
    return made.parent


def _environment(files: TritonFiles, scratch: Path) -> dict[str, str]:
    libraries = [str(files.packages / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")]
    search = [str(_python_home(files, scratch)), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "PATH": os.pathsep.join(filter(None, search)),
    }


def _python_home(files: TritonFiles, scratch: Path) -> Path:
    """The folder of a `python3` that stands first in PATH.

    The stub embeds the system's Python in isolation, so that PYTHONPATH means nothing to it. It takes the
    virtual environment of the first `python3` in PATH: here one whose only content is where to look further.
    """
    venv = scratch / "venv"
    packages = venv / "lib" / f"python{files.version}" / "site-packages"
    for folder in (venv / "bin", packages):
        folder.mkdir(parents=True)
    (venv / "bin" / "python3").symlink_to(f"/usr/bin/python{files.version}")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (packages / "paths.pth").write_text(f"{ROOT}\n{files.packages}\n")
    return venv / "bin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait(process: subprocess.Popen[bytes], http: str, log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"tritonserver ended with {process.returncode}:\n{_end_of(log)}")
        try:
            with urllib.request.urlopen(f"http://{http}/v2/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"tritonserver was not ready within {_PATIENCE:.0f} s:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then end it and the stubs that it may have left."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path, help="Serve the models of this model repository.")
    with start_triton(parser.parse_args().repository) as server:
        print(f"http {server.http}, grpc {server.grpc}; Ctrl-C ends it", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
