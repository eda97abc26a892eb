"""The command `crnn-deploy`: its subcommands, and how an error ends it."""

from __future__ import annotations

import importlib
import traceback
from contextlib import nullcontext
from typing import Any

import click

from crnn_deploy.cli.group import WORDS, Group
from crnn_deploy.cli.say import check_stdout, say
from crnn_deploy.cli.usage_errors import explained
from crnn_deploy.commands import COMMANDS, STAGES
from crnn_deploy.errors import CrnnDeployError, printable
from crnn_deploy.process import INTERRUPTED, interrupted

__all__ = ["main"]

_PLACES = {name.partition(" ")[0]: command.place for name, command in COMMANDS.items()}


def _debug_option() -> click.Option:
    """`--debug`, for the group and every command: it may stand before or after a command's name."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta["debug"] = True

    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help="Show the traceback of an error.",
    )


def _show_help(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """What `--help` does; a stdout that does not take it is named."""
    if value and not ctx.resilient_parsing:
        check_stdout()
        say(ctx.get_help())
        ctx.exit()


def _add_options(command: click.Command, parent: click.Context) -> None:
    """Give `--debug` and our `--help` to a command and to those within it."""
    command.params.append(_debug_option())
    ctx = click.Context(command, parent=parent)
    if (shown := command.get_help_option(ctx)) is not None:
        shown.callback = _show_help
    if isinstance(command, click.Group):
        for nested in command.commands.values():
            _add_options(nested, ctx)


class _Group(Group):
    """Loads a command when it is asked for, and turns every error into one line and an exit code.

    The context's object is what answers signals while a command runs, where the process is the command's own.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def sections(self, ctx: click.Context) -> dict[str, list[str]]:
        return {
            stage: list(
                dict.fromkeys(
                    name.partition(" ")[0] for name, command in COMMANDS.items() if command.stage == stage
                )
            )
            for stage in STAGES
        }

    def nearest(self, ctx: click.Context, name: str) -> str:
        """A command in a group too, where its own name is given: `dataset check` for `check`."""
        nested = [whole for whole in COMMANDS if whole.endswith(f" {name}")]
        return f" (did you mean {nested[0]}?)" if nested else super().nearest(ctx, name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in _PLACES:
            module, name = _PLACES[cmd_name].split(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            _add_options(command, ctx)
            self.add_command(command, cmd_name)
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise explained(error, args) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with nullcontext() if ctx.obj is None else ctx.obj():
                return self._invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if isinstance(error, click.UsageError):
                error = explained(error, ctx.meta.get(WORDS, ()))
            vars(error)["message"] = printable(error.message)  # names of files may stand in it
            raise error from None
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows them
        except Exception as error:
            if ctx.meta.get("debug"):
                traceback.print_exception(error)
            if interrupted():
                ctx.exit(INTERRUPTED)
            if not isinstance(error, CrnnDeployError):
                from crnn_deploy.doctor import explained as mended

                error = mended(error, ctx.invoked_subcommand or "") or error
            message, exit_code = str(error), getattr(error, "exit_code", 1)
            if not isinstance(error, CrnnDeployError | OSError):  # a full disk is nobody's bug
                kind = type(error).__name__
                message = f"unexpected {kind}: {message}; run again with --debug for the traceback"
            say(f"Error: {' '.join(message.splitlines())}", err=True)
            ctx.exit(exit_code)


@click.group(cls=_Group, params=[_debug_option()], context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crnn-deploy")
def main() -> None:
    """Take a CRNN from its checkpoint to the text of your images."""
