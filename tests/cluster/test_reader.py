"""The work of an actor, without Ray: what it commits, and what it says of a node that cannot read."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from paper_gpu import write_engine

from crnn_deploy import CrnnDeployError, Recognizer
from crnn_deploy.cluster.plan import Plan, part_of, write_plan
from crnn_deploy.cluster.reader import ChunkReader
from crnn_deploy.cluster.run import NodeUnfit
from crnn_deploy.cluster.sources import plan_of
from crnn_deploy.cluster.task import ModelFiles, Task
from crnn_deploy.stores.store import Stores


def task_of(model: Path, output: Path, **given: object) -> Task:
    settings: dict[str, object] = {"stores": Stores(), "run": "0" * 64, **given}
    return Task(ModelFiles.of(model), "1" * 64, str(output), **settings)  # type: ignore[arg-type]


def planned(images: Path, task: Task, rows_per_file: int = 1000) -> Plan:
    chunks = plan_of([str(images)], rows_per_file, task.stores)
    return write_plan(task.output_store(), ((one.chunk, one.names) for one in chunks))


def test_a_chunk_is_read_as_one_process_reads_it(tiny_onnx: Path, tiny_images: Path, tmp_path: Path) -> None:
    task = task_of(tiny_onnx, tmp_path / "out", show_chars=True, threads=2)
    [chunk] = planned(tiny_images, task)
    receipt = ChunkReader(task, "here").read(chunk)
    rows = pq.read_table(tmp_path / "out" / part_of(0)).to_pylist()
    assert (receipt.failed, receipt.inputs, receipt.rows, receipt.errors) == ("", len(rows), len(rows), 0)
    recognizer = Recognizer(tiny_onnx)
    for row in rows:
        text = recognizer.read(row["path"])
        assert (row["text"], row["confidence"]) == (text.text, text.confidence)
        shown = [(one["char"], one["confidence"], one["start"], one["end"]) for one in row["characters"]]
        assert shown == [(char.char, char.confidence, char.start, char.end) for char in text.chars]


def test_reading_a_chunk_twice_writes_the_same_bytes(
    tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    task = task_of(tiny_onnx, tmp_path / "out")
    written = []
    for chunk in [*planned(tiny_images, task)] * 2:
        ChunkReader(task, "here").read(chunk)
        written.append((tmp_path / "out" / part_of(0)).read_bytes())
    assert written[0] == written[1]


def test_a_node_whose_gpu_is_another_is_named(tiny_onnx: Path, tiny_images: Path, tmp_path: Path) -> None:
    engine = tmp_path / "tiny.engine"
    write_engine(tiny_onnx, engine)
    task = task_of(engine, tmp_path / "out")
    [chunk] = planned(tiny_images, task)
    receipt = ChunkReader(task, "gpu-7").read(chunk)
    assert receipt.hopeless and receipt.failed and not (tmp_path / "out" / part_of(0)).exists()
    assert str(NodeUnfit(receipt.node, receipt.failed)).startswith("the node gpu-7 cannot read images: ")


def test_a_node_with_another_version_is_told(tiny_onnx: Path, tiny_images: Path, tmp_path: Path) -> None:
    task = task_of(tiny_onnx, tmp_path / "out", version="0.0.9")
    [chunk] = planned(tiny_images, task)
    receipt = ChunkReader(task, "here").read(chunk)
    assert (
        receipt.hopeless
        and "the command that began the run is 0.0.9; install 0.0.9 on every node" in receipt.failed
    )


def test_a_chunk_that_cannot_be_written_is_no_row(
    tiny_onnx: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(tiny_onnx, tmp_path / "out")
    [chunk] = planned(tiny_images, task)
    (tmp_path / "out" / "00000").write_bytes(b"a file in the place of the folder")
    receipt = ChunkReader(task, "here").read(chunk)
    assert not receipt.hopeless and "cannot write" in receipt.failed


def test_a_task_goes_to_another_process_whole(tiny_onnx: Path, tmp_path: Path) -> None:
    import pickle

    task = pickle.loads(pickle.dumps(task_of(tiny_onnx, tmp_path / "out")))
    opened = task.open(tmp_path / "model")
    assert (tmp_path / "model" / tiny_onnx.name).read_bytes() == tiny_onnx.read_bytes()
    with pytest.raises(CrnnDeployError):
        opened.read(tmp_path / "absent.png")
