"""`crnn-deploy infer`: the text of every image."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal

import click

from crnn_deploy.cli.decoding_options import decoder_given, decoding_options, rule_given
from crnn_deploy.cli.options import max_pixels_option
from crnn_deploy.cli.rebuild import rebuild_option, up_to_date

__all__ = ["infer"]

_CLEAR_LINE = "\r\033[K"  # of the progress bar


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--model",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="An .onnx or .engine file.  [default: the package's own, for printed Latin text]",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the package's own model.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where an .onnx file runs; an .engine file runs on the GPU.",
)
@click.option(
    "--tf32",
    is_flag=True,
    help="With --device cuda: multiply in TF32 (10 bits of mantissa for 23), which is faster and coarser.",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["text", "tsv", "jsonl", "csv"]),
    default="text",
    show_default=True,
    help="text: path, tab, text. The others: path, text, confidence, status, error.",
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write here, not to stdout."
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Most images that run together."
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "onnxruntime", "openvino"]),
    default="onnxruntime",
    show_default=True,
    help="Runs an .onnx file; auto: the fastest here (crnn-deploy doctor --model FILE says why).",
)
@rebuild_option
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: one for each CPU]")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Below it the status is low-confidence; the text format leaves the text out.",
)
@click.option("--show-chars", is_flag=True, help="Add each character's confidence (jsonl: and place).")
@click.option(
    "--draw",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write each image with a box around every character, as a PNG of its path below DIR.",
)
@click.option(
    "--wide",
    type=click.Choice(["cut", "shrink"]),
    default="cut",
    show_default=True,
    help="Lines beyond the model's largest width: read in overlapping parts, or shrunk to it.",
)
@max_pixels_option
@click.option("--resume", is_flag=True, help="Go on with the file of -o: skip the images it has already.")
@decoding_options()
def infer(
    paths: tuple[str, ...],
    model: Path | None,
    precision: str,
    device: Literal["cpu", "cuda"],
    tf32: bool,
    format_name: str,
    output: Path | None,
    batch: int,
    engine: Any,
    rebuild: str,
    workers: int | None,
    min_confidence: float,
    show_chars: bool,
    draw: Path | None,
    wide: Literal["cut", "shrink"],
    max_pixels: int,
    resume: bool,
    **decoding: Any,
) -> None:
    """Read the text of images.

    PATH is a file, a folder (with all below it), a glob such as 'crops/**/*.png', or - for a list on
    standard input, one path on each line. Every image gives one record, in the order of the input; one that
    cannot be read gives a record that says why, and the run goes on.

    \b
    crnn-deploy infer crops/
    crnn-deploy infer --model plates.onnx --format jsonl -o texts.jsonl crops/
    crnn-deploy infer --model plates.onnx --format jsonl -o texts.jsonl --resume crops/
    find crops -name '*.png' | crnn-deploy infer --model plates.onnx -
    crnn-deploy infer --decoder beam --lexicon words.txt --nbest 3 --format jsonl crops/
    crnn-deploy infer --model plates.onnx --mask AA999AA --show-chars --draw boxes crops/

    Exit code: 0, 1 when an image could not be read, 2 for bad usage, 130 when stopped by Ctrl-C or SIGTERM.
    With -o, what is done by then is kept, and --resume goes on after it.
    """
    if resume and output is None:
        raise click.UsageError("--resume needs the file to go on with: -o FILE")
    if precision != "fp32" and model is not None:
        raise click.UsageError("--precision picks a file of the package's own model; --model names a file")
    if tf32 and (device != "cuda" or (model is not None and model.suffix == ".engine")):
        raise click.UsageError(
            "--tf32 goes with --device cuda and an .onnx file; an engine was built with or without"
        )

    from crnn_deploy import records, sources
    from crnn_deploy.models import DEFAULT, DEFAULT_INT8
    from crnn_deploy.pipeline import read_in_order
    from crnn_deploy.process import Stop, cpus
    from crnn_deploy.recognizer import Recognizer

    if draw is not None:
        from crnn_deploy.drawing import write_boxed
    sources.check(paths)
    model = up_to_date(model or (DEFAULT if precision == "fp32" else DEFAULT_INT8), rebuild)
    listed = sys.stdin.buffer if sources.STDIN in paths else ()
    count = failed = 0
    with ExitStack() as stack:
        recognizer = stack.enter_context(
            closing(
                Recognizer.load(
                    model,
                    batch=batch,
                    engine=engine,
                    device=device,
                    tf32=tf32,
                    wide=wide,
                    max_pixels=max_pixels,
                )
            )
        )
        rule = rule_given(recognizer.manifest, decoding)
        if (decoder := decoder_given(recognizer.manifest, decoding)) is not None:
            recognizer = recognizer.with_decoder(decoder)
        nbest = rule.decoder == "beam" and rule.nbest > 0
        form = records.FORMATS[format_name](show_chars=show_chars, nbest=nbest)
        if output is None:
            stream, done = sys.stdout.buffer, records.Done()
            stream.write(form.header)
        else:
            stream, done = records.open_output(output, form, resume=resume)
            stack.enter_context(stream)
        hidden = not sys.stderr.isatty() or (output is None and sys.stdout.isatty())
        total = None
        if not hidden and sources.STDIN not in paths:
            total = max(0, sum(1 for _ in sources.find(paths, ())) - len(done))

        stop = stack.enter_context(Stop())
        results = read_in_order(
            recognizer,
            stop.until(path for path in sources.find(paths, listed) if not done.take(path)),
            batch=batch,
            workers=workers or cpus(),
            stopped=stop,
        )
        stack.enter_context(closing(results))
        bar = stack.enter_context(
            click.progressbar(results, total, hidden=hidden, show_pos=True, file=sys.stderr)
        )
        for chunk in results:
            done_now = [
                records.Record.of(path, result, min_confidence, with_chars=show_chars or draw is not None)
                for path, result in chunk
            ]
            if draw is not None:
                for record in done_now:
                    if record.error is None:
                        write_boxed(record.path, record.chars, draw, max_pixels)
            stream.write(b"".join(map(form.encode, done_now)))
            stream.flush()
            for record in done_now:
                if record.error is not None:
                    failed += 1
                    click.echo(f"{'' if hidden else _CLEAR_LINE}{record.error}", err=True)
            count += len(chunk)
            bar.update(len(chunk))
    if failed:
        click.echo(f"{failed} of {count} images failed", err=True)
    if stop():
        click.echo(f"stopped after {count} images" + ("; --resume goes on" if output else ""), err=True)
        raise KeyboardInterrupt
    if failed:
        raise click.exceptions.Exit(1)
