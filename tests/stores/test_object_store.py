"""Object stores over a real connection, each in a network of its own: `on_s3.py` and others beside this."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from namespaces import alone, needs_namespaces

from benchmarks.cluster.object_store import KINDS, installed

ROOT = Path(__file__).parents[2]
BESIDE = str(Path(sys.executable).parent)  # where pip puts commands


@needs_namespaces
@pytest.mark.parametrize("kind", KINDS)
def test_s3(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("botocore")
    if kind not in installed():
        pytest.skip(f"{kind} is not installed: see benchmarks/cluster/object_store.py")
    passed_in_there("on_s3.py", tmp_path, OBJECT_STORE=kind)


def passed_in_there(name: str, folder: Path, **environment: str) -> None:
    """Run the tests of a file beside this one in a network of their own."""
    variables = " ".join(f"{name}={value}" for name, value in environment.items())
    options = f"-q -p no:cacheprovider --basetemp {folder / 'tmp'}"
    tests = Path(__file__).parent / name
    run = alone(f"cd {ROOT} && {variables} $python -m pytest {options} {tests}", folder)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


@needs_namespaces
def test_gs(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    emulator = os.environ.get("GCS_EMULATOR") or shutil.which("gcp-storage-emulator", path=BESIDE)
    if emulator is None:
        pytest.skip("no gcp-storage-emulator, which the test extra has, nor one that GCS_EMULATOR names")
    passed_in_there("on_gs.py", tmp_path, GCS_EMULATOR=emulator)
