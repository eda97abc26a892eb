"""The command `crnn-deploy`, also as `python -m crnn_deploy`."""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper

__all__ = ["run"]


def run() -> None:
    """Run the command line of this process.

    A signal that comes while it starts ends it without a word, as there is nothing to undo yet.
    """
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    from crnn_deploy.cli.main import main
    from crnn_deploy.process import answer_signals

    try:
        main(prog_name="crnn-deploy", obj=answer_signals)
    except OSError as error:  # of --help and --version, which are no command
        sys.exit(f"Error: {error}")
    finally:
        _let_go_of_streams()


def _let_go_of_streams() -> None:
    """The command has said what it could not write; Python would try again as it ends, and end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_streams() -> None:
    """Standard streams that are closed are opened, lest a file that is opened later takes their number.

    Input is empty then, messages are lost, and what writes to the output fails.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = TextIOWrapper(os.fdopen(1, "wb", buffering=0, closefd=False), write_through=True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    run()
