"""Parts of a measurement: each keeps what it has so far, and what fails costs one line and nothing else.

A part is a process of its own: a library that crashes, a GPU that is lost to a wrong address, or a part that
takes too long ends that part alone, and what it had measured until then is kept.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from crnn_deploy import driver
from crnn_deploy.errors import BackendMissing, CrnnDeployError

__all__ = ["INT8", "Part", "Work", "one_line", "require_gpu", "run_parts", "shown", "write"]

INT8 = "int8.onnx"  # in the folder of all parts, where a quantised model is given
_GRACE = 10.0  # seconds between the time at which a part should end and that at which it is ended
_INTERRUPTED = 130


@dataclass
class Work:
    """What one part measures, and how long it may take.

    folder: models and engines; those of a part stay for the parts that follow
    path: the part's results, written whenever there is one more; None: kept in memory alone
    until: when it should end, as `time.time` says it
    """

    folder: Path
    path: Path | None = None
    until: float = float("inf")
    results: dict[str, Any] = field(default_factory=dict)

    def late(self) -> bool:
        """Whether the part's time is spent."""
        return time.time() > self.until

    def keep(self, value: Any, *keys: str) -> None:
        """Put a result under its keys, one within the other."""
        place = self.results
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        if self.path is not None:
            write(self.results, self.path)

    def attempt(self, task: Callable[[], Any], *keys: str) -> Any:
        """Do a task and keep what it gives; where it fails keep why in one line. None where there is nothing.

        A task that a build makes may end itself by KeyboardInterrupt once `late` says so.
        """
        if self.late():
            self.keep({"error": "not begun: the time of this part is spent"}, *keys)
            return None
        try:
            value = task()
        except BackendMissing as error:
            self.keep({"not installed": one_line(error)}, *keys)
        except KeyboardInterrupt:
            if not self.late():
                raise
            self.keep({"error": "stopped: the time of this part is spent"}, *keys)
        except Exception as error:  # whatever a library raises is a result here
            self.keep({"error": one_line(error)}, *keys)
        else:
            self.keep(value, *keys)
            return value
        return None


@dataclass(frozen=True)
class Part:
    """One part: a function of a `Work`, and of PyTorch's GPU where it asks for that."""

    target: str  # as `module:function`, imported in the part's own process
    share: float  # of the time that is left for it and those after it
    on_gpu: bool = False

    def run(self, work: Work) -> None:
        module, name = self.target.split(":")
        function = getattr(import_module(module), name)
        if self.on_gpu:
            from gpu.device import TorchGpu

            function(work, TorchGpu())
        else:
            function(work)


def run_parts(
    parts: Mapping[str, Part],
    command: Callable[[str, float, Path], Sequence[str]],
    results: dict[str, Any],
    *,
    seconds: float,
    folder: Path,
    changed: Callable[[dict[str, Any]], object],
) -> None:
    """Run each part in a process of its own, all within `seconds`, and put what it kept into `results`.

    command: for a part's name, when it should end (`Work.until`) and where it writes its results
    changed: called with `results` after each part
    """
    end = time.time() + seconds
    left = sum(part.share for part in parts.values())
    for name, part in parts.items():
        start = time.time()
        given = (end - start) * part.share / left
        left -= part.share
        path, log = folder / f"{name}.json", folder / f"{name}.log"
        if given > _GRACE:
            problem = _run(command(name, start + given - _GRACE, path), given, log)
        else:
            problem = "not begun: the time is spent"
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        results[name] = {
            **kept,
            "seconds": round(time.time() - start, 1),
            **({} if problem is None else {"error": problem}),
        }
        changed(results)
        print(f"{name}: {problem or 'done'}, {results[name]['seconds']} s", file=sys.stderr, flush=True)


def _run(command: Sequence[str], seconds: float, log: Path) -> str | None:
    """Why a process did not end well; None where it did."""
    try:
        with open(log, "w", encoding="utf-8") as file:
            done = subprocess.run(command, stdout=file, stderr=file, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"ended after {seconds:.0f} s: its time was spent"
    if not done.returncode:
        return None
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name}"
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return last[0] if last else f"exit code {done.returncode}"


def require_gpu() -> driver.Driver:
    """The driver, once it shows a GPU. Raises BackendMissing."""
    found = driver.probe()
    if found.problem is not None:
        raise BackendMissing(f"this measures an NVIDIA GPU: {found.problem}; run crnn-deploy doctor")
    return found


def shown(main: Callable[[], None]) -> int:
    """Run a script's main; the exit code, after an error in one line as the command line shows it."""
    try:
        main()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except CrnnDeployError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def one_line(error: BaseException) -> str:
    """As `RuntimeError: reason`, without the kind where the toolkit speaks."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, CrnnDeployError) else f"{type(error).__name__}: {text}"


def write(results: Mapping[str, Any], path: Path) -> None:
    """Results as JSON, in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
