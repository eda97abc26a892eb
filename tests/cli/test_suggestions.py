"""A name that is not known gets the nearest one that is, in the same line."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from test_options import COMMANDS, OPTIONS

from crnn_deploy.cli.main import main
from crnn_deploy.cli.values import OneOf
from crnn_deploy.errors import did_you_mean

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "training" / "print.yaml")
TYPE = "lmdb, csv, tsv, doctr, names, tabs, indices, objects, mmocr, icdar, mjsynth, beside, webdataset"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("exprt", "No such command 'exprt' (did you mean export?)."),
        ("inferr x", "No such command 'inferr' (did you mean infer?)."),
        ("build", "No such command 'build' (did you mean build-engine?)."),
        ("dataset chek x", "No such command 'chek' (did you mean check?)."),
        ("lm trian x", "No such command 'trian' (did you mean train?)."),
        ("pack x", "No such command 'pack' (did you mean dataset pack?)."),
        ("zzz", "No such command 'zzz'."),
        ("infer-cluster --boxes x", "No such option '--boxes'; infer has it."),
        ("infer --checkpoint x", "No such option '--checkpoint'; export, build-engine have it."),
        ("serve --kind", "No such option '--kind'; quantize, verify, evaluate, ... have it."),
        ("--versoin", "No such option '--versoin' (did you mean --version?)."),
        ("infer --max_pixels 3 x", "No such option '--max_pixels' (did you mean --max-pixels?)."),
        ("infer --ouput x", "No such option '--ouput' (did you mean --output?)."),
        ("infer --ignore-accent x", "No such option '--ignore-accent' (did you mean --ignore-accents?)."),
        ("dataset pack x --shard 3", "No such option '--shard'."),
        ("quantize --synth 3 x", "No such option '--synth' (did you mean --synthetic-images?)."),
        ("infer -z x", "No such option '-z'."),
        ("evaluate latin x --kind lmbd", f"'lmbd' is not one of {TYPE} (did you mean lmdb?)"),
        ("infer --decoder bem x", "'bem' is not one of greedy, beam, closest-word (did you mean beam?)"),
        ("infer --wide zzz x", "'zzz' is not one of cut, shrink\n"),
        ("serve english.onnx", "english.onnx is a model; give it with --model english.onnx\n"),
        ("serve --model a.onnx b.engine", "b.engine is a model; give it with --model b.engine\n"),
        ("serve latin chinese", "arguments (latin chinese); did you mean --model latin?\n"),
        ("serve base.toml", "argument (base.toml); did you mean --model base.toml?\n"),
        ("serve 8001", "Got unexpected extra argument (8001)\n"),
        ("doctor latin", "argument (latin); did you mean --model latin?\n"),
        ("inspect latin x.onnx", "Got unexpected extra argument (x.onnx)\n"),
        ("export --checkpoint https://x.org/a.pth", "https://x.org/a.pth is an address; give a file of this"),
        ("infer --lexicon http://x/w.txt x", "http://x/w.txt is an address; give a file of this machine"),
        ("infer -o s3://b/x.jsonl x", "s3://b/x.jsonl is an address; give a file of this machine"),
        ("infer --model latn x", "is called 'latn' (did you mean latin?); shipped are chinese, "),
        ("evaluate latin-int8 x", "is called 'latin-int8' (did you mean latin.int8?); shipped are "),
        ("describe c.pth -o x.onnx --recipe papre", "no recipe 'papre' (did you mean paper?); "),
        ("dataset check DATA --recipe crnn_pytorch", "recipe 'crnn_pytorch' (did you mean crnn.pytorch?); "),
        (
            "dataset check DATA --recipe base.toml",
            "base 'papr' is not a built-in recipe (did you mean paper?)",
        ),
        ("dataset check DATA --recipe key.toml", "unknown keys ['colour'] (did you mean color?); known are "),
        ("dataset check DATA --recipe width.toml", "unknown keys ['min'] in width (did you mean minimum?)"),
        ("dataset check DATA --recipe word.toml", "color is 'grey', not one of gray, rgb, bgr (did you mean"),
        ("dataset check DATA --recipe fit.toml", "unknown fit 'strech' (did you mean stretch?); there are "),
        (
            "dataset check DATA --recipe filter.toml",
            "unknown filter 'clahee' (did you mean clahe?); there are",
        ),
        (
            f"train --config {CONFIG} --set optimiser.lr=1",
            "optimiser: there is no such key (did you mean opt",
        ),
        (
            f"train --config {CONFIG} --set validation.own.pth=x",
            "validation.own.pth: there is no such key (did",
        ),
        (
            f"train --config {CONFIG} --set train.0.synthetic.styl=x",
            "there is no such key (did you mean style?)",
        ),
        (f"train --config {CONFIG} --set optimizer.name=adamv", "or 'adadelta' (did you mean adam?)"),
        (f"train --config {CONFIG} --set zzz=1", "zzz: there is no such key\n"),
    ],
)
def test_the_nearest_name_stands_in_the_error(
    arguments: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "base": 'base = "papr"',
        "key": 'base = "paper"\ncolour = "rgb"',
        "width": 'base = "paper"\nwidth = { min = 3 }',
        "word": 'base = "paper"\ncolor = "grey"',
        "fit": 'base = "paper"\nwidth = { minimum = 3, maximum = 9, fit = "strech" }',
        "filter": 'base = "paper"\nfilters = [{ filter = "clahee" }]',
    }.items():
        Path(f"{name}.toml").write_text(text)
    places = {"DATA": str(ROOT / "examples" / "labels.txt")}
    result = CliRunner().invoke(main, [places.get(word, word) for word in arguments.split()])
    assert result.exit_code == 2 and said in result.stderr, result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ("--Model", ["--mode", "--model"], " (did you mean --model?)"),
        ("pap", ["papaya", "paper"], " (did you mean paper?)"),
        ("zzz", ["paper"], ""),
        ("", ["paper"], ""),
        ("--", ["--paper"], ""),
        ("x" * 10_000, ["x" * 9_999], ""),
        (None, ["none"], ""),
        (["paper"], ["paper"], ""),
        ("paper", [], ""),
    ],
)
def test_what_is_near(given: object, known: list[str], expected: str) -> None:
    assert did_you_mean(given, known) == expected


def test_all_choices_name_the_nearest() -> None:
    parameters = [one for command in COMMANDS.values() for one in command.params]
    choices = [one.type for one in parameters if isinstance(one.type, click.Choice)]
    assert len(choices) > 40 and len(OPTIONS) > 150
    assert all(isinstance(kind, OneOf) for kind in choices)


def test_a_folder_with_a_colon_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c:").mkdir()
    Path("c:/words.txt").write_text("Printed\n")
    image = str(ROOT / "examples" / "images" / "01.png")
    result = CliRunner().invoke(main, ["infer", "--decoder", "beam", "--lexicon", "c:/words.txt", image])
    assert result.exit_code == 0 and "Printed" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "export my.pth -o e.onnx",
            "; write it before the file: crnn-deploy export --checkpoint my.pth -o e.onnx\n",
        ),
        ("export --blank last my.pth", "the file: crnn-deploy export --blank last --checkpoint my.pth\n"),
        ("--debug export my.pth", "write it before the file: crnn-deploy export --checkpoint my.pth\n"),
        ("set-decoding a.onnx b.onnx", "crnn-deploy set-decoding a.onnx -o b.onnx\n"),
        ("dataset pack a b", "crnn-deploy dataset pack a -o b\n"),
        ("export", "Missing option '--checkpoint'.\n"),
    ],
)
def test_a_file_without_its_option_gets_the_whole_command(arguments: str, said: str) -> None:
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2 and said in result.stderr, result.stderr
