"""The command as process 1 of a container, to which the kernel gives only the signals that it asks for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

if sys.platform != "linux" or os.getuid() or not shutil.which("unshare"):
    pytest.skip("needs root on Linux and unshare", allow_module_level=True)

SLOW_START = "import sys, time; sys.argv[1:] = ['--version']; from crnn_deploy import __main__ as command; "
# stands for imports that take long
SLOW_START += "command._open_streams = lambda: (print('begun', flush=True), time.sleep(30)); command.run()"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it(number: signal.Signals) -> None:
    line = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", SLOW_START]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        if not (begun := engine.stdout.readline()):
            pytest.skip("no namespaces here")
        assert begun == "begun\n"
        [first] = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
        sent = time.monotonic()
        os.kill(int(first), number)
        assert engine.wait(20) == 128 + number and time.monotonic() - sent < 5
