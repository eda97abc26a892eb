"""The pictures in docs/plots, drawn from the committed results.

    python -m benchmarks.speed.plots [--results benchmarks/results] [--out docs/plots]

The script needs matplotlib (extra [train]).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.committed import RESULTS, Rows, results_of


def peers(axes: Axes, rows: Rows) -> None:
    """Images per CPU-second, the fastest at the top."""
    shown = {name: row for name, row in rows.items() if "images_per_cpu_second" in row}
    names = sorted(shown, key=lambda name: float(shown[name]["images_per_cpu_second"]))
    rates = [shown[name]["images_per_cpu_second"] for name in names]
    own = ["tab:blue" if "crnn-deploy" in name else "tab:gray" for name in names]
    bars = axes.barh(names, rates, color=own)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set(xscale="log", xlabel="words per CPU-second (blue: crnn-deploy; random weights)")
    axes.tick_params(axis="y", labelsize=7)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15)


def throughput(axes: Axes, rows: Rows) -> None:
    """Images per CPU-second by width, at the largest batch."""
    cells = [row for row in rows.values() if "backend" in row]
    most = max(row["batch"] for row in cells)
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in cells:
        if row["batch"] == most:
            lines[row["backend"]].append((row["width"], row["images_per_cpu_second"]))
    for backend, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=backend)
    axes.set(
        xscale="log", yscale="log", xlabel="width (pixels)", ylabel=f"images per CPU-second, batch {most}"
    )
    axes.set_xticks(sorted({row["width"] for row in cells}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=7)


def scaling(axes: Axes, rows: Rows) -> None:
    """Peak memory of `infer` by the number of images."""
    points = [
        (int(name.split()[0].replace(",", "")), row["peak_mb"])
        for name, row in rows.items()
        if name.endswith(" images") and "peak_mb" in row
    ]
    axes.plot(*zip(*sorted(points), strict=True), marker="o")
    axes.set(xscale="log", xlabel="images", ylabel="peak memory of infer (MB)", ylim=(0, None))


def latin_sizes(axes: Axes, rows: Rows) -> None:
    """Texts that are misread after the same training, by the CPU time of a word; bars are 95 % intervals."""
    shown = sorted(rows.items(), key=lambda row: float(row[1]["word"]["median"]))
    times = [row["word"]["median"] for _, row in shown]
    for name in ("dev_scene_ic15", "dev_receipts_sroie", "augmented words"):
        scores = [row["sets"][name] for _, row in shown]
        wrong = [100 * (1 - score["alphanumeric_accuracy"]) for score in scores]
        low, high = zip(*(score["alphanumeric_accuracy_interval"] for score in scores), strict=True)
        below = [at - 100 * (1 - bound) for at, bound in zip(wrong, high, strict=True)]
        above = [100 * (1 - bound) - at for at, bound in zip(wrong, low, strict=True)]
        axes.errorbar(times, wrong, [below, above], marker="o", capsize=3, label=name)
    for time, (name, _) in zip(times, shown, strict=True):
        axes.annotate(name, (time, 62), fontsize=7, ha="center")
    axes.set(
        yscale="log", xlabel="CPU ms a word", ylabel="misread (%), letters and digits alone, in any case"
    )
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.legend(fontsize=7)
    axes.margins(x=0.15, y=0.12)


_COLUMNS = 2  # of a picture, which has a part for each kind of CPU
PLOTS: dict[str, Callable[[Axes, Rows], None]] = {
    "peers": peers,
    "throughput": throughput,
    "scaling": scaling,
    "latin_sizes": latin_sizes,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="Read the results in this folder.")
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS.parents[1] / "docs" / "plots",
        help="Write the pictures to this folder.",
    )
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "crnn-deploy"  # the same results give the same bytes
    for suite, draw in PLOTS.items():
        found = results_of(suite, given.results)
        columns = min(len(found), _COLUMNS)
        rows = -(-len(found) // columns)
        figure = Figure(figsize=(8 * columns, 4.5 * rows), layout="constrained")
        for at, (kind, result) in enumerate(found.items(), 1):
            axes = figure.add_subplot(rows, columns, at)
            draw(axes, result["rows"])
            axes.set_title(kind, fontsize=9)
        figure.savefig(given.out / f"{suite}.svg", metadata={"Date": None})
        print(given.out / f"{suite}.svg")


if __name__ == "__main__":
    main()
