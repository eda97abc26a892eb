"""The verdict on strings, against counting by hand and Wilson's closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.metrics import wilson
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.judge import Budget, Reading, judge, readings

MANIFEST = Manifest(("a", "b"), 0, "gray", 32, WidthRule(8, 8), (0.5,), (0.5,), "linear", StepRule(1, -5))


def reading(text: str, min_probability: float = 0.9, margin: float = 1.0) -> Reading:
    indices = np.array([" ab".index(c) for c in text], np.int64)
    return Reading(text, min_probability, indices, np.full(indices.shape, margin, np.float32))


def test_readings_of_frames() -> None:
    logits = np.array([[[0, 3, 1], [5, 0, 4], [0, 1, 3]]], np.float32)
    [one] = readings(Frames.from_logits(logits), MANIFEST)
    chances = np.exp(logits[0]) / np.exp(logits[0]).sum(axis=1, keepdims=True)
    assert one.text == "ab" and one.min_probability == pytest.approx(chances.max(axis=1).min())
    assert one.margins.tolist() == [2, 1, 2]


def test_what_is_counted_and_the_margins_at_flips() -> None:
    before = [reading("a"), reading("b", 0.5, 0.25), reading("a"), reading("b")]
    after = [reading("a"), reading("a"), reading("b"), reading("b")]
    verdict = judge(before, after, ["a", "a", "a", "a"])
    assert (verdict.flips.count, verdict.confident_flips.count, verdict.confident_flips.images) == (2, 1, 3)
    assert verdict.right_to_wrong and verdict.right_to_wrong.count == 1
    assert verdict.wrong_to_right and verdict.wrong_to_right.count == 1
    assert verdict.exact == (2, 2) and verdict.cer == (0.5, 0.5)
    assert [(c.image, c.confident, c.margin) for c in verdict.changes] == [(2, True, 1.0), (1, False, 0.25)]


@pytest.mark.parametrize(
    ("images", "flips", "answer"),
    [
        (3837, 0, "NOT ENOUGH IMAGES"),  # Wilson's upper bound of 0 in n is z^2 / (n + z^2)
        (3838, 0, "PASSED"),
        (5000, 2, "NOT ENOUGH IMAGES"),
        (5000, 20, "FAILED"),
        (32, 0, "NOT ENOUGH IMAGES"),
        (32, 1, "FAILED"),
    ],
)
def test_three_answers(images: int, flips: int, answer: str) -> None:
    same = [reading("a")] * images
    verdict = judge(same, [reading("b")] * flips + same[flips:])
    assert verdict.answer == answer and verdict.passed == (answer == "PASSED")
    assert verdict.line().startswith(f"{answer}: {images:,} images")


@pytest.mark.parametrize(
    ("sure", "unsure", "flips", "budget", "more"),
    [
        (1000, 0, 0, 0.001, 2838),  # 3838 of which none changes, in Wilson's closed form
        (1000, 1000, 0, 0.001, 2 * 2838),  # one in two is sure
        (1000, 0, 1, 0.001, None),  # as many as are allowed: the interval never leaves the budget
        (0, 50, 0, 0.001, None),  # none is sure
    ],
)
def test_how_many_images_more_settle_a_check(
    sure: int, unsure: int, flips: int, budget: float, more: int | None
) -> None:
    before = [reading("a")] * sure + [reading("a", 0.5)] * unsure
    [check] = judge(before, [reading("b")] * flips + before[flips:], budget=Budget(budget)).checks
    assert check.answer == "NOT ENOUGH IMAGES" and check.more_images == more
    told = "no number of further images" if more is None else f"about {more:,} further images"
    assert told in check.line()


@settings(max_examples=50, deadline=None)
@given(images=st.integers(1, 300), flips=st.integers(0, 5), allowed=st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_that_many_images_more_settle_it_and_one_less_does_not(
    images: int, flips: int, allowed: float
) -> None:
    """Images like these: with the same share of changes, as far as whole images allow it."""
    same = [reading("a")] * images
    flips = min(flips, images)
    [check] = judge(same, [reading("b")] * flips + same[flips:], budget=Budget(allowed)).checks
    if check.answer != "NOT ENOUGH IMAGES" or check.more_images is None:
        assert check.answer != "NOT ENOUGH IMAGES" or math.isclose(check.value, allowed)
        return
    many = images + check.more_images
    for number, settled in ((many, True), (many - 1, False)):
        low, high = wilson(flips / images * number, number)
        assert (high <= allowed or low > allowed) == settled
        if settled:
            assert check.settles_as == ("PASSED" if high <= allowed else "FAILED")
            assert check.line().endswith(f"would settle it as {check.settles_as}")


@pytest.mark.parametrize(("worse", "better", "allowed"), [(10, 0, 0.012), (3, 3, 0.002), (2, 8, 0.0001)])
def test_with_labels_so_many_images_that_change_nothing_on_average_settle_it(
    worse: int, better: int, allowed: float
) -> None:
    """The images are added: as many that get worse as better, and the same spread."""
    before = [reading("a")] * 500 + [reading("b")] * 500
    after = [reading("b")] * worse + before[worse : -better or None] + [reading("a")] * better
    check = judge(before, after, ["a"] * 1000, budget=Budget(1.0, accuracy_loss=allowed)).checks[1]
    assert check.answer == "NOT ENOUGH IMAGES" and check.settles_as == "PASSED"
    assert check.more_images is not None
    assert f"{check.more_images:,} further images that change nothing on average would settle" in check.line()
    mean, changed = (worse - better) / 1000, (worse + better) / 1000
    spread = math.sqrt(changed - mean**2)
    for more, settled in ((check.more_images, True), (check.more_images - 1, False)):
        images = 1000 + more
        highest = mean * 1000 / images + 1.959964 * spread / math.sqrt(images)
        assert (highest <= allowed) == settled


def test_the_answer_is_one_short_line_and_each_check_a_line_below_it() -> None:
    before = [reading("a")] * 500
    truths = ["a"] * 500
    verdict = judge(before, before, truths)
    *_, answer, first, second, third = verdict.table().splitlines()
    most = max(check.more_images or 0 for check in verdict.checks)
    assert (
        answer
        == verdict.line()
        == f"NOT ENOUGH IMAGES: 500 images; about {most:,} more would settle all checks"
    )
    assert [first, second, third] == [f"  {check.line()}" for check in verdict.checks]
    assert all(
        check.line().startswith(f"NOT ENOUGH IMAGES: {check.name} 0.000% (") for check in verdict.checks
    )
    enough = [reading("a")] * (500 + most)
    settled = judge(enough, enough, ["a"] * (500 + most))
    assert settled.line() == f"PASSED: {500 + most:,} images"


def test_how_many_images_settle_all_is_told_only_where_it_is_known() -> None:
    unsure = [reading("a", 0.5)] * 500
    assert judge(unsure, unsure).line() == "NOT ENOUGH IMAGES: 500 images"  # none is sure
    assert judge(unsure, unsure, ["a"] * 500).line() == "NOT ENOUGH IMAGES: 500 images"
    sure = [reading("a")] * 500
    assert judge(sure, sure).line() == "NOT ENOUGH IMAGES: 500 images; about 3,338 more would settle it"
    failed = judge(sure, [reading("b")] * 500, ["a"] * 500).line()
    assert failed == (
        "FAILED: 500 images; beyond what is allowed: confident strings changed, loss of exact accuracy, "
        "increase of the CER"
    )


def test_strings_nobody_was_sure_of_cost_nothing_without_labels_and_accuracy_with() -> None:
    before = [reading("a")] * 4500 + [reading("a", 0.6)] * 500
    after = before[:4500] + [reading("b", 0.6)] * 500
    assert judge(before, after).passed
    assert judge(before, after, ["a"] * 5000).answer == "FAILED"
    swapped = judge(
        before, after, ["a"] * 4500 + ["b"] * 250 + ["a"] * 250, budget=Budget(accuracy_loss=0.02)
    )
    assert swapped.exact == (4750, 4750) and swapped.checks[1].answer == "PASSED"


def test_nan_is_a_change() -> None:
    assert judge([reading("a")], [reading("a", math.nan)]).confident_flips.count == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.floats(0, 1)), min_size=1))
def test_flips_are_those_of_a_loop(rows: list[tuple[str, str, float]]) -> None:
    verdict = judge([reading(a, p) for a, _, p in rows], [reading(b) for _, b, _ in rows])
    assert verdict.flips.count == sum(a != b for a, b, _ in rows)
    assert verdict.confident_flips.count == sum(a != b and p > 0.8 for a, b, p in rows)
    low, high = verdict.flips.interval
    assert 0 <= low <= verdict.flips.share <= high <= 1
