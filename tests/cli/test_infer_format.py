"""The format of the records is that of the file's name; empty options and wrong endings are errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")

from crnn_deploy import Recognizer
from crnn_deploy.cli.main import main

IMAGE = Path(__file__).parents[2] / "examples" / "images" / "01.png"
LABELS = Path(__file__).parents[2] / "examples" / "labels.txt"


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(path: Path, form: str) -> list[list[str]]:
    """Path and text of each record, by other means than the toolkit's."""
    text = path.read_text()
    if form == "csv":
        found = list(csv.DictReader(text.splitlines()))
    elif form == "jsonl":
        found = [json.loads(line) for line in text.splitlines()]
    elif form == "tsv":
        head, *lines = [line.split("\t") for line in text.splitlines()]
        found = [dict(zip(head, line, strict=True)) for line in lines]
    else:
        return [line.split("\t") for line in text.splitlines()]
    return [[one["path"], one["text"]] for one in found]


EXPECTED = Recognizer().read(IMAGE).text


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.b.csv", "csv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.tsv", "tsv"),
        ("a.txt", "text"),
        ("a", "text"),
        (".csv", "text"),  # a hidden file without a suffix
    ],
)
def test_a_files_name_says_the_format(folder: Path, name: str, form: str) -> None:
    done = run("infer", IMAGE, "-o", name)
    assert (done.exit_code, done.output) == (0, "")
    assert rows_of(folder / name, form) == [[str(IMAGE), EXPECTED]]
    assert json.loads((folder / f"{name}.run.json").read_text())["settings"]["format"] == form
    again = run("infer", IMAGE, "-o", name, "--resume")
    assert again.exit_code == 0 and len(rows_of(folder / name, form)) == 1


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.json", "jsonl"), ("a.txt", "csv"), ("a.log", "tsv"), ("a.csv", "csv"), ("a", "jsonl")],
)
def test_what_is_given_counts_where_it_contradicts_nothing(folder: Path, name: str, form: str) -> None:
    done = run("infer", IMAGE, "-o", name, "--format", form)
    assert (done.exit_code, done.output) == (0, "")
    assert rows_of(folder / name, form) == [[str(IMAGE), EXPECTED]]


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.csv", "tsv"), ("a.csv", "text"), ("a.tsv", "text"), ("a.jsonl", "csv"), ("a.ndjson", "tsv")],
)
def test_a_name_and_a_format_that_contradict_each_other(folder: Path, name: str, form: str) -> None:
    done = run("infer", IMAGE, "-o", name, "--format", form)
    assert done.exit_code == 2 and f"{name} ends as" in done.stderr and f"--format is {form}" in done.stderr
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["a.json", "a.xlsx", "a.csv.gz", "a.html", "a.parquet"])
def test_a_name_of_a_format_that_is_not_written(folder: Path, name: str) -> None:
    done = run("infer", IMAGE, "-o", name)
    assert done.exit_code == 2 and "records are not written as" in done.stderr and ".jsonl" in done.stderr
    assert not list(folder.iterdir())


def test_a_name_that_says_no_format_is_said(folder: Path) -> None:
    done = run("infer", IMAGE, "-o", "a.log")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "a.log: .log is no format of records, so they are written as text\n"
    assert rows_of(folder / "a.log", "text") == [[str(IMAGE), EXPECTED]]


def test_csv_safe_goes_with_a_name_that_says_csv(folder: Path) -> None:
    assert run("infer", IMAGE, "-o", "a.csv", "--csv-safe").exit_code == 0
    assert rows_of(folder / "a.csv", "csv") == [[str(IMAGE), EXPECTED]]
    done = run("infer", IMAGE, "-o", "a.tsv", "--csv-safe")
    assert done.exit_code == 2 and "--csv-safe goes with --format csv; this would be tsv" in done.stderr


@pytest.mark.parametrize("option", ["--allow", "--block", "--mask", "--pattern", "--hotword"])
def test_an_empty_text_is_no_setting(option: str) -> None:
    for command in (
        ["infer", IMAGE],
        ["evaluate", "latin", LABELS],
        ["set-decoding", "latin", "-o", "x.onnx"],
    ):
        more = ["--decoder", "beam"] if option == "--hotword" else []
        done = run(*command, option, "", *more)
        assert done.exit_code == 2 and f"{option} is empty; leave it out" in done.stderr, done.output


@pytest.mark.parametrize(
    "words", [["--max-length", "0"], ["--pattern", "x{0}"], ["--allow", "ab", "--block", "ba"]], ids=" ".join
)
def test_settings_that_allow_the_empty_text_alone(words: list[str]) -> None:
    done = run("infer", IMAGE, *words)
    assert done.exit_code == 2 and "only the empty text meets" in done.stderr


def test_an_empty_lexicon(folder: Path) -> None:
    for content in (b"", b"\n \n", b"\xef\xbb\xbf"):
        (folder / "words.txt").write_bytes(content)
        for decoder in ("beam", "closest-word"):
            done = run("infer", IMAGE, "--decoder", decoder, "--lexicon", "words.txt")
            assert done.exit_code == 2 and "words.txt: it holds no words" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["infer", IMAGE, "-o", ""],
        ["infer", IMAGE, "--draw", ""],
        ["infer", IMAGE, "--model", ""],
        ["infer", IMAGE, "--decoder", "beam", "--lexicon", ""],
        ["infer", IMAGE, "--decoder", "beam", "--lm", ""],
        ["evaluate", "latin", LABELS, "--html", ""],
        ["evaluate", "latin", LABELS, "--json-file", ""],
        ["evaluate", "", LABELS],
        ["verify", "latin", ""],
        ["inspect", ""],
        ["dataset", "check", LABELS, "--plot", ""],
        ["export", "--checkpoint", ""],
        ["train", "--config", ""],
        ["describe", "", "-o", "x.onnx"],
    ],
    ids=lambda words: f"{words[0]} {words[-2]}",
)
def test_an_empty_path_is_no_folder(folder: Path, words: list[object]) -> None:
    done = run(*words)
    assert done.exit_code == 2 and "the path is empty" in done.stderr, done.output
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate", "latin", LABELS, "--json-file", "r.csv"], "r.csv must end in .json"),
        (["evaluate", "latin", LABELS, "--html", "r.json"], "r.json must end in .html"),
        (["verify", "latin", "latin", "--json-file", "r.html"], "r.html must end in .json"),
        (["dataset", "preview", LABELS, "-o", "sheet.jpg"], "sheet.jpg must end in .png"),
        (["dataset", "pack-fonts", "-o", "fonts.zip"], "fonts.zip must end in .tar.xz"),
        (["calibrate", "latin", LABELS, "-o", "scales.yaml"], "scales.yaml must end in .json"),
    ],
)
def test_a_report_does_not_end_as_another_format(folder: Path, words: list[object], says: str) -> None:
    done = run(*words)
    assert done.exit_code == 2 and says in done.stderr, done.output
    assert not list(folder.iterdir())
