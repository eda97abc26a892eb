"""Reports of commands: on stdout, and in files as JSON and as pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crnn_deploy.cli.say import check_stdout, plain_json, say, say_json
from crnn_deploy.errors import CrnnDeployError, ModelUnreadable

__all__ = [
    "ModelKept",
    "check_kind",
    "check_kind_of",
    "check_report",
    "check_reports",
    "put_report",
    "write_page",
]


class ModelKept(CrnnDeployError, FileExistsError):
    """A model that another command made, which an output would replace."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(f"{path} is {kind}; name another output, or remove it first")


def check_reports(*paths: Path | None) -> None:
    """Refuse reports in folders that are not there, before a long run. Raises OutputUnwritable."""
    from crnn_deploy.files import OutputUnwritable

    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise OutputUnwritable(path, f"{path.parent} is not a folder")


def check_report(*files: Path | None) -> None:
    """Refuse a run of which nobody would get the report: no file is named for it, and stdout is closed.

    Raises StreamClosed; OutputUnwritable as `check_reports`.
    """
    if not any(files):
        check_stdout()
    check_reports(*files)


def check_kind(output: Path, *, quantised: bool) -> None:
    """Refuse to write a model in float over a quantised one, and a quantised one over one in float.

    Raises ModelKept.
    """
    found = _is_quantised(output)
    if found is not None and found is not quantised:
        raise ModelKept(output, "a quantised model" if found else "a model in float")


def check_kind_of(model: Path, output: Path) -> None:
    """As `check_kind`, where a model is written again. Raises ModelKept."""
    if _is_quantised(output) is None:
        return
    quantised = _is_quantised(model)
    if quantised is not None:  # the command says what is wrong with another file
        check_kind(output, quantised=quantised)


def _is_quantised(path: Path) -> bool | None:
    """Whether an ONNX file is quantised; None where none lies at the path."""
    from crnn_deploy.runtime.backends.weight_bits import is_quantised

    try:
        return is_quantised(path)
    except ModelUnreadable:
        return None


def put_report(table: str, value: Any, *, as_json: bool, json_file: Path | None) -> None:
    """Show a report as `json_options` say, and write it, whole or not at all, where they name a file.

    table: for people; value: the same as JSON has it
    Raises OutputUnwritable.
    """
    try:
        if json_file is not None:
            from crnn_deploy.files import write

            write(json_file, plain_json(value, indent=1) + "\n")
    finally:  # a full disk takes nobody's figures away
        if as_json:
            say_json(value, indent=1)
        else:
            say(table)


def write_page(path: Path, page: str) -> None:
    """Write a page; half of a surrogate pair, from a name that is not text, becomes a reference to it.

    Raises OutputUnwritable.
    """
    from crnn_deploy.files import write

    write(path, page.encode(errors="xmlcharrefreplace"))
