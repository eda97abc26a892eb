"""`crnn-deploy calibrate-confidence`: confidences that mean something."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import (
    MODEL,
    PLACE,
    batch_option,
    check_data_outputs,
    confidence_option,
    data_options,
    html_option,
    json_options,
    open_data,
    output_option,
)
from crnn_deploy.cli.outputs import check_kind_of, check_reports, put_report, write_page
from crnn_deploy.cli.say import progress_bar, say

__all__ = ["calibrate_confidence"]


@click.command("calibrate-confidence")
@click.argument("model", metavar="MODEL.onnx", type=MODEL)
@click.argument("data", metavar="DATA...", nargs=-1, required=True, type=PLACE)
@data_options
@confidence_option
@batch_option
@json_options
@html_option
@output_option("OUT.onnx")
def calibrate_confidence(
    model: Path,
    data: tuple[str, ...],
    kind: Any,
    image_folder: str | None,
    characters: str | None,
    aggregate: Any,
    batch: int,
    as_json: bool,
    json_file: Path | None,
    html: Path | None,
    output: Path,
) -> None:
    """Fit MODEL's confidences to how often texts are right.

    DATA are labelled images like those that you will read. The command fits a temperature to half of them and
    keeps it in OUT. The temperature scales the logits before confidences are computed. On the other half, the
    report shows how far you can trust confidences before and after. Texts do not change. OUT may be MODEL.

    \b
    crnn-deploy calibrate-confidence plates.onnx labels.tsv --html confidence.html -o plates.onnx

    The exit code is 0 on success, 1 when confidences get no better (OUT is not written then), 2 for bad
    input.
    """
    if len(set(data)) < len(data):
        raise click.UsageError("a DATA is named twice")

    from dataclasses import replace

    from crnn_deploy.evaluation.confidence import calibrate
    from crnn_deploy.files import check_outputs
    from crnn_deploy.graph.model import check_rewritable, rewrite
    from crnn_deploy.runtime.recognizer import Recognizer

    if html is not None:  # before the run: its libraries may be missing
        from crnn_deploy.evaluation.confidence_report import render
    check_rewritable(model)
    check_kind_of(model, output)
    check_reports(json_file, html)
    datasets = {spec: open_data(spec, kind, image_folder, characters) for spec in data}
    check_data_outputs((json_file, html, output), datasets.values(), characters)
    check_outputs((json_file, html), (model,))
    bar = progress_bar(sum(map(len, datasets.values())), "calibrate-confidence")
    with closing(Recognizer.load(model, batch=batch)) as recognizer, bar:
        chosen = aggregate or recognizer.manifest.decoding.aggregate
        result = calibrate(recognizer, datasets, chosen, batch=batch, progress=bar.update)
    rewrite(model, output, lambda manifest: replace(manifest, decoding=result.rule))
    put_report(result.lines(), result.to_plain(), as_json=as_json, json_file=json_file)
    if html is not None:
        write_page(html, render(result, model.name))
    say(
        f"{output}: confidence {result.rule.aggregate} at temperature {result.rule.temperature:.3f}",
        err=as_json,
    )
