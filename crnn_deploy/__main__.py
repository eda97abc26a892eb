"""The command `crnn-deploy`, also as `python -m crnn_deploy`."""

from __future__ import annotations

import os

from crnn_deploy.cli.main import main
from crnn_deploy.process import answer_signals

__all__ = ["run"]


def run() -> None:
    """Run the command line of this process."""
    _hold_standard_streams()
    answer_signals()
    main(prog_name="crnn-deploy")


def _hold_standard_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed.

    Else a file that is written gets their number, and what a library says on stderr goes into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


if __name__ == "__main__":
    run()
