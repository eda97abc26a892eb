"""A confidence calibration as one HTML page that needs nothing beside it."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from crnn_deploy.evaluation.confidence import Calibration
from crnn_deploy.evaluation.page import inline_figure, template

__all__ = ["diagram", "render"]


def render(result: Calibration, name: str) -> str:
    """The page as text: the reliability diagrams and their figures. name: of the model"""
    bins = range(len(result.before.images))
    picture = inline_figure(diagram(result))
    return template("confidence.html.j2").render(result=result, name=name, diagram=picture, bins=bins)


def diagram(result: Calibration) -> Figure:
    """Reliability diagrams before and after: the share of right texts by confidence, and how many texts."""
    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    panels = figure.subplots(2, 2, height_ratios=(3, 1), sharex=True, sharey="row")
    titles = ("before", f"at temperature {result.rule.temperature:.2f}")
    for column, (one, title) in enumerate(zip((result.before, result.after), titles, strict=True)):
        upper, lower = panels[0, column], panels[1, column]
        count = len(one.images)
        middles = [(at + 0.5) / count for at in range(count)]
        upper.bar(middles, np.nan_to_num(one.accuracy), 0.9 / count)
        upper.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle=":")
        upper.plot(one.confidence, one.accuracy, color="tab:red", marker="o", linewidth=1)
        upper.set_title(f"{title}: expected calibration error {one.ece:.4f}", fontsize=10)
        lower.bar(middles, one.images, 0.9 / count, color="gray")
        lower.set_yscale("symlog", linthresh=10)
        lower.set_xlabel("confidence")
    panels[0, 0].set(ylabel="share of right texts", xlim=(0, 1), ylim=(0, 1))
    panels[1, 0].set_ylabel("texts")
    return figure
