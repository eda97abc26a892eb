"""`dataset check`: what it finds, in the library and on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from published_steps import TIME_STEPS

from crnn_deploy.cli.main import main
from crnn_deploy.datasets import Sample
from crnn_deploy.datasets.check import DatasetReport, check, steps_of
from crnn_deploy.manifest import StepRule, WidthRule
from crnn_deploy.recipes.recipe import RECIPES, find_recipe
from crnn_deploy.runtime.decoding import ctc

DATA = Path(__file__).parents[3] / "shared" / "data"
FREE = WidthRule(4, 1600)


def image(width: int, height: int = 32, seed: int = 0) -> bytes:
    """A PNG of noise."""
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


class Listed:
    """Samples that are there already; their names are their indexes."""

    def __init__(self, rows: Sequence[tuple[bytes, str]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return Sample(*self.rows[index], f"#{index}")


def checked(rows: Sequence[tuple[bytes, str]], alphabet: Sequence[str] | None = None) -> DatasetReport:
    return check(Listed(rows), height=32, width=FREE, steps=StepRule(4, 0), alphabet=alphabet)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good samples: labels.csv and three images of widths 100, 100 and 200."""
    for number, width in enumerate((100, 100, 200)):
        (tmp_path / f"{number}.png").write_bytes(image(width, seed=number))
    (tmp_path / "labels.csv").write_text("path,text\n0.png,abc\n1.png,12\n2.png,a1\n")
    return tmp_path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["dataset", "check", *map(str, args)])


def test_good_data_pass() -> None:
    report = checked([(image(40, seed=at), "abc") for at in range(3)], "abc")
    assert report.passed
    assert report.widths == {40: 3}


def test_characters_outside_the_alphabet_are_counted() -> None:
    report = checked(
        [(image(400, seed=1), "a?é?"), (image(400, seed=2), "ab"), (image(400, seed=3), "?")], "ab"
    )
    assert (report.characters, report.unknown.count) == ({"?": 3, "é": 1}, 2)
    assert report.unknown.examples[0].startswith("#0: ")
    assert not report.passed
    assert checked([(image(400), "?")]).passed  # no alphabet, nothing to be outside of


def test_a_token_of_several_characters_is_one_label() -> None:
    alphabet = ["a", "ə̇", "ə"]
    text = "ə̇əə̇a"
    report = check(
        Listed([(image(16), text)]), height=32, width=FREE, steps=StepRule(4, 0), alphabet=alphabet
    )
    assert report.passed  # four tokens in four steps, though there are six code points
    assert len(ctc.encode(text, alphabet, 0)) == 4
    assert checked([(image(400), "\u0307a")], alphabet).characters == {"\u0307": 1}


@given(st.text("abc", max_size=8))
def test_a_text_is_cut_into_tokens_as_for_the_network(text: str) -> None:
    alphabet = ["ab", "abc", "b", "c", "a"]
    needed = ctc.steps_needed(ctc.encode(text, alphabet, 0))
    for steps in (needed - 1, needed):
        if steps > 0:
            report = checked([(image(4 * steps), text)], alphabet)
            assert report.too_long.count == (steps < needed)


@given(st.lists(st.integers(1, 2), max_size=6), st.integers(1, 8))
def test_a_label_is_too_long_when_the_ctc_loss_is_infinite(labels: list[int], steps: int) -> None:
    logits = torch.zeros(steps, 1, 3).log_softmax(2)
    target = torch.tensor([labels], dtype=torch.long)
    lengths = torch.tensor([steps]), torch.tensor([len(labels)])
    loss = torch.nn.functional.ctc_loss(logits, target, *lengths, reduction="sum")
    assert (ctc.steps_needed(labels) <= steps) == bool(loss.isfinite())


def test_labels_too_long_for_their_image() -> None:
    rows = [(image(16, seed=0), "abcd"), (image(16, seed=1), "abb"), (image(16, seed=2), "aabb")]
    report = checked(rows)  # four time steps each
    assert report.too_long.count == 1
    assert report.too_long.examples == ["#2: 'aabb' needs 6 time steps, the image gives 4"]


def test_every_built_in_recipe_has_the_time_steps_of_its_family() -> None:
    latin = find_recipe(str(Path(__file__).parents[2] / "training" / "latin.toml"))
    assert tuple(map(steps_of(latin), (32, 33, 100, 257))) == TIME_STEPS["compact"]
    for recipe in RECIPES.values():
        if recipe.family is not None:
            assert tuple(map(steps_of(recipe), (32, 33, 100, 257))) == TIME_STEPS[recipe.family]


def test_duplicates_with_the_same_and_with_other_labels() -> None:
    a, b, c = (image(40, seed=seed) for seed in range(3))
    report = checked([(a, "x"), (b, "y"), (a, "x"), (c, "z"), (b, "Y"), (a, "x"), (c, "z")])
    assert (report.repeats.count, report.repeats.examples) == (3, ["#2 = #0", "#5 = #0", "#6 = #3"])
    assert (report.conflicts.count, report.conflicts.examples) == (1, ["#1: 'y', #4: 'Y'"])
    assert not report.passed
    assert checked([(a, "x"), (a, "x")]).passed


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("xy")), max_size=12))
def test_duplicates_are_those_that_a_dictionary_finds(rows: list[tuple[int, str]]) -> None:
    report = checked([(image(40, seed=seed), text) for seed, text in rows])
    labels: dict[int, list[str]] = {}
    for seed, text in rows:
        labels.setdefault(seed, []).append(text)
    assert report.conflicts.count == sum(len(set(texts)) > 1 for texts in labels.values())
    assert report.repeats.count == sum(len(t) - 1 for t in labels.values() if len(set(t)) == 1)


def test_unreadable_images_and_empty_labels() -> None:
    report = checked([(b"no image", "a"), (image(40), ""), (image(40, seed=1)[:-20], "b"), (image(41), "c")])
    assert (report.unreadable.count, report.empty.count) == (2, 1)
    assert report.unreadable.examples[0].startswith("#0: ")
    assert report.empty.examples == ["#1"]
    assert report.widths == {40: 1, 41: 1}


def test_an_image_of_too_many_pixels_counts_as_unreadable() -> None:
    width = WidthRule(100, 100)
    samples = Listed([(image(40), "a"), (image(41), "b")])
    report = check(samples, height=32, width=width, steps=StepRule(4, 4), max_pixels=32 * 40)
    assert report.unreadable.count == 1 and "more than the limit of" in report.unreadable.examples[0]


def test_widths_are_those_at_the_networks_height() -> None:
    rows = [(image(100, 64), "a"), (image(30, 10), "b")]
    wide = check(Listed(rows), height=32, width=WidthRule(100, 100), steps=StepRule(4, 4))
    assert wide.widths == {50: 1, 96: 1}  # natural, though the network sees 100
    seed = RECIPES["sierkinhane-360cc"].width
    assert check(Listed(rows), height=32, width=seed, steps=StepRule(4, 4)).widths == {28: 1, 54: 1}


@given(st.dictionaries(st.integers(1, 70_000), st.integers(1, 99), min_size=1, max_size=20))
def test_the_histogram_counts_every_image_once(widths: dict[int, int]) -> None:
    rows = DatasetReport(0, 32, None, widths=widths).histogram()
    assert len(rows) <= 16
    assert rows[0][2] and rows[-1][2]
    assert all(one[1] + 1 == other[0] for one, other in pairwise(rows))
    for first, last, count in rows:
        assert count == sum(n for width, n in widths.items() if first <= width <= last)
    assert sum(count for _, _, count in rows) == sum(widths.values())


# the command


def test_the_command_says_what_is_wrong_by_its_exit_code(folder: Path) -> None:
    good = run(folder)
    assert (good.exit_code, good.stderr) == (0, "")
    assert good.stdout.splitlines()[0].split() == ["samples", "3"]
    assert run(folder, "--alphabet-string", "abc12").exit_code == 0
    bad = run(folder, "--alphabet-string", "abc1")
    assert bad.exit_code == 1
    assert "'2'" in bad.stdout and "1.png: '12' has '2'" in bad.stdout
    (folder / "alphabet.txt").write_text("abc1")
    assert run(folder, "--alphabet", folder / "alphabet.txt").stdout == bad.stdout
    missing = run(folder / "gone.csv")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert missing.stderr.count("\n") == 1


def test_a_recipe_brings_its_alphabet_and_widths(folder: Path) -> None:
    assert run(folder, "--recipe", "crnn.pytorch").exit_code == 0
    (folder / "labels.csv").write_text("path,text\n0.png,abcdefghijklmnopqrstuvwxyz\n")
    assert run(folder, "--recipe", "crnn.pytorch").exit_code == 0  # 26 time steps
    narrow = run(folder, "--recipe", "gitycc")  # 24
    assert narrow.exit_code == 1 and "needs 26 time steps, the image gives 24" in narrow.stdout
    assert run(folder, "--recipe", "gitycc", "--model", "x.onnx").exit_code == 2


def test_a_model_brings_its_alphabet_and_time_steps(folder: Path, tiny_onnx: Path) -> None:
    result = run(folder, "--model", tiny_onnx, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (found["alphabet"], found["characters"]) == (10, {"a": 2, "b": 1, "c": 1})
    assert found["passed"] is False
    assert found["widths"] == {"100": 2, "200": 1}
    assert run(folder, "--model", tiny_onnx, "--alphabet-string", "abc12").exit_code == 0


def test_characters_are_the_alphabet_of_indexes(folder: Path) -> None:
    (folder / "chars").write_bytes(b"blank\na\n\xaa\xa5\n1")
    (folder / "train.txt").write_text("0.png 1 3\n1.png 2 2\n")
    result = run(folder / "train.txt", "--characters", folder / "chars", "--json")
    assert (result.exit_code, json.loads(result.stdout)["characters"]) == (1, {"\ufffd": 2})


def test_the_histogram_as_a_picture(folder: Path) -> None:
    assert run(folder, "--plot", folder / "widths.png").exit_code == 0
    picture = cv2.imread(str(folder / "widths.png"))
    assert picture is not None
    blue = (picture[:, :, 0] > 150) & (picture[:, :, 2] < 60)
    columns = np.flatnonzero(blue.any(axis=0))
    heights = blue.sum(axis=0)[[columns[2], columns[-3]]]
    assert heights[0] == pytest.approx(2 * heights[1], abs=4)  # two images of width 100, one of 200
    assert run(folder, "--plot", folder / "gone" / "widths.png").exit_code != 0
    assert run(folder, "--plot", folder / "widths.svg").exit_code == 0
    assert "<svg" in (folder / "widths.svg").read_text()
    assert "cannot write" in run(folder, "--plot", folder / "widths.odd").stderr


def test_debug_reaches_a_command_in_a_group(folder: Path) -> None:
    for args in (["dataset", "check", "--debug", "gone"], ["--debug", "dataset", "check", "gone"]):
        result = CliRunner().invoke(main, args)
        assert result.exit_code == 2
        assert "Traceback" in result.stderr
    assert "Traceback" not in run("gone").stderr


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of public data is not here")
@pytest.mark.parametrize(
    ("name", "exit_code", "line"),
    [
        ("lmdb/imgs.lmdb", 0, ["samples", "10"]),
        ("lmdb/broken.lmdb", 1, ["unreadable", "images", "1"]),
        ("signed_numbers", 0, ["repeated", "images,", "same", "label", "22"]),
    ],
)
def test_public_data(name: str, exit_code: int, line: list[str]) -> None:
    result = run(DATA / name)
    assert result.exit_code == exit_code
    assert line in [row.split() for row in result.stdout.splitlines()]
