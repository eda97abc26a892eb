"""An evaluation as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from rapidfuzz.distance import Levenshtein

from crnn_deploy.evaluation.bands import Band
from crnn_deploy.evaluation.evaluate import BINS, Evaluation, Mistake, Provenance
from crnn_deploy.evaluation.page import inline_pixels, template
from crnn_deploy.metrics import wilson

__all__ = ["render"]

_CONFUSIONS = 30  # rows of the table
_CHARACTERS = 60  # outside the alphabet, named

Segment = tuple[str, bool]  # part of a text, and whether it differs from the other one


def render(
    evaluation: Evaluation, provenance: Provenance, decoders: Mapping[str, Evaluation] | None = None
) -> str:
    """The page as text; labels, names and predictions in it are escaped, images are inline PNG.

    decoders: evaluations of the same images to compare, by their decoders' names
    """
    return template("evaluation.html.j2").render(
        evaluation=evaluation,
        provenance=provenance,
        decoders=decoders or {},
        name=PurePath(provenance.model).name,
        interval=lambda part: wilson(part.exact, part.images),
        by_length=_bars(evaluation.by_length),
        by_width=_bars(evaluation.by_width),
        confidence=_histogram(evaluation),
        confusions=list(evaluation.confusions.items())[:_CONFUSIONS],
        outside=list(evaluation.outside_characters.items())[:_CHARACTERS],
        worst=[
            ("Farthest from the truth", [_shown_mistake(mistake) for mistake in evaluation.most_edits]),
            ("Most confident and wrong", [_shown_mistake(mistake) for mistake in evaluation.most_confident]),
        ],
    )


def _bars(bands: Iterable[Band]) -> list[dict[str, Any]]:
    """Accuracy and its interval, each in percent."""
    return [
        {
            "label": label,
            "value": 100 * part.accuracy,
            "interval": [100 * bound for bound in wilson(part.exact, part.images)],
            "title": f"{label}: {part.exact} of {part.images} exact ({part.accuracy:.1%})",
        }
        for label, part in ((band.label, band.score) for band in bands)
    ]


def _histogram(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Images of each bin of confidence, right and wrong ones in percent of the fullest bin."""
    counts = list(zip(evaluation.confidence_right, evaluation.confidence_wrong, strict=True))
    fullest = max(1, *(right + wrong for right, wrong in counts))
    return [
        {
            "label": f"{i / BINS:.1f}",
            "right": 100 * right / fullest,
            "wrong": 100 * wrong / fullest,
            "title": f"{i / BINS:.1f}-{(i + 1) / BINS:.1f}: {right} right, {wrong} wrong",
        }
        for i, (right, wrong) in enumerate(counts)
    ]


def _shown_mistake(mistake: Mistake) -> dict[str, Any]:
    truth, prediction = _marked(mistake.truth, mistake.prediction)
    return {
        "image": inline_pixels(mistake.pixels),
        "truth": truth,
        "prediction": prediction,
        "mistake": mistake,
    }


def _marked(truth: str, prediction: str) -> tuple[list[Segment], list[Segment]]:
    """Both texts in segments, those that no shortest row of edits keeps marked."""
    ours: list[Segment] = []
    theirs: list[Segment] = []
    for edit in Levenshtein.opcodes(truth, prediction):
        differs = edit.tag != "equal"
        ours.append((truth[edit.src_start : edit.src_end], differs))
        theirs.append((prediction[edit.dest_start : edit.dest_end], differs))
    return [part for part in ours if part[0]], [part for part in theirs if part[0]]
