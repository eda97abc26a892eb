"""Standard streams that are closed, full or read no more, as daemons and pipelines have them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "examples" / "images" / "01.png"
LABELS = ROOT / "examples" / "labels.txt"
EVERY = ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&-", "<&- 2>&-", "<&- >&- 2>&-"]


def run(
    words: Sequence[object], streams: str, folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command with its streams as a shell redirects them."""
    line = shlex.join([sys.executable, "-m", "crnn_deploy", *map(str, words)])
    return subprocess.run(
        ["sh", "-c", f"exec {line} {streams}"],
        cwd=folder,
        env={**(os.environ if environment is None else environment), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("streams", EVERY)
def test_a_run_with_a_file_needs_no_stream(streams: str, tmp_path: Path) -> None:
    done = run(["infer", IMAGE, "none.png", "-o", "out"], streams, tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert (tmp_path / "out").read_text() == f"{IMAGE}\tPrinted\nnone.png\t\n"
    assert ("none.png" in done.stderr) is ("2>" not in streams) and "Traceback" not in done.stderr


@pytest.mark.parametrize("streams", EVERY)
def test_a_run_without_a_file_needs_stdout_alone(streams: str, tmp_path: Path) -> None:
    done = run(["infer", IMAGE], streams, tmp_path)
    if ">&-" not in streams.replace("2>&-", ""):
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{IMAGE}\tPrinted\n", "")
    else:
        said = "" if "2>" in streams else "Error: stdout is closed; give the command one, or have the result"
        assert done.returncode == 2 and done.stderr.startswith(said) and done.stderr.count("\n") <= 1


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("report", [["--json-file", "r.json"], ["--json-file", "r.json", "--json"]])
def test_a_report_in_a_file_needs_no_stream(streams: str, report: list[str], tmp_path: Path) -> None:
    done = run(["evaluate", "latin", LABELS, *report], streams, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "r.json").read_text())


SPEAKS: list[list[object]] = [
    ["--help"],
    ["--version"],
    ["inspect", "latin"],
    ["doctor"],
    ["evaluate", "latin", LABELS],
    ["verify", "latin", "latin"],
    ["dataset", "check", LABELS],
    ["recipes"],
    ["recipes", "paper"],
]


@pytest.mark.parametrize("words", SPEAKS, ids=lambda words: "-".join(map(str, words[:2])))
def test_what_only_speaks_needs_stdout(words: list[object], tmp_path: Path) -> None:
    done = run(words, ">&-", tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and "closed" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("streams", ["2>&-", "2> /dev/full", "<&- >&- 2>&-"])
def test_bad_usage_and_bad_input_keep_their_exit_code(streams: str, tmp_path: Path) -> None:
    for words in (["infer", "--nonsense"], ["infer"], ["nonsense"], ["inspect", "none.onnx"]):
        assert run(words, streams, tmp_path).returncode == 2


def test_a_full_log_costs_nothing(tmp_path: Path) -> None:
    done = run(["infer", "none.png", IMAGE, "-o", "out"], "2> /dev/full", tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "out").read_text() == f"none.png\t\n{IMAGE}\tPrinted\n"
    done = run(["infer", "none.png", IMAGE], "2> /dev/full", tmp_path)
    assert (done.returncode, done.stdout) == (1, f"none.png\t\n{IMAGE}\tPrinted\n")


def test_a_log_that_nobody_reads_costs_nothing(tmp_path: Path) -> None:
    done = run(["infer", "none.png", IMAGE, "-o", "out"], "2>&1 >/dev/null | true", tmp_path)
    assert done.returncode == 0  # that of `true`
    for _ in range(100):
        if (tmp_path / "out").exists() and (tmp_path / "out").read_text().endswith("Printed\n"):
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert (tmp_path / "out").read_text() == f"none.png\t\n{IMAGE}\tPrinted\n"


def test_a_list_on_a_closed_stdin(tmp_path: Path) -> None:
    done = run(["infer", "-"], "<&-", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: stdin is closed; give the command one, or name files\n"
    assert run(["infer", "-"], "< /dev/null", tmp_path).returncode == 0


@pytest.mark.parametrize("words", [["infer", str(IMAGE)], ["--help"], ["inspect", "latin"]])
def test_a_full_stdout_is_one_line(words: list[str], tmp_path: Path) -> None:
    done = run(words, "> /dev/full", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "Error: cannot write stdout: No space left on device\n"


@pytest.mark.parametrize("words", [["infer", "--help"], ["dataset", "-h"], ["dataset", "check", "--help"]])
def test_a_commands_help_that_nobody_gets(words: list[str], tmp_path: Path) -> None:
    done = run(words, ">&-", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: stdout is closed") and done.stderr.count("\n") == 1
    done = run(words, "> /dev/full", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "Error: cannot write stdout: No space left on device\n"


def test_a_reader_that_has_enough_ends_a_run_quietly(tmp_path: Path) -> None:
    done = run(["infer", IMAGE.parent], "| head -1", tmp_path)
    assert (done.stdout, done.stderr) == (f"{IMAGE}\tPrinted\n", "")


def test_without_home_terminal_and_environment(tmp_path: Path) -> None:
    done = run(["infer", IMAGE, "-o", tmp_path / "out"], "< /dev/null", Path("/"), {})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out").read_text() == f"{IMAGE}\tPrinted\n"
    done = run(["infer", IMAGE], "< /dev/null", Path("/proc/self"), {})  # where nothing can be written
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{IMAGE}\tPrinted\n", "")


def test_a_file_that_is_opened_takes_nobodys_place(tmp_path: Path) -> None:
    """What native libraries print goes to no file of the user's."""
    code = (
        "import os, sys; sys.argv[1:] = ['infer', sys.argv[1], '-o', 'out']\n"
        "import crnn_deploy.runtime.recognizer as r\n"
        "close = r.Recognizer.close\n"
        "def shout(self):\n"
        "    for number in (1, 2):\n"
        "        try: os.write(number, b'native')\n"
        "        except OSError: pass\n"
        "    close(self)\n"
        "r.Recognizer.close = shout\n"
        "from crnn_deploy.__main__ import run; run()"
    )
    line = shlex.join([sys.executable, "-c", code, str(IMAGE)])
    subprocess.run(
        ["sh", "-c", f"exec {line} <&- >&- 2>&-"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert (tmp_path / "out").read_text() == f"{IMAGE}\tPrinted\n"
    assert json.loads((tmp_path / "out.run.json").read_text())
