"""Types of what options and arguments take: how each is checked, and how a shell completes it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.errors import did_you_mean, is_address

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "CHECKPOINTS",
    "MODELS",
    "File",
    "ModelFile",
    "OneOf",
    "OutputFile",
    "PlaceText",
    "RecipeText",
]

MODELS = (".onnx", ".engine")  # endings of the files that `--model` takes
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")  # and of those that `export` takes

# endings that people know a format by; a report in another one would be opened by the wrong program
_TOLD = frozenset(
    (
        *(".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".yaml", ".yml", ".xml"),
        *(".html", ".md", ".pdf", ".svg", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"),
        *(".zip", ".gz", ".bz2", ".7z"),
    )
)


class OneOf(click.Choice[str]):
    """One of some words; where another one is given, the nearest is named."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        return f"{value!r} is not one of {', '.join(self.choices)}{did_you_mean(value, self.choices)}"


class File(click.Path):
    """A file or folder; an empty name, as of a shell's variable that is not set, would be the folder here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty; name a file, or leave the option out", param, ctx)
        if self.type is Path and isinstance(value, str) and is_address(value):
            self.fail(f"{value} is an address; give a file of this machine", param, ctx)
        return super().convert(value, param, ctx)


class OutputFile(File):
    """A file that is written; it does not end as another format than the one in its option's metavar does."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        _, dot, ending = ((param and param.metavar) or "").partition(".")
        if dot and Path(value).suffix.lower() in _TOLD and not str(value).lower().endswith(dot + ending):
            self.fail(f"{value} must end in .{ending}, the format that is written", param, ctx)
        return super().convert(value, param, ctx)


class ModelFile(File):
    """A model's file, given as a path or as the name of a shipped model."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from crnn_deploy.models import model_file

        return super().convert(model_file(value) if value else value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from crnn_deploy.models import shipped

        return _names_or_files(shipped(), incomplete)


class PlaceText(click.types.StringParamType):
    """A path, a pattern or an address of images or labels, kept as it was written; no model's file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        ending = os.path.splitext(value)[1].lower()
        if ending in MODELS + CHECKPOINTS and not os.path.isdir(value):
            raise click.UsageError(_no_images(value, ending, ctx), ctx)
        return super().convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return _names_or_files((), incomplete)


def _no_images(path: str, ending: str, ctx: click.Context | None) -> str:
    """What to do with a model's file that stands among images."""
    kind = "model" if ending in MODELS else "checkpoint"
    wanted = ctx is not None and any("--model" in one.opts for one in ctx.command.params)
    if ctx is None or not wanted or ctx.params.get("model") is not None:
        return f"{path} is a {kind}; name images in its place"
    if kind == "model":
        return f"{path} is a model; give it with --model {path}"
    return f"{path} is a checkpoint; export it first: crnn-deploy export --checkpoint {path}"


class RecipeText(click.types.StringParamType):
    """A recipe: the name of a built-in one, or a file."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        return "crnn-deploy recipes lists the built-in ones"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from crnn_deploy.recipes.recipe import RECIPES

        return _names_or_files(RECIPES, incomplete)


def _names_or_files(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """The names that begin with what is written, and files: Bash shows these where no name does."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(incomplete, type="file"),
        *(CompletionItem(name) for name in names if name.startswith(incomplete)),
    ]
