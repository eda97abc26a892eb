"""The benchmarks of speed: what they measure is what they say, and what got slower is told from noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import compare
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st


def results(path: Path, rounds: dict[str, list[float]], **header: str) -> Path:
    from _common import measured

    rows = {name: {"cpu_per_image": measured(values, "CPU ms")} for name, values in rounds.items()}
    plain: dict[str, Any] = {"suite": "s", "machine": "m", "device": "cpu", "versions": {"numpy": "2"}}
    path.write_text(json.dumps({**plain, **header, "rows": rows}))
    return path


QUIET = [10.0, 10.1, 10.2, 9.9, 10.3, 10.05]
SLOWER = [value * 1.3 for value in QUIET]
NOISY = [8.0, 14.0, 9.0, 13.0, 10.0, 16.0]


@pytest.mark.parametrize(
    ("before", "after", "code", "line"),
    [
        (QUIET, SLOWER, 1, "worse  x 1.30"),
        (SLOWER, QUIET, 0, "better x 0.77"),
        (QUIET, [value * 1.04 for value in QUIET], 0, "1 same"),  # within the tolerance
        (QUIET, NOISY, 0, "1 same"),  # the median is 15 % higher, the rounds overlap
        (QUIET[:3], SLOWER[:3], 0, "1 same"),  # three rounds cannot show it
    ],
)
def test_what_got_slower_is_told_from_noise(
    before: list[float], after: list[float], code: int, line: str, tmp_path: Path, capsys: Any
) -> None:
    first, second = results(tmp_path / "a", {"x": before}), results(tmp_path / "b", {"x": after})
    assert compare.main([str(first), str(second)]) == code
    assert line in capsys.readouterr().out


def test_a_quantity_of_one_file_is_passed_over(tmp_path: Path, capsys: Any) -> None:
    first = results(tmp_path / "a", {"x": QUIET, "gone": QUIET})
    second = results(tmp_path / "b", {"x": QUIET, "new": SLOWER})
    assert compare.main([str(first), str(second)]) == 0
    assert "0 worse, 0 better, 1 same" in capsys.readouterr().out


@pytest.mark.parametrize("header", [{"machine": "another"}, {"suite": "another"}])
def test_results_of_other_machines_are_refused(header: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    first, second = results(tmp_path / "a", {"x": QUIET}), results(tmp_path / "b", {"x": QUIET}, **header)
    with pytest.raises(SystemExit) as stopped:
        compare.main([str(first), str(second)])
    assert stopped.value.code == 2
    assert "another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [  # scipy 1.17.1's mannwhitneyu, method="exact" and for the last two "asymptotic"
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 0.007936507936507936),
        ([1, 4, 6, 7], [2, 3, 5, 8, 9], 0.7301587301587302),
        ([1.1, 2.2, 3.3], [0.5, 2.0, 4.0], 1.0),
        ([*range(0, 30, 2)], [x + 5.5 for x in range(0, 30, 2)], 0.15846460599820356),
        ([1, 2, 2, 3] * 3, [2, 3, 3, 4] * 3, 0.006527484479669648),
    ],
)
def test_the_test_is_that_of_mann_and_whitney(first: list[float], second: list[float], p: float) -> None:
    assert compare.same_chance(first, second) == pytest.approx(p, rel=1e-9)


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=6), st.lists(st.integers(0, 9), min_size=2, max_size=6)
)
def test_the_chance_is_one_and_does_not_care_which_came_first(first: list[int], second: list[int]) -> None:
    p = compare.same_chance(first, second)
    assert 0 < p <= 1
    assert p == pytest.approx(compare.same_chance(second, first))
    assert compare.same_chance(first, first) == 1


def test_rounds_are_kept_beside_their_median_and_quartiles() -> None:
    from _common import measured

    values = [3.0, 1.0, 2.0, 5.0, 4.0]
    row = measured(values, "CPU ms")
    assert row["rounds"] == values
    lower, median, upper = np.percentile(values, [25, 50, 75])
    assert (row["lower"], row["median"], row["upper"]) == (lower, median, upper)
    assert measured([2.0], "ms")["lower"] == 2.0


def test_tasks_run_in_turn_after_a_round_that_warms_up() -> None:
    from _common import cpu_in_turn

    called: list[str] = []
    tasks = {name: (lambda name=name: called.append(name)) for name in ("a", "b")}
    spent = cpu_in_turn(tasks, {"a": 1, "b": 4}, 3)
    assert called == ["a", "b"] * 4
    assert [len(values) for values in spent.values()] == [3, 3]
