"""`crnn-deploy infer`: the text of every image."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from crnn_deploy.cli.decoding_options import decoder_given, decoding_options, rule_given
from crnn_deploy.cli.options import (
    FILE,
    PLACE,
    backend_option,
    batch_option,
    check_device,
    device_option,
    max_pixels_option,
    model_option,
    output_option,
    precision_option,
    resume_option,
    rotate_option,
    show_chars_option,
    tf32_option,
    wide_option,
    workers_option,
)
from crnn_deploy.cli.rebuild import rebuild_option, rebuild_stale
from crnn_deploy.cli.say import (
    bars_are_hidden,
    progress_bar,
    put,
    say,
    say_over_bar,
    stdin_bytes,
    stdout_is_terminal,
    working,
)
from crnn_deploy.cli.summary import Summary
from crnn_deploy.cli.values import OneOf

if TYPE_CHECKING:
    from crnn_deploy.runtime.output_file import Output
    from crnn_deploy.runtime.pipeline import Result
    from crnn_deploy.runtime.run_record import Value

__all__ = ["infer"]


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PLACE)
@model_option(default="latin")
@precision_option()
@device_option
@tf32_option
@click.option(
    "--format",
    "format_name",
    type=OneOf(["text", "tsv", "jsonl", "csv"]),
    show_default="the format that FILE of -o ends in (.txt, .tsv, .jsonl or .csv), else text",
    help="Write records in this format. text has path and text. The others also have confidence, status and "
    "error.",
)
@output_option("FILE", default="stdout")
@click.option(
    "--csv-safe",
    is_flag=True,
    help="Make --format csv safe for spreadsheets: write an apostrophe before a cell that begins with = + - "
    "@ or an apostrophe, and escape control characters and backslashes (\\x1b, \\\\).",
)
@batch_option
@backend_option
@rebuild_option
@workers_option
@click.option(
    "--min-confidence",
    metavar="X",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Give a text below this confidence the status low-confidence. --format text does not show it.",
)
@show_chars_option
@click.option(
    "--draw",
    metavar="DIR",
    type=FILE,
    help="Draw a box around every character and write each image as a PNG file below this folder. With "
    "--boxes, draw the boxes of each page and their texts.",
)
@click.option(
    "--boxes",
    metavar="FILE",
    type=FILE,
    help="Read the boxes of pages instead of whole images. FILE comes from a text detector or an annotation "
    "tool: ICDAR or PaddleOCR text lines, COCO or labelme JSON, PAGE or ALTO XML, or a table (TSV, CSV, "
    "JSONL). It may also be a folder with one such file for each page.",
)
@click.option(
    "--page-xml",
    metavar="DIR",
    type=FILE,
    help="Write each page as PAGE XML with its texts below this folder. This needs --boxes.",
)
@wide_option
@rotate_option
@max_pixels_option
@resume_option
@decoding_options()
def infer(
    paths: tuple[str, ...],
    model: Path | None,
    precision: Any,
    device: Literal["cpu", "cuda"],
    allow_tf32: bool,
    format_name: str | None,
    output: Path | None,
    csv_safe: bool,
    batch: int,
    backend: Any,
    rebuild: str,
    workers: int | None,
    min_confidence: float,
    show_chars: bool,
    draw: Path | None,
    boxes: Path | None,
    page_xml: Path | None,
    wide: Literal["cut", "shrink"],
    rotate: Literal["none", "90", "auto", "180"],
    max_pixels: int,
    resume: bool,
    **decoding: Any,
) -> None:
    """Read the text of images.

    PATH is a file, a folder (with all below it), a glob such as 'crops/**/*.png', or - for a list on standard
    input with one path on each line. Every image gives one record, in the order of the input. If an image
    cannot be read, its record says why, and the run continues. If --draw cannot write an image, the image
    keeps its record and counts as an error.

    With -o FILE, the run also writes FILE.run.json, which holds the model and the settings. With --resume, it
    skips the images that FILE already holds. It refuses to continue if the model or the settings have
    changed.

    With --boxes, each PATH is a page, and every box of a page gives one record. The record has the number of
    the box in its file, from 0, and the polygon of the box.

    \b
    crnn-deploy infer crops/
    crnn-deploy infer --model latin --precision int8 crops/
    crnn-deploy infer --model plates.onnx --precision bf16 crops/
    crnn-deploy infer --model plates.onnx --format jsonl -o texts.jsonl crops/
    crnn-deploy infer --model plates.onnx --format jsonl -o texts.jsonl --resume crops/
    find crops -name '*.png' | crnn-deploy infer --model plates.onnx -
    crnn-deploy infer --decoder beam --lexicon words.txt --nbest 3 --format jsonl crops/
    crnn-deploy infer --rotate auto --format jsonl crops/
    crnn-deploy infer --model plates.onnx --mask AA999AA --show-chars --draw boxes crops/
    crnn-deploy infer --boxes det_results.txt --format jsonl pages/
    crnn-deploy infer --boxes pages/xml --page-xml read --draw drawn pages/

    The exit code is 0 on success, 1 when an image could not be read or drawn, 2 for bad usage, 130 when
    Ctrl-C or SIGTERM stopped the run. With -o, the records written by then are kept, and --resume continues.
    """
    if resume and output is None:
        raise click.UsageError("--resume needs the file to go on with: -o FILE")
    form_given, format_name = format_name, _format(format_name, output)
    if csv_safe and format_name != "csv":
        raise click.UsageError(f"--csv-safe goes with --format csv; this would be {format_name}")
    if page_xml is not None and boxes is None:
        raise click.UsageError("--page-xml needs the boxes of the pages: --boxes FILE")
    check_device(model, device, allow_tf32)

    from crnn_deploy.models import DEFAULT
    from crnn_deploy.process import Stop, cpus
    from crnn_deploy.runtime import records
    from crnn_deploy.runtime.images import sources
    from crnn_deploy.runtime.inputs import ImagesInput, Input
    from crnn_deploy.runtime.opening import opening
    from crnn_deploy.runtime.output_file import RecordStream, open_output
    from crnn_deploy.runtime.recognizer import Recognizer

    sources.check(paths)
    model = model or DEFAULT
    with working("choose how the model runs here"):
        given = opening(model, backend=backend, precision=precision, device=device, tf32=allow_tf32)
    if given.path != model:
        say(f"note: --precision int8 reads with {given.path}", err=True)
    _check_outputs(
        output, (draw, page_xml), (*paths, boxes, model, given.path, decoding["lexicon"], decoding["lm"])
    )
    if form_given is None and output is not None and output.suffix.lower() not in ("", *_ENDINGS):
        say(f"{output}: {output.suffix} is no format of records, so they are written as text", err=True)
    rebuild_stale(rebuild, model)
    listed = sources.lines_of(stdin_bytes()) if sources.STDIN in paths else ()
    unmade = 0
    with ExitStack() as stack:
        recognizer = stack.enter_context(
            closing(Recognizer(given.open(), batch=batch, wide=wide, max_pixels=max_pixels, rotate=rotate))
        )
        if (most := recognizer.manifest.max_batch) is not None and most < batch:
            together = "one image" if most == 1 else f"{most} images"
            say(
                f"note: {given.path} runs {together} at a time (max_batch), as more together would change "
                "one another's texts",
                err=True,
            )
        rule = rule_given(recognizer.manifest, decoding)
        if (decoder := decoder_given(recognizer.manifest, decoding)) is not None:
            recognizer = recognizer.with_decoder(decoder)
        shape = {
            "show_chars": show_chars,
            "nbest": rule.decoder == "beam" and rule.nbest > 0,
            "rotated": rotate != "none",
            "boxes": boxes is not None,
        }
        source: Input
        about: dict[str, Any] = {"min_confidence": min_confidence, "draw": draw, "max_pixels": max_pixels}
        if boxes is None:
            source = ImagesInput(recognizer, paths, listed, **about)
        else:
            from crnn_deploy.runtime.boxes_input import BoxesInput  # and with it the formats of boxes

            source = BoxesInput(recognizer, paths, listed, boxes, page_xml=page_xml, say=_note, **about)
        form = records.Csv(**shape, safe=True) if csv_safe else records.FORMATS[format_name](**shape)
        written: Output | RecordStream
        if output is None:
            written = RecordStream(form, put, terminal=stdout_is_terminal())
        else:
            from crnn_deploy.runtime.run_record import RunRecord

            settings: dict[str, Value] = {
                **{"backend": given.backend, "device": device, "allow-tf32": allow_tf32},
                **{"wide": wide, "min-confidence": min_confidence},
            }
            # only where they are not the default, so that runs of versions without these options go on
            if rotate != "none":
                settings["rotate"] = rotate
            if given.floats != "fp32":
                settings["precision"] = given.floats
            files = {"lexicon": decoding["lexicon"], "lm": decoding["lm"], "boxes": boxes}
            run = RunRecord.of(given.path, rule, settings, **files)
            written = stack.enter_context(open_output(output, form, run, resume=resume))
        hidden = bars_are_hidden() or (output is None and stdout_is_terminal())
        total = None
        if not hidden and sources.STDIN not in paths:
            total = source.total(written.done)

        summary = Summary(source.word)
        stop = stack.enter_context(Stop())
        shares = boxes is not None or decoder is not None  # threads share a page, and what a decoder knows
        results = _results(
            source.reader,
            stop.until(source.left(written.done)),
            processes=given.can_fork and not shares,
            chars=show_chars or draw is not None,
            batch=batch,
            workers=workers or cpus(),
            stopped=stop,
        )
        stack.enter_context(closing(results))
        bar = stack.enter_context(progress_bar(total, iterable=results, hidden=hidden))
        for chunk in results:
            done_now = source.records(chunk, show_chars)
            written.write(done_now)
            not_made = source.make_files()
            summary.add(done_now)
            errors = [record.error for record in done_now if record.error is not None]
            unmade += len(not_made)
            for error in dict.fromkeys((*errors, *not_made)):  # that of a page is that of each of its boxes
                say_over_bar(error)
            bar.update(len(chunk))
    summary.tell()
    count, failed = summary.count, summary.failed
    if unmade:
        say(source.not_made(unmade, count - failed), err=True)
    for note in source.notes() if not stop() else ():
        say(f"note: {note}", err=True)
    if stop():
        say(f"stopped after {count} {source.word}" + ("; --resume goes on" if output else ""), err=True)
        raise KeyboardInterrupt
    if failed or unmade or summary.failed_pages:
        raise click.exceptions.Exit(1)


def _results(
    reader: Any, left: Iterable[Any], *, processes: bool, chars: bool, workers: int, **how: Any
) -> Generator[list[Result[Any]], None, None]:
    """What threads read, or processes where that is possible and there are several."""
    if processes and workers > 1:
        from crnn_deploy.runtime.processes import read_in_processes

        return read_in_processes(reader, left, chars=chars, workers=workers, **how)
    from crnn_deploy.runtime.pipeline import read_in_order

    return read_in_order(reader, left, workers=workers, **how)


_ENDINGS = {".txt": "text", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_OTHER_ENDINGS = frozenset((".json", ".xlsx", ".xls", ".ods", ".parquet", ".xml", ".html", ".gz", ".zip"))


def _note(line: str) -> None:
    say_over_bar(f"note: {line}")


def _format(given: str | None, output: Path | None) -> str:
    """The format of the records: the one that was given, or else the one that the file's name says.

    A name may say another format than the one that was given only with .txt, which any of them is.
    Raises UsageError.
    """
    ending = "" if output is None else output.suffix.lower()
    named = _ENDINGS.get(ending)
    if given is None and named is None and ending in _OTHER_ENDINGS:
        raise click.UsageError(
            f"records are not written as {ending}: end the name of {output} in .jsonl, .csv, .tsv or .txt, "
            "or say with --format what it shall hold"
        )
    if given is None:
        return named or "text"
    if named not in (None, "text", given):
        raise click.UsageError(f"{output} ends as {named}, and --format is {given}; leave one of them out")
    return given


def _check_outputs(
    output: Path | None, folders: Iterable[Path | None], inputs: Iterable[str | Path | None]
) -> None:
    """Refuse to write where something is read, or where nothing can be written.

    Raises OutputIsInput, OutputUnwritable.
    """
    from crnn_deploy.files import OutputUnwritable, check_outputs
    from crnn_deploy.runtime.images.sources import STDIN

    if output is not None:
        from crnn_deploy.runtime.run_record import place

        check_outputs((output, place(output)), ("/dev/stdin" if path == STDIN else path for path in inputs))
    for folder in folders:
        if folder is not None and folder.exists() and not folder.is_dir():
            raise OutputUnwritable(folder, "it is there and not a folder")
