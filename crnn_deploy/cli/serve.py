"""`crnn-deploy serve`: a recogniser behind a port."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from crnn_deploy.cli.options import (
    FILE,
    backend_option,
    device_option,
    max_pixels_option,
    model_option,
    precision_option,
    workers_option,
)
from crnn_deploy.cli.say import say, working

__all__ = ["serve"]


@click.command()
@model_option(default="latin", several=True)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Listen on this address. An address that other machines reach needs --token-file or --no-token.",
)
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Listen on this port. 0 takes a free one.",
)
@workers_option
@click.option(
    "--queue",
    metavar="N",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Let at most this many images wait in each worker. A request beyond that gets the answer 503.",
)
@click.option(
    "--max-batch",
    metavar="N",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Run at most this many images of one width together.",
)
@click.option(
    "--max-wait-ms",
    metavar="X",
    type=click.FloatRange(0, 60_000),
    default=50.0,
    show_default=True,
    help="Let an image wait at most this many milliseconds while fuller batches of other widths run first. "
    "No image waits while a worker is idle.",
)
@click.option(
    "--max-bytes",
    metavar="N",
    type=click.IntRange(1, 2**32),
    default=2**25,
    show_default=True,
    help="Refuse a request whose body has more bytes than this.",
)
@click.option(
    "--max-request-images",
    metavar="N",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Refuse a request that has more images than this.",
)
@max_pixels_option
@click.option(
    "--token-file",
    metavar="FILE",
    type=FILE,
    help="Refuse a request without a token of this file, sent as Authorization: Bearer TOKEN. The file has "
    "one token on each line.",
)
@click.option(
    "--no-token",
    is_flag=True,
    help="Allow requests without a token, from everybody who can reach the address.",
)
@backend_option
@precision_option()
@device_option
def serve(
    models: tuple[Path, ...],
    host: str,
    port: int,
    workers: int | None,
    queue: int,
    max_batch: int,
    max_wait_ms: float,
    max_bytes: int,
    max_request_images: int,
    max_pixels: int,
    token_file: Path | None,
    no_token: bool,
    backend: Any,
    precision: Any,
    device: Literal["cpu", "cuda"],
) -> None:
    """Read the text of images that come over HTTP.

    POST /v1/read takes one image or several, and answers with the text of each. The same server speaks the
    Open Inference Protocol (/v2), gives metrics to Prometheus (/metrics), describes its interface
    (/openapi.json) and shows a page to try it (/).

    Images of one width run together, also from different requests. The other images do not change an image's
    text. If a model's file changes, the server loads the new file and then uses it in place of the old one.

    \b
    crnn-deploy serve
    crnn-deploy serve --model plates.onnx --model latin --port 9000
    crnn-deploy serve --host 0.0.0.0 --token-file tokens.txt
    curl --data-binary @word.png -H 'Content-Type: image/png' http://127.0.0.1:8000/v1/read

    After Ctrl-C or SIGTERM, the server answers the requests that it has accepted, and ends with exit code 0.
    """
    if not host:
        raise click.UsageError("--host is empty; give an address, such as 127.0.0.1, or 0.0.0.0 for all")
    if token_file is not None and no_token:
        raise click.UsageError("--no-token lets everybody call, and --token-file only some; leave one out")

    import os

    from crnn_deploy.models import DEFAULT
    from crnn_deploy.process import cpus
    from crnn_deploy.runtime.opening import opening
    from crnn_deploy.serving.settings import ServerSettings

    if not hasattr(os, "fork"):
        raise click.UsageError("serve forks its workers, which this system cannot; run it on Linux or macOS")
    from crnn_deploy.serving.models import served_name
    from crnn_deploy.serving.workers import serve as run

    with working("choose how the models run here"):
        given = tuple(
            opening(model, backend=backend, precision=precision, device=device)
            for model in models or (DEFAULT,)
        )
    if workers is None:  # those on a GPU would each hold its memory
        workers = 1 if device == "cuda" or any(one.path.suffix == ".engine" for one in given) else cpus()
    settings = ServerSettings(
        given,
        host=host,
        port=port,
        workers=workers,
        queue=queue,
        max_batch=max_batch,
        max_wait=max_wait_ms / 1000,
        max_bytes=max_bytes,
        max_images=max_request_images,
        max_pixels=max_pixels,
        token_file=token_file,
        open_to_all=no_token,
    )
    names = ", ".join(served_name(one.path) for one in given)
    count = f"{workers} worker{'s' * (workers > 1)}"
    run(settings, lambda address: say(f"ready: {address} ({names}; {count})", err=True))
