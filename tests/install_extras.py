"""Install extras into fresh environments, each by itself, and run all that `doctor` says of them.

    python tests/install_extras.py cpu cpu,evaluate cpu,export,tensorrt-rtx [--torch 2.13.0]

Takes minutes and gigabytes, so it is no test; those block imports instead (test_extras.py). Run it where all
extras are installed. PyTorch is installed first, so that pip's settings decide which build it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from command_lines import make_inputs

ROOT = Path(__file__).parents[1]


def copy_of_the_toolkit(folder: Path) -> None:
    """What is installed, copied, since setuptools leaves its work in the folder that it installs from."""
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "crnn_deploy", folder / "crnn_deploy", ignore=shutil.ignore_patterns("__pycache__")
    )


def tried(extras: str, folder: Path, inputs: Path, torch: str) -> bool:
    """Whether everything is as `doctor` says in an environment with these extras alone."""
    venv.create(folder, with_pip=True)
    source = folder / "source"
    source.mkdir()
    copy_of_the_toolkit(source)
    python = folder / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    if {"export", "train"} & set(extras.split(",")):
        subprocess.run([*install, f"torch=={torch}"], check=True, env=environment)
    subprocess.run([*install, f"{source}[{extras}]"], check=True, env=environment)
    subprocess.run([str(python), "-m", "pip", "check"], check=True, env=environment)
    lines = [str(python), str(ROOT / "tests" / "command_lines.py"), str(inputs)]
    done = subprocess.run(lines, stdout=subprocess.PIPE, text=True, env=environment)
    print(f"[{extras}]: {'as doctor says' if (done.returncode, done.stdout) == (0, '') else done.stdout}")
    return (done.returncode, done.stdout) == (0, "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("extras", nargs="+", help="joined by commas")
    parser.add_argument("--torch", default="2.13.0", help="its version, as in constraints.txt")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        inputs = Path(made) / "inputs"
        inputs.mkdir()
        make_inputs(inputs)
        fine = [
            tried(extras, Path(made) / extras.replace(",", "-"), inputs, arguments.torch)
            for extras in arguments.extras
        ]
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
