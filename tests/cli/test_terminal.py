"""On a terminal: bars with rate and time left, a summary, and no colour where none is wanted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from terminals import ROOT, run_on_terminal

pytest.importorskip("onnxruntime")

from crnn_deploy.cli import say
from crnn_deploy.cli.main import main

IMAGES = ROOT / "examples" / "images"
LABELS = ROOT / "examples" / "labels.txt"
RATE = r"  [\d.,]+/s"
COLOUR = re.compile(r"\x1b\[[\d;]*m")
TRAINING = """
alphabet: {string: "0123456789"}
recipe: paper
out: run
steps: 2
batch: 2
log_every: 1
network: {name: compact, scale: 0.34, hidden: 8}
train: [{path: labels.txt}]
validation: {own: {synthetic: {kinds: {number: 1}, size: 1100}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lines.txt").write_text("".join(f"line {at}\n" for at in range(30)))
    shutil.copytree(IMAGES, tmp_path / "images")
    (tmp_path / "labels.txt").write_text("".join(f"images/{at:02}.png {at:02}\n" for at in range(1, 13)))
    (tmp_path / "train.yaml").write_text(TRAINING)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("infer images -o out.txt", 12),
        ("evaluate latin labels.txt", 12),
        ("verify latin latin --images images", 12),
        ("verify latin latin --labels labels.txt", 12),
        ("verify latin latin", 46),
        ("benchmark latin --rounds 2 --max-images 4 --widths 64,104 --batches 1,2 --json", 5),
        ("dataset check labels.txt", 12),
        ("dataset pack labels.txt -o shards --pack-format webdataset", 12),
        ("dataset preview labels.txt -o x.png", 12),
        ("lm train lines.txt -o x.arpa", 30),
    ],
)
def test_a_bar_shows_what_is_done_and_how_fast(command: str, count: int, folder: Path) -> None:
    if "preview" in command:
        pytest.importorskip("fontTools")
    code, seen = run_on_terminal(command.split(), folder)
    assert code in (0, 1), seen
    bars = re.findall(rf"\[(#+)-*\]  (\d+)/{count}{RATE}", seen)
    assert bars, seen
    assert [int(done) for _, done in bars] == sorted(int(done) for _, done in bars)
    assert bars[-1][1] == str(count) and not COLOUR.search(seen)


def test_time_left_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred things thirty are done in three seconds: ten a second, and seven seconds are left."""
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    bar = say.progress_bar(100, "things", hidden=False)
    assert bar.format_progress_line().endswith("]  0/100")
    now += 3
    bar.make_step(30)
    assert bar.format_progress_line() == f"things  [{'#' * 10}{'-' * 26}]  30/100  00:00:07  10/s"
    now += 2997
    bar.make_step(30)
    assert bar.format_progress_line().endswith("  0.02/s")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"inspect {ROOT / 'training' / 'latin.pth'}", "look into "),
        ("train --config train.yaml", "look at the labels and images of train.0 labels.txt"),
        ("doctor --model latin", "measure which library runs the model fastest"),
        ("dataset fonts", "look at the fonts of this machine"),
    ],
)
def test_work_without_a_count_is_named_while_it_lasts(command: str, said: str, folder: Path) -> None:
    pytest.importorskip("torch")
    code, seen = run_on_terminal(command.split(), folder)
    assert code == 0, seen
    assert re.search(rf"{re.escape(said)}[^\n]* \.\.\.\r?\r\x1b\[K", seen), seen
    if "train" not in command.split():  # which has a bar that stays
        assert seen.rstrip().endswith("\x1b[K")


def test_off_a_terminal_there_is_neither_bar_nor_line(folder: Path) -> None:
    for command in ("verify latin latin --images images", "lm train lines.txt -o x.arpa", "inspect latin"):
        done = subprocess.run(
            [sys.executable, "-m", "crnn_deploy", *command.split()],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.stderr == "", done.stderr


def test_infer_ends_with_a_summary(folder: Path) -> None:
    (folder / "images" / "broken.png").write_bytes(b"no image")
    code, seen = run_on_terminal(["infer", "images", "--format", "jsonl", "-o", "out.jsonl"], folder)
    assert code == 1
    [line] = [line for line in seen.splitlines() if " images read, " in line]
    found = re.fullmatch(
        r"12 images read, 1 failed, ([\d.,]+) per second; least sure: (\S+) \((0\.\d\d)\)", line
    )
    assert found, line
    records = [json.loads(record) for record in (folder / "out.jsonl").read_text().splitlines()]
    least = min((one for one in records if one["text"]), key=lambda one: one["confidence"])
    assert (found[2], found[3]) == (least["path"], f"{least['confidence']:.2f}")
    assert float(found[1]) > 0 and "images failed" not in seen and seen.endswith(line + "\r\n")
    nothing = run_on_terminal(["infer", "images/broken.png"], folder)[1]
    assert re.search(r"\n0 images read, 1 failed, [\d.,]+ per second\r\n$", nothing), nothing


def test_off_a_terminal_the_summary_is_the_count_of_failures(folder: Path) -> None:
    (folder / "images" / "broken.png").write_bytes(b"no image")
    result = CliRunner().invoke(main, ["infer", str(folder / "images")])
    assert result.stderr.endswith("\n1 of 13 images failed\n") and "per second" not in result.stderr
    assert CliRunner().invoke(main, ["infer", str(IMAGES)]).stderr == ""


def test_no_color_takes_all_colour_away(folder: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("torch")
    command = ["train", "--config", "train.yaml"]
    assert COLOUR.search(run_on_terminal(command, folder)[1])
    shutil.rmtree(folder / "run")
    code, seen = run_on_terminal(command, folder, NO_COLOR="1")
    assert code == 0 and not COLOUR.search(seen)
    assert "2/2" in seen and "steps/s" in seen
    assert re.search(r" (512|1024)/1100 .* validate own  [\d,]+ images/s", seen)
