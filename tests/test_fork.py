"""A process forks while its threads read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from crnn_deploy.process import not_forked

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

FORKS = """
import os, signal, sys, threading, time
from dataclasses import replace
import numpy as np

def fork_while(threads, work, check, children):
    end = threading.Event()
    def again():
        while not end.is_set():
            work()
    for _ in range(threads):
        threading.Thread(target=again, daemon=True).start()
    codes = []
    for _ in range(children):
        time.sleep(0.005)
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # ends one that hangs
            os._exit(0 if check() else 3)
        codes.append(os.waitpid(child, 0)[1])
    print(codes.count(0), "of", len(codes), flush=True)
    os._exit(0)
"""
READ = """
from crnn_deploy import Recognizer
from crnn_deploy.models import DEFAULT
recognizer = Recognizer.load(DEFAULT, backend=sys.argv[1], threads=int(sys.argv[2]))
images = [np.random.default_rng(i).integers(0, 256, (32, 100 + 8 * i), np.uint8) for i in range(8)]
want = recognizer.read(images)
fork_while(4, lambda: recognizer.read(images), lambda: recognizer.read(images) == want, int(sys.argv[3]))
"""
OPEN = """
from crnn_deploy import Recognizer
image = np.zeros((32, 100), np.uint8)
def check():
    return len(Recognizer().read([image])) == 1
check()
fork_while(4, check, check, 20)
"""
PREPARE = """
from crnn_deploy import Recognizer
from crnn_deploy.runtime.images.prepare import prepare
manifest = replace(Recognizer().manifest, interpolation="pillow-bicubic")
pixels = np.random.default_rng(0).integers(0, 256, (900, 1600), np.uint8)
def prepared():
    return prepare(pixels, manifest).any()
prepared()
fork_while(3, prepared, prepared, 20)
"""
FIRST = """
import crnn_deploy
threading.Thread(target=lambda: crnn_deploy.Recognizer, daemon=True).start()
time.sleep(float(sys.argv[1]))
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(0 if crnn_deploy.Recognizer.__name__ == "Recognizer" else 3)
print(os.waitpid(child, 0)[1], flush=True)
os._exit(0)
"""


def forks(code: str, *arguments: str) -> str:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "4"}  # as on a machine with 4 CPUs
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-W", "ignore", "-c", FORKS + code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            return process.communicate(timeout=120)[0].strip()
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def test_children_read_with_the_model_of_their_parent() -> None:
    """ONNX Runtime's; OpenVINO's threads are gone in a child, and one of ten hung."""
    assert forks(READ, "onnxruntime", "1", "20") == "20 of 20"


def test_children_open_a_model_while_their_parent_does() -> None:
    assert forks(OPEN) == "20 of 20"


@pytest.mark.parametrize("seconds", ["0", "0.002", "0.01"])
def test_a_child_loads_a_name_that_its_parent_is_loading(seconds: str) -> None:
    assert forks(FIRST, seconds) == "0"


def test_children_resize_as_pillow_does_while_their_parent_does() -> None:
    assert forks(PREPARE) == "20 of 20"


def test_a_fork_waits_for_those_inside_and_not_for_its_own_thread() -> None:
    inside, leave, order = threading.Event(), threading.Event(), []

    def hold() -> None:
        with not_forked(), not_forked():
            inside.set()
            leave.wait(5)
            order.append("left")

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(5)
    threading.Timer(0.3, leave.set).start()
    with not_forked():
        child = os.fork()
        if child == 0:
            os._exit(0)
        order.append("forked")
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    assert order == ["left", "forked"]


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn_deploy.process._FORK_WAITS", 0.1)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with not_forked():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(5)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        with not_forked():
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    thread.join()
    assert time.monotonic() - start < 30
