"""What commands write and say: never over what they read, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")

from crnn_deploy import files
from crnn_deploy.cli.main import main
from crnn_deploy.cli.outputs import put_report
from crnn_deploy.cli.say import say, say_json
from crnn_deploy.models import DEFAULT

ROOT = Path(__file__).parents[2]
ESCAPE = "\x1b[2J"


def run(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with what commands read."""
    shutil.copy(DEFAULT, tmp_path / "m.onnx")
    shutil.copytree(ROOT / "examples" / "images", tmp_path / "data" / "images")
    labels = (ROOT / "examples" / "labels.txt").read_bytes()
    for name in ("data/labels.txt", "words.txt", "texts.arpa", "c.pth", "a.onnx", "r.toml", "scales.json"):
        (tmp_path / name).write_bytes(labels)
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "f.ttf").touch()
    (tmp_path / "link").symlink_to("data/labels.txt")
    os.link(tmp_path / "data" / "labels.txt", tmp_path / "twin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "infer data/images -o words.txt --resume --decoder closest-word --lexicon words.txt",
        "infer data/images -o words.txt --resume --decoder beam --lm words.txt",
        "infer data/images --model m.onnx -o m.onnx --resume",
        "infer twin -o link --resume",
        "evaluate m.onnx data/labels.txt --html data/labels.txt",
        "evaluate m.onnx data/labels.txt --html link",
        "evaluate m.onnx data/labels.txt --json-file twin",
        "evaluate m.onnx data/labels.txt --json-file m.onnx",
        "evaluate m.onnx data/labels.txt --json-file data/images/03.png",
        "evaluate m.onnx data --json-file data/labels.txt",
        "evaluate m.onnx data --json-file words.txt --decoder closest-word --lexicon words.txt",
        "evaluate c.pth data --json-file a.onnx --alphabet a.onnx",
        "dataset check data --plot data/labels.txt",
        "dataset check data --json-file data/labels.txt",
        "dataset check data --plot data/images/03.png",
        "dataset check data --model m.onnx --plot m.onnx",
        "dataset check data --alphabet a.onnx --plot a.onnx",
        "dataset preview data -o data/images/03.png",
        "dataset preview data/labels.txt -o twin",
        "dataset pack-fonts -o fonts/f.ttf --folder fonts",
        "lm train texts.arpa -o texts.arpa",
        "lm train data/labels.txt texts.arpa -o texts.arpa",
        "calibrate m.onnx data/images -o m.onnx",
        "calibrate m.onnx data/images -o data/images/03.png",
        "quantize m.onnx data/images --scales scales.json -o m.onnx",
        "quantize m.onnx data/images --scales scales.json --json-file scales.json -o out.onnx",
        "quantize m.onnx data/images --scales scales.json --html data/images/03.png -o out.onnx",
        "quantize m.onnx data/labels.txt --scales scales.json --html data/labels.txt -o out.onnx",
        "calibrate-confidence m.onnx data --json-file data/labels.txt -o m.onnx",
        "calibrate-confidence m.onnx data --json-file m.onnx -o out.onnx",
        "calibrate-confidence m.onnx data -o data/images/03.png",
        "verify m.onnx m.onnx --json-file m.onnx",
        "verify m.onnx m.onnx --images data/images --json-file data/images/03.png",
        "verify m.onnx m.onnx --labels data --json-file data/labels.txt",
        "inspect m.onnx --json-file m.onnx",
        "inspect c.pth --alphabet a.onnx --json-file a.onnx",
        "doctor --model m.onnx --json-file m.onnx",
        "describe m.onnx --recipe paddleocr -o m.onnx",
        "describe m.onnx --recipe paddleocr --alphabet a.onnx -o a.onnx",
        "describe m.onnx --recipe r.toml -o r.toml",
        "export --checkpoint c.pth --alphabet a.onnx -o a.onnx",
        "build-engine m.onnx -o x.engine --timing-cache m.onnx",
        "build-engine m.onnx -o x.engine --checkpoint c.pth --timing-cache c.pth",
        "benchmark m.onnx --plot m.onnx",
        "benchmark m.onnx --json-file m.onnx",
        "benchmark m.onnx --images data/images --plot data/images/03.png",
    ],
)
def test_no_command_writes_over_what_it_reads(folder: Path, command: str) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = content()
    result = run(*command.split())
    assert result.exit_code == 2 and "is read by this command and would be overwritten" in result.stderr
    assert result.stderr.count("\n") == 1 and content() == before


def test_two_outputs_are_not_one_file(folder: Path) -> None:
    for command in (
        "evaluate m.onnx data --json-file x --html ./x",
        "calibrate-confidence m.onnx data --json-file out.onnx -o out.onnx",
    ):
        result = run(*command.split())
        assert result.exit_code == 2 and "two outputs of this command have this name" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "evaluate m.onnx data",
        "verify m.onnx m.onnx --labels data/labels.txt --kind names --image-folder data",
        "inspect m.onnx",
        "doctor",
        "doctor --model m.onnx",
        "dataset check data",
        "benchmark m.onnx --batches 1 --widths 96 --rounds 2 --max-images 2",
    ],
)
def test_json_takes_the_place_of_the_table_and_a_file_has_the_same(folder: Path, command: str) -> None:
    """stdout is one JSON object, and the file holds the same; without --json there is a table."""
    both = run(*command.split(), "--json", "--json-file", "report.json")
    assert both.exit_code in (0, 1), both.stderr  # of a check that found something
    report = json.loads(both.stdout)
    assert report and json.loads((folder / "report.json").read_text()) == report
    table = run(*command.split(), "--json-file", "again.json")
    assert table.exit_code == both.exit_code and not table.stdout.lstrip().startswith("{")
    assert json.loads((folder / "again.json").read_text()).keys() == report.keys()


def test_verify_reads_labels_as_other_commands_do(folder: Path) -> None:
    (folder / "data" / "images").rename(folder / "images")
    arguments = ("verify", "m.onnx", "m.onnx", "--labels", "data/labels.txt")
    lost = run(*arguments, "--kind", "names")
    assert lost.exit_code == 2 and "data/images/" in lost.stderr
    assert run(*arguments, "--kind", "names", "--image-folder", ".").exit_code == 0


def test_figures_that_cannot_be_written_are_shown_still(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(files.OutputUnwritable):
        put_report("the table", {}, as_json=False, json_file=tmp_path)
    assert capsys.readouterr().out == "the table\n"


def test_a_model_may_be_changed_in_its_place(folder: Path) -> None:
    (folder / "m.onnx").chmod(0o600)
    result = run("set-decoding", "m.onnx", "--allow", "ABC", "-o", "m.onnx")
    assert (result.exit_code, result.stdout) == (0, "m.onnx: greedy, allow 'ABC'\n")
    assert (folder / "m.onnx").stat().st_mode & 0o777 == 0o600


def test_resume_with_another_model_or_decoder_is_refused(folder: Path) -> None:
    image = "data/images/01.png"
    assert run("infer", image, "-o", "a.jsonl", "--format", "jsonl").exit_code == 0
    before = Path("a.jsonl").read_bytes()
    for args, said in (
        (("--precision", "int8"), "model latin.onnx (sha256 "),
        (("--decoder", "beam", "--lexicon", "words.txt"), "no lexicon, decoder greedy, "),
        (("--allow", "ABC"), "no allow, this run has allow ABC;"),
        (("--backend", "openvino"), "backend onnxruntime, this run has backend openvino;"),
    ):
        result = run("infer", "data/images", "-o", "a.jsonl", "--format", "jsonl", "--resume", *args)
        if "no inference library" not in result.stderr:
            assert result.exit_code == 2 and f"a.jsonl was made with {said}" in result.stderr, result.stderr
        assert Path("a.jsonl").read_bytes() == before
    beam = ("--decoder", "beam", "--lexicon", "words.txt", "-o", "b.txt")
    assert run("infer", image, *beam).exit_code == 0
    assert run("infer", image, *beam, "--resume", "--batch", "1").exit_code == 0
    Path("words.txt").write_text("others\n")
    assert "was made with lexicon words.txt (sha256" in run("infer", image, *beam, "--resume").stderr


def test_what_is_said_holds_nothing_to_obey(folder: Path) -> None:
    result = run("lm", "train", "texts.arpa", "-o", f"t{ESCAPE}.arpa")
    assert result.stdout.startswith("t\\x1b[2J.arpa: order 6, ")
    for args in (["infer", f"gone{ESCAPE}"], [f"no{ESCAPE}"], ["infer", f"--{ESCAPE}", "x"], ["infer", "x"]):
        result = run(*args)
        assert result.exit_code == 2 and "\x1b" not in result.output
    Path(f"bad{ESCAPE}.png").write_bytes(b"no image")
    result = run("infer", f"bad{ESCAPE}.png", "-o", "out")
    assert result.exit_code == 1 and "\x1b" not in result.stderr and "bad\\x1b[2J.png" in result.stderr
    Path("labels.tsv").write_text(f"bad{ESCAPE}.png\tx\n\x9b2J.png\ty\n", encoding="utf-8")
    result = run("dataset", "check", "labels.tsv")
    assert result.exit_code == 1 and not {"\x1b", "\x9b"} & set(result.output)


def test_json_that_is_said_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "a\x1b\x9b\u202e\udce9é字\n", "figures": [1.5, 2]}
    say_json({**value, "none": [float("nan"), float("inf")]})
    out = capsys.readouterr().out
    assert json.loads(out) == {**value, "none": [None, None]}
    assert "é字" in out and not {"\x1b", "\x9b", "\u202e", "\udce9"} & set(out)
    say(f"line\n{ESCAPE}\tline\r", err=True)
    assert capsys.readouterr().err == "line\n\\x1b[2J\tline\\r\n"


def test_commands_speak_through_one_function() -> None:
    paths = sorted((ROOT / "crnn_deploy" / "cli").glob("*.py"))
    assert len(paths) > 15
    for path in paths:
        if path.name != "say.py":
            text = path.read_text(encoding="utf-8")
            assert not any(f"{name}(" in text for name in ("click.echo", "print", "progressbar"))
            assert not any(name in text for name in ("write_text", "write_bytes", "stdout.write"))
