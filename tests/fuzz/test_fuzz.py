"""Every fuzz target, for a few seconds each; by hand they run as long as one likes (see `harness`)."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TARGETS = sorted(
    path for path in HERE.glob("*.py") if path.stem not in ("harness", "image_seeds", "test_fuzz")
)
SECONDS = 6  # of each target


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="no atheris for this system")
@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_nothing_is_found_in_a_few_seconds(path: Path, tmp_path: Path) -> None:
    # the shell between them: a process takes over the peak memory of the one that starts it, which libFuzzer
    # would put down to the target
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, str(path), "--seconds", str(SECONDS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    executions = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    assert executions is not None and int(executions[1]) > 10
