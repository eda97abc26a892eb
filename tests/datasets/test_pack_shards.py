"""`dataset pack` into shards: what the webdataset library reads, and equal bytes however it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered import GOOD, ROWS, Listed, files_of, png, samples_of

from crnn_deploy.cli.main import main
from crnn_deploy.datasets import DatasetInvalid, open_dataset
from crnn_deploy.datasets.pack_shards import pack_lmdbs, pack_tars
from crnn_deploy.datasets.shards import PackProgress
from crnn_deploy.files import OutputExists, OutputUnwritable
from crnn_deploy.runtime.images.pixels import Source


@given(st.lists(st.text(), min_size=1, max_size=20), st.integers(1, 9))
@settings(deadline=None)
def test_what_is_packed_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], each: int
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    rows: list[tuple[Source, str]] = [(png(number), text) for number, text in enumerate(texts)]
    assert pack_tars(Listed(rows), str(folder / "t"), samples_per_shard=each).written == len(rows)
    assert pack_lmdbs(Listed(rows), folder / "l", samples_per_shard=each).written == len(rows)
    assert samples_of(folder / "t") == samples_of(folder / "l") == rows
    shards = -(-len(rows) // each)
    assert len(list(folder.glob("t/*.tar"))) == len(list(folder.glob("l/*.lmdb"))) == shards


def test_the_webdataset_library_reads_the_tars(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", np.zeros((9, 30), np.uint8))[1].tobytes()
    webp = cv2.imencode(".webp", np.zeros((9, 30), np.uint8))[1].tobytes()
    grey = cv2.imencode(".pgm", np.zeros((9, 30), np.uint8))[1].tobytes()
    rows: list[tuple[Source, str]] = [(png(1), "é"), (jpeg, ""), (webp, "two\nlines"), (grey, "x")]
    pack_tars(Listed(rows), str(tmp_path / "t"), samples_per_shard=3)
    found = list(webdataset.WebDataset(str(tmp_path / "t" / "{000000..000001}.tar"), shardshuffle=False))
    assert [one["__key__"] for one in found] == [f"{at:09d}" for at in range(4)]
    assert [one[ending] for one, ending in zip(found, ("png", "jpg", "webp", "pgm"), strict=True)] == [
        image for image, _ in rows
    ]
    texts = [one["txt"].decode() if "txt" in one else json.loads(one["json"])["text"] for one in found]
    assert texts == [text for _, text in rows]
    decoded = list(
        webdataset.WebDataset(str(tmp_path / "t" / "000000.tar"), shardshuffle=False).decode("pil")
    )
    assert decoded[0]["png"].size == (4, 1) and decoded[2]["json"] == {"text": "two\nlines"}


def test_the_index_says_what_the_shards_are(tmp_path: Path) -> None:
    pack_tars(Listed(ROWS), str(tmp_path / "t"), samples_per_shard=100)
    index = json.loads((tmp_path / "t" / "shards.json").read_text())
    assert [one["nsamples"] for one in index["shardlist"]] == [100, 100, len(GOOD) - 200]
    for one in index["shardlist"]:
        data = (tmp_path / "t" / one["url"]).read_bytes()
        assert (one["filesize"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    with tarfile.open(tmp_path / "t" / "000000.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
    plain = tarfile.TarInfo("000000000.png")
    plain.size = len(png(0))
    assert (tmp_path / "t" / "000000.tar").read_bytes()[:512] == plain.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["tars", "lmdbs"])
def test_a_pack_that_is_killed_goes_on_where_it_was(tmp_path: Path, kind: str) -> None:
    def pack(rows: Listed, path: Path, **options: Any) -> PackProgress:
        if kind == "tars":
            return pack_tars(rows, str(path), samples_per_shard=30, **options)
        return pack_lmdbs(rows, path, samples_per_shard=30, **options)

    for at in (0, 29, 30, 31, 36, 36, 180, 249):
        if not (child := os.fork()):
            pack(Listed(ROWS, at), tmp_path / "x", resume=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with pytest.raises(DatasetInvalid, match="not all of its shards are packed yet"):
            open_dataset(str(tmp_path / "x"))
    messages: list[str] = []
    packed = pack(Listed(ROWS), tmp_path / "x", resume=True, failed=messages.append)
    assert packed == pack(Listed(ROWS), tmp_path / "y") == PackProgress(250, 250, len(GOOD), packed.digest)
    assert 0 < len(messages) < packed.failed  # those before were told before
    assert samples_of(tmp_path / "x") == samples_of(tmp_path / "y") == GOOD
    if kind == "tars":
        assert files_of(tmp_path / "x") == files_of(tmp_path / "y")
    assert pack(Listed(ROWS), tmp_path / "x", resume=True) == packed


def test_a_kill_between_a_shard_and_its_index_changes_nothing(tmp_path: Path) -> None:
    pack_tars(Listed(ROWS), str(tmp_path / "x"), samples_per_shard=30)
    whole = files_of(tmp_path / "x")
    index = json.loads((tmp_path / "x" / "shards.json").read_text())
    for left in range(len(index["shardlist"])):
        # as it was when shard `left` was written and not yet named, and another one was half written
        pack_tars(Listed(ROWS), str(tmp_path / "y"), samples_per_shard=30, stopped=Stopped(40 * left))
        shard = (tmp_path / "x" / f"{left:06d}.tar").read_bytes()
        (tmp_path / "y" / f"{left:06d}.tar").write_bytes(shard)
        (tmp_path / "y" / f".{left:06d}.abcd1234.tar").write_bytes(shard[:5000])
        (tmp_path / "y" / ".shards.abcd1234.json").write_bytes(b"{")
        pack_tars(Listed(ROWS), str(tmp_path / "y"), samples_per_shard=30, resume=True)
        assert files_of(tmp_path / "y") == whole
        subprocess.run(["rm", "-r", tmp_path / "y"], check=True)


class Stopped:
    """True from this sample on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("pack", [lambda rows, out, **o: pack_tars(rows, str(out), **o), pack_lmdbs])
def test_nothing_is_overwritten(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "x"
    pack(Listed(ROWS[:50]), path, samples_per_shard=20)
    before = files_of(path)
    with pytest.raises(OutputExists, match="--resume"):
        pack(Listed(ROWS[:50]), path, samples_per_shard=20)
    for rows, each, said in (
        (ROWS[:49], 20, "packed from 50 samples, this dataset has 49"),
        (ROWS[50:100], 20, "packed from another dataset"),
        (ROWS[:50], 19, "--samples-per-shard 20"),
    ):
        with pytest.raises(DatasetInvalid, match=said):
            pack(Listed(rows), path, samples_per_shard=each, resume=True)
    (path / "precious").touch()
    with pytest.raises(DatasetInvalid, match="other files in it"):
        pack(Listed(ROWS[:50]), path, samples_per_shard=20, resume=True)
    (path / "precious").unlink()
    assert {name: found for name, found in files_of(path).items() if "lock" not in name} == {
        name: found for name, found in before.items() if "lock" not in name
    }
    (path / "shards.json").unlink()
    with pytest.raises(DatasetInvalid, match="was not written by dataset pack"):
        pack(Listed(ROWS[:50]), path, samples_per_shard=20, resume=True)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetInvalid, match="is a file"):
        pack(Listed(ROWS[:50]), tmp_path / "file", resume=True)


def test_two_packs_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    ran: list[PackProgress] = []

    def run_other() -> None:
        if not ran:
            ran.append(PackProgress(0))
            ran[0] = pack_tars(Listed(ROWS), str(tmp_path / "x"), samples_per_shard=30, resume=True)

    with pytest.raises(DatasetInvalid, match="another process packs into it"):
        pack_tars(Listed(ROWS), str(tmp_path / "x"), samples_per_shard=30, progress=run_other)
    assert ran[0].whole and samples_of(tmp_path / "x") == GOOD


def test_a_text_that_has_no_bytes_is_left_out(tmp_path: Path) -> None:
    said: list[str] = []
    rows: list[tuple[Source, str]] = [(png(0), "a\ud800"), (png(1), "b")]
    assert pack_tars(Listed(rows), str(tmp_path / "x"), failed=said.append).written == 1
    assert len(said) == 1 and "half a character" in said[0]
    assert samples_of(tmp_path / "x") == [(png(1), "b")]


def test_a_full_disk_is_one_line_and_can_be_resumed(tmp_path: Path) -> None:
    code = f"""if True:
        import resource, signal
        from numbered import Listed, ROWS
        from crnn_deploy.datasets.pack_shards import pack_tars
        from crnn_deploy.errors import CrnnDeployError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try: pack_tars(Listed(ROWS), {str(tmp_path / "x")!r}, samples_per_shard=100)
        except CrnnDeployError as error: print(error)
    """
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("cannot write ") and run.stdout.count("\n") == 1
    pack_tars(Listed(ROWS), str(tmp_path / "x"), samples_per_shard=100, resume=True)
    assert samples_of(tmp_path / "x") == GOOD
    with pytest.raises(OutputUnwritable):
        pack_tars(Listed(ROWS), "/proc/x", samples_per_shard=100)


# the command


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["dataset", "pack", *map(str, args)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(500):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "labels.txt").write_text("".join(f"{number}.png text {number}\n" for number in range(500)))
    return folder


@pytest.mark.parametrize("form", ["webdataset", "lmdb"])
def test_the_command_resumes_after_kill_9(folder: Path, tmp_path: Path, form: str) -> None:
    options = ["--pack-format", form, "--samples-per-shard", "200"]
    path, kills, seen = tmp_path / "x", 0, 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "crnn_deploy", "dataset", "pack", str(folder), "-o", str(path), *options,
             "--resume"],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
        )  # fmt: skip
        while process.poll() is None and len(list(path.glob("0*"))) <= seen:
            time.sleep(0.005)
        seen = len(list(path.glob("0*")))
        process.kill()
        _, stderr = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, stderr
        kills += 1
    assert kills
    assert samples_of(path) == [(png(number), f"text {number}") for number in range(500)]
    if form == "webdataset":
        assert run(folder, "-o", tmp_path / "y", *options).exit_code == 0
        assert files_of(path) == files_of(tmp_path / "y")


def test_bad_usage_is_told(folder: Path, tmp_path: Path) -> None:
    for args, said in (
        (("-o", tmp_path / "x.tar"), "name a folder"),
        (("-o", "s3://bucket/x", "--pack-format", "lmdb"), "leave --pack-format out"),
        (("-o", ""), "the path is empty"),
        (("-o", "ftp://host/x", "--pack-format", "webdataset"), "s3://, gs:// or hdfs://"),
    ):
        result = run(folder, *args)
        assert result.exit_code == 2 and said in result.stderr, result.output
