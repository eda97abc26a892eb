"""`lm train` and decoders side by side, from the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")

from crnn_deploy.cli.main import main
from crnn_deploy.metrics import score
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.decoding.lm import open_language_model
from crnn_deploy.runtime.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
LABELS = ROOT / "examples" / "labels.txt"


def run(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), input=stdin)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("Printed\nnaïve façade\nGrüße aus Köln\n18:45\n" * 3, encoding="utf-8")
    return path


def test_a_model_that_was_trained_is_a_distribution_and_knows_its_texts(texts: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.arpa"
    result = run("lm", "train", texts, "-", "-o", path, "--order", 4, stdin=b"EXIT\n")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{path}: order 4, ")
    model = open_language_model(path)

    def log_likelihood(text: str) -> float:
        state, total = model.start(), 0.0
        for character in text:
            state, weight = model.step(state, character)
            total += weight
        return total + model.end(state)

    for right, wrong in (("Printed", "Prinled"), ("naïve façade", "naive íaçade"), ("EXIT", "EX1T")):
        assert log_likelihood(right) > log_likelihood(wrong) + math.log(10)
    seen = sorted(set("PrintednaïvefaçadeGrüßeausKöln18:45EXIT "))
    total = sum(math.exp(model.step(model.start(), c)[1]) for c in [*seen, "\U0010ffff"])
    assert math.isclose(total + math.exp(model.end(model.start())), 1, rel_tol=1e-4)


def test_a_language_model_corrects_a_text(texts: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.arpa"
    assert run("lm", "train", texts, "-o", path).exit_code == 0
    image = ROOT / "examples" / "images" / "08.png"
    beam = ("--decoder", "beam", "--lm", path, "--alpha", "1", "--beta", "1")
    texts_read = [run("infer", *args, image).stdout.split("\t")[1] for args in ((), beam)]
    assert texts_read == ["naive façade\n", "naïve façade\n"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["texts.txt", "-o", "texts.lm"], "must end in .arpa"),
        (["none.txt", "-o", "a.arpa"], "none.txt: No such file"),
        (["bytes.txt", "-o", "a.arpa"], "bytes.txt: it is not UTF-8 text"),
        (["empty.txt", "-o", "a.arpa"], "it is empty"),
        (["texts.txt", "-o", "no/a.arpa"], "cannot write no/a.arpa"),
    ],
)
def test_bad_texts_are_one_line(
    texts: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], says: str
) -> None:
    monkeypatch.chdir(texts.parent)
    Path("bytes.txt").write_bytes(b"\xff\xfe\x00")
    Path("empty.txt").touch()
    result = run("lm", "train", *args)
    assert result.exit_code == 2 and says in result.stderr.splitlines()[-1], result.stderr
    assert not Path("a.arpa").exists()


def test_decoders_side_by_side(texts: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    model, figures, page = tmp_path / "texts.arpa", tmp_path / "f.json", tmp_path / "p.html"
    assert run("lm", "train", texts, "-o", model).exit_code == 0
    result = run(
        *("evaluate", DEFAULT, LABELS, "--decoder", "greedy", "--decoder", "beam"),
        *("--lm", model, "--alpha", 1, "--beta", 1, "--json-file", figures, "--html", page),
    )
    assert result.exit_code == 0, result.stderr
    plain = json.loads(figures.read_text())
    assert list(plain["decoders"]) == ["greedy", "beam"]
    greedy, beam = (plain["decoders"][name]["overall"] for name in ("greedy", "beam"))
    assert plain["overall"] == greedy and beam != greedy
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(("greedy", "beam"))]
    for row, one in zip(rows, (greedy, beam), strict=True):
        assert row[1] == "12" and row[2] == f"{one['accuracy']:.2%}"
        assert f"{one['cer']:.2%}" in row and f"{one['one_minus_ned']:.4f}" in row
    assert "By decoder" in page.read_text() and f"{100 * beam['cer']:.2f} %" in page.read_text()
    # one decoder alone is a plain evaluation with it
    alone = run("evaluate", DEFAULT, LABELS, "--mask", "AA\\-9999/A", "--json-file", figures)
    assert alone.exit_code == 0 and "decoder  " not in alone.stdout
    pairs = [line.split(" ", 1) for line in LABELS.read_text(encoding="utf-8").splitlines()]
    mask = json.loads(figures.read_text())["overall"]
    assert mask["exact"] == sum(truth == "HX-4711/B" for _, truth in pairs) == 1
    read = Recognizer().read([LABELS.parent / name for name, _ in pairs])
    read_as = [(truth, text.text) for (_, truth), text in zip(pairs, read, strict=True)]
    assert greedy["edits"] == score(read_as).edits


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--decoder", "greedy", "--decoder", "greedy"], "a --decoder is named twice"),
        (["--decoder", "greedy", "--decoder", "beam", "--distance", "2"], "--distance needs --decoder"),
        (["--decoder", "greedy", "--decoder", "closest-word"], "needs its words: --lexicon FILE"),
    ],
)
def test_decoders_that_do_not_fit_are_bad_usage(args: list[str], says: str) -> None:
    result = run("evaluate", DEFAULT, LABELS, *args)
    assert result.exit_code == 2 and says in result.stderr
