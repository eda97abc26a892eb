"""The command `crnn-deploy`, also as `python -m crnn_deploy`."""

from __future__ import annotations

import os
import signal

__all__ = ["run"]


def run() -> None:
    """Run the command line of this process.

    A signal that comes while it starts ends it without a word, as there is nothing to undo yet.
    """
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _hold_standard_streams()
    from crnn_deploy.cli.main import main
    from crnn_deploy.process import answer_signals

    main(prog_name="crnn-deploy", obj=answer_signals)


def _hold_standard_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed.

    Else a file that is written gets their number, and what a library says on stderr goes into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


if __name__ == "__main__":
    run()
