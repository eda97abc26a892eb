"""`crnn-deploy evaluate`: how well a model reads labelled images."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import click

from crnn_deploy.cli.decoding_options import decoders_given, decoding_options
from crnn_deploy.cli.options import (
    CHECKPOINT_ONLY,
    MODEL,
    PLACE,
    batch_option,
    check_data_outputs,
    check_no_folder,
    checkpoint_options,
    data_options,
    html_option,
    json_options,
    max_pixels_option,
    open_data,
    refuse_given,
    rotate_option,
    settings_of,
    warn_of_assumptions,
)
from crnn_deploy.cli.outputs import check_report, put_report, write_page
from crnn_deploy.cli.rebuild import rebuild_option, rebuild_stale
from crnn_deploy.cli.say import progress_bar, say, say_over_bar, working

__all__ = ["evaluate"]

_BATCHES_PER_CHUNK = 4  # what a thread takes at once, as `infer` does
_NAMED = 20  # images that could not be read, on stderr


@click.command()
@click.argument("model", type=MODEL)
@click.argument("data", metavar="DATA...", nargs=-1, required=True, type=PLACE)
@data_options
@json_options
@html_option
@batch_option
@rotate_option
@max_pixels_option
@rebuild_option
@decoding_options(several=True)
@checkpoint_options
def evaluate(
    model: Path,
    data: tuple[str, ...],
    kind: Any,
    image_folder: str | None,
    characters: str | None,
    as_json: bool,
    json_file: Path | None,
    html: Path | None,
    batch: int,
    rotate: Literal["none", "90", "auto", "180"],
    max_pixels: int,
    rebuild: str,
    recipe: str | None,
    factory: str | None,
    alphabet: Path | None,
    alphabet_string: str | None,
    blank: Any,
    activation: Any,
    **decoding: Any,
) -> None:
    """Measure how well a model reads labelled images.

    MODEL is a checkpoint, an .onnx file or an .engine file. Each DATA is a dataset. The report has exact
    match, match of lower-case letters and digits alone, character error rate (CER) and 1-NED, with counts. It
    has them for all images, for each dataset, by length of the text, and by width of the network's input,
    each in at most eight rows.

    An image that cannot be read counts as wrong. stderr says why for the first 20 of them, and the JSON and
    HTML reports for all. If you repeat --decoder, the report shows the figures of all decoders side by side.
    The rest of the report is about the first decoder.

    \b
    crnn-deploy evaluate plates.onnx plates/labels.txt --html plates.html
    crnn-deploy evaluate netCRNN.pth test.lmdb own.csv --json-file figures.json --alphabet chars.txt
    crnn-deploy evaluate model.onnx words.tsv --decoder greedy --decoder beam --lexicon words.txt

    The exit code is 0 on success, 1 when an image could not be read, 2 for bad usage, 130 when Ctrl-C stopped
    the run.
    """
    if len(set(data)) < len(data):
        raise click.UsageError("a DATA is named twice")

    from crnn_deploy.evaluation.evaluate import Failure, Provenance, compared
    from crnn_deploy.evaluation.evaluate import evaluate as run
    from crnn_deploy.files import check_outputs
    from crnn_deploy.process import cpus
    from crnn_deploy.runtime.backends.backend import SUFFIXES, Backend, open_backend
    from crnn_deploy.runtime.recognizer import Recognizer

    check_no_folder(model)
    if model.suffix in SUFFIXES:
        refuse_given(CHECKPOINT_ONLY, f"describes a checkpoint; {model} says itself what it is")
    if html is not None:
        from crnn_deploy.evaluation.report import render
    check_report(json_file, html)
    datasets = {spec: open_data(spec, kind, image_folder, characters) for spec in data}
    check_data_outputs((json_file, html), datasets.values(), characters)
    check_outputs((json_file, html), (model, alphabet, recipe, decoding["lexicon"], decoding["lm"]))
    rebuild_stale(rebuild, model)
    if model.suffix in SUFFIXES:
        backend: Backend = open_backend(model)
        workers = cpus()
    else:
        settings = settings_of(recipe, factory, alphabet, alphabet_string, blank, activation)
        with working(f"open {model} in PyTorch"):
            from crnn_deploy.export.reference import open_reference

            backend = open_reference(model, settings)
        warn_of_assumptions(backend.manifest)
        workers = 1  # PyTorch has threads of its own
    provenance = Provenance.of(model, backend.manifest)
    decoders = decoders_given(backend.manifest, decoding)
    bar = progress_bar(len(decoders) * sum(map(len, datasets.values())), "evaluate")
    named: set[tuple[str, str]] = set()  # images; each decoder fails on them

    def name_failure(failure: Failure) -> None:
        if (key := (failure.group, failure.name)) not in named:
            named.add(key)
            if len(named) <= _NAMED:
                say_over_bar(failure.reason)

    with closing(Recognizer(backend, batch=batch, max_pixels=max_pixels, rotate=rotate)) as recognizer, bar:
        readers = {
            name: recognizer if decoder is None else recognizer.with_decoder(decoder)
            for name, decoder in decoders.items()
        }
        chunk = batch * _BATCHES_PER_CHUNK
        evaluations = {
            name: run(
                reader, datasets, chunk=chunk, workers=workers, progress=bar.update, failed=name_failure
            )
            for name, reader in readers.items()
        }
    evaluation = next(iter(evaluations.values()))
    table, plain = evaluation.table(), {"provenance": vars(provenance), **evaluation.to_plain()}
    if len(evaluations) > 1:
        table += f"\n\n{compared(evaluations)}"
        plain["decoders"] = {name: one.to_plain() for name, one in evaluations.items()}
    put_report(table, plain, as_json=as_json, json_file=json_file)
    if html is not None:
        write_page(html, render(evaluation, provenance, evaluations if len(evaluations) > 1 else {}))
    if evaluation.failed:
        if len(named) > _NAMED:
            say(f"and {len(named) - _NAMED:,} more; --json-file FILE lists them all", err=True)
        say(f"{evaluation.failed} of {evaluation.overall.images} images failed", err=True)
        raise click.exceptions.Exit(1)
