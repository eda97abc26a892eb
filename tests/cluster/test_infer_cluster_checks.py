"""infer-cluster before it asks for a machine: wrong inputs and outputs, and a plan that is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from crnn_deploy.cli.main import main
from crnn_deploy.cluster.plan import part_of
from crnn_deploy.cluster.ray_nodes import ClusterFailed, connected
from crnn_deploy.cluster.sources import InputInvalid, plan_of
from crnn_deploy.stores.address import without_keys
from crnn_deploy.stores.store import Stores


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["infer-cluster", *map(str, args)])


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """A list without images, for which no Ray begins."""
    (tmp_path / "list.txt").write_bytes(b"\n\n")
    return tmp_path / "list.txt"


def test_an_input_that_is_not_there_leaves_the_output_free(nothing: Path, tmp_path: Path) -> None:
    output = tmp_path / "texts"
    wrong = run(tmp_path / "lits.txt", "-o", output)
    assert wrong.exit_code == 2 and "no file, folder or match" in wrong.stderr
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    assert run(nothing, tmp_path / "torn.parquet", "-o", output).exit_code == 2
    right = run(nothing, "-o", output)
    assert (right.exit_code, right.stderr) == (0, "")
    again = run(nothing, "-o", output)
    assert again.exit_code == 2 and "go on with it (--resume)" in again.stderr
    assert run(nothing, "-o", output, "--resume").exit_code == 0


def test_an_output_that_is_a_file_is_told(nothing: Path, tmp_path: Path) -> None:
    for output in (nothing, nothing / "texts"):
        refused = run(nothing, "-o", output)
        assert refused.exit_code == 2 and f"{nothing} is not a folder" in refused.stderr


def test_a_run_of_relative_paths_goes_on_in_its_own_folder_alone(
    nothing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(nothing.name, "-o", tmp_path / "texts").exit_code == 0
    assert run(nothing, "-o", tmp_path / "others").exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    other = run(nothing.name, "-o", tmp_path / "texts", "--resume")
    assert other.exit_code == 2 and "was made with working-folder" in other.stderr
    assert run(nothing, "-o", tmp_path / "others", "--resume").exit_code == 0


def test_a_stop_while_standard_input_is_waited_for_leaves_no_plan(tmp_path: Path) -> None:
    output = tmp_path / "texts"
    command = [sys.executable, "-m", "crnn_deploy", "infer-cluster", "-", "-o", output]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as begun:
        assert begun.stdin is not None and begun.stderr is not None
        begun.stdin.write("a.png\n")
        begun.stdin.flush()
        until = time.monotonic() + 60
        while not (output / "_run" / "run.json").exists():
            assert time.monotonic() < until and begun.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)
        begun.send_signal(signal.SIGINT)
        assert begun.wait(30) == 130
        assert "Traceback" not in begun.stderr.read()
    assert not (output / "_run" / "plan.parquet").exists()


def test_the_rows_of_an_earlier_run_are_no_input_of_the_next(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.png"]}), tmp_path / "images.parquet")
    earlier = tmp_path / "texts" / part_of(1)
    earlier.parent.mkdir(parents=True)
    pq.write_table(pa.table({"path": ["a.png"]}), earlier)
    with pytest.raises(InputInvalid, match="texts in it holds the rows of an earlier run"):
        list(plan_of([str(tmp_path)], 10, Stores([str(tmp_path)])))
    given = [str(tmp_path / "images.parquet"), str(tmp_path / "texts")]  # which names them
    assert [len(one.names) for one in plan_of(given, 10, Stores(given))] == [2]


def test_keys_of_an_address_are_not_told() -> None:
    given = "s3://KEY:SECRET@archive/crops/?region=eu-central-1"
    assert without_keys(given) == "s3://archive/crops/"
    assert without_keys("./crops?") == "./crops?"


def test_a_ray_that_does_not_start_here_is_no_cluster_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = pytest.importorskip("ray")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):  # which are set for Ray, and unset again
        monkeypatch.setenv(name, "")

    def late(**options: object) -> None:
        raise Exception("The current node timed out during startup.\nmore")

    monkeypatch.setattr(ray, "init", late)
    with (
        pytest.raises(ClusterFailed, match=r"^Ray failed: The current node timed out during startup"),
        connected(None),
    ):
        pass
