"""The command line on a GPU, as a person types it, and the tests that need a GPU."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.work import Work
from crnn_deploy.models import DEFAULT

__all__ = ["commands"]

_ROOT = Path(__file__).parents[2]
_SECONDS = 60.0  # of one command at most
_LINES, _LONGEST = 20, 300  # of what a command printed last, and characters of a line


def commands(work: Work) -> None:
    """Each costs its own time alone; what it printed last and its exit code are kept."""
    images, engine = str(_ROOT / "examples" / "images"), str(work.folder / "commands.engine")
    targets = [word for target in work.targets() for word in ("--target", target)]
    run, pytest = (sys.executable, "-m", "crnn_deploy"), (sys.executable, "-m", "pytest")
    build = (
        *run,
        "build-engine",
        str(DEFAULT),
        "--fp16",
        *targets,
        "--width-range",
        "32,160,640",
        "-o",
        engine,
    )
    checkpoint = str(_ROOT / "training" / "latin.pth")
    steps: dict[str, Sequence[str]] = {
        "infer": (*run, "infer", images),
        "infer --device cuda": (*run, "infer", "--device", "cuda", images),
        "infer --device cuda --allow-tf32": (*run, "infer", "--device", "cuda", "--allow-tf32", images),
        "build-engine --fp16": build,
        "infer --model FILE.engine": (*run, "infer", "--model", engine, images),
        "inspect FILE.engine": (*run, "inspect", engine),
        "verify FILE.pth FILE.engine": (*run, "verify", checkpoint, engine, "--images", images),
        "pytest -m gpu": (
            *pytest,
            "-m",
            "gpu",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/benchmarks/test_gpu.py",
        ),
    }
    for name, command in steps.items():
        work.attempt(partial(_run, work, command), name)


def _run(work: Work, command: Sequence[str]) -> dict[str, Any]:
    start = time.time()
    code: int | str
    with tempfile.TemporaryFile() as said:
        try:
            left = max(1.0, min(_SECONDS, work.until - start))
            done = subprocess.run(command, cwd=_ROOT, stdout=said, stderr=said, timeout=left)
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = f"ended after {left:.0f} s"
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()[-_LINES:]
    seconds = round(time.time() - start, 1)
    return {"exit code": code, "seconds": seconds, "last lines": [line[:_LONGEST] for line in lines]}
