"""Parts of a measurement: each keeps what it has so far, and a failure costs one line and nothing else.

A part is a process of its own. If it takes too long, only it ends, and what it has measured so far is kept. A
library may crash, or a wrong address may destroy the GPU's context. That costs one row: a new process goes on
with the next one.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from crnn_deploy.errors import BackendMissing, CrnnDeployError
from crnn_deploy.runtime.backends import driver

__all__ = [
    "INT8",
    "Different",
    "Part",
    "Work",
    "loses_context",
    "merged",
    "one_line",
    "require_gpu",
    "run_parts",
    "shown",
    "write",
]

INT8 = "int8.onnx"  # in the folder of all parts, where a quantised model is given
_GRACE = 10.0  # seconds at most between the time at which a part should end and that at which it is ended
_SHORTEST = 2.0  # seconds below which a part is not begun
_INTERRUPTED = 130
_LOST = 75  # exit code of a part whose GPU context is lost: what follows needs a new process
_AGAIN = 20  # times at most that a part goes on in a new process
# of errors after which every call to CUDA in the same process fails too
_LOSING = (
    *("illegal memory access", "illegal_address", "misaligned address", "misaligned_address"),
    *("device-side assert triggered", "cuda_error_assert", "unspecified launch failure", "launch_failed"),
    *("illegal instruction", "illegal_instruction", "invalid program counter", "invalid_pc"),
    *("hardware stack error", "hardware_stack_error", "launch_timeout", "launch timed out"),
    *("uncorrectable", "cluster target block not present"),
)
_UNDER_WAY = "under way"


@dataclass
class Work:
    """What one part measures, and how long it may take.

    A part that goes on after a crash finds here what it had measured: rows that are done are not measured
    again, and the row that crashed says so.

    folder: models and engines; those of a part stay for the parts that follow
    path: the part's results, written whenever there is one more; None: kept in memory alone
    until: when it should end, as `time.time` says it
    target: what engines of TensorRT for RTX are built for, as --target; empty: what `targets` found
    crash: how the process before this one ended
    """

    folder: Path
    path: Path | None = None
    until: float = float("inf")
    target: str = ""
    crash: str = ""
    results: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.crash and self.path is not None and self.path.exists():
            self.results = json.loads(self.path.read_text(encoding="utf-8"))

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

    def kept(self, *keys: str) -> Any:
        """What stands under these keys, or None."""
        place: Any = self.results
        for key in keys:
            place = place.get(key) if isinstance(place, dict) else None
        return place

    def attempt(self, task: Callable[[], Any], *keys: str, again: bool = False) -> Any:
        """Do a task and keep what it gives; where it fails keep why in one line. None where there is nothing.

        A task that a build makes may end itself by KeyboardInterrupt once `late` says so.

        again: whether a process that goes on after a crash does it once more, as what follows needs it
        """
        before = self.kept(*keys)
        failed = isinstance(before, dict) and bool(before.keys() & _FAILED)
        if before == {"error": _UNDER_WAY}:
            self.keep({"crashed": self.crash}, *keys)
            return None
        if isinstance(before, dict) and "crashed" in before:
            return None  # it would crash again
        if before is not None and not again:
            return None if failed else before
        if self.late():
            if before is None or failed:
                self.keep({"error": "not begun: the time of this part is spent"}, *keys)
            return None
        self.keep({"error": _UNDER_WAY}, *keys)
        try:
            value = task()
        except BackendMissing as error:
            self.keep({"not installed": one_line(error)}, *keys)
        except KeyboardInterrupt:
            if not self.late():
                raise
            self.keep({"error": "stopped: the time of this part is spent"}, *keys)
        except Exception as error:  # whatever a library raises is a result here
            lost = loses_context(error)
            self.keep({"crashed" if lost else "error": one_line(error)}, *keys)
            if lost:
                raise SystemExit(_LOST) from error
        else:
            self.keep(value, *keys)
            return value
        return None

    def targets(self) -> tuple[str, ...]:
        """What engines of TensorRT for RTX are built for here; empty: what it builds for by itself."""
        found = self.folder / "target.txt"
        said = self.target or (found.read_text(encoding="utf-8") if found.exists() else "")
        return tuple(filter(None, said.split(",")))


_FAILED = {"error", "not installed", "crashed"}
_OF_A_RUN = {*_FAILED, "seconds", "crashes"}  # of a part: what it says of its own run, not what it measured


@dataclass(frozen=True)
class Part:
    """One part: a function of a `Work`, and of PyTorch's GPU where it asks for that."""

    target: str  # as `module:function`, imported in the part's own process
    seconds: float  # that it takes; also its share of the time that is left for it and those after it
    about: str  # what it measures, in a few words
    needs: tuple[str, ...] = ()  # modules
    on_gpu: bool = False

    def run(self, work: Work) -> int:
        """The exit code of its process; why it ended badly is the last line that it prints."""
        try:
            module, name = self.target.split(":")
            function = getattr(import_module(module), name)
            if self.on_gpu:
                from benchmarks.gpu.device import TorchGpu

                function(work, TorchGpu())
            else:
                function(work)
        except Exception as error:
            traceback.print_exc()
            print(one_line(error), file=sys.stderr)
            return _LOST if loses_context(error) else 1
        return 0


class Different(CrnnDeployError, ValueError):
    """Results of two GPUs, which are not one result."""


def run_parts(
    parts: Mapping[str, Part],
    command: Callable[[str, float, Path, str], Sequence[str]],
    results: dict[str, Any],
    *,
    seconds: float,
    folder: Path,
    changed: Callable[[dict[str, Any]], object],
) -> None:
    """Run each part in a process of its own, all within `seconds`, and put what it kept into `results`.

    A part that crashes goes on in a new process behind the row that crashed. Each leaves its results in the
    folder as NAME.json and what it printed as NAME.log.

    command: for a part's name, when it should end (`Work.until`), where it writes its results, and how the
        process before ended, which is empty in the first
    changed: called with `results` after each part
    """
    end = time.time() + seconds
    left = sum(part.seconds for part in parts.values())
    for name, part in parts.items():
        start = time.time()
        until = start + (end - start) * part.seconds / left
        left -= part.seconds
        path, log = folder / f"{name}.json", folder / f"{name}.log"
        path.unlink(missing_ok=True)
        problem, crashes = _whole(partial(command, name), until, path, log)
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        results[name] = {
            **_ended(kept, problem or "the part ended within this row"),
            "seconds": round(time.time() - start, 1),
            **({} if not crashes else {"crashes": crashes}),
            **({} if problem is None else {"error": problem}),
        }
        changed(results)
        print(f"{name}: {problem or 'done'}, {results[name]['seconds']} s", file=sys.stderr, flush=True)


def _ended(kept: dict[str, Any], problem: str) -> dict[str, Any]:
    """Results in which the row that was under way says how its part ended."""
    return {
        name: {"error": problem}
        if value == {"error": _UNDER_WAY}
        else _ended(value, problem)
        if isinstance(value, dict)
        else value
        for name, value in kept.items()
    }


def _whole(
    command: Callable[[float, Path, str], Sequence[str]], until: float, path: Path, log: Path
) -> tuple[str | None, list[str]]:
    """Why a part did not end well, None where it did; and how its processes before the last one ended."""
    log.unlink(missing_ok=True)
    crashes: list[str] = []
    while True:
        given = until - time.time()
        if given < _SHORTEST:
            return "not begun: the time is spent" if not crashes else crashes[-1], crashes
        before = path.read_bytes() if path.exists() else b""
        last = crashes[-1] if crashes else ""
        problem, crashed = _run(command(until - min(_GRACE, given / 4), path, last), given, log)
        after = path.read_bytes() if path.exists() else b""
        if not crashed or problem is None or before == after or len(crashes) == _AGAIN:
            return problem, crashes
        crashes.append(problem)


def _run(command: Sequence[str], seconds: float, log: Path) -> tuple[str | None, bool]:
    """Why a process did not end well, None where it did; and whether it crashed: another may go on then."""
    try:
        with open(log, "a", encoding="utf-8") as file:
            done = subprocess.run(command, stdout=file, stderr=file, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"ended after {seconds:.0f} s: its time was spent", False
    if not done.returncode:
        return None, False
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name}", True
    if done.returncode == _LOST:
        return "the GPU's context was lost", True
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return (last[0] if last else f"exit code {done.returncode}"), False


def merged(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Partial results of one GPU as one: of a row that is there twice the later one that measured anything.

    Raises Different.
    """
    whole: dict[str, Any] = {}
    for result in results:
        for name in ("suite", "gpu"):
            if whole.get(name, result.get(name)) != result.get(name):
                raise Different(f"these are results of two machines: {whole[name]} and {result.get(name)}")
        for name, value in result.items():
            if name == "versions":
                whole[name] = {**whole.get(name, {}), **value}
            else:
                whole[name] = _later(whole.get(name), value)
    return whole


def _later(old: Any, new: Any) -> Any:
    if not _measured(old) or not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    if not _measured(new):
        return old
    kept = {name: value for name, value in old.items() if name not in _OF_A_RUN}
    return kept | {name: _later(kept.get(name), value) for name, value in new.items()}


def _measured(value: Any) -> bool:
    """Whether there is a number in a part's results beside what it says of its own run."""
    if isinstance(value, dict):
        return any(_measured(inner) for name, inner in value.items() if name not in _OF_A_RUN)
    return isinstance(value, int | float) and not isinstance(value, bool)


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


def loses_context(error: BaseException) -> bool:
    """Whether nothing runs on the GPU in this process any more."""
    return any(words in str(error).lower() for words in _LOSING)


def one_line(error: BaseException) -> str:
    """As `RuntimeError: reason`, without the kind where the toolkit speaks."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, CrnnDeployError) else f"{type(error).__name__}: {text}"


def write(results: Mapping[str, Any], path: Path) -> None:
    """Results as JSON, in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    sound = json.loads(json.dumps(results), parse_constant=lambda _: None)  # NaN and infinity are no JSON
    temporary.write_text(json.dumps(sound, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
