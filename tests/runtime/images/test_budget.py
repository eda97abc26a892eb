"""What threads may hold together."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from crnn_deploy.runtime.images.budget import MemoryBudget


def test_parts_are_held_together_as_far_as_they_fit() -> None:
    budget, held, most, lock = MemoryBudget(1000), 0, 0, threading.Lock()

    def take(amount: int) -> None:
        nonlocal held, most
        with budget.part(amount):
            with lock:
                held += amount
                most = max(most, held)
            threading.Event().wait(0.002)
            with lock:
                held -= amount

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [300, 500, 100, 900, 400] * 20))
    assert 500 < most <= 1000 and held == 0


def test_a_part_that_is_larger_than_the_whole_is_held_alone() -> None:
    budget, entered = MemoryBudget(1000), threading.Event()

    def take() -> None:
        with budget.part(500):
            entered.set()

    with budget.part(10**9):
        thread = threading.Thread(target=take)
        thread.start()
        assert not entered.wait(0.2)
    thread.join(10)
    assert entered.is_set()


def test_small_parts_never_wait() -> None:
    budget = MemoryBudget(6400)
    with budget.part(6400), budget.part(100), budget.part(100):
        pass


def test_an_error_gives_the_part_back() -> None:
    budget = MemoryBudget(1000)
    for _ in range(3):
        with pytest.raises(ValueError), budget.part(1000):
            raise ValueError


CHILD = """
import os, threading
from crnn_deploy.runtime.images.budget import MemoryBudget
budget, entered, end = MemoryBudget(1000), threading.Event(), threading.Event()
def hold():
    with budget.part(1000):
        entered.set()
        end.wait()
threading.Thread(target=hold).start()
entered.wait()
child = os.fork()
if child == 0:
    with budget.part(1000):
        os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
end.set()
raise SystemExit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_begins_with_the_whole() -> None:
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD], timeout=60).returncode == 7
