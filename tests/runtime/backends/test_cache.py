"""The cache's folder: it removes nothing but its own, and nothing depends on it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends import cache

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "examples" / "images"
PART = f"{'0' * 32}.bin"


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRNN_DEPLOY_CACHE", str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture
def folder(base: Path) -> Path:
    """As the toolkit makes it."""
    assert cache.store(name(0), b"{}")
    return base / "crnn-deploy-v1"


def name(number: int, suffix: str = "json") -> str:
    return f"{hashlib.sha256(bytes([number])).hexdigest()}.{suffix}"


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def test_the_folder_is_marked_and_the_users_own(folder: Path) -> None:
    assert (folder / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache.load(name(0)) == b"{}"


def test_so_many_entries_are_kept(folder: Path) -> None:
    for number in range(40):
        assert cache.store(name(number), b"{}")
    assert len(list(folder.glob("*.json"))) == len(list(folder.glob("*.sha256"))) < 40
    assert cache.load(name(39)) == b"{}"
    assert not list(folder.glob(".*"))


def test_what_is_not_an_entry_stays(base: Path, folder: Path, tmp_path: Path) -> None:
    """Files of the user's with the suffixes of entries, beside the cache and in it, links and folders."""
    precious = [
        where / file for where in (base, folder) for file in ("model.onnx", "a.json", "b.bin", "c.sha256")
    ]
    (tmp_path / "outside").mkdir()
    linked = tmp_path / "outside" / name(200, "onnx")
    precious += [linked, tmp_path / "outside" / f".{'a' * 16}.tmp"]
    for path in precious:
        path.write_bytes(b"precious")
        age(path, 1e6)
    (folder / name(201, "onnx")).symlink_to(linked)
    age(folder / name(201, "onnx"), 1e6)
    (folder / name(202)).mkdir()
    (folder / f".{'b' * 16}.tmp").symlink_to(tmp_path / "outside", target_is_directory=True)
    for number in range(40):
        assert cache.store(name(number), b"{}")
    assert all(path.read_bytes() == b"precious" for path in precious)
    assert (folder / name(201, "onnx")).is_symlink() and (folder / name(202)).is_dir()


def test_files_of_killed_runs_go_once_they_are_old(folder: Path) -> None:
    left = [folder / file for file in (f".{'a' * 16}.tmp", PART, f"{name(7)}.sha256")]
    for path in left:
        path.touch()
    assert cache.store(name(1), b"{}")
    assert all(path.exists() for path in left)  # a run that goes on may be writing them
    for path in left:
        age(path, 7200)
    assert cache.store(name(2), b"{}")
    assert not any(path.exists() for path in left)


def test_a_part_lives_as_long_as_its_entry(folder: Path) -> None:
    parts = [f"{number:032x}.bin" for number in range(2)]
    for number, part in enumerate(parts):
        with cache.making(name(number, "onnx"), part) as path:
            assert path is not None
            path.write_bytes(b"graph")
            path.with_name(part).write_bytes(b"weights")
    for file in folder.iterdir():
        age(file, 7200)
    for number in range(2, 31):  # with the two graphs and the first entry, as many as are kept
        assert cache.store(name(number), b"{}")
    assert cache.find(name(1, "onnx")) is not None and (folder / parts[1]).exists()
    for number in range(31, 70):
        assert cache.store(name(number), b"{}")
    assert cache.find(name(1, "onnx")) is None and not list(folder.glob("*.bin"))


def test_what_ends_badly_leaves_nothing(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(RuntimeError), cache.making(name(1, "onnx"), PART) as path:
        assert path is not None
        path.write_bytes(b"graph")
        path.with_name(PART).write_bytes(b"weights")
        raise RuntimeError
    assert sorted(folder.iterdir()) == before


def strangers(base: Path) -> None:
    """A folder of the cache's name, with files of somebody's."""
    (base / "crnn-deploy-v1").mkdir(parents=True)
    (base / "crnn-deploy-v1" / "thesis.json").touch()


def linked(base: Path) -> None:
    base.mkdir()
    (base.parent / "elsewhere").mkdir()
    (base / "crnn-deploy-v1").symlink_to(base.parent / "elsewhere")


def shared(base: Path) -> None:
    (base / "crnn-deploy-v1").mkdir(parents=True)
    (base / "crnn-deploy-v1").chmod(0o777)


def a_file(base: Path) -> None:
    base.touch()


@pytest.mark.parametrize("make", [strangers, linked, shared, a_file])
def test_a_folder_that_is_not_the_caches_is_not_used(base: Path, make: Callable[[Path], None]) -> None:
    make(base)
    assert not cache.store(name(1), b"{}")
    assert cache.load(name(1)) is None
    with cache.making(name(1)) as path:
        assert path is None
    assert not (base.parent / "elsewhere").exists() or not list((base.parent / "elsewhere").iterdir())


def test_a_file_too_large_to_be_written_is_not_kept(tmp_path: Path) -> None:
    """As on a full disk; the model is read all the same."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from crnn_deploy import Recognizer; print(Recognizer().read([sys.argv[1]])[0].text)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, IMAGES / "01.png"], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("Printed\n", "")
    [folder] = (tmp_path / "base").iterdir()
    assert [path.name for path in folder.iterdir()] == ["CACHEDIR.TAG"]


# a user whom the system does not know, who may read everything and write nothing
CAPABILITY = "-all,+dac_read_search"
STRANGER = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
STRANGER += [f"--{kind}={CAPABILITY}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]

NOWHERE = {
    "XDG_CACHE_HOME": "/proc/none",
    "TMPDIR": "/proc/none",
    "NUMBA_CACHE_DIR": "/proc/none",
    "MPLCONFIGDIR": "/proc/none",
}


@pytest.mark.parametrize(
    "command",
    [
        ["infer", "IMAGE"],
        ["infer", "--backend", "openvino", "IMAGE"],
        ["infer", "--backend", "auto", "IMAGE"],
        ["infer", "--decoder", "beam", "IMAGE"],
        ["evaluate", str(DEFAULT), "LABELS"],
    ],
    ids=lambda command: " ".join(word for word in command[:3] if "/" not in word),
)
@pytest.mark.parametrize("home", ["none", "unknown user"])
def test_nothing_can_be_written(tmp_path: Path, command: list[str], home: str) -> None:
    """No home, no temporary folder, no cache: what reads images reads them."""
    as_user = STRANGER if home == "unknown user" else []
    if as_user and (
        os.getuid() or not shutil.which("setpriv") or subprocess.run([*STRANGER, "true"]).returncode
    ):
        pytest.skip("only root may become another user, and only where the system lets it")
    if as_user and subprocess.run([*STRANGER, "test", "-r", str(DEFAULT)]).returncode:
        pytest.skip("this checkout lies where other users may not look")
    if "openvino" in command:
        pytest.importorskip("crnn_deploy.runtime.backends.openvino").import_openvino()
    if "evaluate" in command:
        pytest.importorskip("rapidfuzz")
    with_images = tmp_path / "images"
    shutil.copytree(IMAGES, with_images)
    shutil.copy(IMAGES.parent / "labels.txt", tmp_path / "labels.txt")
    words = {"IMAGE": str(with_images / "01.png"), "LABELS": str(tmp_path / "labels.txt")}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **NOWHERE}
    if home == "none":
        environment["HOME"] = "/proc/none"
    done = subprocess.run(
        [*as_user, sys.executable, "-m", "crnn_deploy", *(words.get(word, word) for word in command)],
        cwd=with_images,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Printed" in done.stdout or "exact" in done.stdout
    assert "Traceback" not in done.stderr
