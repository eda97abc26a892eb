"""What the choices of the Latin training are worth: network sizes, sources of images, and their order.

    python -m benchmarks.accuracy.latin_choices sizes|sources|order [--minutes 20] [--jobs 2] [--data FOLDER]
        [--out DIR] [--json FILE]

- sizes: compact networks of several sizes, all from the print model, which `training/grow.py` widens
- sources: the network of `latin` without one source of `training/latin.yaml`, or with drawn print alone
- order: the network of `latin` with all sources from the first step; with print and documents alone for the
  first half of the time; or with the images that it misreads after the first half as one more source

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
import shutil
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
from crnn_deploy.files import sha256
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
Sources = list[dict[str, Any]]
Schedule = dict[str, Any]
SCENE_WORDS = "scene_words_"  # sets that count as one
PROBE = 64  # steps that tell how long one takes: a whole window of latin.yaml, since these are drawn whole
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
    without_at_first: frozenset[str] = frozenset()  # in the first half of the time
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


def sources(without: frozenset[str]) -> Sources:
    found: Sources = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["train"]
    left_out = {place for name in without for place in SOURCES[name]}
    return [source for place, source in enumerate(found) if place not in left_out]


def config_of(path: Path, start: Path, train: Sources, steps: int, schedule: Schedule, seed: int = 0) -> Path:
    """A training in the folder of the file's name without its end; with another seed it sees other images."""
    plain = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    plain["seed"] += seed
    plain["start"]["checkpoint"] = str(start)
    plain |= {"out": str(path.with_suffix("")), "train": train}
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


def trained(choice: Choice, out: Path, minutes: float) -> tuple[Path, dict[str, Any]]:
    """The exported network after its training, and what the training was; one that is there is taken.

    Raises SystemExit where it was trained for another time, or with another configuration.
    """
    folder = out / choice.file
    model, told = folder / "model.onnx", folder / "told.json"
    asked = {"minutes": minutes, "configuration": sha256(CONFIG)}
    if not told.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
        folder.mkdir(parents=True)
        training = Training(choice, folder)
        checkpoint, done = (
            training.whole(60 * minutes) if not choice.halves else training.halves(60 * minutes)
        )
        training.run("-m", "crnn_deploy", "export", "--checkpoint", checkpoint, "-o", model)
        told.write_text(json.dumps(asked | done))
    found: dict[str, Any] = json.loads(told.read_text())
    if any(found.pop(key) != value for key, value in asked.items()):
        raise SystemExit(f"{folder} holds a training of other minutes, or of another latin.yaml; remove it")
    return model, found


class Training:
    """Trainings of one choice that spend a given CPU time together."""

    def __init__(self, choice: Choice, folder: Path) -> None:
        self._choice, self._folder = choice, folder
        self._start = folder / "start.pth"
        grown = ("--widths", choice.widths, "--hidden", choice.hidden)
        self.run("training/grow.py", PRINT, self._start, *grown)

    def run(self, *command: object) -> float:
        return run(command, self._folder / "log")

    def whole(self, seconds: float) -> tuple[Path, dict[str, Any]]:
        """The checkpoint, and what the training was."""
        train = sources(self._choice.without)
        begins, step = self._costs("probe", train)
        steps = round((seconds - begins) / step)
        falls = {"name": "trapezoid", "warmup": WARMUP, "decay": 0.5}
        checkpoint, spent = self._trained("whole", self._start, train, steps, falls)
        return checkpoint, {"steps": steps, "training_cpu_seconds": round(spent)}

    def halves(self, seconds: float) -> tuple[Path, dict[str, Any]]:
        """As `whole`, of two trainings of half the time each; the second starts with the first's weights."""
        choice = self._choice
        train = sources(choice.without | choice.without_at_first)
        begins, step = self._costs("probe-first", train)
        first = round((seconds / 2 - begins) / step)
        flat = {"name": "constant", "warmup": WARMUP}
        middle, spent = self._trained("first", self._start, train, first, flat)
        train = sources(choice.without)
        if choice.hard:
            model, hard = self._folder / "first.onnx", self._folder / "misread.lmdb"
            spent += self.run("-m", "crnn_deploy", "export", "--checkpoint", middle, "-o", model)
            config = self._folder / "first.yaml"
            spent += self.run("training/misread.py", config, model, hard, "--drawn", HARD_DRAWN)
            train = [*train, {"path": str(hard), "weight": HARD_WEIGHT}]
        begins, step = self._costs("probe-second", train)
        second = round((seconds - spent - begins) / step)
        falls = {"name": "trapezoid", "warmup": WARMUP // 5, "decay": 1.0}
        checkpoint, more = self._trained("second", middle, train, second, falls, seed=1)
        return checkpoint, {"steps": first + second, "training_cpu_seconds": round(spent + more)}

    def _trained(
        self, name: str, start: Path, train: Sources, steps: int, schedule: Schedule, seed: int = 0
    ) -> tuple[Path, float]:
        """Checkpoint and CPU-seconds."""
        config = config_of(self._folder / f"{name}.yaml", start, train, steps, schedule, seed)
        spent = self.run("-m", "crnn_deploy", "train", "--config", config)
        return config.with_suffix("") / "last.pth", spent

    def _costs(self, name: str, train: Sources) -> tuple[float, float]:
        """CPU-seconds of a training's begin and of a step."""
        short = {"name": "trapezoid", "warmup": PROBE // 4, "decay": 0.5}
        one, two = (
            self._trained(f"{name}-{steps}", self._start, train, steps, short)[1]
            for steps in (PROBE, 2 * PROBE)
        )
        step = (two - one) / PROBE
        return one - PROBE * step, step


def held_back_sets(data: Path) -> dict[str, Dataset]:
    return {
        path.parent.name: open_dataset(str(path.parent), kind="tabs")
        for path in sorted(data.glob("*/labels.tsv"))
        if path.parent.name.startswith(("dev_", SCENE_WORDS))
    }


def together(scores: dict[str, Score]) -> dict[str, Score]:
    """The same scores, with the sets of scene words as one."""
    parts = [score for name, score in scores.items() if name.startswith(SCENE_WORDS)]
    others = {name: score for name, score in scores.items() if not name.startswith(SCENE_WORDS)}
    return others | ({"scene words": sum(parts, Score())} if parts else {})


def accuracies(model: Path, data: Path) -> dict[str, Any]:
    with closing(Recognizer.load(model)) as recognizer:
        work = operations(model, recognizer.manifest, [100])[100]
        drawn = drawn_sets(recognizer.manifest.alphabet, 1000)
        sets = {name: drawn[name] for name in DRAWN} | held_back_sets(data)
        scores = together(dict(evaluate(recognizer, sets, chunk=256).by_group))
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
        made = list(pool.map(lambda choice: trained(choice, given.out, given.minutes), compared))
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
