"""The command `crnn-deploy`, also as `python -m crnn_deploy`."""

from __future__ import annotations

import signal

__all__ = ["run"]


def run() -> None:
    """Run the command line of this process.

    A signal that comes while it starts ends it without a word, as there is nothing to undo yet.
    """
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from crnn_deploy.cli.main import main
    from crnn_deploy.process import answer_signals

    main(prog_name="crnn-deploy", obj=answer_signals)


if __name__ == "__main__":
    run()
