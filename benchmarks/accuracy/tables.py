"""The tables of accuracy in the documents, written from the committed results.

    python -m benchmarks.accuracy.tables [--results benchmarks/results] [--docs docs]

The place of a table names the result too, as in `<!-- drawn_latin of drawn_text--avx2--cpu -->`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.real_sets import measure_tables, percent
from benchmarks.committed import RESULTS
from benchmarks.pages import markdown, placed

Result = Mapping[str, Any]

DOCS = RESULTS.parents[1] / "docs"
_PLACE = re.compile(r"<!-- ((\w+) of ([\w-]+)) -->")
_LEXICON = {
    "greedy": "greedy",
    "beam 10": "beam 10",
    "beam 10, lexicon": "beam 10, lexicon",
    "beam 10, lexicon, accents ignored": "beam 10, lexicon, `--ignore-accents`",
    "beam 10, lexicon, accents ignored, unknown -10": ("beam 10, lexicon, `--ignore-accents --unknown -10`"),
    "beam 10, half the lexicon, accents ignored": "beam 10, half the lexicon, `--ignore-accents`",
    "beam 10, half the lexicon, accents ignored, unknown -10": (
        "beam 10, half the lexicon, `--ignore-accents --unknown -10`"
    ),
    "closest word": "closest-word (knows no marks and no other case)",
}
_WAYS = ("none", "90", "auto", "180")
_COLUMNS = {
    "columns of capitals": "capitals in columns",
    "Chinese columns": "Chinese words of 4 to 12 characters in columns (`chinese`)",
    "Chinese columns, as lines": "the same as lines (`chinese`)",
    "short Chinese columns": "Chinese words of 2 or 3 characters in columns (`chinese`)",
    "short Chinese columns, as lines": "the same as lines (`chinese`)",
}
_CHINESE_SETS = {
    "zh_paddle_doc": "lines of tickets and forms (`zh_paddle_doc`)",
    "free_demo, Chinese": "demo images of other projects (`free_demo`)",
    "scene_words_demo, Chinese": "scene words (`scene_words_demo`)",
    "plates_cn": "number plates (`plates_cn`)",
}


def _drawn(rows: Result) -> list[tuple[str, str, str, str, str]]:
    """Name, images, exact texts, alphanumeric ones and CER of each drawn set with letters."""
    lines = []
    for name, row in rows.items():
        if not isinstance(row, dict) or not row.get("characters"):
            continue
        exact = percent(row["accuracy"], row["accuracy_interval"], places=2)
        alphanumeric, cer = (percent(row[key], places=2) for key in ("alphanumeric_accuracy", "cer"))
        lines.append((name, f"{row['images']:,}", exact, alphanumeric, cer))
    return lines


def drawn_latin(result: Result) -> str:
    """Drawn sets, beside the print model."""
    print_model = result["print"]
    lines = [(*line, percent(print_model[line[0]]["accuracy"], places=2)) for line in _drawn(result["latin"])]
    titles = ("", "images", "exact", "letters and digits alone, any case", "CER", "print model, exact")
    return markdown(titles, lines)


def drawn_chinese(result: Result) -> str:
    titles = ("", "images", "exact", "letters, ideographs and digits alone", "CER")
    return markdown(titles, _drawn(result["chinese"]))


def real_latin(result: Result) -> str:
    """Letters and digits of every reader, by set."""
    return measure_tables(result["rows"])["letters and digits alone, any case"]


def real_chinese(result: Result) -> str:
    """CER and letters of the readers that know Chinese."""
    readers = {
        "chinese": "chinese",
        "rapidocr": "rapidocr (PP-OCRv4)",
        "tesseract": "Tesseract 5.5.4, chi_sim",
    }
    lines = []
    for name, title in _CHINESE_SETS.items():
        rows = result["rows"]["sets"][name]
        cells = [f"{percent(rows[r]['cer'])}, {percent(rows[r]['alphanumeric_accuracy'])}" for r in readers]
        if name == "zh_paddle_doc":
            cells[1] = f"[{cells[1]}]"
        lines.append((title, rows["chinese"]["images"], *cells))
    return markdown(("", "images", *readers.values()), lines)


def wrong_texts(result: Result) -> str:
    """Texts that decoders get wrong, with and without a lexicon."""
    dark, light = (result["wrong texts"][name] for name in ("augmented words", "augmented words, inverted"))
    lines = [
        (title, *(f"{row[name][key]:,}" for row in (dark, light) for key in ("wrong", "wrong of the listed")))
        for name, title in _LEXICON.items()
    ]
    of_these = "of these, listed words"
    return markdown(("wrong texts", "dark on light", of_these, "light on dark", of_these), lines)


def turned(result: Result) -> str:
    """Images that are read exactly, by turn and by `--rotate`."""
    lines = []
    for name, row in result["rows"].items():
        for turn, ways in row.items():
            if not turn.startswith("turned by "):
                continue
            upright = turn == "turned by 0" and name not in _COLUMNS
            cells = [
                f"{found['exact']} ({found['harmed']})" if upright and way != "none" else found["exact"]
                for way, found in ways.items()
            ]
            first = _COLUMNS.get(name, name) if turn == "turned by 0" else ""
            lines.append((first, turn.removeprefix("turned by "), *cells))
    return markdown(("set", "turned by", *(f"`{way}`" for way in _WAYS)), lines)


def turned_speed(result: Result) -> str:
    """Speed of clean words by `--rotate`."""
    words = result["rows"]["clean words"]
    lines = [
        (title, *(f"{words[turn][way]['images_per_cpu_second']:,}" for way in _WAYS))
        for title, turn in {"upright": "turned by 0", "turned by 90": "turned by 90"}.items()
    ]
    return markdown(("images per CPU-second, clean words", *(f"`{way}`" for way in _WAYS)), lines)


def cut_lines(result: Result) -> str:
    """Long lines in pieces, beside whole ones."""
    cuts = {name: row for name, row in result.items() if name.startswith("overlap ")}
    of = next(iter(cuts.values()))["frames"]
    lines = [
        (
            "**12**" if name == "overlap 12" else name.removeprefix("overlap "),
            row["frames_differing"],
            f"{row['texts_equal']} of {result['uncut']['lines']}",
            row["edits"],
        )
        for name, row in cuts.items()
    ]
    titles = ("overlap, times the height", f"frames whose class differs, of {of:,}", "texts equal", "edits")
    return markdown(titles, lines)


def confidences(result: Result) -> str:
    """How far confidences can be trusted, before and after a temperature."""
    lines = [
        (
            name,
            f"{row['temperature']:.2f}",
            *(percent(row[f"ece_{when}"], places=2) for when in ("before", "after")),
            *(f"{row[f'log_loss_{when}']:.3f}" for when in ("before", "after")),
        )
        for name, row in result.items()
        if isinstance(row, dict) and "temperature" in row
    ]
    errors = ("expected calibration error before", "after", "log loss before", "after")
    return markdown(("a line's confidence", "temperature", *errors), lines)


def batch_errors(result: Result) -> str:
    """By how much number formats change logits."""
    lines = []
    for name, title in {"fp32": "fp32", "tf32": "TF32", "fp16": "fp16", "bf16": "bf16"}.items():
        row = result[name]
        samples = row["largest / largest of a sample"]
        ratios = ", ".join(f"{samples[f'{images} images']:.1f}" for images in (64, 128, 256))
        shown = (
            f"{value:.1e}" if value < 1e-3 else f"{value:.3f}" for value in (row["median"], row["largest"])
        )
        lines.append((title, *shown, ratios))
    return markdown(("", "median", "largest", "largest of all / largest of 64, 128, 256 images"), lines)


def built_engines(result: Result) -> str:
    """Engines of TensorRT for RTX."""
    lines = []
    for network in [name for name, rows in result.items() if isinstance(rows, list)]:
        for row in result[network]:
            total = sum(row["layers"].values())
            layers = ", ".join(f"{kind} {count} of {total}" for kind, count in row["layers"].items())
            size = f"{row['bytes'] / 1e6:.1f}"
            lines.append((network, row["asked"], layers, f"{row['seconds']:.1f}", size, *row["profiles"]))
    return markdown(("network", "asked for", "layers built", "build seconds", "plan MB", "profile"), lines)


def half_precision(result: Result) -> str:
    """What half precision changes in the default model."""
    lines = [
        (
            name,
            f"{row['max_delta']:.2f} of {row['largest_logit']:.1f}",
            f"{row['argmax_flips']} of {row['frames']:,} ({100 * row['argmax_agreement']:.4f}% agree)",
            f"{row['verdict']['strings_changed']['count']} of {row['images']:,}",
            f"{row['peak']:.0f}",
        )
        for name, row in result["half precision of the default model"].items()
    ]
    titles = ("max delta of logits", "argmax flips", "texts changed")
    return markdown(("", *titles, "largest tensor (fp16 ends at 65,504)"), lines)


def _met(text: str, met: bool) -> str:
    return text if met else f"**{text}, missed**"


def int8_verdict(result: Result) -> str:
    """INT8 files of the default model, beside what was aimed at."""
    kinds = {name: row for name, row in result.items() if isinstance(row, dict) and "rendered" in row}
    drawn = [row["rendered"] for row in kinds.values()]
    real = [
        [
            one["confident_strings_changed"]
            for one in row.values()
            if _is_verdict(one) and one is not row["rendered"]
        ]
        for row in kinds.values()
    ]
    images = sum(one["images"] for one in next(iter(kinds.values())).values() if _is_verdict(one))
    confident = sum(one["images"] for one in real[0])
    of_real = f"{len(real[0])} folders, {confident} confident of {images - drawn[0]['images']}"
    before = drawn[0]["exact"]["reference"]

    def counted(name: str, most: float) -> list[str]:
        return [
            _met(
                f"{one[name]['count']} ({percent(one[name]['share'], places=2)})", one[name]["share"] <= most
            )
            for one in drawn
        ]

    def eager(row: Result) -> str:
        spent = row["cpu_ms_an_image_batch_1"]
        times = spent["pytorch eager"] / spent["onnxruntime int8"]
        return _met(f"{times:.1f}", times >= 4)

    def convolutions(row: Result) -> str:
        built = row.get("convolutions_in_tensorrt_rtx")
        return f"{built['int8']} of {sum(built.values())}" if built else "not for TensorRT"

    lines: list[tuple[str, str, list[str]]] = [
        (
            *("confident strings changed", "0.1 %"),
            [
                _met(f"{found['count']} of {found['images']:,}", found["share"] <= 0.001)
                for found in (one["confident_strings_changed"] for one in drawn)
            ],
        ),
        (
            *(f"exact, float {before:,}", "within 0.2 points"),
            [
                _met(f"{after:,}", abs(after - before) <= 0.002 * one["images"])
                for one in drawn
                for after in [one["exact"]["candidate"]]
            ],
        ),
        ("right to wrong", "0.3 %", counted("right_to_wrong", 0.003)),
        ("all strings changed", "2 %", counted("strings_changed", 0.02)),
        (
            *(f"confident real images changed ({of_real})", "none"),
            [
                _met(f"{changed or 'none'}", not changed)
                for changed in (sum(one["count"] for one in found) for found in real)
            ],
        ),
        (
            *("bitwise independent of the batch", "yes"),
            ["yes" if row["batch_invariant"] else "**no, missed**" for row in kinds.values()],
        ),
        (
            *("x ONNX Runtime float, batch 8", "2.5"),
            [
                _met(f"{times:.2f}", times >= 2.5)
                for times in (row["speed_x_float_batch_8"] for row in kinds.values())
            ],
        ),
        ("x PyTorch eager, batch 1", "4", [eager(row) for row in kinds.values()]),
        (
            *("convolutions that are int8 in TensorRT for RTX 1.7.1", "all"),
            [convolutions(row) for row in kinds.values()],
        ),
    ]
    titles = ("", "bar", *(name.replace("LSTM int8", "int8 LSTM") for name in kinds))
    return markdown(titles, [(name, bar, *cells) for name, bar, cells in lines])


def _is_verdict(one: object) -> bool:
    return isinstance(one, dict) and "confident_strings_changed" in one


TABLES: dict[str, Callable[[Result], str]] = {
    function.__name__: function
    for function in (
        *(drawn_latin, drawn_chinese, real_latin, real_chinese, wrong_texts, turned, turned_speed, cut_lines),
        *(confidences, batch_errors, built_engines, half_precision, int8_verdict),
    )
}


def written(page: str, results: Path) -> str:
    """The page with its tables as the results have them."""
    for place, name, result in _PLACE.findall(page):
        found = json.loads((results / f"{result}.json").read_text(encoding="utf-8"))
        page = placed(page, place, TABLES[name](found))
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="Read the results in this folder.")
    parser.add_argument(
        "--docs", type=Path, default=DOCS, help="Write the tables into the pages of this folder."
    )
    given = parser.parse_args(arguments)
    for path in sorted(given.docs.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        path.write_text(written(page, given.results), encoding="utf-8")


if __name__ == "__main__":
    main()
