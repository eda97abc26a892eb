"""`--rebuild auto`: an engine that is not for this machine is built again before it is opened."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click
from click.core import ParameterSource

from crnn_deploy.cli.say import say
from crnn_deploy.errors import CrnnDeployError

__all__ = ["SourceChanged", "rebuild_option", "up_to_date"]

rebuild_option = click.option(
    "--rebuild",
    type=click.Choice(["never", "auto"]),
    default="never",
    show_default=True,
    help="auto: build an .engine again that was built for another TensorRT or GPU, or was changed.",
)


class SourceChanged(CrnnDeployError, ValueError):
    """The ONNX file that an engine was built from is gone or another one."""

    def __init__(self, engine: Path, model: Path) -> None:
        super().__init__(
            f"{model} is not the file that {engine} was built from; build it from the right one: "
            f"crnn-deploy build-engine MODEL.onnx -o {engine}"
        )


def up_to_date(path: Path, rebuild: str) -> Path:
    """The same path, behind which a stale engine was built again if that is asked for.

    Raises what `trt.check_engine` raises but for what a build mends; SourceChanged and what a build raises.
    """
    if path.suffix == ".engine" and rebuild == "auto":
        from crnn_deploy.backends.trt import check_engine
        from crnn_deploy.engine_file import EngineChanged, EngineStale

        try:
            check_engine(path)
        except (EngineChanged, EngineStale) as error:
            say(f"{error}\nbuilding it again", err=True)
            _build_again(path)
    return path


def _build_again(path: Path) -> None:
    """As its sidecar says, from the ONNX file of the same digest."""
    from crnn_deploy.cli.build_engine import build_engine
    from crnn_deploy.engine_file import digest, read_sidecar

    engine = read_sidecar(path)
    context = build_engine.make_context("build-engine", list(engine.arguments))
    model: Path = context.params["model"]
    if not model.is_file() or digest(model.read_bytes()) != engine.onnx_sha256:
        raise SourceChanged(path, model)
    context.params["path"] = path
    context.set_parameter_source("path", ParameterSource.COMMANDLINE)
    assert build_engine.callback is not None
    with redirect_stdout(sys.stderr):  # stdout is for what the command was asked for
        context.invoke(build_engine.callback, **context.params)
