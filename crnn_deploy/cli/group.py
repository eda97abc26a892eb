"""Groups of commands: how `--help` lists them, each with an example, and what a mistyped name gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import cleandoc

import click

from crnn_deploy.errors import did_you_mean

__all__ = ["PROGRAM", "WORDS", "Group", "examples"]

PROGRAM = "crnn-deploy"
WORDS = f"{__name__}.words"  # in a context's meta: what stands behind the name of the command that runs


def examples(command: click.Command) -> list[str]:
    """The lines of a command's help that stand behind a `\\b`, where examples are."""
    found: list[str] = []
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        mark, *lines = paragraph.splitlines()
        if mark == "\b":
            found += lines
    return found


class Group(click.Group):
    """A group that shows an example of each command, and names the nearest command where one is mistyped."""

    def sections(self, ctx: click.Context) -> Mapping[str, Sequence[str]]:
        """The names of its commands under the headings of its help."""
        return {"Commands": self.list_commands(ctx)}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(map(len, self.list_commands(ctx)))
        for heading, names in self.sections(ctx).items():
            with formatter.section(heading):
                for name in names:
                    command = self.get_command(ctx, name)
                    assert command is not None
                    short = command.get_short_help_str(formatter.width - 4 - longest)
                    formatter.write(f"  {name:{longest}}  {short}\n")
                    formatter.write(f"      {_example(command, f'{ctx.command_path} {name}')}\n")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.list_commands(ctx) and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {name!r}{self.nearest(ctx, name)}.", ctx)
        found = super().resolve_command(ctx, args)
        ctx.meta[WORDS] = tuple(found[2])  # parsing takes the words off the list
        return found

    def nearest(self, ctx: click.Context, name: str) -> str:
        """What stands behind a name that none of its commands has."""
        return did_you_mean(name, self.list_commands(ctx))


def _example(command: click.Command, path: str) -> str:
    """The first example of a command, or of those in a group.

    path: the command with the groups that it is in, the program's name first
    """
    words = " ".join((PROGRAM, *path.split()[1:]))
    if isinstance(command, click.Group):
        name, first = next(iter(command.commands.items()))
        return _example(first, f"{path} {name}")
    return next(line for line in examples(command) if f"{line} ".startswith(f"{words} "))
