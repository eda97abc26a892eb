"""The pictures of docs/explain/, from runs of the default model and from committed results.

    python docs/explain_pictures.py

Prints what the pages say of them. Needs the extras [cpu,train].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crnn_deploy import Recognizer, Text
from crnn_deploy.metrics import wilson
from crnn_deploy.runtime.images.pixels import read_image

ROOT = Path(__file__).parents[1]
IMAGES = sorted((ROOT / "examples" / "images").glob("*.png"))
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"
SHOWN = 4  # of IMAGES: Keep dry!
BUDGET = 0.001  # of confident strings that may change
HEIGHTS = range(8, 33)  # pixels, that the example images are shrunk to
MONO = "DejaVu Sans Mono"


def main() -> None:
    _batch().savefig(PICTURES / "batch-invariance.png")
    _verdicts().savefig(PICTURES / "verdicts.png")
    _ladder().savefig(PICTURES / "ladder.png")
    _int8().savefig(PICTURES / "int8-margins.png")


def padded(recognizer: Recognizer, image: Path, width: int) -> tuple[NDArray[np.float32], Text]:
    """An image as the network would see it beside a wider one in a padded batch, and what it then reads."""
    prepared = recognizer.prepare(image).pixels
    grown = np.pad(prepared, ((0, 0), (0, 0), (0, width - prepared.shape[2])))
    frames = recognizer._network(grown[None])
    [text] = recognizer._decode(frames, [(1.0, width)])
    return grown[0], text


def _batch() -> Figure:
    """One image padded to the widths of others, and what is read then."""
    recognizer = Recognizer()
    widths = {image: recognizer.prepare(image).pixels.shape[2] for image in IMAGES}
    pairs = [
        (image, width) for image in IMAGES for width in sorted({*widths.values()}) if width > widths[image]
    ]
    alone = {image: recognizer.read(image) for image in IMAGES}
    texts = {pair: padded(recognizer, *pair)[1] for pair in pairs}
    changed = [pair for pair, text in texts.items() if text.text != alone[pair[0]].text]
    bits = [pair for pair, text in texts.items() if text.confidence != alone[pair[0]].confidence]
    print(f"padded: {len(pairs)} pairs, {len(changed)} other texts, {len(bits)} other confidences")
    together = recognizer.read(IMAGES)
    same = [text == alone[image] for image, text in zip(IMAGES, together, strict=True)]
    print(f"here: {sum(same)} of {len(same)} equal to the bit in a batch")

    image = IMAGES[SHOWN]
    rows = [widths[image], *[width for one, width in pairs if one == image]]
    figure = Figure(figsize=(10, 0.95 * len(rows)), dpi=90)
    figure.subplots_adjust(left=0.12, right=0.99, top=0.98, bottom=0.08, hspace=0.9)
    for at, width in enumerate(rows, 1):
        grown, text = padded(recognizer, image, width)
        cell = figure.add_subplot(len(rows), 1, at)
        cell.set_axis_off()
        cell.imshow(grown, cmap="gray", vmin=-1, vmax=1)
        cell.set_xlim(0, max(rows))
        cell.text(-8, 16, f"{width} px" if at > 1 else "alone", ha="right", va="center", fontsize=11)
        cell.set_title(
            f"{text.text}   {text.confidence:.2f}",
            y=0,
            pad=-6,
            x=0,
            loc="left",
            verticalalignment="top",
            fontsize=12,
            family=MONO,
            color="black" if text.text == alone[image].text else "firebrick",
        )
    return figure


def _verdicts() -> Figure:
    """Intervals of the share of confident texts that change, by how many there were."""
    int8 = _result("int8--avx512-vnni-bf16-amx--cpu")["int8"]["rendered"]["confident_strings_changed"]
    roads = _result("int8_roads--avx2--cpu")["models"]
    counted = [("the tutorial's 12 images", 0, 5), ("latin, 5,000 drawn", int8["count"], int8["images"])]
    for model, row, name in (
        ("english_g2", "few", "english_g2, 1,500 words"),
        ("english_g2", "many", "english_g2, 3,768 words"),
        ("plate", "many", "plate, 15,000 drawn"),
        ("own", "many", "print model, 14,000 drawn"),
    ):
        one = roads[model]["rows"][row]
        counted.append((name, one["confident_strings_changed"], one["confident_strings"]))
    counted.sort(key=lambda one: one[2])
    figure = Figure(figsize=(10, 4.4), dpi=90, layout="constrained")
    axes = figure.add_subplot()
    numbers = np.unique(np.geomspace(3, 20_000, 200).astype(int))
    axes.plot(numbers, [wilson(0, int(n))[1] * 100 for n in numbers], color="silver", label="none changed")
    enough = next(n for n in range(1, 10_000) if wilson(0, n)[1] <= BUDGET)
    print(f"none changed: enough are {enough:,} confident texts")
    for name, changed, of in counted:
        low, high = wilson(changed, of)
        passed = high <= BUDGET
        color = "seagreen" if passed else "darkorange"
        axes.plot(
            [of, of], [max(low, 1e-6) * 100, high * 100], color=color, linewidth=5, solid_capstyle="butt"
        )
        answer = "PASSED" if passed else "FAILED" if low > BUDGET else "NOT ENOUGH IMAGES"
        axes.annotate(
            f"{name}: {changed} of {of:,}", (of, high * 100), (4, 4), textcoords="offset points", fontsize=8
        )
        print(f"{name}: {changed} of {of:,}, {low:.5%} to {high:.5%}, {answer}")
    axes.axhline(BUDGET * 100, color="black", linewidth=1, linestyle="--", label="allowed: 0.1 %")
    axes.axvline(enough, color="silver", linewidth=1, linestyle=":")
    axes.set(xscale="log", yscale="log", xlim=(3, 60_000), ylim=(0.002, 150))
    axes.set(xlabel="texts that the float model was sure of", ylabel="share of them that changes, %")
    axes.legend(loc="lower left")
    return figure


def _ladder() -> Figure:
    """How formats store a number, and what that did to logits of the default model."""
    measured = _result("number_formats--avx512-vnni-bf16-amx--cpu")
    rungs = (  # bits of exponent and mantissa, and the largest number
        ("fp16", 5, 10, "65,504"),
        ("bf16", 8, 7, "3e38"),
        ("tf32", 8, 10, "3e38"),
        ("fp32", 8, 23, "3e38"),
    )
    figure = Figure(figsize=(10, 3.2), dpi=90, layout="constrained")
    bits, deltas = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    for row, (name, exponent, mantissa, largest) in enumerate(rungs):
        for at in range(1 + exponent + mantissa):
            color = "dimgray" if at == 0 else "steelblue" if at <= exponent else "darkorange"
            bits.barh(row, 0.9, left=at, height=0.6, color=color)
        bits.text(34, row, f"up to {largest}", va="center", fontsize=9)
        one = measured[name]
        print(f"{name}: median {one['median']:.2g}, largest {one['largest']:.2g}")
        deltas.plot([one["median"], one["largest"]], [row, row], color="firebrick", linewidth=3)
        deltas.plot([one["median"]], [row], "o", color="firebrick")
    bits.set_yticks(range(len(rungs)), [name.upper() if name == "tf32" else name for name, *_ in rungs])
    bits.invert_yaxis()
    bits.set(xlim=(0, 45), xticks=[], title="sign, exponent (blue: range), mantissa (orange: exactness)")
    deltas.set(
        xscale="log",
        title="logits off by: median (dot) to largest",
        xlabel=f"{measured['images']} real images",
    )
    return figure


def _int8() -> Figure:
    """What INT8 changes in each frame, against the float model's lead of its best class there."""
    pixels = [read_image(image) for image in IMAGES]
    shrunk = [
        cv2.resize(one, (max(1, one.shape[1] * height // one.shape[0]), height), interpolation=cv2.INTER_AREA)
        for one in pixels
        for height in HEIGHTS
    ]
    images = [*pixels, *shrunk]
    with_float, with_int8 = Recognizer("latin"), Recognizer("latin.int8")
    leads, changes, flips, sure = [], [], [], []
    other = other_sure = 0
    for image in images:
        before, after = (_logits(one, image) for one in (with_float, with_int8))
        best = before.argmax(axis=1)
        second = np.partition(before, -2, axis=1)[:, -2]
        rows = np.arange(len(before))
        lead = before[rows, best] - second
        left = after[rows, best] - np.where(
            after.argmax(axis=1) == best, np.partition(after, -2, axis=1)[:, -2], after.max(axis=1)
        )
        exponentials = np.exp(before - before.max(axis=1, keepdims=True))
        is_sure = bool((1 / exponentials.sum(axis=1)).min() > 0.8)
        texts = [one.read(image).text for one in (with_float, with_int8)]
        differs = texts[0] != texts[1]
        if differs:
            print(f"  {texts[0]!r} becomes {texts[1]!r}")
        other, other_sure = other + differs, other_sure + (differs and is_sure)
        leads.append(lead)
        changes.append(np.abs(lead - left))
        flips.append(left < 0)
        sure.append(is_sure)
    lead, change, flip = (np.concatenate(one) for one in (leads, changes, flips))
    print(
        f"int8: {len(images)} images, {len(lead):,} frames, median change of the lead {np.median(change):.3f}"
    )
    print(f"  {int(flip.sum())} frames flip, the largest lead of one is {lead[flip].max():.2f}")
    print(f"  {other} texts change; {other_sure} of the {sum(sure)} in which every frame is surer than 0.8")
    figure = Figure(figsize=(10, 4.4), dpi=90, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(lead[~flip], change[~flip], s=5, color="steelblue", label="the same class")
    axes.scatter(lead[flip], change[flip], s=18, color="firebrick", label="another class")
    axes.axvline(np.log(4), color="black", linewidth=1, linestyle="--", label="left of it: at most 80 % sure")
    line = np.array([1e-3, 40])
    axes.plot(line, line, color="silver", linewidth=1, label="the change equals the lead")
    axes.set(xscale="log", yscale="log", xlim=(5e-3, 40), ylim=(1e-4, 10))
    axes.set(xlabel="lead of the best class in float, logits", ylabel="by how much INT8 changes it, logits")
    axes.legend(loc="lower right")
    return figure


def _logits(recognizer: Recognizer, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    logits = recognizer.run([recognizer.prepare(image)]).logits
    assert logits is not None
    return logits[0]


def _result(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
