"""`dataset pack`: the same bytes and texts come out, however often it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crnn_deploy.cli.main import main
from crnn_deploy.datasets import DatasetInvalid, Sample, open_dataset
from crnn_deploy.datasets import pack as pack_module
from crnn_deploy.datasets.pack import pack
from crnn_deploy.files import OutputExists, OutputUnwritable
from crnn_deploy.runtime.images.pixels import Source, read_image

DATA = Path(__file__).parents[3] / "shared" / "data"


def png(value: int) -> bytes:
    """A PNG that no other value gives."""
    pixels = np.frombuffer(value.to_bytes(4), np.uint8).reshape(1, 4)
    return cv2.imencode(".png", pixels)[1].tobytes()


class Listed:
    """Samples that are there already, and what was asked for."""

    def __init__(self, rows: Sequence[tuple[Source, str]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return Sample(*self.rows[index], f"#{index}")


def raw(path: Path) -> dict[bytes, bytes]:
    """Every key and value of an LMDB."""
    with (
        lmdb.open(str(path), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return dict(transaction.cursor())


def expected(rows: Sequence[tuple[bytes, str]]) -> dict[bytes, bytes]:
    """What an LMDB of these samples holds, by the format's definition."""
    values = {b"num-samples": str(len(rows)).encode()}
    for number, (data, text) in enumerate(rows, 1):
        values |= {f"image-{number:09d}".encode(): data, f"label-{number:09d}".encode(): text.encode()}
    return values


def holds(path: Path, rows: Sequence[tuple[bytes, str]]) -> bool:
    found = raw(path)
    assert found.pop(b"crnn-deploy-pack")
    return found == expected(rows)


ROWS = [(png(number), f"text {number} é") for number in range(2500)]


@given(st.lists(st.text(), min_size=1, max_size=20))
@settings(deadline=None)
def test_what_is_packed_is_read_again(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("pack") / "x.lmdb"
    rows = [(png(number), text) for number, text in enumerate(texts)]
    assert pack(Listed(rows), path).written == len(rows)
    assert holds(path, rows)
    dataset = open_dataset(str(path))
    assert [(dataset[at].image, dataset[at].text) for at in range(len(dataset))] == rows


def test_files_keep_their_bytes_and_arrays_their_pixels(tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (9, 30, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(jpeg)
    sources: list[Source] = [str(tmp_path / "a.jpg"), tmp_path / "a.jpg", bytearray(jpeg), memoryview(jpeg)]
    decoded: list[Source] = [pixels, pixels[:, :, 0], Image.fromarray(pixels)]
    pack(Listed([(source, "x") for source in (*sources, *decoded)]), tmp_path / "x.lmdb")
    dataset = open_dataset(str(tmp_path / "x.lmdb"))
    assert [dataset[at].image for at in range(4)] == [jpeg] * 4
    for at, source in enumerate(decoded, 4):
        image = dataset[at].image
        assert isinstance(image, bytes) and image.startswith(b"\x89PNG")
        assert np.array_equal(read_image(image), read_image(source))


def test_what_cannot_be_read_is_left_out_and_told(tmp_path: Path) -> None:
    floats = np.zeros((2, 2), np.float32)
    images: list[Source] = [png(0), str(tmp_path / "gone.png"), png(2)[:-5], floats, png(4)]
    rows = [(image, str(at)) for at, image in enumerate(images)]
    messages: list[str] = []
    steps: list[None] = []
    packed = pack(
        Listed(rows), tmp_path / "x.lmdb", failed=messages.append, progress=lambda: steps.append(None)
    )
    assert (packed.read, packed.written, packed.failed, packed.whole) == (5, 2, 3, True)
    assert "gone.png" in messages[0] and messages[1].startswith("#2: ") and len(messages) == 3
    assert len(steps) == 5
    assert holds(tmp_path / "x.lmdb", [(png(0), "0"), (png(4), "4")])


def test_images_of_too_many_pixels_are_left_out(tmp_path: Path) -> None:
    messages: list[str] = []
    packed = pack(Listed([(png(0), "0")]), tmp_path / "x.lmdb", max_pixels=1, failed=messages.append)
    assert packed.failed == 1 and "more than the limit of 1" in messages[0]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.lmdb"
    pack(Listed(ROWS[:3]), path)
    before = raw(path)
    with pytest.raises(OutputExists, match="--resume"):
        pack(Listed(ROWS[3:5]), path)
    with pytest.raises(DatasetInvalid, match="packed from 3 samples, this dataset has 2"):
        pack(Listed(ROWS[3:5]), path, resume=True)
    with pytest.raises(DatasetInvalid, match="packed from another dataset"):
        pack(Listed(ROWS[3:6]), path, resume=True)
    assert raw(path) == before
    assert pack(Listed(ROWS[:3]), path, resume=True).whole
    assert raw(path) == before

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    (tmp_path / "file").touch()
    with lmdb.open(str(tmp_path / "foreign")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num-samples", b"7")
    for name, kind in (("folder", DatasetInvalid), ("file", OutputUnwritable), ("foreign", DatasetInvalid)):
        with pytest.raises(OutputExists):
            pack(Listed(ROWS[:3]), tmp_path / name)
        with pytest.raises(kind, match=name):
            pack(Listed(ROWS[:3]), tmp_path / name, resume=True)
    assert raw(tmp_path / "foreign") == {b"num-samples": b"7"}
    with pytest.raises(OutputUnwritable):
        pack(Listed(ROWS[:3]), tmp_path / "no" / "such" / "x.lmdb")


@pytest.mark.parametrize(
    "progress",
    [
        *(b"9" * 5000, b"[" * 5000, b"\xff", b"[]", b'{"total": "1"}'),
        b'{"total": 1, "read": 9, "written": 9, "digest": ""}',
    ],
    ids=range(6),
)
def test_a_progress_that_is_none_is_told(tmp_path: Path, progress: bytes) -> None:
    path = tmp_path / "x.lmdb"
    with lmdb.open(str(path), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"crnn-deploy-pack", progress)
    with pytest.raises(DatasetInvalid, match="was not written by dataset pack"):
        pack(Listed([(png(1), "x")]), path, resume=True)


def test_the_map_grows_as_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_FIRST_MAP", 2**16)
    monkeypatch.setattr(pack_module, "_COMMIT_BYTES", 2**18)
    noise = np.random.RandomState(0).randint(0, 256, (30, 100, 100), np.uint8)
    rows = [(cv2.imencode(".png", pixels)[1].tobytes(), str(at)) for at, pixels in enumerate(noise)]
    for _ in range(2):  # resumed, the map is as large as the file
        pack(Listed(rows), tmp_path / "x.lmdb", resume=True)
    assert holds(tmp_path / "x.lmdb", rows)
    assert (tmp_path / "x.lmdb" / "data.mdb").stat().st_size < 2**20


def test_a_full_disk_is_one_line_and_can_be_resumed(tmp_path: Path) -> None:
    code = f"""if True:
        import resource, signal
        from pathlib import Path
        from test_datasets_pack import Listed, ROWS, pack
        from crnn_deploy.errors import CrnnDeployError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try: pack(Listed(ROWS), Path({str(tmp_path / "x.lmdb")!r}))
        except CrnnDeployError as error: print(error)
    """
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("cannot write ") and run.stdout.count("\n") == 1
    with pytest.raises(DatasetInvalid, match="not whole yet"):
        open_dataset(str(tmp_path / "x.lmdb"))
    pack(Listed(ROWS), tmp_path / "x.lmdb", resume=True)
    assert holds(tmp_path / "x.lmdb", ROWS)


def test_two_packs_into_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "x.lmdb"
    other = (
        "from pathlib import Path; from test_datasets_pack import Listed, ROWS, pack\n"
        f"pack(Listed(ROWS), Path({str(path)!r}), resume=True)"
    )

    def run_other() -> None:
        if not ran:
            ran.append(
                subprocess.run(
                    [sys.executable, "-c", other], cwd=Path(__file__).parent, timeout=120
                ).returncode
            )

    ran: list[int] = []
    with pytest.raises(DatasetInvalid, match="another process packs into it"):
        pack(Listed(ROWS), path, progress=run_other)
    assert ran == [0]
    assert holds(path, ROWS)


class Deadly(Listed):
    """Kills its process, as `kill -9` does, when a sample is asked for."""

    def __init__(self, rows: Sequence[tuple[Source, str]], at: int) -> None:
        super().__init__(rows)
        self.at = at

    def __getitem__(self, index: int) -> Sample:
        if index == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_pack_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.lmdb"
    rows: list[tuple[Source, str]] = [
        (b"broken" if at % 7 == 3 else data, text) for at, (data, text) in enumerate(ROWS)
    ]
    good = [row for at, row in enumerate(ROWS) if at % 7 != 3]
    for at in (0, 999, 1000, 1001, 1001, 2499):
        if not (child := os.fork()):
            pack(Deadly(rows, at), path, resume=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with pytest.raises(DatasetInvalid):
            open_dataset(str(path))
    messages: list[str] = []
    packed = pack(Listed(rows), path, resume=True, failed=messages.append)
    assert packed == pack(Listed(rows), tmp_path / "y.lmdb")
    assert packed.failed == len(rows) - len(good)
    assert 0 < len(messages) < packed.failed  # those before were told before
    assert holds(path, good)
    assert raw(path) == raw(tmp_path / "y.lmdb")


def test_a_stop_is_a_whole_number_of_samples(tmp_path: Path) -> None:
    count = 0

    def progress() -> None:
        nonlocal count
        count += 1

    packed = pack(Listed(ROWS), tmp_path / "x.lmdb", progress=progress, stopped=lambda: count == 1234)
    assert (packed.read, packed.written, packed.whole) == (1234, 1234, False)
    assert b"num-samples" not in raw(tmp_path / "x.lmdb")
    assert pack(Listed(ROWS), tmp_path / "x.lmdb", resume=True).whole
    assert holds(tmp_path / "x.lmdb", ROWS)


# the command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """labels.txt, and 4,000 images in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(4000):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "labels.txt").write_text("".join(f"{number}.png text {number}\n" for number in range(4000)))
    return folder


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["dataset", "pack", *map(str, args)])


def command(*args: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "crnn_deploy", "dataset", "pack", *map(str, args)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_a_commit(path: Path, process: subprocess.Popen[bytes], after: int) -> int:
    """Wait until the LMDB holds more samples than `after`, or the process has ended."""
    while process.poll() is None:
        try:
            found = sum(key.startswith(b"image-") for key in raw(path))
        except lmdb.Error:
            found = 0
        if found > after:
            return found
        time.sleep(0.01)
    return after


def test_the_command_resumes_after_kill_9(folder: Path, tmp_path: Path) -> None:
    path, found, kills = tmp_path / "x.lmdb", 0, 0
    while True:
        process = command(folder, "-o", path, "--resume")
        found = wait_for_a_commit(path, process, found)
        process.kill()
        _, stderr = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, stderr
        kills += 1
    assert kills
    assert holds(path, [(png(number), f"text {number}") for number in range(4000)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_in_good_order(folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "x.lmdb"
    process = command(folder, "-o", path)
    wait_for_a_commit(path, process, 0)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert (process.returncode, stdout) == (130, b"")
    assert stderr.startswith(b"stopped after ") and b"--resume goes on" in stderr
    assert run(folder, "-o", path, "--resume").exit_code == 0
    assert holds(path, [(png(number), f"text {number}") for number in range(4000)])


def test_exit_codes_and_streams(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.lmdb"
    (folder / "labels.txt").write_text("0.png zero\ngone.png gone\n")
    result = run(folder, "-o", path)
    assert (result.exit_code, result.stdout) == (1, f"{path}: 1 sample\n")
    assert result.stderr == f"no image file at {folder / 'gone.png'}\n1 of 2 images could not be read\n"
    again = run(folder, "-o", path)
    assert (again.exit_code, again.stdout, again.stderr.count("\n")) == (2, "", 1)
    (folder / "labels.txt").write_text("0.png zero\n")
    assert run(folder, "-o", tmp_path / "y.lmdb", "--kind", "names").exit_code == 0
    assert run(tmp_path / "y.lmdb", "-o", tmp_path / "z.lmdb").exit_code == 0
    assert holds(tmp_path / "z.lmdb", [(png(0), "zero")])


def test_progress_is_shown_on_a_terminal(folder: Path, tmp_path: Path) -> None:
    from terminals import open_terminal  # other tests import this module from a process of their own

    main_end, end = open_terminal()
    process = subprocess.Popen(
        [sys.executable, "-m", "crnn_deploy", "dataset", "pack", str(folder), "-o", str(tmp_path / "x.lmdb")],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=end,
    )
    os.close(end)
    shown = b""
    try:
        while data := os.read(main_end, 1000):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(main_end)
    stdout, _ = process.communicate()
    assert b"4000/4000" in shown
    assert stdout.endswith(b": 4,000 samples\n")


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of public data is not here")
@pytest.mark.parametrize("name", ["plates_cn", "lmdb/imgs.lmdb", "scene_words_clova"])
def test_public_data_survive(tmp_path: Path, name: str) -> None:
    assert run(DATA / name, "-o", tmp_path / "x.lmdb").exit_code == 0
    before, after = open_dataset(str(DATA / name)), open_dataset(str(tmp_path / "x.lmdb"))
    assert len(before) == len(after)
    for index in range(len(before)):
        image: Any = before[index].image
        assert after[index].text == before[index].text
        assert after[index].image == (image if isinstance(image, bytes) else Path(image).read_bytes())
