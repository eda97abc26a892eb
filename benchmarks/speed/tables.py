"""The tables in docs/performance.md, written from the committed results.

    python -m benchmarks.speed.tables [--results benchmarks/results] [--page FILE]

A row has one line for each kind of CPU that has results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.committed import RESULTS, Rows, results_of
from benchmarks.pages import digits, markdown, placed


class Table(NamedTuple):
    """Of one kind of CPU: titles of the columns, and lines by their first cell."""

    titles: Sequence[str]
    lines: Sequence[Sequence[object]]


Part = Table | str  # a sentence below the tables


def side_by_side(made: Mapping[str, Sequence[Part]]) -> str:
    """The same parts of several kinds of CPU as one text: lines with the same first cell stand together.

    made: parts by kind
    """
    texts = []
    for parts in zip(*made.values(), strict=True):
        by_kind = dict(zip(made, parts, strict=True))
        for titles in dict.fromkeys(tuple(one.titles) for one in parts if isinstance(one, Table)):
            alike = {
                kind: {line[0]: line[1:] for line in one.lines}
                for kind, one in by_kind.items()
                if isinstance(one, Table) and tuple(one.titles) == titles
            }
            names = dict.fromkeys(name for lines in alike.values() for name in lines)
            texts.append(
                markdown(
                    (titles[0], "CPU", *titles[1:]),
                    (
                        (name, kind, *lines[name])
                        for name in names
                        for kind, lines in alike.items()
                        if name in lines
                    ),
                )
            )
        texts += [f"{kind}: {one}" for kind, one in by_kind.items() if isinstance(one, str)]
    return "\n\n".join(texts)


def spread(quantity: dict[str, Any], times: float = 1.0) -> str:
    """Median and quartiles."""
    median, lower, upper = (digits(quantity[key] * times) for key in ("median", "lower", "upper"))
    return f"{median} ({lower}-{upper})"


def percent(value: float) -> str:
    return f"{value:.0%}"


def share(value: float) -> str:
    """Of something that may be slower."""
    return percent(value) if value <= 1 else f"{value:.0f} x"


def peers(rows: Rows) -> list[Part]:
    """The fastest first."""
    shown = {name: row for name, row in rows.items() if "images_per_cpu_second" in row}
    order = sorted(shown, key=lambda name: -float(shown[name]["images_per_cpu_second"]))
    lines = [
        (
            *(name, digits(shown[name]["images_per_cpu_second"])),
            spread(shown[name]["cpu_per_image"]),
            shown[name].get("x_pytorch_eager", ""),
        )
        for name in order
    ]
    return [Table(("program", "words per CPU-second", "CPU ms a word (quartiles)", "x PyTorch"), lines)]


def shipped_models(rows: Rows) -> list[Part]:
    """Models in the order of their names."""
    lines = [
        (name, digits(1e3 / float(row["cpu_per_image"]["median"])), spread(row["cpu_per_image"]))
        for name, row in rows.items()
    ]
    return [Table(("model, and what it reads", "per CPU-second", "CPU ms each (quartiles)"), lines)]


def throughput(rows: Rows) -> list[Part]:
    """Backends by batch and width."""
    cells = [row for row in rows.values() if "backend" in row]
    sizes = sorted({(row["width"], row["batch"]) for row in cells})
    rates = {(row["backend"], row["width"], row["batch"]): row["images_per_cpu_second"] for row in cells}
    backends = list(dict.fromkeys(row["backend"] for row in cells))
    titles = ("images per CPU-second", *(f"{width} px, batch {batch}" for width, batch in sizes))
    lines = [(backend, *(digits(rates[backend, *size]) for size in sizes)) for backend in backends]
    shares = [
        percent(rows[f"ONNX Runtime fp32, batch {batch}, width {width}"]["share_of_fp32_convolution_peak"])
        for width, batch in sizes
    ]
    peak = rows["convolution peak"]
    return [
        Table(titles, [*lines, ("ONNX Runtime fp32, share of the peak", *shares)]),
        f"the peak is {peak['gflops']} GFLOP per CPU-second ({peak['of']}).",
    ]


def latency(rows: Rows) -> list[Part]:
    """Milliseconds by the clock."""
    titles = ("ms by the clock", "p50", "p95", "p99")
    keys = ("p50_ms", "p95_ms", "p99_ms")
    return [Table(titles, [(name, *(digits(row[key]) for key in keys)) for name, row in rows.items()])]


def end_to_end(rows: Rows) -> list[Part]:
    """Rates and their share of inference alone."""
    titles = (
        *("what runs", "images", "images per CPU-second", "CPU ms an image (quartiles)"),
        "speed / speed of inference alone",
    )
    lines = [
        (
            *(name, f"{row['images']:,}", digits(row["images_per_cpu_second"])),
            *(spread(row["cpu_per_image"]), share(row["of_inference_alone"])),
        )
        for name, row in rows.items()
        if "images" in row
    ]
    return [Table(titles, lines)]


def startup(rows: Rows) -> list[Part]:
    """CPU time and memory of one image."""
    lines = [
        (name, spread(row["cpu"]), digits(row["peak"]["median"]) if "peak" in row else "")
        for name, row in rows.items()
        if "cpu" in row
    ]
    costs = next(row for name, row in rows.items() if name.startswith("imports"))
    own = ", ".join(f"{package} {value:.0f}" for package, value in costs.items())
    return [
        Table(("one start", "CPU ms (quartiles)", "peak MB"), lines),
        f"imports of the default model's start by themselves, ms by the clock: {own}.",
    ]


def scaling(rows: Rows) -> list[Part]:
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
    return [
        Table(("`infer`, tiny network", "peak MB", "CPU ms an image", "images a second"), streams),
        Table(
            (
                "`infer`, compact network",
                "ms an image by the clock (quartiles)",
                "CPU ms an image (quartiles)",
            ),
            workers,
        ),
        Table(("the paper's network", "CPU ms an image (quartiles)"), network),
        Table(("decoding a line of 28 steps", "CPU us (quartiles)"), decoding),
    ]


def jpeg(rows: Rows) -> list[Part]:
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
    return [
        Table(("CPU us a file (quartiles)", *sizes), lines),
        Table(("read at this size or quality", "images", "texts changed"), texts),
    ]


def winograd(rows: Rows) -> list[Part]:
    """Convolutions by library."""
    lines = [
        (name, spread(row["cpu_per_image"]), row["x_onnx_runtime"], row["max_delta"], row["largest"])
        for name, row in rows.items()
        if "cpu_per_image" in row
    ]
    return [
        Table(
            (
                "library",
                "CPU ms (quartiles)",
                "times as fast as ONNX Runtime",
                "largest difference",
                "largest value",
            ),
            lines,
        )
    ]


_SAID: dict[bool | None, str] = {True: "yes", False: "no"}


def lstm_kernels(rows: Rows) -> list[Part]:
    """Ways to run the LSTMs."""
    lines = [
        (
            name,
            spread(row["cpu_per_image"]),
            row.get("whole_faster", ""),
            _SAID.get(row.get("bitwise_alone_and_together", None), ""),
            row.get("max_delta", ""),
        )
        for name, row in rows.items()
        if "cpu_per_image" in row
    ]
    columns = (
        "CPU ms an image (quartiles)",
        "whole network, times as fast",
        "same bits alone and in a batch",
    )
    return [Table(("way", *columns, "largest difference of logits"), lines)]


def operators(rows: Rows) -> list[Part]:
    """Where the time goes."""
    shown = {name: row["cpu_ms_by_kind"] for name, row in rows.items() if "cpu_ms_by_kind" in row}
    kinds = ("convolutions", "LSTMs", "pooling", "products", "the rest")
    lines = [
        (name, spread(rows[name]["cpu_per_image"]), *(digits(spent[kind]) for kind in kinds))
        for name, spent in shown.items()
    ]
    return [Table(("CPU ms a word", "all (quartiles)", *kinds), lines)]


TABLES: dict[str, Callable[[Rows], list[Part]]] = {
    function.__name__: function
    for function in (
        *(shipped_models, peers, operators, throughput, latency, end_to_end, startup, scaling),
        *(jpeg, winograd, lstm_kernels),
    )
}


class Bars(NamedTuple):
    """What was aimed at on a kind of CPU."""

    fp32: float  # times PyTorch eager at batch 1
    int8: float
    bf16: float
    compact: int  # words a CPU-second
    start: float  # CPU-seconds


OF_BARS = ("peers", "throughput", "end_to_end", "startup", "scaling")  # the suites that they are about
WITHOUT_VNNI = Bars(1.9, 5, 3.6, 750, 0.20)
WITH_AVX512_VNNI = Bars(2.7, 7.5, 4.8, 3500, 0.22)


def bars(kind: str, results: dict[str, Rows]) -> list[Part]:
    """What was aimed at, beside what these results say."""
    aim = WITH_AVX512_VNNI if kind.startswith("avx512-vnni") else WITHOUT_VNNI
    words, starts, grown = results["peers"], results["startup"], results["scaling"]

    def rate(name: str) -> float:
        return float(words[name]["images_per_cpu_second"])

    fp32, own = rate("paper: crnn-deploy, ONNX Runtime"), "compact: crnn-deploy, ONNX Runtime"
    eager = rate("paper: PyTorch eager, batch 1")
    compact = max(rate(name) for name in words if name.startswith(own))
    small_ones = [name for name in words if name.startswith("docTR mobilenet small") and "Runtime" in name]
    doctr = max(map(rate, small_ones))
    bf16 = "paper: OpenVINO asked for bf16"
    cell = results["throughput"]["ONNX Runtime fp32, batch 4, width 100"]
    of_peak = float(cell["share_of_fp32_convolution_peak"])
    full, small = (
        float(results["end_to_end"][f"{n}: infer"]["of_inference_alone"]) for n in ("paper", "compact")
    )
    start = starts["default model, fp32"]
    memory = {
        int(name.split()[0].replace(",", "")): row["peak_mb"]
        for name, row in grown.items()
        if "peak_mb" in row
    }
    most = max(memory)
    decoding = results["decode"]["greedy, 37 classes"]["median"] * 1e3
    seconds, peak = start["cpu"]["median"] / 1e3, start["peak"]["median"]
    padded = rate("paper: ONNX Runtime, padded batches of 32")
    int8 = max(rate(name) for name in words if name.startswith("paper: crnn-deploy, ONNX Runtime, int8"))
    checked: list[tuple[str, str, bool | None]] = [
        (f"fp32, {aim.fp32} x PyTorch eager at batch 1", f"{fp32 / eager:.2f} x", fp32 >= aim.fp32 * eager),
        ("fp32, 1.9 x ONNX Runtime on padded batches", f"{fp32 / padded:.2f} x", fp32 >= 1.9 * padded),
        ("fp32 (batch 4, 100 px), 85 % of the convolution peak", percent(of_peak), of_peak >= 0.85),
        (
            f"INT8, {aim.int8} x PyTorch eager",
            f"{int8 / eager:.2f} x",
            int8 >= aim.int8 * eager,
        ),
        (
            f"OpenVINO in bf16, in batches, {aim.bf16} x PyTorch eager",
            f"{rate(bf16) / eager:.2f} x",
            rate(bf16) >= aim.bf16 * eager,
        ),
        (f"compact, {aim.compact:,} words a CPU-second", digits(compact), compact >= aim.compact),
        ("compact ahead of docTR's small network", f"{compact:.0f} to {doctr:.0f}", compact > doctr),
        ("`infer`, the paper's network, 90 % of inference alone", f"{full:.0%}", full >= 0.9),
        ("`infer`, compact, 85 % of inference alone", f"{small:.0%}", small >= 0.85),
        (f"cold start of one image, {aim.start:.2f} CPU-s", f"{seconds:.2f} CPU-s", seconds <= aim.start),
        ("cold start of one image, 100 MB", f"{peak:.1f} MB", peak <= 100),
        (
            "memory at 1,000,000 images within 10 % of that at 10,000",
            f"{memory[most] / memory[10_000] - 1:+.1%} at {most:,}",
            None if most < 1_000_000 else memory[most] <= 1.1 * memory[10_000],
        ),
        ("greedy decoding of a line, 1 us", f"{decoding:.2f} us", decoding <= 1),
    ]
    verdicts = {True: "met", False: "**missed**", None: "not run"}
    lines = [(name, value, verdicts[met]) for name, value, met in checked]
    return [Table(("bar", "measured", "result"), lines)]


def written(page: str, results: Path) -> str:
    """The page with its tables as the results have them."""
    found = {suite: results_of(suite, results) for suite in (*TABLES, "decode")}
    texts: dict[str, str] = {}
    for suite, make in TABLES.items():
        of_kinds = found[suite]
        loads = ", ".join(f"{kind} {result['load']}" for kind, result in of_kinds.items())
        made = side_by_side({kind: make(result["rows"]) for kind, result in of_kinds.items()})
        texts[suite] = f"{made}\n\nLoad of the machine: {loads}."
    whole = [kind for kind in found["peers"] if all(kind in found[suite] for suite in (*OF_BARS, "decode"))]
    texts["bars"] = side_by_side(
        {
            kind: bars(
                kind,
                {suite: found[suite][kind]["rows"] for suite in OF_BARS}
                | {"decode": found["decode"][kind]["CPU-milliseconds per line"]},
            )
            for kind in whole
        }
    )
    for name, text in texts.items():
        page = placed(page, name, text)
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="Read the results in this folder.")
    parser.add_argument(
        "--page",
        type=Path,
        default=RESULTS.parents[1] / "docs" / "performance.md",
        help="Write the tables into this page.",
    )
    given = parser.parse_args(arguments)
    page = given.page.read_text(encoding="utf-8")
    given.page.write_text(written(page, given.results), encoding="utf-8")


if __name__ == "__main__":
    main()
