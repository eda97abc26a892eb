"""Shards in S3 over a real connection, in a network of its own: the tests of `shards_on_s3.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from namespaces import alone, needs_namespaces

from benchmarks.cluster.object_store import installed

ROOT = Path(__file__).parents[2]


@needs_namespaces
def test_on_s3(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    if not (kinds := installed()):
        pytest.skip("no S3 server is installed: see benchmarks/cluster/object_store.py")
    command = f"OBJECT_STORE={kinds[0]} TMPDIR={tmp_path} $python -m pytest -q -p no:cacheprovider"
    tests = Path(__file__).parent / "shards_on_s3.py"
    run = alone(f"cd {ROOT} && {command} --basetemp {tmp_path / 'tmp'} {tests}", tmp_path, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
