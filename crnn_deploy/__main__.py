"""The command `crnn-deploy`, also as `python -m crnn_deploy`."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from io import BufferedWriter, FileIO, TextIOWrapper

TYPE_CHECKING = False  # as in the package's own module
if TYPE_CHECKING:
    from typing import Any

__all__ = ["run"]


def run() -> None:
    """Run the command line of this process.

    A signal that comes while it starts ends it without a word, as there is nothing to undo yet.
    """
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getpid() == 1:  # of a container, to which the kernel gives no signal that it does not ask for
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os._exit(128 + number))
    _open_streams()
    from crnn_deploy.cli.main import main
    from crnn_deploy.process import answer_signals

    try:
        main(prog_name="crnn-deploy", obj=answer_signals)
    except OSError as error:  # of --help and --version, which are no command
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or error
        print(f"Error: cannot write stdout: {reason}", file=sys.stderr)
        sys.exit(2)
    finally:
        _let_go_of_streams()
        gc.freeze()  # else Python's end looks for cycles among all objects of PyTorch, for a second


def _let_go_of_streams() -> None:
    """The command has said what it could not write; Python would try again as it ends, and end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Messages(FileIO):
    """Stderr, which no run depends on: what a full disk or a reader that has gone does not take is lost."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def _open_streams() -> None:
    """Standard streams that are closed are opened, lest a file that is opened later takes their number.

    Messages are lost then. Input and output are opened the wrong way round, so that what needs them fails.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = TextIOWrapper(os.fdopen(1, "wb", buffering=0, closefd=False), write_through=True)
    given = sys.stderr
    sys.stderr = TextIOWrapper(
        BufferedWriter(_Messages(2, "w", closefd=False)),
        None if given is None else given.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


if __name__ == "__main__":
    run()
