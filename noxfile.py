"""The jobs of the project, each in one place: `nox` runs those of the gate, `nox --list` says what there is.

Jobs run in the environment that nox stands in (extras `dev`, `test` and all others), so that PyTorch is
installed once. `dist`, `lowest` and `pythons` make environments of their own, outside the repository.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYTHON = sys.executable
PYTHONS = ("3.11", "3.12", "3.13")  # those of setup.cfg
# all extras that run without a GPU, as they are installed together; the last brings the tests
EXTRAS = (
    *("cpu", "openvino", "cpu,decode", "cpu,evaluate", "cpu,export", "cpu,train", "cpu,serve,client"),
    *("cpu,triton", "cpu,ray", "cpu,export,tensorrt-rtx"),
    "cpu,decode,evaluate,export,train,serve,client,triton,ray,test",
)

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "dist", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.run(PYTHON, "-m", "ruff", "check", ".")
    session.run(PYTHON, "-m", "ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.run(PYTHON, "-m", "mypy", "--strict")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, by the command of the README; `nox -s tests -- tests/runtime` runs some."""
    session.run(PYTHON, "-m", "pytest", "-q", "-n", "2", *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """What takes seconds: rooms, names, documents, the public names and the project's own files."""
    names = ("layers", "names", "documents", "public_api", "project_files", "third_party")
    session.run(PYTHON, "-m", "pytest", "-q", *(f"tests/test_{name}.py" for name in names))


@nox.session
def site(session: nox.Session) -> None:
    """The documents as a site, in .site/ (extra `docs`)."""
    session.run(PYTHON, "-m", "mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def dist(session: nox.Session) -> None:
    """Wheel, sdist and SBOM in dist/, checked; the wheel alone reads in a fresh environment."""
    wheel, sdist = _built(session)
    session.run(PYTHON, "-m", "twine", "check", "--strict", wheel, sdist)
    session.run(PYTHON, "-m", "check_wheel_contents", wheel)
    session.run(PYTHON, "tests/built_files.py", wheel, sdist)
    session.run(PYTHON, "tests/wheel_alone.py", wheel, "--sbom", wheel.replace(".whl", ".cdx.json"))


@nox.session
def lowest(session: nox.Session) -> None:
    """Extras in the lowest versions that setup.cfg allows; 10 GB, or `-- cpu,decode` for some."""
    session.run(PYTHON, "tests/install_extras.py", "--lowest", *(session.posargs or EXTRAS))


@nox.session
def pythons(session: nox.Session) -> None:
    """The wheel alone on each Python of setup.cfg on this machine; wheels of all that is pinned."""
    wheel, _ = _built(session)
    extras = [f"--extra={name}" for name in f"{EXTRAS[-1]},dev,docs".split(",")]
    for version in PYTHONS:
        pinned = (*extras, "-c", "constraints.txt", "--only-binary=:all:", f"--python-version={version}.5")
        session.run(PYTHON, "-m", "uv", "pip", "compile", "-q", *pinned, "setup.cfg", silent=True)
        session.run(PYTHON, "tests/wheel_alone.py", wheel, "--python", version)


@nox.session
def api(session: nox.Session) -> None:
    """Write the snapshot of the public names anew."""
    session.run(PYTHON, "tests/public_api.py", "--write")


def _built(session: nox.Session) -> tuple[str, str]:
    """The paths of wheel and sdist, built from the tree as it is."""
    for folder in ("build", "dist"):  # what an earlier build left would go in
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    session.run(PYTHON, "-m", "build", "--no-isolation", "--wheel", "--sdist", silent=True)
    [wheel], [sdist] = (ROOT / "dist").glob("*.whl"), (ROOT / "dist").glob("*.tar.gz")
    return str(wheel), str(sdist)
