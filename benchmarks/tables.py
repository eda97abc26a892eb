"""The tables in docs/performance.md, written anew from the committed results.

    python benchmarks/tables.py [--results benchmarks/results] [--machine 2-core-epyc] [--page FILE]

A table stands between `<!-- NAME -->` and `<!-- end -->`; what stands around it is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Rows = dict[str, dict[str, Any]]


def table(titles: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def digits(value: float) -> str:
    """Three digits, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(quantity: dict[str, Any], times: float = 1.0) -> str:
    """Median and quartiles."""
    median, lower, upper = (digits(quantity[key] * times) for key in ("median", "lower", "upper"))
    return f"{median} ({lower}-{upper})"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def peers(rows: Rows) -> str:
    """The fastest first."""
    shown = {name: row for name, row in rows.items() if "images_per_cpu_second" in row}
    order = sorted(shown, key=lambda name: -float(shown[name]["images_per_cpu_second"]))
    lines = [
        (
            *(name, digits(shown[name]["images_per_cpu_second"])),
            spread(shown[name]["cpu_per_image"]),
            shown[name].get("x_pytorch_eager", ""),
            percent(shown[name].get("share_of_fp32_convolution_peak")),
        )
        for name in order
    ]
    peak = rows["convolution peak"]
    titles = ("", "words per CPU-s", "CPU ms a word (quartiles)", "x PyTorch", "of the fp32 peak")
    return f"{table(titles, lines)}\n\nThe peak: {peak['gflops']} GFLOP per CPU-second, {peak['of']}."


def throughput(rows: Rows) -> str:
    """Engines by batch and width."""
    cells = [row for row in rows.values() if "engine" in row]
    sizes = sorted({(row["width"], row["batch"]) for row in cells})
    rates = {(row["engine"], row["width"], row["batch"]): row["images_per_cpu_second"] for row in cells}
    engines = list(dict.fromkeys(row["engine"] for row in cells))
    titles = ("images per CPU-s", *(f"{width} px, batch {batch}" for width, batch in sizes))
    return table(titles, [(engine, *(digits(rates[engine, *size]) for size in sizes)) for engine in engines])


def latency(rows: Rows) -> str:
    """Milliseconds by the clock."""
    titles = ("ms, by the clock", "p50", "p95", "p99")
    keys = ("p50_ms", "p95_ms", "p99_ms")
    return table(titles, [(name, *(digits(row[key]) for key in keys)) for name, row in rows.items()])


def end_to_end(rows: Rows) -> str:
    """Rates and their share of inference alone."""
    titles = ("", "images", "a CPU-second", "CPU ms an image (quartiles)", "of inference alone")
    lines = [
        (
            *(name, f"{row['images']:,}", digits(row["images_per_cpu_second"])),
            *(spread(row["cpu_per_image"]), percent(row["of_inference_alone"])),
        )
        for name, row in rows.items()
        if "images" in row
    ]
    return table(titles, lines)


def startup(rows: Rows) -> str:
    """CPU time and memory of one image."""
    lines = [
        (name, spread(row["cpu"]), digits(row["peak"]["median"]) if "peak" in row else "")
        for name, row in rows.items()
        if "cpu" in row
    ]
    costs = next(row for name, row in rows.items() if name.startswith("imports"))
    own = ", ".join(f"{package} {value:.0f}" for package, value in costs.items())
    shown = table(("one start", "CPU ms (quartiles)", "peak MB"), lines)
    return f"{shown}\n\nImports of the default model's start by themselves, ms by the clock: {own}."


def scaling(rows: Rows) -> str:
    """Everything that grows."""
    streams = [
        (name, digits(row["peak_mb"]), digits(row["cpu_ms_per_image"]), digits(row["images_per_second"]))
        for name, row in rows.items()
        if "peak_mb" in row
    ]
    workers = [
        (name, spread(row["clock_per_image"]), spread(row["cpu_per_image"]))
        for name, row in rows.items()
        if "clock_per_image" in row
    ]
    network = [
        (name, spread(row["cpu_per_image"]))
        for name, row in rows.items()
        if "cpu_per_image" in row and "clock_per_image" not in row
    ]
    decoding = [
        (name, spread(row["cpu_per_line"], 1e3)) for name, row in rows.items() if "cpu_per_line" in row
    ]
    return "\n\n".join(
        (
            table(("`infer`, tiny network", "peak MB", "CPU ms an image", "images a second"), streams),
            table(("`infer`, compact network", "ms by the clock", "CPU ms an image"), workers),
            table(("the paper's network", "CPU ms an image (quartiles)"), network),
            table(("decoding a line of 28 steps", "CPU us (quartiles)"), decoding),
        )
    )


def jpeg(rows: Rows) -> str:
    """Microseconds by decoder and size, then the texts."""
    speeds = {name: row["cpu_per_image"] for name, row in rows.items() if "cpu_per_image" in row}
    sizes = list(dict.fromkeys(name.split(": ")[0] for name in speeds))
    decoders = list(dict.fromkeys(name.split(": ")[1] for name in speeds))
    lines = [(name, *(spread(speeds[f"{size}: {name}"], 1e3) for size in sizes)) for name in decoders]
    texts = [
        (name.removeprefix("text at "), row["images"], row["texts_changed"])
        for name, row in rows.items()
        if "texts_changed" in row
    ]
    return table(("CPU us a file", *sizes), lines) + "\n\n" + table(("text at", "images", "changed"), texts)


def winograd(rows: Rows) -> str:
    """Convolutions by library."""
    lines = [
        (name, spread(row["cpu_per_image"]), row["x_onnx_runtime"], row["max_delta"], row["largest"])
        for name, row in rows.items()
        if "cpu_per_image" in row
    ]
    return table(("", "CPU ms (quartiles)", "x ONNX Runtime", "max \\|delta\\|", "largest value"), lines)


TABLES: dict[str, Callable[[Rows], str]] = {
    function.__name__: function
    for function in (peers, throughput, latency, end_to_end, startup, scaling, jpeg, winograd)
}


def written(page: str, results: Path, machine: str) -> str:
    """The page with its tables as the results have them."""
    for suite, make in TABLES.items():
        result = json.loads((results / f"{suite}--{machine}--cpu.json").read_text(encoding="utf-8"))
        made = f"{make(result['rows'])}\n\nLoad of the machine: {result['load']}."
        block = re.compile(rf"(<!-- {suite} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page, count = block.subn(lambda found, made=made: f"{found[1]}\n{made}\n{found[2]}", page)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"the page has {count} places for the table {suite}; it needs one")
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--machine", default="2-core-epyc")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md")
    given = parser.parse_args(arguments)
    page = given.page.read_text(encoding="utf-8")
    given.page.write_text(written(page, given.results, given.machine), encoding="utf-8")


if __name__ == "__main__":
    main()
