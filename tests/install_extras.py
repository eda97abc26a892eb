"""Install extras into fresh environments, each by itself, and run all that `doctor` says of them.

    python tests/install_extras.py cpu cpu,evaluate cpu,export,tensorrt-rtx [--torch 2.13.0]
    python tests/install_extras.py --lowest cpu cpu,decode cpu,export

Takes minutes and gigabytes, so it is no test; those block imports instead (test_extras.py). Run it where all
extras are installed. PyTorch is installed first, so that pip's settings decide which build it is. With
--lowest each library is installed in the lowest version that setup.cfg allows, by uv; the lowest PyTorch
brings CUDA, 8 GB on disk. Where the extra `test` is among them, tests of the other extras run too,
with the lowest test tools.
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
# tests of an extra that take a minute or two; what `doctor` says covers the others
TESTS = {
    "cpu": ("tests/runtime/test_recognizer.py", "tests/runtime/test_pipeline.py"),
    "decode": ("tests/runtime/decoding",),
    "export": ("tests/export/test_export.py",),
    "serve": ("tests/serving/test_serve.py",),
    "client": ("tests/test_client.py",),
}


def copy_of_the_toolkit(folder: Path) -> None:
    """What is installed, copied, since setuptools leaves its work in the folder that it installs from."""
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "crnn_deploy", folder / "crnn_deploy", ignore=shutil.ignore_patterns("__pycache__")
    )


def tried(extras: str, folder: Path, inputs: Path, torch: str, lowest: bool) -> bool:
    """Whether everything is as `doctor` says with these extras alone, and their tests pass."""
    venv.create(folder, with_pip=True)
    source = folder / "source"
    source.mkdir()
    copy_of_the_toolkit(source)
    python = str(folder / "bin" / "python")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if lowest:
        uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python]
        installs = [[*uv, "--resolution", "lowest-direct", f"{source}[{extras}]"]]
    else:
        pip = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
        wants_torch = {"export", "train"} & set(extras.split(","))
        installs = [*([[*pip, f"torch=={torch}"]] if wants_torch else []), [*pip, f"{source}[{extras}]"]]
    for install in installs:
        subprocess.run(install, check=True, env=environment)
    subprocess.run([python, "-m", "pip", "check"], check=True, env=environment)
    lines = [python, str(ROOT / "tests" / "command_lines.py"), str(inputs)]
    done = subprocess.run(lines, stdout=subprocess.PIPE, text=True, env=environment)
    fine = (done.returncode, done.stdout) == (0, "")
    print(f"[{extras}]: {'as doctor says' if fine else done.stdout}", flush=True)
    if "test" in extras.split(","):
        tests = [path for extra in extras.split(",") for path in TESTS.get(extra, ())]
        line = [python, "-m", "pytest", "-q", *tests]
        fine = subprocess.run(line, cwd=ROOT, env=environment).returncode == 0 and fine
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("extras", nargs="+", help="joined by commas")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions that setup.cfg allows")
    parser.add_argument("--torch", default="2.13.0", help="its version, as in constraints.txt")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        inputs = Path(made) / "inputs"
        inputs.mkdir()
        make_inputs(inputs)
        fine = [
            tried(extras, Path(made) / extras.replace(",", "-"), inputs, arguments.torch, arguments.lowest)
            for extras in arguments.extras
        ]
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
