"""Whether a wheel and an sdist hold what they should.

    python tests/built_files.py dist/crnn_deploy-0.2.0-py3-none-any.whl dist/crnn_deploy-0.2.0.tar.gz

The sdist has the files that git has (where this is a clone); the wheel has the package's; of the sdist
the same wheel is built.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "crnn_deploy"


def files_of_git() -> set[str] | None:
    """What git has or would have of the working tree; None where this is no clone."""
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(line, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    [top] = folder.iterdir()
    return top


def files_below(folder: Path) -> set[str]:
    """Without what setuptools adds."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if name != "PKG-INFO" and not name.startswith(f"{PACKAGE}.egg-info/")}


def record(wheel: Path) -> dict[str, str]:
    """SHA-256 of each file by name."""
    with zipfile.ZipFile(wheel) as files:
        [name] = [name for name in files.namelist() if name.endswith(".dist-info/RECORD")]
        rows = csv.reader(files.read(name).decode().splitlines())
        return {path: digest for path, digest, _ in rows if path != name}


def wheel_of(source: Path, folder: Path) -> Path:
    line = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(source)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    [wheel] = folder.glob("*.whl")
    return wheel


def differences(wheel: Path, sdist: Path) -> list[str]:
    """A line for each thing that is wrong."""
    wrong = []
    held = record(wheel)
    with tempfile.TemporaryDirectory() as made:
        source = unpacked(sdist, Path(made, "source"))
        inside = files_below(source)
        tracked = files_of_git()
        if tracked is None:
            print("no clone of git: what the sdist holds is not compared")
        else:
            wrong += [f"the sdist lacks {name}" for name in sorted(tracked - inside)]
            wrong += [f"the sdist holds {name}, which git has not" for name in sorted(inside - tracked)]
        package = {name for name in inside if name.startswith(f"{PACKAGE}/")}
        wheels = {name for name in held if name.startswith(f"{PACKAGE}/")}
        wrong += [f"the wheel lacks {name}" for name in sorted(package - wheels)]
        wrong += [f"the wheel holds {name}, which the sdist has not" for name in sorted(wheels - package)]
        for name in ("LICENSE", "THIRD_PARTY.md"):
            if not any(path.endswith(f".dist-info/licenses/{name}") for path in held):
                wrong.append(f"the wheel lacks {name}")
        again = record(wheel_of(source, Path(made, "wheel")))
    wrong += [
        f"{name}: another file of the sdist's wheel" for name, _ in sorted(again.items() ^ held.items())
    ]
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether a wheel and an sdist hold what they should.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("sdist", type=Path)
    arguments = parser.parse_args()
    wrong = differences(arguments.wheel, arguments.sdist)
    for line in wrong:
        print(line)
    if not wrong:
        print(f"{arguments.wheel.name}: {len(record(arguments.wheel))} files, and the sdist builds the same")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
