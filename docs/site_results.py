"""The pages of results, written from benchmarks/results/*.json when the site is built.

mkdocs calls these functions (`hooks` in mkdocs.yml). Each folder of benchmarks/ is a page, each script a
section: what the script says of itself, on which machine it ran, and what it measured, with the kinds of CPU
side by side.
"""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TITLES = {
    "speed": "Speed",
    "accuracy": "Accuracy",
    "serving": "Serving",
    "cluster": "Many machines",
    "container": "On ARM64, emulated",
    "export": "Exports",
}
ELSEWHERE = {  # scripts that are not named for their suite
    "arm64_emulated": "container/arm64.py",
    "export_parity": "export/export_all.py",
    "contrast_rules": "benchmarks/accuracy/input_rules.py",
    "latin_order": "benchmarks/accuracy/latin_choices.py",
    "latin_sizes": "benchmarks/accuracy/latin_choices.py",
    "latin_sources": "benchmarks/accuracy/latin_choices.py",
    "width_rules": "benchmarks/accuracy/input_rules.py",
}
FACTS = ("suite", "machine", "cpu", "device", "versions", "load")
COLUMNS = {  # names of figures that a reader cannot guess
    "alphanumeric": "letters and digits right, in any case",
    "bitwise_alone_and_together": "same bits alone and in a batch",
    "cer": "CER",
    "clients_busy": "share of a CPU that the clients took",
    "confident_flips": "confident texts changed",
    "differ": "images that differ",
    "duplicates": "rows that repeat an image",
    "ece_after": "calibration error (ECE) after",
    "ece_before": "calibration error (ECE) before",
    "edits": "characters to edit",
    "every so often": "through its life",
    "exact": "exact texts",
    "kept_float": "layers kept in float",
    "last_of_first_rss": "RSS at the end / at the start",
    "margin_change": "change of the margin between the two best classes",
    "max_delta": "largest difference",
    "missing": "images without a row",
    "most": "largest difference, grey levels",
    "of_in_process": "speed / speed in one process",
    "of_inference_alone": "speed / speed of inference alone",
    "one_minus_ned": "1 - NED",
    "other_size": "images of another size",
    "right": "told correctly",
    "said": "what the command says last",
    "scale": "largest logit",
    "settles_as": "likely answer with more images",
    "share_of_the_spread": "share of the squared changes of edits",
    "speed_x_float_batch_8": "times as fast as float, batch 8",
    "strange": "files that are not of this output",
    "tall": "tall images",
    "tie": "margin of a tie",
    "to_do": "chunks to make again",
    "told": "activation that is told",
    "uncounted": "tars that were not read",
    "whole_faster": "whole network, times as fast",
    "x_float": "times as fast as float",
    "x_onnx_runtime": "times as fast as ONNX Runtime",
    "x_pytorch_eager": "times as fast as PyTorch eager",
}
MOST = 30  # lines of a table that is shown at once; longer ones open on a click
MARK = "<!-- every suite -->"


def on_files(files: Files, config: Any) -> Files:
    for folder in TITLES:
        files.append(File.generated(config, f"results/{folder}.md", content="\n".join(_page(folder))))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace(MARK, "\n".join(_contents())) if MARK in markdown else markdown


def suites() -> dict[str, dict[str, dict[str, Any]]]:
    """The results of each suite, by the kind of CPU and the way of measuring."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for path in sorted(RESULTS.glob("*.json")):
        suite, kind, device = path.stem.split("--")
        found[suite][kind if device == "cpu" else f"{kind}, {device}"] = json.loads(path.read_text("utf-8"))
    return found


def script_of(suite: str) -> Path:
    """The script that measured a suite."""
    if suite in ELSEWHERE:
        return ROOT / ELSEWHERE[suite]
    scripts = (one for folder in TITLES for one in (ROOT / "benchmarks" / folder).glob("*.py"))
    return next(one for one in scripts if suite in (one.stem, f"{one.parent.name}_{one.stem}"))


def _contents() -> Iterator[str]:
    for folder, title in TITLES.items():
        yield f"\n## {title}\n"
        for suite in suites():
            if script_of(suite).parent.name == folder:
                yield f"- [{suite}]({folder}.md#{suite}): {_docstring(suite).splitlines()[0]}"


def _page(folder: str) -> Iterator[str]:
    yield f"# {TITLES[folder]}\n"
    for suite, results in suites().items():
        if script_of(suite).parent.name == folder:
            yield f"\n## {suite} {{#{suite}}}\n"
            yield _docstring(suite) + "\n"
            yield from _machines(results)
            yield from _table(results)


def _docstring(suite: str) -> str:
    return ast.get_docstring(ast.parse(script_of(suite).read_text(encoding="utf-8"))) or ""


def _machines(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    for kind, result in results.items():
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        load = f"; load {result['load']}" if "load" in result else ""
        yield f"**{kind}**: {result['machine']}{load}. {versions}.\n"


def _table(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Tables as HTML: rows with the same figures in one, the kinds of CPU in neighbouring lines."""
    rows: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)  # by name and kind, the figures by name
    for kind, result in results.items():
        for path, figure in _figures(_measured(result)):
            rows[", ".join(path[:-1]), kind][path[-1]] = figure
    order = [*dict.fromkeys(name for name, _ in rows)]
    keys = sorted(rows, key=lambda key: order.index(key[0]))  # stable: the kinds of a row stay together
    for columns, alike in groupby(keys, key=lambda key: tuple(rows[key])):
        lines = [(name, kind, rows[name, kind]) for name, kind in alike]
        kinds = len(results) > 1
        head = ("", *(["CPU"] if kinds else []), *map(_title, columns))
        body = ((name, *([kind] if kinds else []), *figures.values()) for name, kind, figures in lines)
        table = _html([head], "th", "thead") + _html(body, "td", "tbody")
        shown = f"<table>{table}</table>"
        summary = f"<summary>{len(lines)} rows: {escape(', '.join(head[1:]))}</summary>"
        yield (f"<details>{summary}{shown}</details>" if len(lines) > MOST else shown) + "\n"


def _title(column: str) -> str:
    return COLUMNS.get(column, column.replace("_", " "))


def _html(lines: Iterable[Iterable[str]], cell: str, part: str) -> str:
    rows = ("".join(f"<{cell}>{escape(one)}</{cell}>" for one in line) for line in lines)
    return f"<{part}>{''.join(f'<tr>{row}</tr>' for row in rows)}</{part}>"


def _measured(result: dict[str, Any]) -> dict[str, Any]:
    inside = {name: value for name, value in result.items() if name not in FACTS}
    rows = inside.pop("rows", {})
    return {
        **inside,
        **(rows if isinstance(rows, dict) else {str(at): row for at, row in enumerate(rows, 1)}),
    }


def _figures(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every figure within a value, with the names that lead to it."""
    if isinstance(value, dict) and {"median", "lower", "upper", "unit"} <= value.keys():
        low, high = _shown(value["lower"]), _shown(value["upper"])
        yield path, f"{_shown(value['median'])} {value['unit']} ({low} to {high})"
    elif isinstance(value, dict):
        for key in sorted(
            value, key=lambda key: isinstance(value[key], dict)
        ):  # stable: its own figures first
            yield from _figures(value[key], (*path, str(key)))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for at, inner in enumerate(value, 1):
            yield from _figures(inner, (*path, str(at)))
    elif isinstance(value, list):
        yield path, ", ".join(map(_shown, value)) or "none"
    else:
        yield path, _shown(value)


def _shown(value: Any) -> str:
    """A value of JSON as a cell has it; of a fraction six digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
