"""`--rebuild auto`: an engine that is not for this machine is built again before it is opened."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from crnn_deploy.cli.say import say
from crnn_deploy.cli.values import OneOf
from crnn_deploy.errors import CrnnDeployError

__all__ = ["RebuildRefused", "SourceChanged", "rebuild_option", "rebuild_stale"]

rebuild_option = click.option(
    "--rebuild",
    type=OneOf(["never", "auto"]),
    default="never",
    show_default=True,
    help="Build an .engine file again (auto) or refuse it (never) if it was built for another TensorRT or "
    "another GPU, or was changed after it was built.",
)


class SourceChanged(CrnnDeployError, ValueError):
    """The ONNX file that an engine was built from is gone or another one."""

    def __init__(self, engine: Path, model: Path) -> None:
        super().__init__(
            f"{model} is not the file that {engine} was built from; build it from the right one: "
            f"crnn-deploy build-engine MODEL.onnx -o {engine}"
        )


class RebuildRefused(CrnnDeployError, ValueError):
    """A sidecar whose arguments are not those of a build."""

    def __init__(self, engine: Path, reason: str) -> None:
        super().__init__(
            f"{engine} is not built again: {reason}; build it yourself: "
            f"crnn-deploy build-engine MODEL.onnx -o {engine}"
        )


def rebuild_stale(rebuild: str, *models: Path) -> None:
    """Build stale engines among the models again where `rebuild` is auto.

    Raises UsageError where none of the models is an engine; what `trt.check_engine` raises but for what a
    build mends; RebuildRefused, SourceChanged and what a build raises.
    """
    if rebuild != "auto":
        return
    engines = [model for model in models if model.suffix == ".engine"]
    if not engines:
        raise click.UsageError(f"--rebuild auto is for .engine files; {models[0]} is none")
    from crnn_deploy.runtime.backends.engine_file import EngineChanged, EngineStale
    from crnn_deploy.runtime.backends.trt import check_engine

    for path in engines:
        try:
            check_engine(path)
        except (EngineChanged, EngineStale) as error:
            say(f"{error}\nbuilding it again", err=True)
            _build_again(path)


def _build_again(path: Path) -> None:
    """With the settings of its sidecar, from the ONNX file of the same digest."""
    from crnn_deploy.cli.build_engine import build_engine
    from crnn_deploy.runtime.backends.build_arguments import build_arguments
    from crnn_deploy.runtime.backends.engine_file import read_sidecar

    engine = read_sidecar(path)
    try:
        given = build_arguments(engine.arguments)
    except ValueError as error:
        raise RebuildRefused(path, f"its sidecar names {error}") from error
    model = Path(given.model)
    if _digest(model) != engine.onnx_sha256:
        raise SourceChanged(path, model)
    if given.left_out:
        say(
            f"rebuilt without {', '.join(given.left_out)}: files that a sidecar names are not opened",
            err=True,
        )
    context = build_engine.make_context("build-engine", [*given.settings, "-o", str(path), "--", given.model])
    assert build_engine.callback is not None
    with redirect_stdout(sys.stderr):  # stdout is for what the command was asked for
        context.invoke(build_engine.callback, **context.params)


def _digest(path: Path) -> str | None:
    """SHA-256 of a regular file; None where there is none."""
    from crnn_deploy.files import sha256

    try:
        return sha256(path)
    except OSError:
        return None
