"""The command `crnn-deploy`: its subcommands, and how an error ends it."""

from __future__ import annotations

import importlib
import shlex
import traceback
from contextlib import nullcontext
from typing import Any

import click

from crnn_deploy.cli.group import PROGRAM, WORDS, Group
from crnn_deploy.cli.say import check_stdout, say
from crnn_deploy.commands import COMMANDS, STAGES
from crnn_deploy.errors import CrnnDeployError, did_you_mean, printable
from crnn_deploy.process import INTERRUPTED, interrupted

__all__ = ["main"]

_PLACES = {name.partition(" ")[0]: command.place for name, command in COMMANDS.items()}
_RENAMED = {  # options of earlier versions, and what they are called in the commands that had them
    "--batch": ("--batch-range", "--batches"),
    "--confidence": ("--confident-above",),
    "--count": ("--max-images",),
    "--engine": ("--backend",),
    "--images": ("--image-folder",),
    "--model": ("--factory",),
    "--samples": ("--max-images", "--synthetic-images"),
    "--target": ("--target-device",),
    "--tf32": ("--allow-tf32",),
    "--widths": ("--width-range",),
}

_SHOWN = 3  # commands that have an option which another lacks


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
        except click.NoSuchOption as error:
            raise _explained(error) from None

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
            if isinstance(error, click.NoSuchOption):
                raise _explained(error) from None
            if isinstance(error, click.MissingParameter):
                error = _with_option(error, ctx.meta[WORDS])
            vars(error)["message"] = printable(error.message)  # names of files may stand in it
            raise error
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows them
        except Exception as error:
            if ctx.meta.get("debug"):
                traceback.print_exception(error)
            if interrupted():
                ctx.exit(INTERRUPTED)
            if not isinstance(error, CrnnDeployError):
                from crnn_deploy.doctor import explained

                error = explained(error, ctx.invoked_subcommand or "") or error
            message, exit_code = str(error), getattr(error, "exit_code", 1)
            if not isinstance(error, CrnnDeployError | OSError):  # a full disk is nobody's bug
                kind = type(error).__name__
                message = f"unexpected {kind}: {message}; run again with --debug for the traceback"
            say(f"Error: {' '.join(message.splitlines())}", err=True)
            ctx.exit(exit_code)


def _explained(error: click.NoSuchOption) -> click.NoSuchOption:
    """The error with the option's new name, the commands that have it, or the nearest one of this command."""
    name = error.option_name
    hint = _name_now(error) or _elsewhere(error) or did_you_mean(name, _options_of(error))
    return click.NoSuchOption(name, f"No such option {name!r}{hint}.", ctx=error.ctx)


def _with_option(error: click.MissingParameter, words: tuple[str, ...]) -> click.UsageError:
    """The error with the whole command, where a file was given without the option that it belongs to."""
    option, ctx = error.param, error.ctx
    if ctx is None or not isinstance(option, click.Option) or not isinstance(option.type, click.Path):
        return error
    # what no argument of the command takes
    left = ctx.command.make_parser(ctx).parse_args(list(words))[1]
    if not left:
        return error
    at = words.index(left[0])
    names = ctx.command_path.split()[1:]
    whole = shlex.join((PROGRAM, *names, *words[:at], option.opts[0], *words[at:]))
    missing = error.format_message().rstrip(".")
    return click.UsageError(f"{missing}; write it before the file: {whole}", ctx)


def _elsewhere(error: click.NoSuchOption) -> str:
    """Which commands have the option that this one does not have, in words."""
    if error.ctx is None:
        return ""
    root = error.ctx.find_root()
    found = []
    for whole in COMMANDS:
        command: click.Command | None = root.command
        for name in whole.split():
            command = command.get_command(root, name) if isinstance(command, click.Group) else None
        if command is not None and error.option_name in _options(command, root):
            found.append(whole)
    if not found:
        return ""
    shown = ", ".join((*found[:_SHOWN], *(["..."] if len(found) > _SHOWN else [])))
    return f"; {shown} {'has' if len(found) == 1 else 'have'} it"


def _options_of(error: click.NoSuchOption) -> list[str]:
    """The options of the command that was given one that it does not have."""
    return [] if error.ctx is None else _options(error.ctx.command, error.ctx)


def _options(command: click.Command, ctx: click.Context) -> list[str]:
    names = (name for one in command.get_params(ctx) for name in (*one.opts, *one.secondary_opts))
    return [name for name in names if name.startswith("--")]


def _name_now(error: click.NoSuchOption) -> str | None:
    """What an option of an earlier version is called in this command, in words."""
    known = _options_of(error)
    found = next((name for name in _RENAMED.get(error.option_name, ()) if name in known), None)
    return None if found is None else f": its new name is {found}"


@click.group(cls=_Group, params=[_debug_option()], context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crnn-deploy")
def main() -> None:
    """Take a CRNN from its checkpoint to the text of your images."""
