"""Commands of the scripts in `training/`: their errors are one line, with the exit codes of `crnn-deploy`."""

from __future__ import annotations

from typing import Any

import click

from crnn_deploy.cli.say import say
from crnn_deploy.errors import CrnnDeployError

__all__ = ["ScriptCommand"]


class ScriptCommand(click.Command):
    """Bad input and files that cannot be read or written are told in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CrnnDeployError as error:
            say(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise  # click knows it
        except OSError as error:
            say(f"Error: {error.filename or 'a file'}: {error.strerror or error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            from crnn_deploy.process import INTERRUPTED

            ctx.exit(INTERRUPTED)
