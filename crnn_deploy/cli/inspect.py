"""`crnn-deploy inspect`: what a model file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import (
    CHECKPOINT_ONLY,
    MODEL,
    check_no_folder,
    checkpoint_options,
    json_options,
    refuse_given,
    settings_of,
)
from crnn_deploy.cli.outputs import check_report, put_report
from crnn_deploy.cli.say import working

__all__ = ["inspect_command"]


@click.command("inspect")
@click.argument("file", type=MODEL)
@json_options
@checkpoint_options
def inspect_command(file: Path, as_json: bool, json_file: Path | None, **source: Any) -> None:
    """Show what is in a model's file.

    FILE is a checkpoint, an .onnx file or an .engine file. The report shows the alphabet and the input. For a
    network it also shows operators, parameters and FLOPs. For an engine it also shows builder, precisions and
    profiles.

    \b
    crnn-deploy inspect model.onnx
    crnn-deploy inspect model.engine --json
    """
    check_no_folder(file)

    from crnn_deploy.files import check_outputs
    from crnn_deploy.inspection import inspect
    from crnn_deploy.runtime.backends.backend import SUFFIXES

    if file.suffix in SUFFIXES:
        refuse_given(CHECKPOINT_ONLY, f"describes a checkpoint; {file} says itself what it is")
    check_report(json_file)
    check_outputs((json_file,), (file, source["alphabet"], source["recipe"]))
    settings = settings_of(**source)
    with working(f"look into {file}"):
        facts = inspect(file, settings)
    lines = []
    for name, value in facts.items():
        shown = (
            value
            if isinstance(value, str)
            else ", ".join(f"{k} {v}" for k, v in value.items())
            if isinstance(value, dict)
            else str(value)
        )
        lines.append(f"{name:16}{shown}")
    put_report("\n".join(lines), facts, as_json=as_json, json_file=json_file)
