"""`crnn-deploy inspect`: what a model file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import checkpoint_options, settings_of
from crnn_deploy.cli.say import say, say_json

__all__ = ["inspect_command"]


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@checkpoint_options
def inspect_command(file: Path, as_json: bool, **source: Any) -> None:
    """Show what FILE is, a checkpoint, an .onnx file or an .engine.

    Alphabet and input; operators, parameters and FLOPs; or of an engine builder, precisions and profiles."""
    from crnn_deploy.inspection import inspect

    facts = inspect(file, settings_of(**source))
    if as_json:
        say_json(facts)
        return
    for name, value in facts.items():
        shown = (
            value
            if isinstance(value, str)
            else ", ".join(f"{k} {v}" for k, v in value.items())
            if isinstance(value, dict)
            else str(value)
        )
        say(f"{name:16}{shown}")
