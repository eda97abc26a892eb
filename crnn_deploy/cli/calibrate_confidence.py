"""`crnn-deploy calibrate-confidence`: confidences that mean something."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import check_data_outputs, data_options, open_data
from crnn_deploy.cli.outputs import check_reports, write_json, write_page
from crnn_deploy.cli.say import progress_bar, say

__all__ = ["calibrate_confidence"]


@click.command("calibrate-confidence")
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.argument("data", metavar="DATA...", nargs=-1, required=True)
@data_options
@click.option(
    "--confidence",
    "aggregate",
    type=click.Choice(["min", "mean", "product", "likelihood"]),
    help="A line's from its characters'.  [default: as the manifest says, else min]",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Most images that run together."
)
@click.option(
    "--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write all figures here."
)
@click.option(
    "--html", "html_path", metavar="FILE", type=click.Path(path_type=Path), help="Write a page with diagrams."
)
@click.option("-o", "path", metavar="OUT.onnx", type=click.Path(path_type=Path), required=True)
def calibrate_confidence(
    model: Path,
    data: tuple[str, ...],
    kind: Any,
    images: str | None,
    characters: str | None,
    aggregate: Any,
    batch: int,
    json_path: Path | None,
    html_path: Path | None,
    path: Path,
) -> None:
    """Fit the temperature at which MODEL's confidences say how often it is right, and keep it in OUT.

    DATA are labelled images such as those that will be read. Half of them is fitted to, the other half says
    how far confidences can be trusted before and after. Texts do not change. OUT may be MODEL.

    \b
    crnn-deploy calibrate-confidence plates.onnx labels.tsv --html confidence.html -o plates.onnx

    Exit code: 0, 1 when confidences get no better (nothing is written then), 2 for bad input.
    """
    if len(set(data)) < len(data):
        raise click.UsageError("a DATA is named twice")

    from dataclasses import replace

    from crnn_deploy.evaluation.confidence import calibrate
    from crnn_deploy.files import check_outputs
    from crnn_deploy.graph.model import check_rewritable, rewrite
    from crnn_deploy.runtime.recognizer import Recognizer

    if html_path is not None:  # before the run: its libraries may be missing
        from crnn_deploy.evaluation.confidence_report import render
    check_rewritable(model)
    check_reports(json_path, html_path)
    datasets = {spec: open_data(spec, kind, images, characters) for spec in data}
    check_data_outputs((json_path, html_path, path), datasets.values(), characters)
    check_outputs((json_path, html_path), (model,))
    bar = progress_bar(sum(map(len, datasets.values())), "calibrate-confidence")
    with closing(Recognizer.load(model, batch=batch)) as recognizer, bar:
        chosen = aggregate or recognizer.manifest.decoding.aggregate
        result = calibrate(recognizer, datasets, chosen, batch=batch, progress=bar.update)
    rewrite(model, path, lambda manifest: replace(manifest, decoding=result.rule))
    write_json(json_path, result.to_plain())
    if html_path is not None:
        write_page(html_path, render(result, model.name))
    say(result.lines())
    say(f"{path}: confidence {result.rule.aggregate} at temperature {result.rule.temperature:.3f}")
