"""Records of any kind, how a format writes them, and what an independent reader finds."""

from __future__ import annotations

import csv
import io
import json
import os

from hypothesis import strategies as st

from crnn_deploy.runtime import records
from crnn_deploy.runtime.decoding.ctc import Alternative, Char
from crnn_deploy.runtime.records import FORMATS, Csv, Record

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
    rotated=st.sampled_from([None, 0, 90, 180, 270, "column"]),
)
failures = st.builds(Record, paths, st.just("error"), error=texts)
sequences = st.lists(readings | failures, max_size=6)


def form_of(
    name: str, *, show_chars: bool = False, nbest: bool = False, rotated: bool = False
) -> records.Format:
    if name == "csv-safe":
        return Csv(show_chars=show_chars, nbest=nbest, rotated=rotated, safe=True)
    return FORMATS[name](show_chars=show_chars, nbest=nbest, rotated=rotated)


forms = st.builds(
    lambda name, show, nbest, rotated: form_of(name, show_chars=show, nbest=nbest, rotated=rotated),
    st.sampled_from([*FORMATS, "csv-safe"]),
    st.booleans(),
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
    columns += ["rotated"] * (form.rotated and form.name != "text")
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
    if form.rotated and form.name == "jsonl":
        row["rotated"] = record.rotated
    elif form.rotated and form.name != "text":
        row["rotated"] = "" if record.rotated is None else str(record.rotated)
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
