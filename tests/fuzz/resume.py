"""Files of records that are changed anywhere, and then gone on with.

The input's first bytes choose the format and the records, the next ones what is changed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness import fuzz, guided

with guided():
    from crnn_deploy.runtime.output_file import OutputDamaged, open_output
    from crnn_deploy.runtime.records import FORMATS, Csv, Format, Record
    from crnn_deploy.runtime.run_record import RunRecord

RUN = RunRecord({"model": "0" * 64})
FORMS = [form(show_chars=flag, nbest=flag) for form in FORMATS.values() for flag in (False, True)]
FORMS.append(Csv(safe=True))
PIECES = (
    "a.png",
    "d/b",
    ",",
    '"',
    "\t",
    "\n",
    "\r\n",
    "\\",
    "=",
    "é",
    "ok",
    ",ok,\r\n",
    "\udce9",
    "0.500000",
)


def text(data: bytes) -> str:
    return "".join(PIECES[byte % len(PIECES)] for byte in data)


def records_of(data: bytes) -> list[Record]:
    """A record of every eight bytes: four of its path, four of its text."""
    rows = [data[at : at + 8] for at in range(0, len(data), 8)]
    return [
        Record(f"{number}{text(row[:4])}", "error", error=text(row[4:]).replace("\n", " "))
        if row[0] % 5 == 0
        else Record(f"{number}{text(row[:4])}", "ok", text(row[4:]), 0.5)
        for number, row in enumerate(rows)
    ]


def changed(whole: bytes, changes: bytes) -> bytes:
    """Five bytes for a change: what kind, where (three), and by what."""
    data = bytearray(whole)
    for at in range(0, len(changes) - 4, 5):
        kind, place, byte = changes[at] % 5, int.from_bytes(changes[at + 1 : at + 4], "big"), changes[at + 4]
        place %= len(data) + 1
        if kind == 0:
            data[place : place + 1] = bytes([byte])
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = bytes([byte])
        elif kind == 3:
            del data[place : place + byte]
        else:
            data[place : place + 1] = b'"\n,\t'[byte % 4 :][:1]
    return bytes(data)


def resume(form: Format, data: bytes) -> bytes | None:
    """What is left of a file, None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        open_output(path, form, RUN, resume=False).close()
        path.write_bytes(data)
        try:
            open_output(path, form, RUN, resume=True).close()
        except OutputDamaged as error:
            assert len(str(error).splitlines()) == 1
            assert path.read_bytes() == data, "refused and changed"
            return None
        return path.read_bytes()


def target(data: bytes) -> None:
    """It is refused and left as it is; or what is cut off holds no record that was written whole."""
    form, count = FORMS[data[0] % len(FORMS)] if data else FORMS[0], data[1] % 8 if len(data) > 1 else 0
    records = records_of(data[2 : 2 + 8 * count])
    encoded = [form.encode(record) for record in records]
    for record, line in zip(records, encoded, strict=True):
        assert form.key(line) == record.path
    whole = form.header + b"".join(encoded)
    before = changed(whole, data[2 + 8 * count :])
    after = resume(form, before)
    if after is None:
        assert before != whole, "what was written is refused"
        return
    if len(before) < len(form.header) or before[: len(form.header)].rstrip(b"\0") != form.header:
        assert after == form.header and form.header.startswith(before.rstrip(b"\0"))
        return
    assert before.startswith(after)
    lost = before[len(after) :]
    assert not any(b"\n" + line in b"\n" + lost for line in encoded), "a whole record is lost"
    assert whole != before or not lost


fuzz(
    target,
    [
        bytes([form, 3]) + bytes(range(form, form + 24)) + change
        for form in range(len(FORMS))
        for change in (b"", b"\4\0\0\x50\0", b"\1\0\0\x60\0", b"\0\0\0\x30\0")
    ],
)
