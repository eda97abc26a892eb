"""infer-cluster as a person runs it: counts, texts, what is read again, and what it refuses. Ray is real."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from namespaces import alone, needs_namespaces, start_alone

from crnn_deploy import CrnnDeployError, Recognizer
from crnn_deploy.runtime.images.sources import find

pytestmark = needs_namespaces

RUN = '"$python" -m crnn_deploy infer-cluster'


@pytest.fixture
def ray_home() -> Iterator[Path]:
    """A folder with a short path, as Ray's sockets need one."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty words of several widths, one file that is no image and one that is empty."""
    folder = tmp_path_factory.mktemp("cluster") / "crops"
    (folder / "more").mkdir(parents=True)
    for at in range(30):
        text = str(7919 * (at + 1) ** 2)[: 2 + at % 6]
        image = np.full((28, 10 + 13 * len(text)), 230, np.uint8)
        cv2.putText(image, text, (4, 21), at % 8, 0.6, 20, 1 + at % 2, cv2.LINE_AA)
        cv2.imwrite(str(folder / ("more" if at % 3 else "") / f"{at:02}.png"), image)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    (folder / "empty.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def expected(crops: Path) -> dict[str, tuple[str, float | None, bool]]:
    """Text, confidence and failure of each image, as one process reads them."""
    recognizer = Recognizer("latin")
    found: dict[str, tuple[str, float | None, bool]] = {}
    for path in find([str(crops)], ()):
        read = recognizer.try_read(path)
        if isinstance(read, CrnnDeployError):
            found[path] = ("", None, True)
        else:
            found[path] = (read.text, read.confidence, False)
    assert len(found) == 32 and sum(failed for *_, failed in found.values()) == 2
    return found


def rows_of(output: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(output).to_pylist()
    return rows


def check_rows(output: Path, expected: dict[str, tuple[str, float | None, bool]]) -> None:
    """Every image once, and each as one process reads it: in every bit."""
    rows = rows_of(output)
    assert len(rows) == len(expected) == len({row["id"] for row in rows})
    assert {
        row["path"]: (row["text"], row["confidence"], row["error"] is not None) for row in rows
    } == expected


def manifest_of(output: Path) -> dict[str, object]:
    manifest: dict[str, object] = json.loads((output / "_run" / "manifest.json").read_text())
    return manifest


def test_a_run_its_proof_and_what_a_resumed_one_reads_again(
    crops: Path, expected: dict[str, tuple[str, float | None, bool]], tmp_path: Path, ray_home: Path
) -> None:
    output = tmp_path / "texts"
    command = f"{RUN} {crops} -o {output} --rows-per-file 8 --workers 2"
    run = alone(command, ray_home)
    assert run.returncode == 1, run.stderr
    assert (
        run.stdout
        == f"{output}: 32 inputs, 32 rows, 2 of them errors: none is missing, none is there twice\n"
    )
    assert run.stderr == "2 of 32 images failed; the column error says why\n"
    check_rows(output, expected)
    manifest = manifest_of(output)
    told = ("inputs", "rows", "errors", "duplicates", "missing", "unknown", "renamed", "whole")
    assert [manifest[name] for name in told] == [32, 32, 2, 0, 0, 0, 0, True]

    again = alone(command, ray_home)
    assert again.returncode == 2 and "exists; go on with it (--resume)" in again.stderr
    other = alone(f"{command} --resume --wide shrink", ray_home)
    assert other.returncode == 2 and "was made with wide cut, this run has wide shrink" in other.stderr

    parts = sorted(output.glob("0*/part-*.parquet"))
    assert len(parts) == 4
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-9])
    kept = {path: path.stat().st_mtime_ns for path in (parts[0], parts[3])}
    resumed = alone(f"{command} --resume", ray_home)
    assert resumed.stderr.splitlines() == [
        "the images are those that the first run has listed; images that came later are not read",
        "2 of 4 files are whole; 2 must still be written",
        "2 of 32 images failed; the column error says why",
    ]
    check_rows(output, expected)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    (output / "copy.parquet").write_bytes(parts[0].read_bytes())
    stray = alone(f"{command} --resume", ray_home)
    assert stray.returncode == 1 and "8 rows that repeat an image" in stray.stdout
    assert (
        f"{output} holds files that the run has not written, such as copy.parquet; move them away, "
        "and repeat "
        "the command with --resume"
    ) in stray.stderr


def test_a_worker_that_is_killed_loses_and_doubles_nothing(
    crops: Path, expected: dict[str, tuple[str, float | None, bool]], tmp_path: Path, ray_home: Path
) -> None:
    output = tmp_path / "texts"
    begun = start_alone(
        # a cluster that another program of this machine uses is none of this one's business
        f"RAY_ADDRESS=127.0.0.1:1 {RUN} {crops} -o {output} --rows-per-file 1 --workers 2 & run=$!; "
        f"while [ $(find {output} -name 'part-*' 2>/dev/null | wc -l) -lt 4 ]; do sleep 0.05; done; "
        "pkill -9 -f -o '^ray::MapWorker' && echo killed; wait $run",
        ray_home,
    )
    out, err = begun.communicate(timeout=300)
    assert begun.returncode == 1 and "killed" in out, (out, err)
    check_rows(output, expected)
    assert manifest_of(output)["whole"] is True


def test_a_driver_that_is_killed_goes_on(
    crops: Path, expected: dict[str, tuple[str, float | None, bool]], tmp_path: Path, ray_home: Path
) -> None:
    output = tmp_path / "texts"
    command = f"{RUN} {crops} -o {output} --rows-per-file 1 --workers 1"
    begun = start_alone(command, ray_home)
    until = time.monotonic() + 120
    while len([*output.glob("*/part-*.parquet")]) < 3:
        assert time.monotonic() < until and begun.poll() is None
        time.sleep(0.05)
    begun.kill()  # and all that it started
    begun.communicate()
    before = len([*output.glob("*/part-*.parquet")])
    assert 3 <= before < 32
    resumed = alone(f"{command} --resume", ray_home)
    assert resumed.returncode == 1, resumed.stderr
    check_rows(output, expected)


def test_sigterm_ends_a_run_in_good_order(crops: Path, tmp_path: Path, ray_home: Path) -> None:
    output = tmp_path / "texts"
    found = alone(
        f"{RUN} {crops} -o {output} --rows-per-file 1 --workers 1 & run=$!; "
        f"while [ $(find {output} -name 'part-*' 2>/dev/null | wc -l) -lt 3 ]; do sleep 0.05; done; "
        "kill -TERM $run; wait $run",
        ray_home,
    )
    assert found.returncode == 130, found.stderr
    assert found.stderr.splitlines()[-1] == "stopped; what was read is kept, and --resume goes on"
    assert "***" not in found.stderr and found.stdout == ""


@pytest.mark.parametrize("begun", ["gcs_server", "raylet"])
def test_sigterm_while_ray_starts_ends_a_run_in_good_order(
    crops: Path, tmp_path: Path, ray_home: Path, begun: str
) -> None:
    found = alone(
        f"{RUN} {crops} -o {tmp_path}/texts & run=$!; "
        f"while ! pgrep -x {begun} >/dev/null; do sleep 0.02; done; kill -TERM $run; wait $run",
        ray_home,
    )
    assert found.returncode == 130, found.stderr
    assert found.stderr == "stopped; what was read is kept, and --resume goes on\n"
    assert found.stdout == ""


def test_a_cluster_without_a_token_is_refused_and_one_with_it_is_used(
    crops: Path, expected: dict[str, tuple[str, float | None, bool]], tmp_path: Path, ray_home: Path
) -> None:
    start = "ray start --head --node-ip-address 127.0.0.1 --port 6400 --num-cpus 1 --include-dashboard false"
    ray = f'PATH="$(dirname "$python"):$PATH"; {start} >/dev/null 2>&1'
    run = f"{RUN} {crops} --address 127.0.0.1:6400 --rows-per-file 100"
    found = alone(
        f"export RAY_AUTH_MODE=disabled; {ray}; unset RAY_AUTH_MODE; {run} -o {tmp_path}/a; echo $? >&2; "
        f"{run} -o {tmp_path}/b --without-token; echo $? >&2",
        ray_home,
    )
    assert "asks for no token, so anyone who reaches its ports can run code on it" in found.stderr
    assert not (tmp_path / "a").exists() or not rows_of(tmp_path / "a")
    assert found.stderr.split().count("1") >= 1, found.stderr
    check_rows(tmp_path / "b", expected)

    found = alone(
        f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN={'a' * 64}; {ray}; {run} -o {tmp_path}/c; "
        f"RAY_AUTH_TOKEN={'b' * 64} {run} -o {tmp_path}/d",
        ray_home,
    )
    check_rows(tmp_path / "c", expected)
    assert found.returncode == 2 and "refused the token of this command" in found.stderr
