"""What the choices of the Latin training are worth: network sizes, sources of images, and their order.

    python -m benchmarks.accuracy.latin_choices sizes|sources|order [--minutes 20] [--jobs 2] [--data FOLDER]
        [--out DIR] [--json FILE]

- sizes: compact networks of several sizes, all from the print model, which `training/grow.py` widens
- sources: the network of `latin` without one source of `training/latin.yaml`, or with drawn print alone
- order: the network of `latin` with all sources from the first step; with print and documents alone for the
  first half of the steps; or with the images that it misreads after the first half as one more source

Each network is trained for the same CPU time by one thread, in bf16 where the CPU has it, with a learning
rate that falls to 0 over the second half. A few steps before tell how many fit. Then it is exported, and
reads the real images of --data that nothing is trained on, and 1,000 held-out drawn images of each kind. A
result has exact texts, and letters and digits in any case, each with a 95 % interval (Wilson's). CPU time is
that of drawn words in batches of 8, in one thread of ONNX Runtime; the networks take turns.

`bash training/latin.sh` prepares what the trainings read. The script needs the extras
[cpu,evaluate,export,train].
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.accuracy.drawn_text import drawn_sets
from benchmarks.common import cpu_in_turn, measured, prepared_words, stacks, write
from crnn_deploy.datasets import Dataset, open_dataset
from crnn_deploy.evaluation.evaluate import evaluate
from crnn_deploy.evaluation.speed import operations
from crnn_deploy.manifest import Manifest
from crnn_deploy.metrics import Score
from crnn_deploy.runtime.backends.cpu import has_bf16
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "training" / "latin.yaml"
PRINT = ROOT / "training" / "print.pth"
LATIN = ("32,64,128,192,256", 192)
SIZES = {
    "print": ("24,48,96,128,192", 128),
    "print, 192 units": ("24,48,96,128,192", 192),
    "latin": LATIN,
    "latin, 256 units": ("32,64,128,192,256", 256),
    "largest": ("40,80,160,224,320", 256),
}
SOURCES = {  # where each stands in latin.yaml
    "scene words": (0,),
    "receipts": (1,),
    "drawn scenes": (2,),
    "drawn documents": (3,),
    "drawn print": (4, 5),
}
SCENE_WORDS = "scene_words_"  # sets that count as one
PROBE = 40  # steps that tell how long one takes
WARMUP = 100  # steps
HARD_WEIGHT = 0.15  # of the misread images; the sources of latin.yaml have 1 together
HARD_DRAWN = 3000  # images of each drawn source that are looked at for it
DRAWN = ("clean words", "augmented words", "clean numbers", "clean codes", "clean random characters")


@dataclass(frozen=True)
class Choice:
    """One training."""

    name: str
    widths: str
    hidden: int
    without: frozenset[str] = frozenset()  # sources
    without_at_first: frozenset[str] = frozenset()  # in the first half of the steps
    hard: bool = False  # in the second half, what was misread after the first is one more source

    @property
    def file(self) -> str:
        return self.name.replace(" ", "-").replace(",", "")

    @property
    def halves(self) -> bool:
        return self.hard or bool(self.without_at_first)


def choices(kind: str) -> list[Choice]:
    if kind == "sizes":
        return [Choice(name, *size) for name, size in SIZES.items()]
    found = [Choice("latin", *LATIN)]
    if kind == "order":
        later = frozenset({"scene words", "drawn scenes"})
        found.append(Choice("print and documents first", *LATIN, without_at_first=later))
        return [*found, Choice("misread images again", *LATIN, hard=True)]
    found += [Choice(f"without {source}", *LATIN, frozenset([source])) for source in SOURCES]
    return [*found, Choice("drawn print alone", *LATIN, frozenset(SOURCES) - {"drawn print"})]


def sources(without: frozenset[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["train"]
    left_out = {place for name in without for place in SOURCES[name]}
    return [source for place, source in enumerate(found) if place not in left_out]


def config_of(path: Path, start: Path, train: list[dict[str, Any]], steps: int, **schedule: object) -> Path:
    """A training in the folder of the file's name without its end."""
    plain = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    plain |= {"out": str(path.with_suffix("")), "start": {"checkpoint": str(start)}, "train": train}
    plain |= {"steps": steps, "validation": {}, "save_every": steps, "log_every": 20, "schedule": schedule}
    plain["precision"] = "bf16" if has_bf16() else "fp32"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


def run(command: Sequence[object], log: Path) -> float:
    """CPU-seconds of a Python program, from the repository's root."""
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen([sys.executable, *map(str, command)], stdout=file, stderr=file, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed; {log} says why")
    return usage.ru_utime + usage.ru_stime


def trained(choice: Choice, out: Path, seconds: float) -> tuple[Path, dict[str, Any]]:
    """The exported network after its training, and what the training was."""
    folder = out / choice.file
    folder.mkdir(parents=True, exist_ok=True)
    start, model, told, log = (folder / name for name in ("start.pth", "model.onnx", "told.json", "log"))
    if not model.exists():
        grown = ("--widths", choice.widths, "--hidden", choice.hidden)
        run(["training/grow.py", PRINT, start, *grown], log)
        short = {"name": "trapezoid", "warmup": PROBE // 4, "decay": 0.5}
        train = sources(choice.without)
        one, two = (
            run(trains(config_of(folder / f"probe-{steps}.yaml", start, train, steps, **short)), log)
            for steps in (PROBE, 2 * PROBE)
        )
        step = (two - one) / PROBE
        begins = one - PROBE * step
        if choice.halves:
            checkpoint, steps, spent = in_halves(choice, folder, start, step, seconds - 2 * begins, log)
        else:
            steps = round((seconds - begins) / step)
            falls = {"name": "trapezoid", "warmup": WARMUP, "decay": 0.5}
            config = config_of(folder / "whole.yaml", start, train, steps, **falls)
            spent, checkpoint = run(trains(config), log), config.with_suffix("") / "last.pth"
        run(["-m", "crnn_deploy", "export", "--checkpoint", checkpoint, "-o", model], log)
        told.write_text(json.dumps({"steps": steps, "training_cpu_seconds": round(spent)}))
    found: dict[str, Any] = json.loads(told.read_text())
    return model, found


def in_halves(
    choice: Choice, folder: Path, start: Path, step: float, seconds: float, log: Path
) -> tuple[Path, int, float]:
    """The checkpoint after two trainings, the second from the weights of the first; steps and CPU-seconds."""
    first_steps = round(seconds / step / 2)
    flat = {"name": "constant", "warmup": WARMUP}
    train = sources(choice.without | choice.without_at_first)
    first = config_of(folder / "first.yaml", start, train, first_steps, **flat)
    spent = run(trains(first), log)
    middle, train = first.with_suffix("") / "last.pth", sources(choice.without)
    if choice.hard:
        model, hard = folder / "first.onnx", folder / "misread.lmdb"
        run(["-m", "crnn_deploy", "export", "--checkpoint", middle, "-o", model], log)
        looked = run(["training/misread.py", first, model, hard, "--drawn", HARD_DRAWN], log)
        train = [*train, {"path": str(hard), "weight": HARD_WEIGHT}]
        spent, seconds = spent + looked, seconds - looked
    steps = round(seconds / step) - first_steps
    falls = {"name": "trapezoid", "warmup": WARMUP // 5, "decay": 1.0}
    second = config_of(folder / "second.yaml", middle, train, steps, **falls)
    spent += run(trains(second), log)
    return second.with_suffix("") / "last.pth", first_steps + steps, spent


def trains(config: Path) -> list[object]:
    return ["-m", "crnn_deploy", "train", "--config", config]


def sets_of(data: Path, manifest: Manifest) -> dict[str, Dataset]:
    drawn = drawn_sets(manifest.alphabet, 1000)
    return {name: drawn[name] for name in DRAWN} | {
        path.parent.name: open_dataset(str(path.parent), kind="tabs")
        for path in sorted(data.glob("*/labels.tsv"))
        if path.parent.name.startswith(("dev_", SCENE_WORDS))
    }


def accuracies(model: Path, data: Path) -> dict[str, Any]:
    with closing(Recognizer.load(model)) as recognizer:
        work = operations(model, recognizer.manifest, [100])[100]
        scores = dict(evaluate(recognizer, sets_of(data, recognizer.manifest), chunk=256).by_group)
    together = [scores.pop(name) for name in [*scores] if name.startswith(SCENE_WORDS)]
    if together:
        scores["scene words"] = sum(together, Score())
    return {
        "MFLOP_at_100": round(work / 1e6, 1),
        "sets": {name: score.to_plain() for name, score in scores.items()},
    }


def speeds(models: Mapping[str, Path], rounds: int) -> dict[str, dict[str, Any]]:
    """CPU-milliseconds a word."""
    tasks, images = {}, {}
    for name, model in models.items():
        backend = OrtBackend(model)
        batches = stacks(prepared_words(400, backend.manifest))
        tasks[name], images[name] = partial(_infer, backend, batches), 400
    return {name: measured(values, "CPU ms") for name, values in cpu_in_turn(tasks, images, rounds).items()}


def _infer(backend: OrtBackend, batches: Sequence[NDArray[np.float32]]) -> None:
    for batch in batches:
        backend.run(batch)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("sizes", "sources", "order"), help="Compare these.")
    parser.add_argument(
        "--minutes", type=float, default=20, help="Train each network for so many CPU-minutes."
    )
    parser.add_argument("--jobs", type=int, default=2, help="Train this many networks at once.")
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        help="Read the real sets in this folder.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/latin_choices"), help="Keep the networks in this folder."
    )
    parser.add_argument("--rounds", type=int, default=9, help="Measure the speed in this many rounds.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    given = parser.parse_args()
    compared = choices(given.kind)
    with ThreadPoolExecutor(given.jobs) as pool:
        made = list(pool.map(lambda choice: trained(choice, given.out, 60 * given.minutes), compared))
    models = {choice.name: model for choice, (model, _) in zip(compared, made, strict=True)}
    rows: dict[str, dict[str, Any]] = {}
    for choice, (model, told) in zip(compared, made, strict=True):
        rows[choice.name] = {"widths": choice.widths, "hidden": choice.hidden, **told}
        rows[choice.name] |= accuracies(model, given.data)
        print(choice.name, told, flush=True)
    for name, spent in speeds(models, given.rounds).items():
        rows[name]["word"] = spent
    write(f"latin_{given.kind}", rows, given.json)


if __name__ == "__main__":
    main()
