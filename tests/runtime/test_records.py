"""Output formats against independent readers."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from written_records import form_of, forms, rows_of, sequences, wanted, written

from crnn_deploy.errors import printable
from crnn_deploy.runtime import records
from crnn_deploy.runtime.decoding.ctc import Alternative, Char, Text
from crnn_deploy.runtime.images.pixels import ImageUnreadable
from crnn_deploy.runtime.records import FORMATS, Csv, Record


@given(forms, sequences)
@settings(deadline=None)
def test_any_sequence_reads_back(form: records.Format, sequence: list[Record]) -> None:
    rows = rows_of(form, written(form, sequence))
    assert rows == [wanted(form, record) for record in sequence]


@given(sequences)
@settings(deadline=None)
def test_safe_cells_are_no_formulas_and_give_their_paths_back(sequence: list[Record]) -> None:
    form = Csv(safe=True)
    rows = list(csv.reader(io.StringIO(written(form, sequence).decode(), newline="")))
    for record, row in zip(sequence, rows[1:], strict=True):
        assert not any(cell[:1] in set("=+-@\t\r＝＋－＠") - {""} for cell in row)
        assert all(printable(cell) == cell and "\n" not in cell and "\t" not in cell for cell in row)
        assert form.key(form.encode(record)) == record.path


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
