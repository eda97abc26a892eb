"""Decoders from the command line, Python and a model's manifest: the same, and clear about mistakes."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")

from crnn_deploy.cli.main import main
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import ReadFailed
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.decoding.beam import Beam
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.constraints import Constraint
from crnn_deploy.runtime.decoding.ctc import Frames, LogitsMissing, Text
from crnn_deploy.runtime.decoding.greedy import Greedy
from crnn_deploy.runtime.decoding.lexicon import ClosestWord
from crnn_deploy.runtime.recognizer import Recognizer

IMAGES = Path(__file__).parents[2] / "examples" / "images"
PATHS = sorted(map(str, IMAGES.glob("*.png")))


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["infer", *args])


def rows(*args: str) -> list[dict[str, Any]]:
    result = run(*args, "--format", "jsonl", *PATHS)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer()


def test_a_decoder_is_the_same_on_the_command_line_and_in_python(recognizer: Recognizer) -> None:
    beam = Beam(width=7, nbest=3, constraint=Constraint(block="0123456789"))
    found = rows("--decoder", "beam", "--beam-width", "7", "--nbest", "3", "--block", "0123456789")
    texts = recognizer.with_decoder(beam).read(PATHS)
    for row, text in zip(found, texts, strict=True):
        assert (row["text"], row["confidence"]) == (text.text, text.confidence)
        assert [(one["text"], one["score"]) for one in row["alternatives"]] == [
            (one.text, one.score) for one in text.alternatives
        ]
        assert row["alternatives"][0]["text"] == row["text"] and not set(text.text) & set("0123456789")
        scores = [one["score"] for one in row["alternatives"]]
        assert scores == sorted(scores, reverse=True) and len(scores) <= 3
    assert Recognizer(decoder=beam).read(PATHS) == texts


def test_a_text_does_not_depend_on_the_batch_whatever_finds_it(recognizer: Recognizer) -> None:
    image = cv2.imread(PATHS[0])
    assert image is not None
    images = [image, 255 - image, image // 2, image]  # of one width
    for decoder in (
        Beam(nbest=2),
        Greedy(Constraint(mask="LLLLLL")),
        decoder_of(DecodingRule(aggregate="likelihood", temperature=1.7)),
    ):
        reader = recognizer.with_decoder(decoder)
        assert reader.read(images) == [reader.read([image])[0] for image in images]


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_every_text_meets_its_constraint(decoder: str) -> None:
    args = ("--decoder", decoder)
    for row in rows(*args, "--mask", "AA\\-9999"):
        assert re.fullmatch(r"..-[0-9]{4}", row["text"]) and row["text"][:2].isupper()
    assert all(set(row["text"]) <= set("0123456789") for row in rows(*args, "--allow", "0123456789"))
    assert all(5 <= len(row["text"]) <= 6 for row in rows(*args, "--min-length", "5", "--max-length", "6"))
    assert all(re.fullmatch("[a-z]+", row["text"]) for row in rows(*args, "--pattern", "[a-z]+"))


def test_a_constraint_that_the_text_meets_changes_nothing() -> None:
    code = rows("--mask", "AA\\-9999/A")[6]
    assert code["text"] == "HX-4711/B"
    [plain] = [row for row in rows() if row["path"] == code["path"]]
    assert math.isclose(code["confidence"], plain["confidence"], rel_tol=1e-6)


def test_an_image_in_which_nothing_allowed_fits_is_one_error_record(recognizer: Recognizer) -> None:
    reader = recognizer.with_decoder(Greedy(Constraint(shortest=30)))
    wide, narrow = np.full((32, 1200), 255, np.uint8), np.full((32, 32), 255, np.uint8)
    fits, does_not = reader.try_read([wide, narrow])
    assert isinstance(fits, Text) and len(fits.text) == 30
    assert isinstance(does_not, ReadFailed) and "no text that is allowed fits" in str(does_not)
    cells = [narrow, narrow + np.uint8(0), wide]
    assert [type(one) for one in reader.try_read(cells)] == [ReadFailed, ReadFailed, Text]


def test_words_and_hotwords_pull_the_text(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("Printed\nPointed\n\nKeep\ndry\nEXIT\n", encoding="utf-8")
    closest = {row["path"]: row["text"] for row in rows("--decoder", "closest-word", "--lexicon", str(words))}
    assert closest[PATHS[0]] == "Printed" and closest[PATHS[5]] == "EXIT"
    assert "Grüße" in closest[PATHS[1]]  # no word is near, so it stays
    beam = rows("--decoder", "beam", "--hotword", "Kcep", "--boost", "30")
    assert beam[4]["text"].startswith("Kcep")
    assert beam[0]["text"] == "Printed"
    lexicon = rows("--decoder", "beam", "--lexicon", str(words))
    assert lexicon[5]["text"] == "EXIT"
    # accents that a word is not listed with cost what an unknown word does, or a little of it where ignored
    words.write_text("Gruse\naus\nKoln\n", encoding="utf-8")
    given = ("--decoder", "beam", "--nbest", "1", "--format", "jsonl", PATHS[1])
    scores = []
    listed = ("--lexicon", str(words))
    for more in ((), (*listed, "--ignore-accents"), listed, (*listed, "--unknown", "-6.5")):
        [best] = json.loads(run(*given, *more).stdout)["alternatives"]
        assert best["text"] == "Grüße aus Köln"
        scores.append(best["score"])
    assert 1 < scores[0] - scores[1] < 2 and scores[2] < scores[0] - 10
    assert scores[3] == pytest.approx(scores[2] - 2 * 0.5)  # two words


def test_alternatives_stand_in_every_format(recognizer: Recognizer) -> None:
    args = ("--decoder", "beam", "--nbest", "2", "--show-chars", *PATHS[:2])
    texts = recognizer.with_decoder(Beam(nbest=2)).read(PATHS[:2])
    wanted = [[[one.text, round(one.score, 6)] for one in text.alternatives] for text in texts]
    table = list(csv.DictReader(io.StringIO(run(*args, "--format", "csv").stdout)))
    assert [json.loads(row["alternatives"]) for row in table] == wanted
    lines = [line.split("\t") for line in run(*args).stdout.splitlines()]
    assert [json.loads(cells[3]) for cells in lines] == wanted and {len(cells) for cells in lines} == {4}
    lines = [line.split("\t") for line in run(*args, "--format", "tsv").stdout.splitlines()]
    assert lines[0][-2:] == ["chars", "alternatives"]
    assert [json.loads(cells[-1]) for cells in lines[1:]] == wanted


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--allow", "abcя"], "the model cannot read 'я'"),
        (["--mask", "я"], "nothing meets mask 'я'"),
        (["--mask", "A", "--allow", "0123"], "nothing meets"),
        (["--mask", "99\\"], "nothing follows the last backslash"),
        (["--min-length", "4", "--max-length", "2"], "lengths from 4 to 2"),
        (["--lexicon", "w.txt"], "--lexicon needs --decoder beam or closest-word; this would be greedy"),
        (["--hotword", "w"], "--hotword needs --decoder beam"),
        (["--beam-width", "5"], "--beam-width needs --decoder beam"),
        (["--ignore-accents"], "--ignore-accents needs --decoder beam"),
        (["--decoder", "closest-word"], "--decoder closest-word needs its words: --lexicon FILE"),
        (["--decoder", "closest-word", "--mask", "A"], "--mask needs --decoder greedy or beam"),
        (["--decoder", "beam", "--alpha", "1"], "--alpha weighs a language model; name it with --lm FILE"),
        (
            ["--decoder", "beam", "--unknown", "-9"],
            "--unknown weighs words that are not in a lexicon; give the lexicon with",
        ),
        (["--decoder", "beam", "--lexicon", "none.txt"], "none.txt: no such file"),
        (["--decoder", "beam", "--lexicon", "empty.txt"], "empty.txt: it holds no words"),
        (["--decoder", "beam", "--lm", "none.arpa"], "none.arpa: no such file"),
        (["--decoder", "beam", "--lm", "empty.txt.arpa"], "it is no whole ARPA file"),
        (["--decoder", "beam", "--lm", "greek.arpa"], "a language model of another alphabet: of the "),
        (["--decoder", "best"], "'best' is not one of"),
    ],
)
def test_a_mistake_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty.txt", "empty.txt.arpa"):
        Path(name).touch()
    Path("greek.txt").write_text("καλημέρα\n", encoding="utf-8")
    if "greek.arpa" in args:
        assert CliRunner().invoke(main, ["lm", "train", "greek.txt", "-o", "greek.arpa"]).exit_code == 0
    result = run(*args, PATHS[0])
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr.splitlines()[-1]


def test_what_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    monkeypatch.chdir(tmp_path)
    Path("model.bin").write_bytes(b"a language model")
    result = run("--decoder", "beam", "--lm", "model.bin", PATHS[0])
    assert result.exit_code == 2
    assert "run pip install 'crnn-deploy[kenlm]'" in result.stderr


def test_a_graph_that_takes_the_argmax_cannot_be_searched() -> None:
    class Argmax:
        manifest = Recognizer().manifest
        object.__setattr__(manifest, "output", "argmax")

        def run(self, images: Any) -> Frames:
            raise AssertionError

        def close(self) -> None: ...

    Recognizer(Argmax())
    with pytest.raises(LogitsMissing, match="--graph-output logits"):
        Recognizer(Argmax(), decoder=Beam())


def test_defaults_are_kept_in_the_model(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    path = tmp_path / "codes.onnx"
    args = ["--decoder", "beam", "--mask", "AA\\-9999/A", "--nbest", "2", "--confidence", "mean"]
    result = CliRunner().invoke(main, ["set-decoding", str(DEFAULT), *args, "-o", str(path)])
    assert (result.exit_code, result.stderr) == (0, "")
    stored = Recognizer.load(path)
    assert stored.manifest.decoding == DecodingRule(
        decoder="beam", mask="AA\\-9999/A", nbest=2, aggregate="mean"
    )
    assert [row["text"] for row in rows("--model", str(path))] == [t.text for t in stored.read(PATHS)]
    assert rows("--model", str(path)) == rows(*args)
    # what the user says goes first, the rest stays
    greedy = rows("--model", str(path), "--decoder", "greedy")
    assert greedy == rows(*args[2:4], "--confidence", "mean")
    # weights of files that are named when images are read
    weighed = tmp_path / "weighed.onnx"
    args = ["--decoder", "beam", "--alpha", "0.8", "--unknown", "-9"]
    result = CliRunner().invoke(main, ["set-decoding", str(DEFAULT), *args, "-o", str(weighed)])
    assert result.stdout == f"{weighed}: beam, alpha 0.8, unknown -9.0\n"
    # in place, and back
    again = CliRunner().invoke(main, ["set-decoding", str(path), "-o", str(path)])
    assert (again.exit_code, again.stdout) == (0, f"{path}: greedy, aggregate 'mean'\n")
    wrong = CliRunner().invoke(
        main, ["set-decoding", str(path), "--mask", "я", "-o", str(tmp_path / "no.onnx")]
    )
    assert wrong.exit_code == 2 and "nothing meets" in wrong.stderr and not (tmp_path / "no.onnx").exists()


def test_every_decoder_places_the_same_text_alike(recognizer: Recognizer) -> None:
    """The best path is its own text's likeliest alignment, so forced alignment gives its runs."""
    plain = recognizer.read(PATHS)
    words = tuple(text.text for text in plain)
    for decoder in (Beam(), Greedy(Constraint()), ClosestWord(words)):
        same = 0
        for one, other in zip(plain, recognizer.with_decoder(decoder).read(PATHS), strict=True):
            if one.text != other.text:
                continue
            same += 1
            assert [(c.char, c.start, c.end, c.left, c.right) for c in one.chars] == [
                (c.char, c.start, c.end, c.left, c.right) for c in other.chars
            ]
            assert np.allclose([c.confidence for c in one.chars], [c.confidence for c in other.chars], 1e-5)
        assert same > 8
