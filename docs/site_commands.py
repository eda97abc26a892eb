"""The page of all commands, written from click when the site is built.

mkdocs calls `on_page_markdown` (`hooks` in mkdocs.yml), which puts the commands in the place of MARK.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from inspect import cleandoc
from itertools import groupby
from typing import Any

import click

from crnn_deploy.cli.main import main
from crnn_deploy.commands import COMMANDS, STAGES, extras_for

MARK = "<!-- every command -->"
PROGRAM = "crnn-deploy"
FACTS = re.compile(r"\s*\[([^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]$")  # what click writes behind an option's help


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace(MARK, "\n".join(_sections())) if MARK in markdown else markdown


def _sections() -> Iterator[str]:
    """All commands under the headings of `--help`."""
    top = click.Context(main, info_name=PROGRAM)
    for stage, names in groupby(_names(), key=_stage_of):
        yield f"## {stage}\n"
        for name in names:
            command = main.get_command(top, name)
            assert command is not None
            yield from _command(command, click.Context(command, parent=top, info_name=name))


def _names() -> list[str]:
    names = dict.fromkeys(name.partition(" ")[0] for name in COMMANDS)
    return sorted(names, key=lambda name: STAGES.index(_stage_of(name)))


def _stage_of(name: str) -> str:
    return next(one.stage for key, one in COMMANDS.items() if key.partition(" ")[0] == name)


def _command(command: click.Command, ctx: click.Context) -> Iterator[str]:
    path = ctx.command_path.removeprefix(f"{PROGRAM} ")
    yield f"### {path} {{#{path.replace(' ', '-')}}}\n"
    yield from _description(command)
    if isinstance(command, click.Group):
        for name, nested in command.commands.items():
            yield from _command(nested, click.Context(nested, parent=ctx, info_name=name))
        return
    yield _code(" ".join((ctx.command_path, *command.collect_usage_pieces(ctx))), "text")
    extras = extras_for(_libraries(path))
    if extras:
        yield f"Installed by the {'extra' if len(extras) == 1 else 'extras'} `{'`, `'.join(extras)}`.\n"
    yield '<dl class="options">'
    for option in command.get_params(ctx):
        record = option.get_help_record(ctx)
        if record is not None and record[1] and not {"--help", "--debug"} & {*option.opts}:
            yield _option(f"{path} {option.name}", *record)
    yield "</dl>\n"


def _libraries(path: str) -> list[str]:
    """What a command needs whatever it does, and for the first of the ways in which it may do it."""
    one = COMMANDS[path]
    ways = one.ways[0].needs if one.ways else ()
    return [need[0] for need in (*one.needs, *ways)]


def _description(command: click.Command) -> Iterator[str]:
    """A command's help: paragraphs, and as code what stands behind a `\\b`."""
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        mark, *lines = paragraph.splitlines()
        yield _code("\n".join(lines), "sh") if mark == "\b" else f"<p>{_html(paragraph)}</p>\n"


def _option(name: str, names: str, text: str) -> str:
    """An option as click's help shows it; what is in brackets behind its text stands below it."""
    facts = FACTS.search(text)
    said = _html(text[: facts.start()] if facts else text)
    below = f"<br><small>{_html(facts[1])}</small>" if facts else ""
    anchor = re.sub(r"[ _]", "-", name)
    return f'<dt id="{anchor}"><code>{escape(names)}</code></dt><dd>{said}{below}</dd>'


def _code(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```\n"


def _html(text: str) -> str:
    """Text with its names in backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(" ".join(text.split()), quote=False))
