"""Decoders side by side, on the same images."""

from __future__ import annotations

from collections.abc import Mapping

from crnn_deploy.evaluation.evaluate import Evaluation

__all__ = ["compared"]


def compared(evaluations: Mapping[str, Evaluation]) -> str:
    """Figures of each decoder as lines of text, over all images and by dataset."""
    lines = [f"{'decoder':24}  images    exact      95 % interval      CER   1-NED  images/s"]
    for decoder, one in evaluations.items():
        lines.append(f"{one.overall.row(decoder)}  {one.images_per_second:8.0f}")
    groups = next(iter(evaluations.values())).by_group
    if len(groups) > 1:
        for group in groups:
            lines.append(group if group.isprintable() else repr(group))
            lines += [one.by_group[group].row(f"  {name}") for name, one in evaluations.items()]
    return "\n".join(lines)
