"""`crnn-deploy triton`: a model repository for NVIDIA Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import FILE, MODEL, batch_option, device_option, output_option, refuse_given
from crnn_deploy.cli.say import say
from crnn_deploy.cli.values import OneOf

__all__ = ["triton"]


@click.command()
@click.argument("model", type=MODEL)
@output_option("REPOSITORY")
@click.option(
    "--layout",
    type=OneOf(["bls", "ensemble", "python"]),
    default="bls",
    show_default=True,
    help="Write the models in this layout. bls: a Python model makes batches of one width and gives them to "
    "the network, which runs in Triton's own backend. ensemble: one model prepares an image, the network "
    "runs in Triton's own backend, and another model decodes. python: one Python model runs the network "
    "itself.",
)
@click.option(
    "--name",
    metavar="NAME",
    show_default="that of the model's file",
    help="Give this name to the model that clients send requests to.",
)
@batch_option
@click.option(
    "--instances",
    metavar="N",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Run each Python model in this many processes.",
)
@device_option
@click.option(
    "--onnx",
    metavar="FILE.onnx",
    type=FILE,
    help="Take the names of an engine's tensors from this .onnx file, from which the engine was built.",
)
@click.option("--replace", is_flag=True, help="Write over a repository that this command wrote before.")
def triton(
    model: Path,
    output: Path,
    layout: Any,
    name: str | None,
    batch: int,
    instances: int,
    device: Any,
    onnx: Path | None,
    replace: bool,
) -> None:
    """Write a model repository for Triton.

    MODEL is a shipped model by its name, an .onnx file or an .engine file. REPOSITORY is a new folder with
    the models, their configurations and a README. The README says what the server (NVIDIA Triton Inference
    Server) needs and how to start it. Its clients send encoded images and get the same texts as from
    crnn-deploy serve. Images of different widths are never padded to run together.

    \b
    crnn-deploy triton latin -o repository
    crnn-deploy triton plates.onnx --layout python --instances 4 -o repository
    crnn-deploy triton plates.engine --onnx plates.onnx -o repository
    """
    if model.suffix == ".engine":
        refuse_given(("device",), "is for .onnx files; TensorRT runs an engine on the GPU as built")
    else:
        refuse_given(("onnx",), "is for .engine files; an .onnx file says its tensors' names itself")

    from crnn_deploy.triton.repository import write_repository

    written = write_repository(
        model,
        output,
        layout=layout,
        name=name,
        batch=batch,
        instances=instances,
        device=device,
        onnx=onnx,
        replace=replace,
    )
    most = written.network.max_batch
    say(f"{output}: {', '.join(written.models)}; clients ask {written.name}")
    together = "one image runs at a time" if most == 1 else f"up to {most} images of one width run together"
    say(f"{together}; {output / 'README.md'} says how to start the server")
