"""Install a wheel alone into a fresh environment outside the repository, and do there what the README shows.

    python tests/wheel_alone.py dist/crnn_deploy-0.2.0-py3-none-any.whl [--python 3.13] [--sbom FILE]

It runs the README's Python, `doctor` and `infer` on the example images, which must read what
`examples/labels.txt` says but for a few. Another Python than this one must be on the machine; where it is
not, a line says so.
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
from pathlib import Path

ROOT = Path(__file__).parents[1]
FEWEST = 9  # of the 12 example images, read as they are labelled


def readme_python() -> str:
    [code] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    return str(code)


def interpreter(version: str) -> str | None:
    """The path of a Python on this machine, in the search path or among those of pyenv."""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for path in (shutil.which(f"python{version}"), *map(str, pyenv)):
        # a shim of pyenv is there for versions that do not run
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


def run(line: list[str], folder: Path) -> str:
    """What a command prints, outside the repository and without its modules."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["CRNN_DEPLOY_CACHE"] = str(folder)
    done = subprocess.run(line, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def right(output: str) -> int:
    """How many example images `infer --format jsonl` read as they are labelled."""
    lines = (ROOT / "examples" / "labels.txt").read_text("utf-8").splitlines()
    labels = dict(line.split(" ", 1) for line in lines)
    read = [json.loads(line) for line in output.splitlines()]
    assert len(read) == len(labels)
    return sum(record["text"] == labels[f"images/{Path(record['path']).name}"] for record in read)


def tried(wheel: Path, python: str, folder: Path, sbom: Path | None) -> None:
    shutil.copytree(ROOT / "examples", folder / "examples")
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
    inside = folder / "venv" / "bin"
    pip = [str(inside / "pip"), "install", "-q", "-c", str(ROOT / "constraints.txt")]
    run([*pip, f"{wheel.resolve()}[cpu]"], folder)
    run([str(inside / "pip"), "check"], folder)
    version = run([str(inside / "python"), "--version"], folder).strip()
    said = run([str(inside / "python"), "-c", readme_python()], folder)
    print(f"{version}: the README's lines print {said.strip()[:70]}")
    run([str(inside / "crnn-deploy"), "doctor"], folder)
    count = right(run([str(inside / "crnn-deploy"), "infer", "--format", "jsonl", "examples/images"], folder))
    print(f"{version}: infer reads {count} of 12 example images as they are labelled")
    if count < FEWEST:
        raise SystemExit(1)
    if sbom is not None:
        write_sbom(inside / "python", sbom)


def write_sbom(python: Path, path: Path) -> None:
    """What stands in the environment, but for pip and setuptools that came with it, as CycloneDX."""
    subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", "pip", "setuptools"], check=True)
    line = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--validate"]
    subprocess.run([*line, "--output-file", str(path), str(python)], check=True)
    components = json.loads(path.read_text("utf-8"))["components"]
    print(f"{path.name}: {', '.join(sorted(one['name'] for one in components))}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Install a wheel alone, and do there what the README shows.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", help="its version, such as 3.13; by default this one")
    parser.add_argument("--sbom", type=Path, help="file to write what was installed to, as CycloneDX")
    arguments = parser.parse_args()
    python = interpreter(arguments.python) if arguments.python else sys.executable
    if python is None:
        print(f"Python {arguments.python} is not on this machine: not run")
        return
    with tempfile.TemporaryDirectory() as made:
        tried(arguments.wheel, python, Path(made), arguments.sbom)


if __name__ == "__main__":
    main()
