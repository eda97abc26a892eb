"""The command `crnn-deploy`, also as `python -m crnn_deploy`."""

from __future__ import annotations

from crnn_deploy.cli.main import main
from crnn_deploy.process import answer_signals

__all__ = ["run"]


def run() -> None:
    """Run the command line of this process."""
    answer_signals()
    main(prog_name="crnn-deploy")


if __name__ == "__main__":
    run()
