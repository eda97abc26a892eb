"""Output formats against independent readers, and going on with a file that was cut anywhere."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy import records
from crnn_deploy.ctc import Alternative, Char, Text
from crnn_deploy.files import OutputExists, OutputUnwritable
from crnn_deploy.image import ImageUnreadable
from crnn_deploy.records import FORMATS, Done, Record, open_output

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
forms = st.builds(
    lambda form, show, nbest: form(show_chars=show, nbest=nbest),
    st.sampled_from(list(FORMATS.values())),
    st.booleans(),
    st.booleans(),
)


def written(form: records.Format, sequence: list[Record]) -> bytes:
    return form.header + b"".join(map(form.encode, sequence))


def unescaped(cell: str) -> str:
    plain = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
    out, rest = "", iter(cell)
    for character in rest:
        out += plain[next(rest)] if character == "\\" else character
    return out


def rows_of(form: records.Format, data: bytes) -> list[dict[str, object]]:
    """What a reader that knows nothing of crnn-deploy makes of a file."""
    columns: list[str] = ["path", "text"] if form.name == "text" else list(records.COLUMNS)
    columns += ["chars"] * form.show_chars + ["alternatives"] * form.nbest
    if form.name == "jsonl":
        return [json.loads(line) for line in data.split(b"\n")[:-1]]
    text = data.decode("utf-8", "surrogateescape")
    if form.name == "csv":
        rows = list(csv.reader(io.StringIO(text, newline="")))
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
    path.write_bytes(full[:cut])
    whole = [len(written(form, sequence[:count])) for count in range(len(sequence) + 1)]
    kept = max([count for count, end in enumerate(whole) if end <= cut], default=0)
    if form.name == "text" and cut and not kept:
        with pytest.raises(records.OutputMismatch):
            open_output(path, form, resume=True)
        assert path.read_bytes() == full[:cut]
        return

    stream, done = open_output(path, form, resume=True)
    with stream:
        assert len(done) == kept
        for record in sequence:
            if not done.take(record.path):
                stream.write(form.encode(record))
    have, want = rows_of(form, path.read_bytes()), [wanted(form, record) for record in sequence]
    assert Counter(row["path"] for row in have) == Counter(row["path"] for row in want)
    if len({record.path for record in sequence}) == len(sequence):  # else two records may swap places
        assert path.read_bytes() == full


@pytest.mark.parametrize("show_chars", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_at_any_byte_is_completed(tmp_path: Path, name: str, show_chars: bool) -> None:
    form = FORMATS[name](show_chars=show_chars)
    sequence = [
        Record("a.png", "ok", 'say "hi",\r\nté\\n', 0.1, chars=(Char(" ", 0.5, 0, 1, 0.0, 4.0),)),
        Record(os.fsdecode(b'caf\xe9\t\n".png'), "error", error="truncated"),
        Record("写\\.png", "low-confidence", "\t", 1 / 3),
    ]
    full = written(form, sequence)
    path = tmp_path / "out"
    ends = [len(written(form, sequence[:count])) for count in range(len(sequence) + 1)]
    for cut in range(len(full) + 1):
        path.write_bytes(full[:cut])
        if name == "text" and 0 < cut < ends[1]:  # nothing tells it from another file's only line
            with pytest.raises(records.OutputMismatch):
                open_output(path, form, resume=True)
            assert path.read_bytes() == full[:cut]
            continue
        open_output(path, form, resume=True)[0].close()
        assert path.read_bytes() == full[: max([end for end in ends if end <= cut], default=ends[0])], cut
        stream, done = open_output(path, form, resume=True)
        with stream:
            stream.write(b"".join(form.encode(record) for record in sequence if not done.take(record.path)))
        assert path.read_bytes() == full, cut


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
    first, _ = open_output(path, form, resume=False)
    first.write(form.encode(Record("a", "ok", "x", 1.0)))
    first.flush()
    with pytest.raises(OutputUnwritable, match="another run is writing to it"):
        open_output(path, form, resume=True)
    first.close()
    second, done = open_output(path, form, resume=True)
    second.close()
    assert len(done) == 1


def test_an_output_is_new_or_resumed(tmp_path: Path) -> None:
    form, path = FORMATS["tsv"](), tmp_path / "out.tsv"
    stream, _ = open_output(path, form, resume=True)  # not there yet: a run that starts
    stream.close()
    assert path.read_bytes() == b"path\ttext\tconfidence\tstatus\terror\n"
    with pytest.raises(OutputExists, match="--resume"):
        open_output(path, form, resume=False)
    for bad in (tmp_path, tmp_path / "missing" / "out.tsv"):
        with pytest.raises(OutputUnwritable):
            open_output(bad, form, resume=True)


def test_a_file_of_another_format_or_other_columns_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sequence = [Record("a.png", "ok", "x", 0.5), Record("b.png", "error", error="empty")]
    kinds = {(name, show): FORMATS[name](show_chars=show) for name in FORMATS for show in (False, True)}
    for kind, form in kinds.items():
        for other_kind, other in kinds.items():
            data = written(other, sequence)
            path.write_bytes(data)
            if kind == other_kind:
                open_output(path, form, resume=True)[0].close()
                continue
            with pytest.raises(records.OutputMismatch, match="--format") as caught:
                open_output(path, form, resume=True)
            assert "\n" not in str(caught.value)
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
            path.write_bytes(data)
            with pytest.raises(records.OutputMismatch):
                open_output(path, FORMATS[name](), resume=True)
            assert path.read_bytes() == data


def test_a_damaged_record_is_named_by_its_number(tmp_path: Path) -> None:
    path, form = tmp_path / "out", FORMATS["jsonl"]()
    path.write_bytes(written(form, [Record("a", "ok"), Record("b", "ok")]) + b"\0\0\0\n")
    with pytest.raises(records.OutputMismatch, match="record 3"):
        open_output(path, form, resume=True)
