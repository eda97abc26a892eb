"""Whether the wheel installs on an emulated ARM64 Debian, and reads the example images as it does here.

    python -m container.arm64 FOLDER [--cpu max] [--cpu cortex-a72] [--json FOLDER]

Run it as root on an x86 Debian with the packages debootstrap and qemu-user-static, in an environment that has
the toolkit's extra [cpu]. The script does this:

1. It makes an arm64 Debian in FOLDER. This takes some minutes; a second run uses the same Debian again.
2. It builds the wheel here, and installs it there with [cpu] from binary wheels, pinned by constraints.txt.
3. For each --cpu that qemu imitates, it runs `doctor` and `infer` inside, and `infer` here.

In fp32 and in INT8, the texts must be the same, and the pixels that the network gets must be equal to the
bit. Confidences must agree within a tolerance. Records must be equal to the bit in batches of 1 and 8. The
script prints what it found. If something differs, the exit code is 1.

Emulated are all instructions of all programs inside, by qemu-user, and /proc/cpuinfo, which shows the CPU's
features as qemu reports them. The kernel is not emulated; it is this machine's. So no speed is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container.containerfile import files_of
from container.emulation import QEMU, Guest, packages_missing, understood
from container.run_steps import ROOT, Findings

__all__ = ["TOLERANCE", "Difference", "difference"]

SUITE = "bookworm"
IMAGES = "examples/images"
VENV = "/opt/crnn-deploy"
# the largest difference of a confidence: sums round otherwise, and in INT8 a level may round to its neighbour
TOLERANCE = {"fp32": 1e-4, "int8": 0.02}

# run by either side's Python; prints the header of a result, a digest of each image's pixels, and how far
# OpenCV's own linear resize of noise is from the one that the toolkit takes on ARM
SIDE = """
import hashlib, json, sys
from pathlib import Path
import cv2
import numpy as np
from crnn_deploy import Recognizer
from crnn_deploy.evaluation.speed import header
from crnn_deploy.runtime.images import linear
reader = Recognizer("latin")
pixels = {path.name: hashlib.sha256(reader.prepare(path).pixels.tobytes()).hexdigest()
          for path in sorted(Path(sys.argv[1]).iterdir())}
rng, apart = np.random.default_rng(0), []
for _ in range(200):
    noise = rng.integers(0, 256, rng.integers((12, 20), (70, 300)), np.uint8)
    columns = 8 * int(rng.integers(4, 40))
    own = cv2.resize(noise, (columns, 32)).astype(int)
    apart.append(int(abs(own - linear.resized(noise, 32, columns)).max()))
resize = {"images of noise": 200, "with other pixels": sum(one > 0 for one in apart),
          "by more than a level": sum(one > 1 for one in apart), "most levels": max(apart)}
print(json.dumps({"header": header("arm64_emulated"), "pixels": pixels, "resize": resize}))
"""


@dataclass(frozen=True)
class Difference:
    """What differs between two readings of the same images."""

    texts: list[str]  # names of the images whose texts, statuses or errors differ
    confidence: float  # the largest difference


def difference(here: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]]) -> Difference:
    """What differs between the records of `infer` in two places, which give the images other paths.

    Raises ValueError where they are not of the same images in the same order.
    """
    names = [[Path(record["path"]).name for record in records] for records in (here, there)]
    if names[0] != names[1]:
        raise ValueError(f"records of {names[0]} here, and of {names[1]} there")
    pairs = list(zip(names[0], here, there, strict=True))
    texts = [name for name, one, other in pairs if any(one[key] != other[key] for key in ("text", "status"))]
    apart = [abs((one["confidence"] or 0) - (other["confidence"] or 0)) for _, one, other in pairs]
    return Difference(texts, max(apart, default=0.0))


def infer(images: str, precision: str, batch: int) -> list[str]:
    given = ["infer", images, "--format", "jsonl", "--precision", precision, "--batch", str(batch)]
    return ["-m", "crnn_deploy", *given]


def records_of(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def here(command: Sequence[str]) -> bytes:
    """What Python prints on this machine, with the toolkit of this checkout."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=settings, capture_output=True)
    if done.returncode:
        raise SystemExit(f"the toolkit does not run here:\n{done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """The toolkit's wheel, built of a copy, since setuptools leaves its work where it builds."""
    rules = (ROOT / ".containerignore").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as made:
        for name in ("crnn_deploy", "pyproject.toml", "setup.cfg", "README.md", "LICENSE", "THIRD_PARTY.md"):
            for path in files_of(ROOT, name, rules):
                place = Path(made, path)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, place)
        line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), made]
        subprocess.run(line, check=True)
    [wheel] = folder.glob("crnn_deploy-*.whl")
    return wheel


def install(guest: Guest) -> None:
    """The wheel with [cpu] into an environment of its own inside, from nothing but binary wheels."""
    folder = guest.root / "arm64"
    for old in (folder, guest.root / VENV[1:]):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir()
    wheel = build_wheel(folder)
    shutil.copyfile(ROOT / "constraints.txt", folder / "constraints.txt")
    shutil.copytree(ROOT / IMAGES, folder / "images")
    guest.run(["python3", "-m", "venv", VENV])
    pip = [f"{VENV}/bin/pip", "install", "--only-binary", ":all:", "-c", "/arm64/constraints.txt"]
    guest.run([*pip, f"/arm64/{wheel.name}[cpu]"])


def compare(guest: Guest, found: Findings) -> dict[str, Any]:
    """Run both sides and say what differs; the result as it is written."""
    python, failed = f"{VENV}/bin/python", found.failed
    # the cache would hold another CPU's graph
    settings = {"XDG_CACHE_HOME": f"/tmp/cache-{guest.cpu}"}

    def inside(command: Sequence[str]) -> bytes:
        return guest.run([python, *command], settings).stdout

    there = json.loads(inside(["-c", SIDE, "/arm64/images"]))
    result: dict[str, Any] = there["header"]
    kind = result["cpu"]
    this = json.loads(here(["-c", SIDE, IMAGES]))
    doctor = guest.run([python, "-m", "crnn_deploy", "doctor"], settings, check=False)
    found.check(f"{kind}: doctor finds that infer works", doctor.returncode == 0)
    other = [name for name, digest in this["pixels"].items() if there["pixels"].get(name) != digest]
    found.check(f"{kind}: the network gets the same pixels, to the bit", not other, ", ".join(other))
    rows: dict[str, Any] = {}
    for precision, tolerance in TOLERANCE.items():
        batches = {batch: inside(infer("/arm64/images", precision, batch)) for batch in (8, 1)}
        given = records_of(here(infer(IMAGES, precision, 8)))
        seen = difference(given, records_of(batches[8]))
        what = f"{kind}, {precision}"
        same = f"{len(given) - len(seen.texts)} of {len(given)}"
        found.check(f"{what}: the texts are the same", not seen.texts, same)
        within = f"the largest difference is {seen.confidence:.1e}"
        found.check(f"{what}: confidences within {tolerance:g}", seen.confidence <= tolerance, within)
        alike = batches[1] == batches[8]
        found.check(f"{what}: batches of 1 and 8 give the same records, to the bit", alike)
        rows[precision] = {
            **{"images": len(given), "same texts": len(given) - len(seen.texts)},
            **{"largest difference of confidence": float(f"{seen.confidence:.2g}"), "tolerance": tolerance},
            "batches of 1 and 8 equal to the bit": alike,
        }
    return {
        **result,
        "machine": f"{result['machine']}, emulated by qemu-user -cpu {guest.cpu}",
        "emulation": {
            **{
                "by": qemu_version(),
                "-cpu": guest.cpu,
                "what": "every instruction; the kernel is the host's",
            },
            **{"host": this["header"]["cpu"], "versions of the host": this["header"]["versions"]},
        },
        "speed": "not measured",
        "doctor": doctor.returncode == 0,
        "images with other pixels": other,
        "OpenCV's own linear resize": there["resize"],
        "rows": rows,
        "passed": found.failed == failed,
    }


def qemu_version() -> str:
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version (\S+)", said)
    return f"qemu-user {version[1] if version else said.strip()}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="Make the Debian in this folder. It stays there.")
    parser.add_argument(
        "--cpu",
        action="append",
        help="Let qemu imitate this CPU. Repeat it for more. By default: cortex-a72, neoverse-n1, max.",
    )
    parser.add_argument(
        "--json", type=Path, help="Write results to this folder, one file for each kind of CPU."
    )
    given = parser.parse_args()
    if missing := packages_missing():
        parser.error(f"this needs packages of Debian: apt-get install {' '.join(missing)}")
    if os.geteuid():
        parser.error("this makes a root file system and mounts in it: run it as root")
    work = given.folder.resolve()
    work.mkdir(parents=True, exist_ok=True)
    found = Findings()
    with understood():
        guest = Guest(work / "debian")
        guest.make(SUITE)
        install(guest)
        for cpu in given.cpu or ("cortex-a72", "neoverse-n1", "max"):
            guest = Guest(work / "debian", cpu)
            guest.tell_cpu(work / f"cpuinfo-{cpu}", os.cpu_count() or 1)
            result = compare(guest, found)
            if given.json is not None:
                given.json.mkdir(parents=True, exist_ok=True)
                place = given.json / f"{result['suite']}--{result['cpu']}--{result['device']}.json"
                text = json.dumps(result, indent=1, ensure_ascii=False)
                place.write_text(f"{text}\n", encoding="utf-8")
    found.say("speed on ARM: not measured, since qemu-user emulates every instruction")
    return int(found.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
