"""What an error of usage says beyond the words of click: how this command takes what it was given."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

import click

from crnn_deploy.cli.group import PROGRAM
from crnn_deploy.cli.values import CHECKPOINTS, MODELS, ModelFile, PlaceText
from crnn_deploy.commands import COMMANDS
from crnn_deploy.errors import did_you_mean

__all__ = ["explained"]

_NAMED_HERE = {  # options of some commands, and what they are called in others
    "--batch": ("--batch-range", "--batches"),
    "--confidence": ("--confident-above",),
    "--count": ("--max-images",),
    "--samples": ("--max-images", "--synthetic-images"),
    "--target": ("--target-device",),
    "--tf32": ("--allow-tf32",),
    "--widths": ("--width-range",),
}
_MODEL = ("--model", "--engine")
_IMAGES = ("--images", "--image", "--data", "--labels", "--input")
_IMAGES_ARGUMENTS = ("images", "paths", "inputs")  # the others hold labels too
_ORDINALS = ("first", "second", "third")
_EXTRA = re.compile(r"Got unexpected extra arguments? \((.*)\)", re.DOTALL)  # click's words
_SHOWN = 3  # commands that have an option which another lacks


def explained(error: click.UsageError, words: Sequence[str]) -> click.UsageError:
    """The error of an option or argument that is not known, with what to do; words: of the command line."""
    if isinstance(error, click.MissingParameter):
        return _with_option(error, words)
    return _option(error, words) if isinstance(error, click.NoSuchOption) else _argument(error)


def _option(error: click.NoSuchOption, words: Sequence[str]) -> click.NoSuchOption:
    """The error with how this command takes it, the commands that have it, or the nearest option."""
    name, ctx = error.option_name, error.ctx
    hint = "" if ctx is None else _as_argument(name, ctx, words) or _other_option(name, ctx)
    if not hint and ctx is not None:
        hint = _elsewhere(name, ctx) or did_you_mean(name, _options(ctx.command, ctx))
    return click.NoSuchOption(name, f"No such option {name!r}{hint}.", ctx=ctx)


def _argument(error: click.UsageError) -> click.UsageError:
    """The error of arguments too many; where the first is a model or a checkpoint, with the option for it."""
    found = _EXTRA.fullmatch(error.message)
    if error.ctx is None or found is None:
        return error
    known = _options(error.ctx.command, error.ctx)
    given = found[1].split(" ")[0]
    for noun, endings in (("model", MODELS), ("checkpoint", CHECKPOINTS)):
        if given.lower().endswith(endings) and f"--{noun}" in known:
            return click.UsageError(f"{given} is a {noun}; give it with --{noun} {given}", error.ctx)
    if "--model" in known and not any(isinstance(one, click.Argument) for one in error.ctx.command.params):
        from crnn_deploy.models import shipped

        if given in shipped() or os.path.exists(given):
            return click.UsageError(f"{error.message}; did you mean --model {given}?", error.ctx)
    return error


def _with_option(error: click.MissingParameter, words: Sequence[str]) -> click.UsageError:
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


def _as_argument(name: str, ctx: click.Context, words: Sequence[str]) -> str:
    """How the command takes as an argument what was given as an option; nothing where it does not."""
    arguments = [one for one in ctx.command.params if isinstance(one, click.Argument)]
    known = _options(ctx.command, ctx)
    for at, found in enumerate(arguments):
        if isinstance(found.type, ModelFile) or found.name == "foreign":
            nouns = dict.fromkeys(_MODEL, "model")
            if "--recipe" in known and "--checkpoint" not in known:  # it reads checkpoints too
                nouns["--checkpoint"] = "checkpoint"
        elif isinstance(found.type, PlaceText):
            nouns = dict.fromkeys(_IMAGES, "images" if found.name in _IMAGES_ARGUMENTS else "data")
        else:
            continue
        if name in nouns:
            value = _value(name, words)
            shown = [
                value if one is found and value else one.make_metavar(ctx).removesuffix("...")
                for one in arguments
            ]
            line = " ".join(("crnn-deploy", *ctx.command_path.split()[1:], *shown))
            beside = name == "--images" and "--image-folder" in known
            labels = "; --image-folder is for the images that labels name" if beside else ""
            return f"; give the {nouns[name]} as the {_ORDINALS[at]} argument: {line}{labels}"
    return ""


def _value(name: str, words: Sequence[str]) -> str:
    """What was given to an option; nothing where nothing was."""
    for word, after in zip(words, (*words[1:], ""), strict=True):
        if word == name:
            return "" if after.startswith("-") else after
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return ""


def _other_option(name: str, ctx: click.Context) -> str:
    """The option of this command that takes it; nothing where there is none."""
    known = _options(ctx.command, ctx)
    if name == "--model" and "--checkpoint" in known:
        return "; give a checkpoint with --checkpoint, and the code of your own network with --factory"
    if name == "--engine" and "--model" in known:
        return "; give an .engine file with --model, and the library for an .onnx file with --backend"
    found = next((one for one in _NAMED_HERE.get(name, ()) if one in known), None)
    return "" if found is None else f"; here it is called {found}"


def _elsewhere(name: str, ctx: click.Context) -> str:
    """Which commands have the option that this one does not have, in words."""
    root = ctx.find_root()
    found = []
    for whole in COMMANDS:
        command: click.Command | None = root.command
        for part in whole.split():
            command = command.get_command(root, part) if isinstance(command, click.Group) else None
        if command is not None and name in _options(command, root):
            found.append(whole)
    if not found:
        return ""
    shown = ", ".join((*found[:_SHOWN], *(["..."] if len(found) > _SHOWN else [])))
    return f"; {shown} {'has' if len(found) == 1 else 'have'} it"


def _options(command: click.Command, ctx: click.Context) -> list[str]:
    names = (name for one in command.get_params(ctx) for name in (*one.opts, *one.secondary_opts))
    return [name for name in names if name.startswith("--")]
