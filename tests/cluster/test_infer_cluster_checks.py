"""infer-cluster before it asks for a machine: wrong inputs and outputs, and a plan that is stopped."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from crnn_deploy.cli.main import main
from crnn_deploy.cluster.plan import part_of, read_plan
from crnn_deploy.cluster.ray_nodes import ClusterFailed, connected
from crnn_deploy.cluster.sources import InputInvalid, plan_of
from crnn_deploy.stores.address import without_keys
from crnn_deploy.stores.store import Stores, open_store


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["infer-cluster", *map(str, args)])


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of an image on a machine without Ray, on which a run ends when its plan is written."""
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "list.txt").write_bytes(b"a.png\n")
    return tmp_path / "list.txt"


def ends_without_ray(ended: Result) -> bool:
    return ended.exit_code == 2 and "infer-cluster needs Ray" in ended.stderr


def test_an_input_that_cannot_be_used_leaves_no_output(listed: Path, tmp_path: Path) -> None:
    output = tmp_path / "texts"
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    for wrong, said in [
        (["lits.txt"], "no file, folder or match"),
        (["list.txt", "--column", "path"], "--column path: it goes with Parquet files, and no input is one"),
        (["list.txt", "--gpus-per-worker", "nan"], "takes a number such as 1 or 0.25"),
        (["list.txt", "--gpus-per-worker", "inf"], "takes a number such as 1 or 0.25"),
        (["-", "-"], "standard input (-) is named twice"),
    ]:
        refused = run(tmp_path / wrong[0] if wrong[0] != "-" else "-", *wrong[1:], "-o", output)
        assert refused.exit_code == 2 and said in refused.stderr
        assert not output.exists()
    assert run(listed, tmp_path / "torn.parquet", "-o", output).exit_code == 2


def test_an_input_without_an_image_is_told_and_leaves_the_output_free(listed: Path, tmp_path: Path) -> None:
    output = tmp_path / "texts"
    (tmp_path / "none.txt").write_bytes(b"\n\n")
    empty = run(tmp_path / "none.txt", "-o", output)
    assert empty.exit_code == 2 and "none.txt, so nothing was read" in empty.stderr
    assert ends_without_ray(run(listed, "-o", output))


def test_a_run_goes_on_with_its_own_plan_alone(listed: Path, tmp_path: Path) -> None:
    output = tmp_path / "texts"
    assert ends_without_ray(run(listed, "-o", output))
    again = run(listed, "-o", output)
    assert again.exit_code == 2 and "go on with it (--resume)" in again.stderr
    resumed = run(listed, "-o", output, "--resume")
    assert ends_without_ray(resumed)
    assert resumed.stderr.startswith(
        "the images are those that the first run has listed; images that came later are not read\n"
    )
    for lost in ("_run/run.json", "_run/plan.parquet"):
        (output / lost).write_bytes(b"")
        damaged = run(listed, "-o", output, "--resume")
        assert damaged.exit_code == 2 and "name a" in damaged.stderr and "-o" in damaged.stderr
        (output / lost).unlink()
    (output / "_run" / "plan.parquet").write_bytes(b"PAR1")
    damaged = run(listed, "-o", output, "--resume")
    assert damaged.exit_code == 2 and "name a new folder with -o" in damaged.stderr


WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from crnn_deploy.cli.main import main; main()"


@contextmanager
def waiting(output: Path) -> Iterator[Callable[[bytes], tuple[int, str]]]:
    """A run in another process that has claimed an output and waits for its list.

    It is called with the list, and gives exit code and stderr.
    """
    before = (output / "_run" / "claim").read_bytes() if output.exists() else b""
    command = [sys.executable, "-c", WITHOUT_RAY, "infer-cluster", "-", "-o", str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as begun:
        until = time.monotonic() + 60
        while not output.exists() or (output / "_run" / "claim").read_bytes() == before:
            assert time.monotonic() < until and begun.poll() is None
            time.sleep(0.05)

        def goes_on(lines: bytes) -> tuple[int, str]:
            _, said = begun.communicate(lines, timeout=60)
            return begun.returncode, said.decode()

        yield goes_on


def test_a_plan_whose_names_are_lost_is_told(listed: Path, tmp_path: Path) -> None:
    output = tmp_path / "texts"
    assert ends_without_ray(run(listed, "-o", output))
    part = output / part_of(0)  # some file in the place of the rows, so that the names are looked at
    part.parent.mkdir()
    part.write_bytes(b"PAR1")
    for names in (output / "_run" / "names").iterdir():
        names.unlink()
    damaged = run(listed, "-o", output, "--resume")
    assert damaged.exit_code == 2
    assert damaged.stderr.rstrip().endswith("name a new folder with -o")
    assert "no run can go on with" in damaged.stderr


def test_of_two_runs_that_begin_at_the_same_time_one_is_refused(listed: Path, tmp_path: Path) -> None:
    refused = "another infer-cluster began on {0} at the same time; let that one go on"
    with waiting(tmp_path / "a") as first:  # the second is done with its plan before the first
        assert ends_without_ray(run(listed, "-o", tmp_path / "a"))
        code, said = first(b"b.png\nc.png\n")
        assert code == 2 and refused.format(tmp_path / "a") in said
    with waiting(tmp_path / "b") as first, waiting(tmp_path / "b") as second:
        code, said = first(b"b.png\nc.png\n")
        assert code == 2 and refused.format(tmp_path / "b") in said
        code, said = second(b"a.png\n")
        assert code == 2 and "infer-cluster needs Ray" in said
    for output in (tmp_path / "a", tmp_path / "b"):
        plan = read_plan(open_store(str(output))[0].below(str(output)[1:]))
        assert [chunk.count for chunk in plan] == [1]
    assert ends_without_ray(run(listed, "-o", tmp_path / "a", "--resume"))


def test_an_output_that_is_a_file_is_told(listed: Path) -> None:
    for output in (listed, listed / "texts"):
        refused = run(listed, "-o", output)
        assert refused.exit_code == 2 and f"{listed} is not a folder" in refused.stderr


def test_a_run_of_relative_paths_goes_on_in_its_own_folder_alone(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ends_without_ray(run(listed.name, "-o", tmp_path / "texts"))
    assert ends_without_ray(run(listed, "-o", tmp_path / "others"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    other = run(listed.name, "-o", tmp_path / "texts", "--resume")
    assert other.exit_code == 2 and "was made with working-folder" in other.stderr
    assert ends_without_ray(run(listed, "-o", tmp_path / "others", "--resume"))


def test_a_cluster_that_does_not_answer_is_told_before_anything_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # which is set for Ray, and unset again
    (tmp_path / "list.txt").write_bytes(b"a.png\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for wrong, said in [
        (address, f"no Ray cluster answers at {address}: Connection refused"),
        ("127.0.0.1", "it must be HOST:PORT, such as 10.0.0.1:6379, or auto"),
        ("ray://127.0.0.1:10001", "it must be HOST:PORT, without ray://"),
    ]:
        refused = run(tmp_path / "list.txt", "-o", tmp_path / "texts", "--address", wrong)
        assert refused.exit_code == 2 and said in refused.stderr
        assert not (tmp_path / "texts").exists()


def test_a_stop_while_standard_input_is_waited_for_leaves_no_plan(tmp_path: Path) -> None:
    output = tmp_path / "texts"
    command = [sys.executable, "-m", "crnn_deploy", "infer-cluster", "-", "-o", str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as begun:
        assert begun.stdin is not None and begun.stderr is not None
        begun.stdin.write("a.png\n")
        begun.stdin.flush()
        until = time.monotonic() + 60
        while not (output / "_run" / "claim").exists():
            assert time.monotonic() < until and begun.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)
        begun.send_signal(signal.SIGTERM)
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
        pytest.raises(
            ClusterFailed, match=r"^Ray ended with an error: The current node timed out during startup"
        ),
        connected(None),
    ):
        pass
