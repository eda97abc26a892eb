"""Going on with a file that was cut anywhere or changed anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from output_files import left, opened
from written_records import form_of, forms, rows_of, sequences, wanted, written

from crnn_deploy.files import OutputExists, OutputUnwritable
from crnn_deploy.runtime import records
from crnn_deploy.runtime.decoding.ctc import Char
from crnn_deploy.runtime.output_file import Done, OutputDamaged
from crnn_deploy.runtime.records import FORMATS, Csv, Record
from crnn_deploy.runtime.run_record import RunDiffers


@given(forms, sequences, st.data())
@settings(deadline=None)
def test_resume_finds_what_is_whole_and_cuts_what_is_not(
    tmp_path_factory: pytest.TempPathFactory,
    form: records.Format,
    sequence: list[Record],
    data: st.DataObject,
) -> None:
    full = written(form, sequence)
    cut = data.draw(st.integers(0, len(full)))
    path = tmp_path_factory.getbasetemp() / f"resumed.{form.name}"
    left(path, form, full[:cut])
    whole = [len(written(form, sequence[:count])) for count in range(len(sequence) + 1)]
    kept = max([count for count, end in enumerate(whole) if end <= cut], default=0)
    if form.name == "text" and cut and not kept:
        with pytest.raises(OutputDamaged):
            opened(path, form)
        assert path.read_bytes() == full[:cut]
        return

    try:
        output = opened(path, form)
    except OutputDamaged:  # what is torn looks as if it hid a record, which costs nothing but the resuming
        assert not form.is_torn(full[whole[kept] : cut])
        assert path.read_bytes() == full[:cut]
        return
    with output:
        assert len(output.done) == kept
        output.write([record for record in sequence if not output.done.take(record.path)])
    have, want = rows_of(form, path.read_bytes()), [wanted(form, record) for record in sequence]
    assert Counter(row["path"] for row in have) == Counter(row["path"] for row in want)
    if len({record.path for record in sequence}) == len(sequence):  # else two records may swap places
        assert path.read_bytes() == full


@pytest.mark.parametrize("show_chars", [False, True])
@pytest.mark.parametrize("name", [*FORMATS, "csv-safe"])
def test_a_file_cut_at_any_byte_is_completed(tmp_path: Path, name: str, show_chars: bool) -> None:
    form = form_of(name, show_chars=show_chars)
    sequence = [
        Record("a.png", "ok", 'say "hi",\r\nté\\n', 0.1, chars=(Char(" ", 0.5, 0, 1, 0.0, 4.0),)),
        Record(os.fsdecode(b'caf\xe9\t\n".png'), "error", error="truncated"),
        Record("写\\.png", "low-confidence", "\t", 1 / 3),
    ]
    full = written(form, sequence)
    path = tmp_path / "out"
    ends = [len(written(form, sequence[:count])) for count in range(len(sequence) + 1)]
    for cut in range(len(full) + 1):
        left(path, form, full[:cut])
        if name == "text" and 0 < cut < ends[1]:  # nothing tells it from another file's only line
            with pytest.raises(OutputDamaged):
                opened(path, form)
            assert path.read_bytes() == full[:cut]
            continue
        opened(path, form).close()
        assert path.read_bytes() == full[: max([end for end in ends if end <= cut], default=ends[0])], cut
        with opened(path, form) as output:
            output.write([record for record in sequence if not output.done.take(record.path)])
        assert path.read_bytes() == full, cut


@pytest.mark.parametrize("name", [*FORMATS, "csv-safe"])
def test_one_changed_byte_costs_the_last_record_or_nothing(tmp_path: Path, name: str) -> None:
    form = form_of(name)
    sequence = [Record(f"/data/{at}.png", "ok", "it's, so\n", 0.5) for at in range(4)]
    full = written(form, sequence)
    path = tmp_path / "out"
    left(path, form, full)
    before_last = len(full) - len(form.encode(sequence[-1]))
    for at in range(len(full)):
        for byte in b'"\n,\t{\\\0':
            data = full[:at] + bytes([byte]) + full[at + 1 :]
            path.write_bytes(data)
            try:
                opened(path, form).close()
            except OutputDamaged as error:
                assert "record " in str(error) and "name another file" in str(error)
                assert path.read_bytes() == data
            else:
                assert path.read_bytes() in (data, data[:before_last]), (at, byte)


def test_a_quote_that_is_opened_hides_no_records(tmp_path: Path) -> None:
    form, path = Csv(), tmp_path / "out.csv"
    sequence = [Record(f"/data/{at:07}.png", "ok", "hi", 0.9) for at in range(40_000)]
    data, before_last = written(form, sequence), written(form, sequence[:-1])
    # anywhere, at the beginning of a cell, and in the last record but one
    for at in (60, len(form.header), 500_000, len(before_last) - 40, len(before_last) - 2):
        left(path, form, data[:at] + b'"' + data[at + 1 :])
        before = path.read_bytes()
        with pytest.raises(OutputDamaged, match="record "):
            opened(path, form)
        assert path.read_bytes() == before
    left(path, form, data[:-1] + b'"')
    with pytest.raises(OutputDamaged, match="record 40000"):
        opened(path, form)
    left(path, form, before_last + b'"/data/')
    opened(path, form).close()
    assert path.read_bytes() == before_last


def test_a_record_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FORMATS:
        form, path = form_of(name), tmp_path / name
        left(path, form, written(form, [Record("a", "ok", "x", 0.5)]) + b"x" * (records.MOST_BYTES + 1))
        with pytest.raises(OutputDamaged, match="record 2 "):
            opened(path, form)
    monkeypatch.setattr(records, "MOST_BYTES", 1000)
    for name in FORMATS:
        form = form_of(name)
        [row] = rows_of(form, written(form, [Record("a.png", "ok", "x" * 2000, 0.5)]))
        assert row["path"] == "a.png" and row["text"] == ""
        assert name == "text" or (row["status"] == "error" and "more than 1,000 bytes" in str(row["error"]))


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_killed_before_its_first_record_is_gone_on_with(tmp_path: Path, name: str) -> None:
    form, path = form_of(name), tmp_path / "out"
    for data in (b"", form.header):
        for beside in (True, False):
            left(path, form, data)
            if not beside:
                (tmp_path / "out.run.json").unlink()
            with opened(path, form) as output:
                output.write([Record("a", "ok", "x", 0.5)])
            opened(path, form).close()
            assert path.read_bytes() == written(form, [Record("a", "ok", "x", 0.5)])


def test_a_full_disk_keeps_whole_records(tmp_path: Path) -> None:
    form, path = FORMATS["tsv"](), tmp_path / "out.tsv"
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from crnn_deploy.runtime.output_file import open_output\n"
        "from crnn_deploy.runtime.records import FORMATS, Record\n"
        "from crnn_deploy.runtime.run_record import RunRecord\n"
        "run = RunRecord({'model': '0' * 64})\n"
        "with open_output(Path(sys.argv[1]), FORMATS['tsv'](), run, resume=False) as output:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "    for at in range(99):\n"
        "        output.write([Record(f'{at}-{part}.png', 'ok', 'x', 0.5) for part in range(4)])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert f"cannot write {path}: File too large; 8 records in it are kept, and --resume" in done.stderr
    assert len(rows_of(form, path.read_bytes())) == 8
    with opened(path, form) as output:
        assert len(output.done) == 8


def test_what_is_no_regular_file_is_not_gone_on_with(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (Path("/dev/full"), Path("/dev/zero"), tmp_path / "fifo", tmp_path / "link", tmp_path):
        for resume in (True, False):
            with pytest.raises(OutputUnwritable, match="not a regular file"):
                opened(path, FORMATS["csv"](), resume=resume)


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abcd")))
def test_done_counts_as_a_multiset(before: list[str], asked: list[str]) -> None:
    done, left = Done(before), Counter(before)
    for path in asked:
        assert done.take(path) == (left[path] > 0)
        left[path] -= 1


def test_done_keeps_digests_not_paths() -> None:
    tracemalloc.start()
    done = Done(f"{'folder/' * 30}{number}.png" for number in range(20_000))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(done) == 20_000
    assert size < 20_000 * 30


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no advisory locks")
def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    form, path = FORMATS["text"](), tmp_path / "out"
    first = opened(path, form, resume=False)
    first.write([Record("a", "ok", "x", 1.0)])
    with pytest.raises(OutputUnwritable, match="another run is writing to it"):
        opened(path, form)
    first.close()
    with opened(path, form) as second:
        assert len(second.done) == 1


def test_an_output_is_new_or_resumed(tmp_path: Path) -> None:
    form, path = FORMATS["tsv"](), tmp_path / "out.tsv"
    opened(path, form).close()  # not there yet: a run that starts
    assert path.read_bytes() == b"path\ttext\tconfidence\tstatus\terror\n"
    with pytest.raises(OutputExists, match="--resume"):
        opened(path, form, resume=False)
    for bad in (tmp_path, tmp_path / "missing" / "out.tsv"):
        with pytest.raises(OutputUnwritable):
            opened(bad, form)


def test_a_file_of_another_format_or_other_columns_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sequence = [Record("a.png", "ok", "x", 0.5), Record("b.png", "error", error="empty")]
    kinds = {(name, show): FORMATS[name](show_chars=show) for name in FORMATS for show in (False, True)}
    for kind, form in kinds.items():
        for other_kind, other in kinds.items():
            data = written(other, sequence)
            left(path, other, data)
            if kind == other_kind:
                opened(path, form).close()
                continue
            with pytest.raises(RunDiffers, match=r"was made with (format|columns)") as caught:
                opened(path, form)
            assert "\n" not in str(caught.value)
            assert path.read_bytes() == data
            left(path, form, data)  # beside it stands what made another file
            with pytest.raises(OutputDamaged, match="record 1"):
                opened(path, form)
            assert path.read_bytes() == data


def test_a_file_that_is_no_output_at_all_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    for data in (
        b"Dear all",
        b"Dear all,\nhello\nworld",
        b"\x89PNG\r\n\x1a\n\0\0\0",
        b'{"path": 3}\n',
        b"[]\n",
    ):
        for name in ("tsv", "csv", "jsonl"):
            left(path, FORMATS[name](), data)
            with pytest.raises(OutputDamaged):
                opened(path, FORMATS[name]())
            assert path.read_bytes() == data


def test_a_damaged_record_is_named_by_its_number(tmp_path: Path) -> None:
    path, form = tmp_path / "out", FORMATS["jsonl"]()
    whole = written(form, [Record("a", "ok"), Record("b", "ok")])
    for line in (b"\0\0\0", b"[" * 100_000, b"9" * 5000, whole[:-1].split(b"\n")[0].replace(b"null", b"NaN")):
        left(path, form, whole + line + b"\n")
        with pytest.raises(OutputDamaged, match="record 3"):
            opened(path, form)
