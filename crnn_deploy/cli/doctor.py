"""`crnn-deploy doctor`: what works on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from crnn_deploy.cli.say import say, say_json

__all__ = ["doctor"]


@click.command()
@click.option(
    "--model", metavar="FILE", type=click.Path(path_type=Path), help="Say which engine runs it, and why."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(model: Path | None, as_json: bool) -> None:
    """Show which libraries and GPUs are usable here, which commands work, and what installs the rest.

    Exit code: 0 when `infer` works, else 1; 1 too when ONNX Runtime is broken.
    """
    if model is not None:
        from crnn_deploy.runtime.backends.choice import choose

        choice = choose(model)
        if as_json:
            from dataclasses import asdict

            say_json(asdict(choice))
        else:
            say(choice.why())
        return
    from crnn_deploy.doctor import examine

    diagnosis = examine()
    if as_json:
        say_json(diagnosis.to_plain(), indent=1)
    else:
        say(diagnosis.table())
    if not diagnosis.healthy:
        raise click.exceptions.Exit(1)
