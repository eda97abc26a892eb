"""Outputs as a run opens them, and as it leaves them."""

from __future__ import annotations

from pathlib import Path

from crnn_deploy.runtime import records
from crnn_deploy.runtime.output_file import Output, open_output
from crnn_deploy.runtime.run_record import RunRecord

RUN = RunRecord({"model": "0" * 64})


def opened(path: Path, form: records.Format, *, resume: bool = True) -> Output:
    return open_output(path, form, RUN, resume=resume)


def left(path: Path, form: records.Format, data: bytes) -> None:
    """What a run has left: its file, and beside it what made it."""
    path.unlink(missing_ok=True)
    opened(path, form, resume=False).close()
    path.write_bytes(data)
