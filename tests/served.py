"""A running server, as users start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

__all__ = ["Served"]


class Served:
    """`crnn-deploy serve` in a process of its own."""

    def __init__(self, *options: str | Path) -> None:
        command = [sys.executable, "-m", "crnn_deploy", "serve", "--port", "0", *map(str, options)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []  # of stderr
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        assert self._ready.wait(60), self.lines
        found = re.search(r"ready: (\S+)", "".join(self.lines))
        assert found is not None, self.lines
        self.url = found[1]

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if line.startswith("ready: "):
                self._ready.set()
        self._ready.set()

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(70)
        finally:
            self.process.kill()
        self._reader.join(5)
        return code
