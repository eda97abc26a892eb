"""`crnn-deploy infer-cluster`: the text of every image, on many machines."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from crnn_deploy.cli.decoding_options import decoder_given, decoding_options, rule_given
from crnn_deploy.cli.options import (
    PLACE,
    backend_option,
    batch_option,
    check_device,
    device_option,
    max_pixels_option,
    model_option,
    output_option,
    resume_option,
    rotate_option,
    show_chars_option,
    tf32_option,
    wide_option,
    workers_option,
)
from crnn_deploy.cli.say import progress_bar, say, say_over_bar, stdin_bytes

if TYPE_CHECKING:
    from crnn_deploy.cluster.reader import Receipt
    from crnn_deploy.runtime.run_record import Value

__all__ = ["infer_cluster"]


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=PLACE)
@model_option(default="latin")
@output_option("FOLDER", anywhere=True)
@click.option(
    "--address",
    metavar="auto|HOST:PORT",
    show_default="this machine alone",
    help="Read on the Ray cluster at this address. auto takes the cluster that this machine belongs to.",
)
@click.option(
    "--without-token",
    is_flag=True,
    help="Use a Ray cluster even if it asks for no token. Anyone who reaches the ports of such a cluster "
    "can run code on it.",
)
@workers_option
@click.option(
    "--cpus-per-worker",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Give each worker this many CPUs and as many threads.",
)
@click.option(
    "--gpus-per-worker",
    metavar="F",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Give each worker this many GPUs: 1, or a fraction such as 0.25 for four workers on each GPU.",
)
@click.option(
    "--rows-per-file",
    metavar="N",
    type=click.IntRange(1, 10_000_000),
    default=10_000,
    show_default=True,
    help="Put at most this many rows into a file of the output. A tar always gives one file. After a stop, "
    "--resume reads an unfinished file from its start.",
)
@click.option(
    "--column",
    metavar="NAME",
    show_default="recognised by its name and type",
    help="Read the paths or the images of Parquet files from this column.",
)
@resume_option
@batch_option
@backend_option
@device_option
@tf32_option
@show_chars_option
@wide_option
@rotate_option
@max_pixels_option
@decoding_options()
def infer_cluster(
    inputs: tuple[str, ...],
    model: Path | None,
    output: str,
    address: str | None,
    without_token: bool,
    workers: int | None,
    cpus_per_worker: int,
    gpus_per_worker: float,
    rows_per_file: int,
    column: str | None,
    resume: bool,
    batch: int,
    backend: Any,
    device: Literal["cpu", "cuda"],
    allow_tf32: bool,
    show_chars: bool,
    wide: Literal["cut", "shrink"],
    rotate: Literal["none", "90", "auto", "180"],
    max_pixels: int,
    **decoding: Any,
) -> None:
    """Read the text of images on many machines.

    INPUT is a folder, a glob, a list of paths (.txt, or - for standard input), Parquet files with a column of
    paths or of images, an LMDB, or tars. It lies on this machine or in a store (s3://, gs://, hdfs://).
    FOLDER gets Parquet files with one row for each image. Texts and confidences are those of infer, bit for
    bit. If an image cannot be read, its row says why.

    At the end the command reads the rows back and compares them with the inputs. That proves that no image
    was lost or read twice. FOLDER/_run/manifest.json has the counts. Without --address, the command starts
    Ray on this machine and stops it after the run. With --resume, it reads what is missing.

    \b
    crnn-deploy infer-cluster crops/ -o texts/
    crnn-deploy infer-cluster --model plates.onnx crops.parquet -o texts/ --resume
    crnn-deploy infer-cluster --address auto s3://archive/crops/ -o s3://archive/texts/
    crnn-deploy infer-cluster --address auto --model plates.engine --gpus-per-worker 0.5 s3://a/crops/ -o t/

    The exit code is 0 when every image was read; 1 when an image could not be read, the counts differ, Ray
    ended or a node cannot read images; 2 when an option, an input, the output, a store or the cluster cannot
    be used; 130 when Ctrl-C or SIGTERM stopped the run.
    """
    check_device(model, device, allow_tf32)
    if without_token and address is None:
        raise click.UsageError("--without-token goes with --address")
    if not math.isfinite(gpus_per_worker):
        raise click.UsageError("--gpus-per-worker takes a number such as 1 or 0.25")
    if inputs.count("-") > 1:
        raise click.UsageError("standard input (-) is named twice")

    from crnn_deploy.cluster.ray_nodes import Nodes
    from crnn_deploy.cluster.run import infer_cluster as run
    from crnn_deploy.cluster.run import run_digest
    from crnn_deploy.cluster.task import ModelFiles, Task
    from crnn_deploy.models import DEFAULT
    from crnn_deploy.process import Stop
    from crnn_deploy.runtime.backends.backend import manifest_of
    from crnn_deploy.runtime.images.sources import STDIN, lines_of
    from crnn_deploy.runtime.run_record import RunRecord
    from crnn_deploy.stores.address import is_remote, without_keys
    from crnn_deploy.stores.store import Stores

    model = model or DEFAULT
    manifest = manifest_of(model)
    if backend == "auto":  # what chooses by time may choose otherwise on another node
        from crnn_deploy.runtime.choice import choose

        backend = choose(model).in_fp32().backend if device == "cpu" else "onnxruntime"
    backend = backend or "onnxruntime"
    rule = rule_given(manifest, decoding)
    decoder = decoder_given(manifest, decoding)
    settings: dict[str, Value] = {
        **{"input": [*map(without_keys, inputs)], "rows-per-file": rows_per_file, "column": column or ""},
        **{"backend": backend, "device": device, "allow-tf32": allow_tf32, "wide": wide, "rotate": rotate},
        **{"max-pixels": max_pixels, "show-chars": show_chars},
    }
    if not all(is_remote(given) or os.path.isabs(given) for given in inputs):
        settings["working-folder"] = os.getcwd()  # in which the names of the plan begin
    record = RunRecord.of(model, rule, settings, lexicon=decoding["lexicon"], lm=decoding["lm"])
    reading = {"backend": backend, "device": device, "tf32": allow_tf32, "decoder": decoder}
    task = Task(
        ModelFiles.of(model),
        str(record.settings["model"]),
        output,
        Stores([*inputs, output]),
        run_digest(record),
        {**reading, "wide": wide, "max_pixels": max_pixels, "rotate": rotate},
        show_chars=show_chars,
        nbest=rule.decoder == "beam" and rule.nbest > 0,
        batch=batch,
        threads=cpus_per_worker,
    )
    nodes = Nodes(address, without_token, workers, cpus_per_worker, gpus_per_worker)
    with Stop(finishes="when the workers have ended") as stop, progress_bar(1, label="files") as bar:

        def check() -> None:
            if stop():
                raise KeyboardInterrupt

        def begun(chunks: int, of: int) -> None:
            bar.length, bar.start = chunks, time.time()  # not when Ray was started
            if resume:
                say_over_bar(f"{of - chunks} of {of} files are whole; {chunks} must still be written")

        def read(receipt: Receipt) -> None:
            bar.update(not receipt.failed)

        try:
            outcome = run(
                inputs,
                task,
                record,
                nodes,
                rows_per_file=rows_per_file,
                column=column,
                listed=stop.until(lines_of(stdin_bytes())) if STDIN in inputs else (),
                resume=resume,
                check=check,
                until=stop.until,
                told=say_over_bar,
                begun=begun,
                read=read,
            )
        except (KeyboardInterrupt, BrokenPipeError) as error:
            if isinstance(error, BrokenPipeError) and not stop():  # a Ray that ends breaks its connections
                raise
            say("stopped; what was read is kept, and --resume goes on", err=True)
            raise KeyboardInterrupt from None
    counts, shown = outcome.counts, without_keys(output)
    if counts.to_do:
        say(f"{shown} is not whole; repeat the command with --resume", err=True)
    elif not counts.whole:
        say(
            f"{shown} holds files that the run has not written, such as {counts.stranger}; move them away, "
            "and repeat the command with --resume",
            err=True,
        )
    if counts.errors:
        say(f"{counts.errors} of {counts.inputs} images failed; the column error says why", err=True)
    say(f"{shown}: {counts.verdict}")
    if counts.errors or not counts.whole:
        raise click.exceptions.Exit(1)
