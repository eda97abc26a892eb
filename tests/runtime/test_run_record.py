"""What made a file of records stands beside it, and no other run goes on with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from output_files import left, opened
from written_records import form_of, written

from crnn_deploy import files
from crnn_deploy.runtime.output_file import open_output
from crnn_deploy.runtime.records import FORMATS, Record
from crnn_deploy.runtime.run_record import RunDiffers, RunRecord, RunRecordInvalid, RunUnknown


def test_resume_keeps_to_what_made_the_file(tmp_path: Path) -> None:
    path, form = tmp_path / "a.jsonl", FORMATS["jsonl"]()
    made = RunRecord({"model": "ab" * 32, "wide": "cut", "allow": "xyz", "tf32": False}, {"model": "m.onnx"})
    with open_output(path, form, made, resume=False) as output:
        output.write([Record("a", "ok", "x", 0.5)])
    before = path.read_bytes()
    other = RunRecord(
        {"model": "cd" * 32, "wide": "shrink", "tf32": True, "decoder": "beam"}, {"model": "n.onnx"}
    )
    with pytest.raises(RunDiffers) as caught:
        open_output(path, form, other, resume=True)
    assert str(caught.value) == (
        f"{path} was made with model m.onnx (sha256 abababab), wide cut, no tf32, no decoder, allow xyz, "
        "this run has model n.onnx (sha256 cdcdcdcd), wide shrink, tf32, decoder beam, no allow; "
        "go on with the same, or name another output with -o"
    )
    with pytest.raises(RunDiffers, match="status, error, this run has columns path"):
        open_output(path, FORMATS["jsonl"](nbest=True), made, resume=True)
    assert path.read_bytes() == before
    made = RunRecord(made.settings, {"model": "moved.onnx"})  # names are for people
    open_output(path, form, made, resume=True).close()
    path.write_bytes(b"")  # nothing in it that another run has made
    open_output(path, form, other, resume=True).close()


def test_a_file_of_which_nothing_says_what_made_it_is_refused(tmp_path: Path) -> None:
    for name in FORMATS:
        form, path = form_of(name), tmp_path / name
        left(path, form, written(form, [Record("a", "ok", "x", 0.5)]))
        beside = tmp_path / f"{name}.run.json"
        beside.unlink()
        before = path.read_bytes()
        with pytest.raises(RunUnknown, match="name another file"):
            opened(path, form)
        for data in (
            b"{}",
            b"[]",
            b"3" * 5000,
            b"[" * 100_000,
            b'{"schema": "crnn-deploy/run/2", "settings": {}, "about": {}}',
            b'{"schema": 1, "settings": {}, "about": {}}',
            b'{"schema": "crnn-deploy/run/1", "settings": {"a": {}}, "about": {}}',
            b'{"schema": "crnn-deploy/run/1", "settings": {}, "about": {}, "more": 1}',
            b" " * 2**21,
        ):
            beside.write_bytes(data)
            with pytest.raises(RunRecordInvalid) as caught:
                opened(path, form)
            assert len(str(caught.value).splitlines()) == 1
            assert (path.read_bytes(), beside.read_bytes()) == (before, data)
        path.unlink()
        with pytest.raises(RunRecordInvalid):  # not a record of a run, so it is somebody's
            opened(path, form, resume=False)
        assert beside.exists() and not path.exists()


def test_a_name_of_any_length_has_its_record_beside_it(tmp_path: Path) -> None:
    form, path = FORMATS["text"](), tmp_path / ("x" * 255)
    opened(path, form, resume=False).write([Record("a", "ok", "x", 1.0)])
    with opened(path, form) as output:
        assert len(output.done) == 1
    assert files.fitting_name("字" * 100, ".png").endswith(".png")
    assert len(os.fsencode(files.fitting_name("字" * 100, ".png"))) <= 255
    assert files.fitting_name("x" * 251, ".png") == "x" * 251 + ".png"
    assert files.fitting_name("x" * 252, ".png") != files.fitting_name("x" * 253, ".png")
