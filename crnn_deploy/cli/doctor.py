"""`crnn-deploy doctor`: what works on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from crnn_deploy.cli.options import check_no_folder, json_options, model_option
from crnn_deploy.cli.outputs import check_report, put_report
from crnn_deploy.cli.say import working

__all__ = ["doctor"]


@click.command()
@model_option()
@json_options
def doctor(model: Path | None, as_json: bool, json_file: Path | None) -> None:
    """Show what works on this machine and what is missing.

    The report shows the libraries and GPUs that are usable, the commands that work, and what to install for
    the others. With --model, it shows instead which library runs that model fastest on this machine, in fp32
    or bf16, and why.

    \b
    crnn-deploy doctor
    crnn-deploy doctor --model plates.onnx

    The exit code is 0 when `infer` works and ONNX Runtime is not broken, otherwise 1.
    """
    from crnn_deploy.errors import ModelUnreadable
    from crnn_deploy.files import check_outputs

    check_report(json_file)
    if model is not None:
        check_no_folder(model, wanted="an .onnx file")
    if model is not None and model.suffix != ".onnx":
        raise ModelUnreadable(
            model, "libraries are compared on an .onnx file; TensorRT alone runs an .engine"
        )
    if model is not None:
        from crnn_deploy.runtime.choice import choose

        check_outputs((json_file,), (model,))
        with working("measure which library runs the model fastest"):
            choice = choose(model)
        put_report(choice.why(), choice.to_plain(), as_json=as_json, json_file=json_file)
        return
    from crnn_deploy.doctor import examine

    with working("look which libraries work"):
        diagnosis = examine()
    put_report(diagnosis.table(), diagnosis.to_plain(), as_json=as_json, json_file=json_file)
    if not diagnosis.healthy:
        raise click.exceptions.Exit(1)
