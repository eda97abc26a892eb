"""Output formats against independent readers, and going on with a file that was cut anywhere."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy import files
from crnn_deploy.errors import printable
from crnn_deploy.files import OutputExists, OutputUnwritable
from crnn_deploy.runtime import records
from crnn_deploy.runtime.decoding.ctc import Alternative, Char, Text
from crnn_deploy.runtime.images.pixels import ImageUnreadable
from crnn_deploy.runtime.output_file import Done, Output, OutputDamaged, open_output
from crnn_deploy.runtime.records import FORMATS, Csv, Record
from crnn_deploy.runtime.run_record import RunDiffers, RunRecord, RunRecordInvalid, RunUnknown

# what file systems and alphabets hold, with a taste for what formats trip over
awkward = st.sampled_from([*"\t\n\r\\\",: ;'tnr-\x0b\x0c\x85\u2028é字", "\\n", '""', "\r\n", "😀"])
paths = st.lists(awkward | st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map(
    "".join
) | st.binary(min_size=1).filter(lambda name: b"\0" not in name).map(os.fsdecode)
texts = st.lists(awkward | st.characters(exclude_categories=["Cs"])).map("".join)
confidences = st.floats(0, 1)
chars = st.builds(
    Char,
    texts.filter(bool),
    confidences,
    st.integers(0, 99),
    st.integers(1, 99),
    st.floats(0, 9),
    st.floats(0, 9),
)
readings = st.builds(
    Record,
    paths,
    st.sampled_from(["ok", "low-confidence"]),
    texts,
    confidences,
    chars=st.lists(chars).map(tuple),
    alternatives=st.lists(st.builds(Alternative, texts, st.floats(-99, 0)), max_size=3).map(tuple),
)
failures = st.builds(Record, paths, st.just("error"), error=texts)
sequences = st.lists(readings | failures, max_size=6)


def form_of(name: str, *, show_chars: bool = False, nbest: bool = False) -> records.Format:
    if name == "csv-safe":
        return Csv(show_chars=show_chars, nbest=nbest, safe=True)
    return FORMATS[name](show_chars=show_chars, nbest=nbest)


forms = st.builds(
    lambda name, show, nbest: form_of(name, show_chars=show, nbest=nbest),
    st.sampled_from([*FORMATS, "csv-safe"]),
    st.booleans(),
    st.booleans(),
)


def written(form: records.Format, sequence: list[Record]) -> bytes:
    return form.header + b"".join(map(form.encode, sequence))


def unescaped(cell: str) -> str:
    plain = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
    out, rest = "", iter(cell)
    for character in rest:
        kind = next(rest) if character == "\\" else ""
        if digits := {"x": 2, "u": 4}.get(kind):
            out += chr(int("".join(next(rest) for _ in range(digits)), 16))
        else:
            out += plain[kind] if kind else character
    return out


def rows_of(form: records.Format, data: bytes) -> list[dict[str, object]]:
    """What a reader that knows nothing of crnn-deploy makes of a file."""
    columns: list[str] = ["path", "text"] if form.name == "text" else list(records.COLUMNS)
    columns += ["chars"] * form.show_chars + ["alternatives"] * form.nbest
    if form.name == "jsonl":
        return [json.loads(line) for line in data.split(b"\n")[:-1]]
    text = data.decode("utf-8", "surrogateescape")
    if isinstance(form, Csv):
        rows = list(csv.reader(io.StringIO(text, newline="")))
        if form.safe:
            rows = [[unescaped(cell.removeprefix("'")) for cell in row] for row in rows]
    else:
        rows = [[unescaped(cell) for cell in line.split("\t")] for line in text.split("\n")[:-1]]
    if form.name != "text":
        assert rows.pop(0) == columns
    return [dict(zip(columns, row, strict=True)) for row in rows]


def wanted(form: records.Format, record: Record) -> dict[str, object]:
    row: dict[str, object] = {"path": record.path, "text": record.text}
    spelled = " ".join(f"{char.char}:{char.confidence:.6f}" for char in record.chars)
    if form.name == "jsonl":
        row |= {"confidence": record.confidence, "status": record.status, "error": record.error}
    elif form.name == "text":
        if record.status != "ok":
            row["text"] = spelled = ""
    else:
        confidence = "" if record.confidence is None else f"{record.confidence:.6f}"
        row |= {"confidence": confidence, "status": record.status, "error": record.error or ""}
    if form.show_chars and form.name == "jsonl":
        row["chars"] = [
            {name: getattr(char, name) for name in ("char", "confidence", "start", "end", "left", "right")}
            for char in record.chars
        ]
    elif form.show_chars:
        row["chars"] = spelled
    if form.nbest and form.name == "jsonl":
        row["alternatives"] = [{"text": one.text, "score": one.score} for one in record.alternatives]
    elif form.nbest and (form.name != "text" or record.status == "ok"):
        found = [[one.text, round(one.score, 6)] for one in record.alternatives]
        row["alternatives"] = json.dumps(found, ensure_ascii=False)
    elif form.nbest:
        row["alternatives"] = ""
    return row


@given(forms, sequences)
@settings(deadline=None)
def test_any_sequence_reads_back(form: records.Format, sequence: list[Record]) -> None:
    rows = rows_of(form, written(form, sequence))
    assert rows == [wanted(form, record) for record in sequence]


RUN = RunRecord({"model": "0" * 64})


def opened(path: Path, form: records.Format, *, resume: bool = True) -> Output:
    return open_output(path, form, RUN, resume=resume)


def left(path: Path, form: records.Format, data: bytes) -> None:
    """What a run has left: its file, and beside it what made it."""
    path.unlink(missing_ok=True)
    opened(path, form, resume=False).close()
    path.write_bytes(data)


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
        "go on with the same, or name another file with -o"
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


@given(sequences)
@settings(deadline=None)
def test_safe_cells_are_no_formulas_and_give_their_paths_back(sequence: list[Record]) -> None:
    form = Csv(safe=True)
    rows = list(csv.reader(io.StringIO(written(form, sequence).decode(), newline="")))
    for record, row in zip(sequence, rows[1:], strict=True):
        assert not any(cell[:1] in set("=+-@\t\r＝＋－＠") - {""} for cell in row)
        assert all(printable(cell) == cell and "\n" not in cell and "\t" not in cell for cell in row)
        assert form.path(form.encode(record)) == record.path


def test_safe_cells() -> None:
    texts = ["=1+1", "-5", "+5", "@x", "'x", "\t=1", "\r=1", "a\x1b[2Jb", "back\\slash", "ok", "＝1"]
    lines = [Csv(safe=True).encode(Record("a", "ok", text, 0.5)).decode().split(",")[1] for text in texts]
    assert lines == [
        *("'=1+1", "'-5", "'+5", "'@x", "''x", "\\t=1", "\\r=1", "a\\x1b[2Jb", "back\\\\slash", "ok", "'＝1")
    ]


def test_a_terminal_is_given_nothing_to_obey() -> None:
    record = Record(os.fsdecode(b"\x1b]0;x\x07\xff.png"), "ok", "\x9b2J\u202eé字", 0.5)
    for name in FORMATS:
        form = form_of(name)
        shown = form.shown(form.encode(record)).decode()
        assert printable(shown) == shown and shown.endswith("\n") and "é字" in shown
        assert "\\x1b" in shown or name == "jsonl"
    assert json.loads(FORMATS["jsonl"]().shown(FORMATS["jsonl"]().encode(record)))["text"] == record.text


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_confidence_that_is_no_number_is_an_error(bad: float) -> None:
    fine = Char("a", 0.5, 0, 1, 0.0, 2.0)
    for text in (
        Text("a", bad, (fine,)),
        Text("a", 0.5, (replace(fine, confidence=bad),)),
        Text("a", 0.5, (fine,), (Alternative("a", bad),)),
    ):
        record = Record.of("a.png", text)
        assert (record.status, record.confidence) == ("error", None)
        assert record.error is not None and record.error.startswith("a.png: its confidence is not a number")


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


def test_jsonl_keeps_every_bit_of_a_confidence() -> None:
    exact = 0.1 + 0.2 - 2**-54
    line = FORMATS["jsonl"]().encode(Record("a", "ok", "x", exact))
    assert json.loads(line)["confidence"].hex() == exact.hex()


def test_the_record_of_a_result() -> None:
    text = Text("ab", 0.5, (Char("a", 0.5, 0, 1, 0.0, 2.0),))
    assert Record.of("p", text) == Record("p", "ok", "ab", 0.5, chars=text.chars)
    assert Record.of("p", text, 0.5).status == "ok"
    assert Record.of("p", text, 0.51).status == "low-confidence"
    failed = Record.of("p", ImageUnreadable("p", "two\nlines"))
    assert (failed.status, failed.text, failed.confidence, failed.error) == (
        "error",
        "",
        None,
        "p: two lines",
    )


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


def test_a_name_of_any_length_has_its_record_beside_it(tmp_path: Path) -> None:
    form, path = FORMATS["text"](), tmp_path / ("x" * 255)
    opened(path, form, resume=False).write([Record("a", "ok", "x", 1.0)])
    with opened(path, form) as output:
        assert len(output.done) == 1
    assert files.fitting_name("字" * 100, ".png").endswith(".png")
    assert len(os.fsencode(files.fitting_name("字" * 100, ".png"))) <= 255
    assert files.fitting_name("x" * 251, ".png") == "x" * 251 + ".png"
    assert files.fitting_name("x" * 252, ".png") != files.fitting_name("x" * 253, ".png")
