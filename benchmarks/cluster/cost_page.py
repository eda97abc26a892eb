"""The tables and the picture of docs/cluster-cost.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.cluster.cost_model import HOUR, NETWORKS, Assumed, Layout, image_ms, measured_steps, predict

__all__ = ["TABLES", "draw", "written"]

SIZES = (10**6, 10**8, 10**10)
LISTED: tuple[Layout, ...] = ("folder", "list", "tars")
CALLED: dict[str, Layout] = {"objects": "list", "tars": "tars"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    """Three digits, with thousands apart."""
    if not value:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{digits}f}"


def steps_table(assumed: Assumed, gpu_rate: float | None = None) -> str:
    rows = []
    for kind in ("words", "lines"):
        for network in NETWORKS:
            step = measured_steps(kind, network)
            cells = [
                step.fetch_ms["list"],
                step.fetch_ms["tars"],
                step.read_ms,
                step.recognise_ms,
                step.rows_ms,
            ]
            rates = [1e3 / image_ms(step, layout, assumed) for layout in CALLED.values()]
            rows.append([f"{kind}, {network}", number(step.image_bytes / 1e3), *map(number, cells + rates)])
    head = [
        "images, network",
        "kB an image",
        "fetch an object",
        "fetch from a tar",
        "read",
        "recognise",
        "write",
    ]
    return table([*head, "images per CPU-second: objects", "images per CPU-second: tars"], rows)


def runs_table(assumed: Assumed, gpu_rate: float | None = None) -> str:
    rows = []
    for images in SIZES:
        for layout in LISTED:
            for network in ("latin", "paper"):
                cost = predict(measured_steps("words", network, gpu_rate=gpu_rate), images, layout, assumed)
                dollars = cost.dollars
                deadline = cost.machines_within(1)
                rows.append(
                    [
                        f"10^{round(math.log10(images))}, {layout}, {network}",
                        number(sum(cost.cpu_seconds.values()) / HOUR),
                        *([number(cost.gpu_seconds / HOUR)] if gpu_rate else []),
                        number(cost.bytes_read / 1e9),
                        number(cost.gets),
                        number(dollars["machines"] + dollars["GPUs"]),
                        number(dollars["requests"]),
                        *(number(cost.hours(machines)) for machines in (1, 10, 100)),
                        "none suffice" if deadline is None else f"{deadline[0]:,} / {deadline[1]:,}",
                    ]
                )
    head = [
        "images, where they lie, network",
        "CPU-hours",
        *["GPU-hours"] * bool(gpu_rate),
        "GB read",
        "GET and HEAD requests",
        "$ for machines",
        "$ for requests",
    ]
    return table(
        [*head, "hours on 1 machine", "hours on 10", "hours on 100", "for an hour: machines / prefixes"], rows
    )


def limits_table(assumed: Assumed, gpu_rate: float | None = None) -> str:
    """From how many vCPUs on one prefix of the store is the limit, and how many a GPU would need."""
    rows = []
    for network in NETWORKS:
        step = measured_steps("words", network)
        cells = []
        for layout in CALLED.values():
            cost = predict(step, 10**9, layout, assumed)
            per_second = cost.images / cost.seconds(1)["store"]
            cells += [number(per_second), number(per_second * image_ms(step, layout, assumed) / 1e3)]
        rows.append([network, *cells])
    head = [
        "network",
        "objects: images a second",
        "objects: vCPUs that read as many",
        "tars: images a second",
        "tars: vCPUs that read as many",
    ]
    return table(head, rows)


def gpu_table(assumed: Assumed, gpu_rate: float | None = None) -> str:
    """vCPUs that feed a GPU, by the images a second that it recognises."""
    rows = []
    for kind in ("words", "lines"):
        for layout in CALLED.values():
            step = measured_steps(kind, "latin")
            fed = image_ms(step, layout, assumed) - step.recognise_ms
            rows.append([f"{kind}, {layout}", *(number(rate * fed / 1e3) for rate in (1000, 10_000, 50_000))])
    return table(
        ["vCPUs beside a GPU that recognises so many images a second", "1,000", "10,000", "50,000"], rows
    )


TABLES: dict[str, Callable[[Assumed, float | None], str]] = {
    "steps": steps_table,
    "runs": runs_table,
    "limits": limits_table,
    "gpu": gpu_table,
}


def written(page: str, assumed: Assumed) -> str:
    """A page with its tables, each between `<!-- NAME -->` and `<!-- end -->`."""
    for name, made in TABLES.items():
        begin = page.index(mark := f"<!-- {name} -->") + len(mark)
        end = page.index("<!-- end -->", begin)
        page = f"{page[:begin]}\n\n{made(assumed, None)}\n\n{page[end:]}"
    return page


def draw(path: Path, assumed: Assumed) -> None:
    """Left: where an image's CPU time goes. Right: images a second by vCPUs, and what the store lets by."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "crnn-deploy"  # the same results give the same bytes
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    bars, lines = figure.subplots(1, 2)
    names, costs = [], []
    for network in reversed(NETWORKS):
        for called, layout in CALLED.items():
            one_image = measured_steps("words", network)
            names.append(f"{network}, {called}\n{image_ms(one_image, layout, assumed):.2f} ms")
            costs.append(predict(one_image, 10**6, layout, assumed).cpu_seconds)
    begun = [0.0] * len(costs)
    for step in ("fetch", "read", "recognise", "pipeline", "write"):
        shares = [100 * cost[step] / (sum(cost.values()) - cost["start"]) for cost in costs]
        bars.barh(names, shares, left=begun, label=step)
        begun = [one + two for one, two in zip(begun, shares, strict=True)]
    bars.set(xlabel="% of an image's CPU time (words, JPEG)", xlim=(0, 100))
    bars.tick_params(axis="y", labelsize=8)
    figure.legend(*bars.get_legend_handles_labels(), fontsize=7, loc="outside upper left", ncols=5)
    vcpus = [2.0**power for power in range(18)]
    for network, colour in (("latin", "tab:blue"), ("paper", "tab:orange")):
        one_image = measured_steps("words", network)
        for (called, layout), style in zip(CALLED.items(), ("-", "--"), strict=True):
            rate = 1e3 / image_ms(one_image, layout, assumed)
            limit = 10**9 / predict(one_image, 10**9, layout, assumed).seconds(1)["store"]
            reached = [min(rate * count, limit) for count in vcpus]
            lines.plot(vcpus, reached, style, color=colour, label=f"{network}, {called}, one prefix")
    for images in SIZES:
        lines.axhline(images / HOUR, color="tab:gray", linewidth=0.7)
        lines.annotate(f"10^{round(math.log10(images))} in an hour", (1, images / HOUR * 1.15), fontsize=7)
    lines.set(xscale="log", yscale="log", xlabel="vCPUs", ylabel="images a second")
    lines.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
