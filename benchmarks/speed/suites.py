"""All benchmarks of speed, one after another, as the committed results were measured.

    python -m benchmarks.speed.suites [SUITE ...] [--out benchmarks/results] [--data FOLDER]
        [--pyctcdecode PYTHON] [--avx2-alone]

Without a SUITE all run, which takes hours. Run nothing else meanwhile. A result is written to
`SUITE--KIND--cpu.json`, where KIND is the kind of this machine's CPU. A suite that fails does not end the
others. What a script prints goes to `.benchmarks/SUITE.log`. Then `python -m benchmarks.speed.tables` writes
the page. Suites that measure one thread are pinned to the last CPU. With --avx2-alone, KIND is `avx2-alone`,
and `benchmarks.speed.avx2_alone` runs the suites.

The script needs the extras [cpu,decode,evaluate,export,train,tensorrt-rtx,openvino]. Libraries that are only
compared with are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.committed import RESULTS
from crnn_deploy.runtime.backends.cpu import kind

ROOT = RESULTS.parents[1]
LOGS = ROOT / ".benchmarks"
AVX2_ALONE = "avx2-alone"  # a kind of its own, since a CPU that has AVX2 alone has another speed


class Suite(NamedTuple):
    """How a suite is measured."""

    options: Sequence[str] = ()
    one_thread: bool = True
    folders: Sequence[str] = ()  # of real images below --data, which are read where they are there


SCENE_WORDS = ("scene_words_clova", "scene_words_demo", "scene_words_mmocr")
SUITES = {
    "startup": Suite(),
    "shipped_models": Suite(),
    "throughput": Suite(),
    "operators": Suite(("--words", "512")),
    "latency": Suite(("--words", "50"), one_thread=False),
    "backbones": Suite(),
    "page_boxes": Suite(),
    "lstm_kernels": Suite(),
    "winograd": Suite(),
    "peers": Suite(("--words", "512", "--rounds", "3")),
    "int8": Suite(("--checkpoint", "training/latin.pth"), folders=("signed_numbers", *SCENE_WORDS)),
    "jpeg": Suite(("--images", "96"), folders=("dev_receipts_sroie", "dev_scene_ic15", *SCENE_WORDS)),
    "decode": Suite(),
    "engines": Suite(),
    "infer_stream": Suite(one_thread=False),
    "end_to_end": Suite(("--rounds", "3", "--paper-images", "10000"), one_thread=False),
    "scaling": Suite(("--rounds", "3", "--largest", "1000000"), one_thread=False),
}


def command(name: str, target: Path, data: Path) -> list[str]:
    """What measures a suite into `target`. Raises SystemExit where it cannot be pinned to a CPU."""
    suite = SUITES[name]
    options = [*suite.options]
    for folder in suite.folders:
        if (data / folder).is_dir():
            options += ["--data", str(data / folder / "images")]
    measuring = [sys.executable, "-m", f"benchmarks.speed.{name}", *options, "--json", str(target)]
    if not suite.one_thread:
        return measuring
    if shutil.which("taskset") is None:
        raise SystemExit("taskset is missing; Debian has it in util-linux")
    return ["taskset", "-c", str(max(os.sched_getaffinity(0))), *measuring]


def measure(name: str, command: Sequence[str], target: Path) -> bool:
    """Whether the suite's script ended well; its result is `target` then."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path, begun = LOGS / f"{name}.log", time.monotonic()
    with path.open("w", encoding="utf-8") as log:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
    said = str(target) if code == 0 else f"FAILED with exit code {code}; {path} says why"
    print(f"{name}, {(time.monotonic() - begun) / 60:.1f} minutes: {said}", flush=True)
    return code == 0


def name_kind(target: Path, kind: str) -> None:
    """Write the kind of CPU into a result."""
    result = json.loads(target.read_text(encoding="utf-8"))
    text = json.dumps({**result, "cpu": kind}, indent=1, ensure_ascii=False)
    target.write_text(text + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"Measure these: {', '.join(SUITES)}.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Write the results into this folder.")
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        help="Read the real images in this folder, where it is there.",
    )
    parser.add_argument(
        "--pyctcdecode", metavar="PYTHON", help="Compare with the pyctcdecode of this Python."
    )
    parser.add_argument(
        "--avx2-alone", action="store_true", help="Hide AVX-512, VNNI, bf16 and AMX from the suites."
    )
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.suites if name not in SUITES]:
        parser.error(f"there is no suite {unknown[0]}; there are {', '.join(SUITES)}")
    given.out.mkdir(parents=True, exist_ok=True)
    ended = []
    for name in given.suites or SUITES:
        measured_as = AVX2_ALONE if given.avx2_alone else kind()
        target = given.out.resolve() / f"{name}--{measured_as}--cpu.json"
        measuring = command(name, target, given.data.resolve())
        if name == "decode" and given.pyctcdecode:
            measuring += ["--pyctcdecode", given.pyctcdecode]
        if given.avx2_alone:
            measuring = [sys.executable, "-m", "benchmarks.speed.avx2_alone", *measuring]
        ended.append(measure(name, measuring, target))
        if ended[-1] and given.avx2_alone:
            name_kind(target, AVX2_ALONE)
    if not all(ended):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
