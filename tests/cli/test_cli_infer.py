"""The command line of `infer`: what goes where, exit codes, signals, pipes, resuming."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from terminals import open_terminal

from crnn_deploy.cli.main import main
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime import opening, recognizer
from crnn_deploy.runtime.decoding.ctc import Char, Text

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]


class Word(NamedTuple):
    """Stands in for a prepared image."""

    path: str
    columns: int = 8


class Reader:
    """Reads the name of the file, without its suffix, in capitals; stands in for a Recognizer."""

    manifest = SimpleNamespace(decoding=DecodingRule(), max_batch=None)

    def prepare(self, source: str, /) -> Word:
        return Word(source)

    def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
        return [self.read_one(image.path) for image in images]

    def read_one(self, path: str) -> Text | CrnnDeployError:
        name = os.path.basename(path).split(".")[0]
        if not os.path.exists(path) or "bad" in name:
            return CrnnDeployError(f"{path}: not an image")
        if "crash" in name:
            raise RuntimeError("boom")
        chars = tuple(Char(c.upper(), 0.5 + 0.25 * at, at, at + 1, at, at + 1) for at, c in enumerate(name))
        return Text(name.upper(), 0.25 if "dim" in name else 0.75, chars)

    def close(self) -> None: ...


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `infer` with Reader as its model, in a folder of its own that has images/{a,bad,dim}.png."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").touch()
    monkeypatch.setattr(opening.Opening, "open", lambda self: None)
    monkeypatch.setattr(recognizer, "Recognizer", lambda network, **settings: Reader())
    for name in ("a.png", "bad.png", "dim.png"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).touch()

    def invoke(*args: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(main, ["infer", "--model", "m.onnx", *args], input=stdin)

    return invoke


def test_text_is_path_tab_text_and_errors_go_to_stderr(run: Run) -> None:
    result = run("images", "--min-confidence", "0.5")
    assert result.stdout == "images/a.png\tA\nimages/bad.png\t\nimages/dim.png\t\n"
    assert result.stderr.splitlines() == ["images/bad.png: not an image", "1 of 3 images failed"]
    assert result.exit_code == 1


def test_tsv_csv_and_jsonl_hold_every_column(run: Run) -> None:
    wanted = [
        ("images/a.png", "A", 0.75, "ok", None),
        ("images/bad.png", "", None, "error", "images/bad.png: not an image"),
        ("images/dim.png", "DIM", 0.25, "low-confidence", None),
    ]
    args = ("images", "--min-confidence", "0.5", "--format")
    lines = run(*args, "jsonl").stdout.splitlines()
    keys = ("path", "text", "confidence", "status", "error")
    assert [json.loads(line) for line in lines] == [dict(zip(keys, row, strict=True)) for row in wanted]
    spelled = [[p, t, "" if c is None else f"{c:.6f}", s, e or ""] for p, t, c, s, e in wanted]
    assert list(csv.reader(run(*args, "csv").stdout.splitlines())) == [list(keys), *spelled]
    assert [line.split("\t") for line in run(*args, "tsv").stdout.splitlines()] == [list(keys), *spelled]


def test_show_chars(run: Run) -> None:
    [line] = run("images/dim.png", "--show-chars").stdout.splitlines()
    assert line == "images/dim.png\tDIM\tD:0.500000 I:0.750000 M:1.000000"
    record = json.loads(run("images/a.png", "--show-chars", "--format", "jsonl").stdout)
    assert record["chars"] == [{"char": "A", "confidence": 0.5, "start": 0, "end": 1, "left": 0, "right": 1}]


def test_exit_code_is_0_when_all_are_read_however_unsurely(run: Run) -> None:
    result = run("images/a.png", "images/dim.png", "--min-confidence", "1")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_list_on_stdin_gives_a_record_for_every_line(run: Run) -> None:
    result = run("-", "images/a.png", stdin=b"images/a.png\nmissing.png\nimages\nimages/dim.png\n")
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        *(["images/a.png", "A"], ["missing.png", ""], ["images", "IMAGES"]),
        *(["images/dim.png", "DIM"], ["images/a.png", "A"]),
    ]
    assert result.exit_code == 1


def test_names_that_are_not_text_come_out_as_they_are(run: Run) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        Path(name).touch()
    except OSError:
        pytest.skip("this file system holds text names only")
    Path("写真.png").touch()
    for form in ("text", "tsv", "csv"):
        out = run(name, "写真.png", "--format", form).stdout_bytes
        assert b"caf\xe9.png" in out and "写真.png".encode() in out
    lines = run(name, "写真.png", "--format", "jsonl").stdout_bytes.splitlines()
    assert [json.loads(line)["path"] for line in lines] == [name, "写真.png"]


def test_an_image_that_breaks_the_recogniser_is_one_record(run: Run) -> None:
    Path("images/crash.png").touch()
    result = run("images")
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["A", "", "", "DIM"]
    assert "images/crash.png: unexpected RuntimeError: boom" in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["missing.png"], "no file, folder or match at missing.png"),
        (["images/*.jpg"], "no file, folder or match at images/*.jpg"),
        (["."], "no images in ."),
        (["a.txt", "-o", "a.txt"], "a.txt is read by this command and would be overwritten"),
        (["a.txt", "-o", "m.onnx"], "m.onnx is read by this command"),
        (["a.txt", "-o", "b.txt"], "b.txt exists; go on with it (--resume)"),
        (["a.txt", "-o", "no/folder/out"], "cannot write no/folder/out: No such file or directory"),
        (
            ["a.txt", "-o", "b.txt", "--resume"],
            "b.txt has no b.txt.run.json beside it, which says",
        ),
        (["a.txt", "-o", "/dev/full", "--resume"], "cannot write /dev/full: it is not a regular file"),
        (["a.txt", "-o", "/dev/full"], "cannot write /dev/full: it is there and not a regular file"),
        (["a.txt", "--draw", "b.txt"], "cannot write b.txt: it is there and not a folder"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(run: Run, args: list[str], line: str) -> None:
    for path in Path("images").iterdir():
        path.unlink()
    for name in ("a.txt", "b.txt"):
        Path(name).write_text("not records\n")
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {line}") and result.stderr.count("\n") == 1
    assert Path("a.txt").read_text() == Path("b.txt").read_text() == "not records\n"


def test_resume_without_a_file_and_infer_without_paths_are_bad_usage(run: Run) -> None:
    for args in (["images", "--resume"], [], ["images", "--batch", "0"], ["images", "--min-confidence", "2"]):
        result = run(*args)
        assert result.exit_code == 2 and "Error: " in result.stderr


def test_an_output_is_not_made_when_the_model_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    result = CliRunner().invoke(main, ["infer", "--model", "missing.onnx", "-o", "out", "a.png"])
    assert (result.exit_code, result.stderr) == (2, "Error: no model file at missing.onnx\n")
    assert not Path("out").exists()


@pytest.mark.parametrize("form", ["text", "tsv", "jsonl", "csv"])
def test_resume_reads_what_is_missing_and_nothing_twice(
    run: Run, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        Path(f"images/n{number}.png").touch()
    args = ("images", "images/a.png", "--batch", "1", "--format", form, "--show-chars", "--workers", "1")
    run(*args, "-o", "full")
    full = Path("full").read_bytes()
    Path("full.run.json").rename("out.run.json")
    read: list[str] = []
    read_one = Reader.read_one

    def noted(self: Reader, path: str) -> Text | CrnnDeployError:
        read.append(path)
        return read_one(self, path)

    monkeypatch.setattr(Reader, "read_one", noted)
    for cut in range(0, len(full) + 1, 37):
        Path("out").write_bytes(full[:cut])
        read.clear()
        run(*args, "-o", "out", "--resume")
        assert Path("out").read_bytes() == full
        kept = full[:cut].count(b"\n") - (form in ("tsv", "csv"))
        assert len(read) == 34 - max(0, kept)
    assert run(*args, "-o", "out", "--resume").exit_code == 0


def test_resume_with_other_settings_is_refused(run: Run) -> None:
    for at, (before, after, said) in enumerate(
        [
            ((), ("--min-confidence", "0.5"), "min-confidence 0.0, this run has min-confidence 0.5"),
            ((), ("--wide", "shrink"), "wide cut, this run has wide shrink"),
            ((), ("--rotate", "auto"), "no rotate, this run has rotate auto"),
            (("--rotate", "90"), (), "rotate 90, this run has no rotate"),
            ((), ("--show-chars",), "columns path, text, this run has columns path, text, chars"),
            ((), ("--format", "tsv"), "format text, columns path, text, this run has format tsv"),
            ((), ("--device", "cuda"), "device cpu, this run has device cuda"),
            (("--format", "csv"), ("--format", "csv", "--csv-safe"), "no csv-safe, this run has csv-safe"),
        ]
    ):
        out = f"out{at}"
        run("images", "-o", out, *before)
        made = Path(out).read_bytes()
        result = run("images", "-o", out, "--resume", *after)
        assert result.exit_code == 2 and f"{out} was made with {said}" in result.stderr, result.stderr
        assert Path(out).read_bytes() == made
        assert run("images", "-o", out, "--resume", "--batch", "1", "--workers", "3", *before).stderr == ""
    Path("m.onnx").write_bytes(b"another model")
    assert "out0 was made with model m.onnx (sha256" in run("images", "-o", "out0", "--resume").stderr


def test_csv_for_spreadsheets_is_gone_on_with(run: Run) -> None:
    for name in ("=1+1.png", "'a.png", "b\x1b[2J.png"):
        Path("images", name).touch()
    args = ("--format", "csv", "--csv-safe", *sorted(map(str, Path("images").iterdir())))
    Path("=x.png").touch()
    run(*args, "=x.png", "-o", "full")
    full = Path("full").read_bytes()
    assert b"\r\n'=x.png,'=X,0.750000,ok,\r\n" in full and b"\x1b" not in full
    Path("full.run.json").rename("out.run.json")
    for cut in range(36, len(full), 11):
        Path("out").write_bytes(full[:cut])
        run(*args, "=x.png", "-o", "out", "--resume")
        assert Path("out").read_bytes() == full
    assert run("images", "--csv-safe").exit_code == 2


def test_one_name_that_is_gone_costs_its_record(run: Run) -> None:
    Path("dangling.png").symlink_to("nowhere")
    result = run("images/a.png", "dangling.png", "gone.png", "images/dim.png")
    assert result.stdout == "images/a.png\tA\ndangling.png\t\ngone.png\t\nimages/dim.png\tDIM\n"
    assert result.exit_code == 1 and result.stderr.endswith("2 of 4 images failed\n")


def test_a_drawing_that_fails_costs_no_record(run: Run) -> None:
    white = cv2.imencode(".png", np.full((8, 40), 255, np.uint8))[1].tobytes()
    long = "x" * 251 + ".png"
    for name in ("a.png", long, "folder.png", "mine.png", "z.png"):
        Path("images", name).write_bytes(white)
    for name in ("bad.png", "dim.png"):
        Path("images", name).unlink()
    Path("images", "no-image.png").touch()  # read by the stand-in, and not by what draws
    Path("boxes/images/folder.png.png").mkdir(parents=True)
    Path("boxes/images/mine.png.png").write_bytes(b"somebody's")
    result = run("images", "--draw", "boxes", "-o", "out")
    assert [line.split("\t")[0][7:] for line in Path("out").read_text().splitlines()] == [
        *("a.png", "folder.png", "mine.png", "no-image.png", long, "z.png")
    ]
    assert all(line.split("\t")[1] for line in Path("out").read_text().splitlines())
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "images/folder.png is read and not drawn: cannot write boxes/images/folder.png.png: "
        "it is there and no such drawing; name another folder",
        "images/mine.png is read and not drawn: cannot write boxes/images/mine.png.png: "
        "it is there and no such drawing; name another folder",
        f"images/no-image.png is read and not drawn: {result.stderr.splitlines()[2].partition('drawn: ')[2]}",
        "3 of 6 images that were read are not drawn",
    ]
    assert Path("boxes/images/mine.png.png").read_bytes() == b"somebody's"
    drawn = sorted(path.name for path in Path("boxes/images").iterdir() if path.is_file())
    assert len(drawn) == 4 and any(name.startswith("x" * 200) and len(name) == 255 for name in drawn)
    again = run("images/a.png", "--draw", "boxes")  # what it has drawn it draws again
    assert (again.exit_code, again.stderr) == (0, "")
    assert cv2.imread("boxes/images/a.png.png") is not None


def test_a_name_of_a_drawing_is_no_longer_than_a_path(run: Run) -> None:
    white = cv2.imencode(".png", np.full((8, 40), 255, np.uint8))[1].tobytes()
    deep = Path(*["d" * 200] * 19)
    deep.mkdir(parents=True)
    (deep / "a.png").write_bytes(white)
    result = run(str(deep / "a.png"), "--draw", "b" * 255)
    assert (result.exit_code, result.stderr) == (0, "")
    [drawn] = Path("b" * 255).iterdir()
    assert cv2.imread(str(drawn)) is not None


def test_an_unexpected_error_is_one_line_unless_debug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: object, **settings: object) -> Reader:
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(recognizer, "Recognizer", broken)
    line = "Error: unexpected RuntimeError: no luck; run again with --debug for the traceback\n"
    result = run("images")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", line)
    after = run("images", "--debug")
    before = CliRunner().invoke(main, ["--debug", "infer", "--model", "m.onnx", "images"])
    for result in (before, after):
        assert result.exit_code == 1
        assert "Traceback" in result.stderr and result.stderr.endswith(line)


# In a process of its own: a reader that takes its time, so that a run can be stopped on the way.
SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
sys.path.insert(0, {root!r})
from crnn_deploy.runtime import opening, recognizer
from types import SimpleNamespace
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.decoding_rule import DecodingRule
class Word:
    def __init__(self, path):
        self.path, self.columns = path, 8
class Reader:
    manifest = SimpleNamespace(decoding=DecodingRule(), max_batch=None)
    prepare = Word
    def read_batch(self, images):
        open("begun", "w").close()
        time.sleep({delay} * len(images))
        return [Text(image.path, 0.5, ()) for image in images]
    def close(self): ...
opening.Opening.open = lambda self: None
recognizer.Recognizer = lambda network, **settings: Reader()
from crnn_deploy.cli.main import main
main(prog_name="crnn-deploy")
"""


@pytest.fixture
def many(tmp_path: Path) -> bytes:
    """A folder `many` of 400 files; what `infer --batch 1 --workers 2 many` puts out."""
    (tmp_path / "many").mkdir()
    (tmp_path / "m.onnx").touch()
    names = [f"many/{number:03}.png" for number in range(400)]
    for name in names:
        (tmp_path / name).touch()
    return "".join(f"{name}\t{name}\n" for name in names).encode()


def start(folder: Path, *args: str, delay: float = 0.003, **streams: Any) -> subprocess.Popen[bytes]:
    program = SLOW.format(root=str(ROOT), delay=delay)
    command = [sys.executable, "-c", program, "infer", "--model", "m.onnx", "--batch", "1", "--workers", "2"]
    return subprocess.Popen([*command, *args], cwd=folder, **{"stderr": subprocess.PIPE, **streams})


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=20)
    return process.returncode, (stderr or b"").decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_keeps_what_is_done_and_resumes(tmp_path: Path, many: bytes, number: int) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, "many", "-o", "out")
    wait_for(lambda: out.exists() and out.stat().st_size > 0)
    process.send_signal(number)
    code, stderr = finish(process)
    kept = out.read_bytes()
    assert 0 < len(kept) < len(many) and many.startswith(kept)
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 130
        assert kept.endswith(b"\n")
        count = kept.count(b"\n")
        assert stderr == f"stopped after {count} images; --resume goes on\n"
    process = start(tmp_path, "many", "-o", "out", "--resume", delay=0)
    assert finish(process) == (0, "")
    assert out.read_bytes() == many


def test_ctrl_c_ends_a_run_that_waits_for_its_list(tmp_path: Path, many: bytes) -> None:
    process = start(tmp_path, "-", "-o", "out", delay=0, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(400 * b"many/000.png\n")
    process.stdin.flush()
    out, record = tmp_path / "out", b"many/000.png\tmany/000.png\n"
    # the last ones wait for more, and so may those behind an image that is being read meanwhile
    wait_for(lambda: out.exists() and out.stat().st_size >= 20 * len(record))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    kept = out.read_bytes()
    assert kept == kept.count(b"\n") * record and 20 <= kept.count(b"\n") <= 400
    finish(process)


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path, many: bytes) -> None:
    process = start(tmp_path, "many", delay=30, stdout=subprocess.DEVNULL)
    wait_for((tmp_path / "begun").exists)  # a chunk that takes minutes
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == -signal.SIGINT
    finish(process)


def test_a_closed_pipe_ends_a_run_quietly(tmp_path: Path, many: bytes) -> None:
    process = start(tmp_path, "many", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == many.splitlines(keepends=True)[0]
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 1


def test_a_progress_bar_stands_on_a_terminal_only(tmp_path: Path, many: bytes) -> None:
    ours, theirs = open_terminal()
    process = start(tmp_path, "many", stdout=subprocess.PIPE, stderr=theirs, delay=0)
    os.close(theirs)
    out, _ = process.communicate(timeout=20)
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    os.close(ours)
    assert out == many
    assert b"400/400" in seen and b"/400" in seen[: len(seen) // 2]
    assert process.returncode == 0


def test_a_terminal_is_shown_escapes_and_a_pipe_the_names(tmp_path: Path, many: bytes) -> None:
    name = os.fsdecode(b"many/\x1b]0;x\x07\xff.png")
    (tmp_path / name).touch()
    ours, theirs = open_terminal()
    process = start(tmp_path, name, stdout=theirs, stderr=subprocess.PIPE, delay=0)
    os.close(theirs)
    assert process.wait(timeout=20) == 0
    seen = _read(ours)
    os.close(ours)
    assert seen.startswith(b"many/\\x1b]0;x\\x07\\udcff.png\t") and b"\x1b" not in seen
    process = start(tmp_path, name, stdout=subprocess.PIPE, delay=0)
    out, _ = process.communicate(timeout=20)
    assert out.startswith(os.fsencode(name) + b"\t")


def test_a_full_stdout_is_one_line(tmp_path: Path, many: bytes) -> None:
    with open("/dev/full", "wb") as full:
        process = start(tmp_path, "many", stdout=full, delay=0)
        assert finish(process) == (2, "Error: cannot write stdout: No space left on device\n")


@pytest.mark.parametrize("closed", [(1,), (1, 2), (0, 1, 2)])
def test_closed_streams_cost_a_run_with_a_file_nothing(
    tmp_path: Path, many: bytes, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    process = start(tmp_path, "many", "-o", "out", delay=0, preexec_fn=close)
    assert process.wait(timeout=20) == 0
    assert (tmp_path / "out").read_bytes() == many
    process = start(tmp_path, "many", delay=0, preexec_fn=close)
    assert process.wait(timeout=20) == 2


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


@pytest.mark.parametrize("args", [["--help"], ["infer", "--help"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    program = (
        "import sys; from crnn_deploy.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print(*sorted({'numpy', 'cv2', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, *args]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--debug" in shown and shown.endswith("\n\n")
    if args == ["--help"]:
        assert all(f"\n  {name} " in shown for name in ("infer", "export", "verify", "inspect", "describe"))


def test_a_whole_run_imports_only_what_it_needs(tmp_path: Path, tiny_onnx: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 100), 200, np.uint8))
    program = (
        "import sys; from crnn_deploy.cli.main import main\n"
        "main(['infer', '--model', sys.argv[1], sys.argv[2]], standalone_mode=False)\n"
        "few = {'torch', 'onnx', 'onnxscript', 'onnxruntime', 'PIL', 'numba', 'importlib.metadata'}\n"
        "boxes = {'crnn_deploy.regions.region', 'crnn_deploy.runtime.drawing'}\n"
        "print(*sorted((few | boxes) & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(tiny_onnx), str(tmp_path / "a.png")]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[0].startswith(f"{tmp_path / 'a.png'}\t")
    assert shown.splitlines()[1:] == ["onnxruntime"]


def test_version_is_that_of_the_package() -> None:
    try:
        version = metadata.version("crnn-deploy")
    except metadata.PackageNotFoundError:
        pytest.skip("crnn-deploy is not installed here")
    command = [sys.executable, "-m", "crnn_deploy", "--version"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown == f"crnn-deploy, version {version}\n"


def test_a_real_model_from_end_to_end(
    tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    good = {}
    for number in range(40):
        shape = (int(generator.integers(8, 64)), int(generator.integers(8, 300)), 3)
        good[f"{number:02}.png"] = cv2.imencode(".png", generator.integers(0, 256, shape, np.uint8))[
            1
        ].tobytes()
    png = good["00.png"]
    bad = {"05-empty.png": b"", "06-torn.png": png[: len(png) // 2], "07-text.png": b"not an image"}
    for name, data in (good | bad).items():
        Path(name).write_bytes(data)

    alone = recognizer.Recognizer.load(tiny_onnx)
    args = ["infer", "--model", str(tiny_onnx), "--format", "jsonl", "--show-chars", "--batch", "2", "."]
    for workers in ("1", "3"):
        result = CliRunner().invoke(main, [*args, "--workers", workers])
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert [row["path"] for row in rows] == [f"./{name}" for name in sorted(good | bad)]
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == "3 of 43 images failed"
        for row in rows:
            if row["path"][2:] in bad:
                assert row["status"] == "error" and row["path"] in row["error"]
                continue
            [text] = alone.read([row["path"]])
            assert (row["status"], row["text"], row["confidence"]) == ("ok", text.text, text.confidence)
            assert [Char(**char) for char in row["chars"]] == list(text.chars)
    alone.close()


def test_images_of_too_many_pixels_fail(tmp_path: Path) -> None:
    path = tmp_path / "word.png"
    cv2.imwrite(str(path), np.zeros((32, 100), np.uint8))
    result = CliRunner().invoke(main, ["infer", "--max-pixels", "3199", str(path)])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == f"{path}: 100 x 32 pixels, more than the limit of 3,199"
    assert CliRunner().invoke(main, ["infer", "--max-pixels", "3200", str(path)]).exit_code == 0
