"""Decoders side by side, on the same images."""

from __future__ import annotations

from collections.abc import Mapping

from crnn_deploy.evaluation.evaluate import Evaluation
from crnn_deploy.evaluation.metrics import Score, wilson

__all__ = ["compared"]


def compared(evaluations: Mapping[str, Evaluation]) -> str:
    """Figures of each decoder as lines of text, over all images and by dataset."""
    lines = [f"{'decoder':24}  images    exact      95 % interval      CER   1-NED  images/s"]
    for decoder, one in evaluations.items():
        lines.append(f"{_row(decoder, one.overall)}  {one.images_per_second:8.0f}")
    groups = next(iter(evaluations.values())).by_group
    if len(groups) > 1:
        for group in groups:
            lines.append(group if group.isprintable() else repr(group))
            lines += [_row(f"  {name}", one.by_group[group]) for name, one in evaluations.items()]
    return "\n".join(lines)


def _row(name: str, part: Score) -> str:
    low, high = wilson(part.exact, part.images)
    return (
        f"{name:24}  {part.images:6}  {part.accuracy:7.2%}  {low:7.2%} -{high:8.2%}"
        f"  {part.cer:7.2%}  {part.one_minus_ned:6.4f}"
    )
