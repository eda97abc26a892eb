"""Options that several commands share, each with one meaning and one help text, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crnn_deploy.datasets import Kept
    from crnn_deploy.manifest import Manifest
    from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.cli.say import say
from crnn_deploy.cli.values import File, ModelFile, OneOf, OutputFile, PlaceText, RecipeText

__all__ = [
    "CHECKPOINT_ONLY",
    "DATA_ONLY",
    "FILE",
    "MODEL",
    "PLACE",
    "alphabet_and_blank",
    "alphabet_in_short",
    "alphabet_of",
    "alphabet_options",
    "assumptions",
    "backend_option",
    "batch_option",
    "blank_option",
    "check_data_outputs",
    "check_device",
    "check_no_folder",
    "checkpoint_option",
    "checkpoint_options",
    "confidence_option",
    "data_options",
    "device_option",
    "html_option",
    "images_option",
    "json_options",
    "max_images_option",
    "max_pixels_option",
    "model_option",
    "open_data",
    "output_option",
    "plot_option",
    "precision_option",
    "recipe_option",
    "refuse_given",
    "refuse_images",
    "resume_option",
    "rotate_option",
    "settings_of",
    "show_chars_option",
    "tf32_option",
    "tier_option",
    "warn_of_assumptions",
    "wide_option",
    "workers_option",
]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_SHOWN = 40  # characters of an alphabet
# of `checkpoint_options`
CHECKPOINT_ONLY = ("recipe", "factory", "alphabet", "alphabet_string", "blank", "activation")

FILE = File(path_type=Path)
MODEL = ModelFile(path_type=Path)
PLACE = PlaceText()
_WRITTEN = OutputFile(path_type=Path)
DATA_ONLY = ("kind", "image_folder", "characters")  # of `data_options`


def _all(*options: Decorator) -> Decorator:
    """Add options in the order of this list."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def output_option(form: str = "FILE", *, default: str | None = None, anywhere: bool = False) -> Decorator:
    """Where the command's main result goes; required where there is no default.

    form: how the name looks; default: in words; anywhere: a text, which may be the address of a store
    """
    return click.option(
        *("-o", "--output"),
        metavar=form,
        type=OutputFile(path_type=str) if anywhere else _WRITTEN,
        required=default is None,
        show_default=default,
        help="Write the result to this path.",
    )


json_options = _all(
    click.option(
        "--json", "as_json", is_flag=True, help="Print the report as one JSON object instead of a table."
    ),
    click.option(
        "--json-file", metavar="FILE.json", type=_WRITTEN, help="Write the report as JSON to this file."
    ),
)
html_option = click.option(
    "--html", metavar="FILE.html", type=_WRITTEN, help="Write the report as an HTML page to this file."
)
plot_option = click.option(
    "--plot",
    metavar="FILE.png|.svg",
    type=FILE,
    help="Draw a figure of the report and write it to this file.",
)


def model_option(*, default: str | None = None, several: bool = False) -> Decorator:
    """A model that is optional; default: in words; several: the option may be repeated."""
    return click.option(
        *("--model", "models" if several else "model"),
        multiple=several,
        metavar="NAME|FILE",
        type=MODEL,
        show_default=default,
        help="Use this model: an .onnx or .engine file, or the name of a model that comes with the toolkit, "
        "such as latin.",
    )


def images_option(*, default: str) -> Decorator:
    """Images without labels; default: in words."""
    return click.option(
        "--images",
        metavar="PATH",
        type=PLACE,
        show_default=default,
        help="Read images from this file, folder or glob.",
    )


def max_images_option(default: int) -> Decorator:
    """The largest number of images."""
    return click.option(
        "--max-images",
        metavar="N",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="Use at most this many images.",
    )


batch_option = click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Run at most this many images together.",
)
max_pixels_option = click.option(
    "--max-pixels",
    metavar="N",
    type=click.IntRange(1, 2**30),
    default=64_000_000,
    show_default=True,
    help="Refuse to decode an image that has more pixels than this.",
)
backend_option = click.option(
    "--backend",
    type=OneOf(["auto", "onnxruntime", "openvino"]),
    show_default="onnxruntime, and openvino for bf16",
    help="Run an .onnx file with this library. auto takes the one that is fastest on this machine; "
    "crnn-deploy doctor --model FILE says why.",
)


def precision_option(*, several: bool = False) -> Decorator:
    """The precision that an .onnx file is run in; several: of each of which the model is measured."""
    return click.option(
        "--precision",
        "precisions" if several else "precision",
        type=OneOf(["fp32", "bf16", "int8"]),
        multiple=several,
        show_default="as the file is; --backend auto may take bf16",
        help="Run an .onnx file in this precision. bf16 needs OpenVINO and a CPU that supports bf16. int8 "
        "takes the INT8 file beside the model.",
    )


device_option = click.option(
    "--device",
    type=OneOf(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Run an .onnx file on this device. An .engine file always runs on the GPU.",
)
workers_option = click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    show_default="one for each CPU",
    help="Run this many workers. They are processes. In infer they are threads outside Linux, with a GPU, "
    "with OpenVINO, --boxes or a decoder.",
)
tf32_option = click.option(
    "--allow-tf32",
    is_flag=True,
    help="Let --device cuda multiply in TF32. That is faster and less exact: 10 bits of mantissa instead of "
    "23.",
)
show_chars_option = click.option(
    "--show-chars",
    is_flag=True,
    help="Add the confidence of each character. JSON lines and Parquet files also get its place in the "
    "image.",
)
wide_option = click.option(
    "--wide",
    type=OneOf(["cut", "shrink"]),
    default="cut",
    show_default=True,
    help="Read a line that is wider than the model allows in overlapping parts (cut), or shrink it to the "
    "largest width (shrink).",
)
rotate_option = click.option(
    "--rotate",
    type=OneOf(["none", "90", "auto", "180"]),
    default="none",
    show_default=True,
    help="Read an image in several turns and keep the surest text. 90 turns an image right and left if it is "
    "at least 1.5 times as tall as wide. auto also reads such an image as it stands, and as a column of "
    "characters. 180 does what auto does, and reads every image upside down too.",
)
resume_option = click.option(
    "--resume", is_flag=True, help="Continue an earlier run of the same command that was stopped."
)
confidence_option = click.option(
    "--confidence",
    "aggregate",
    type=OneOf(["min", "mean", "product", "likelihood"]),
    show_default="as the model's manifest says",
    help="Compute a text's confidence from those of its characters, as their minimum (min), mean or "
    "product, or from the probability of the whole text, per character (likelihood).",
)
tier_option = click.option(
    "--tier",
    type=OneOf(["latin", "cjk", "chinese"]),
    default="latin",
    show_default=True,
    help="Use only fonts for Latin text (latin), or fonts for Chinese, Japanese and Korean too (cjk), or "
    "the same without fonts that draw characters in forms other than those of mainland China (chinese).",
)


def checkpoint_option(*, required: bool) -> Decorator:
    """A PyTorch checkpoint."""
    return click.option(
        "--checkpoint",
        metavar="FILE",
        type=FILE,
        required=required,
        help="Load the trained PyTorch weights from this file.",
    )


def recipe_option(*, default: str | None = None) -> Decorator:
    """What to know of a model beside its weights; required where there is no default.

    default: in words
    """
    return click.option(
        "--recipe",
        metavar="NAME|FILE.toml",
        type=RecipeText(),
        required=default is None,
        show_default=default,
        help="Take preprocessing, alphabet, blank and width rule from this recipe: a TOML file, or the name "
        "of a built-in recipe (crnn-deploy recipes lists them).",
    )


alphabet_options = _all(
    click.option(
        "--alphabet",
        metavar="FILE",
        type=FILE,
        help="Read the alphabet from this file: all characters on one line, or one on each line. Spaces "
        "count. A line may also hold the number of the character's class. JSON, YAML and Python files work "
        "too.",
    ),
    click.option(
        "--alphabet-string",
        metavar="TEXT",
        help="Take the characters of this text as the alphabet, in the order of the classes.",
    ),
)
blank_option = click.option(
    "--blank",
    type=OneOf(["first", "last"]),
    show_default="as the recipe says",
    help="Take this class as the CTC blank.",
)
checkpoint_options = _all(
    recipe_option(default="the recipe of the checkpoint, or the only one of its family"),
    click.option(
        "--factory",
        metavar="MODULE:NAME",
        help="Build your own network with this function or class: package.module:name or file.py:name.",
    ),
    alphabet_options,
    blank_option,
    click.option(
        "--activation",
        type=OneOf(["relu", "leaky-relu"]),
        show_default="as the recipe or the checkpoint says",
        help="Build the network with this activation. Some projects can use ReLU or LeakyReLU (slope 0.2), "
        "and the weights do not say which.",
    ),
)
data_options = _all(
    click.option(
        "--kind",
        type=OneOf(
            [
                *("lmdb", "csv", "tsv", "doctr", "names", "tabs", "indices"),
                *("objects", "mmocr", "icdar", "mjsynth", "beside", "webdataset"),
            ]
        ),
        show_default="recognised by the dataset's files",
        help="Read the dataset in this format (docs/datasets.md describes them).",
    ),
    click.option(
        "--image-folder",
        metavar="DIR",
        type=PLACE,
        show_default="the folder of the labels",
        help="Look for the images that the labels name in this folder.",
    ),
    click.option(
        "--characters",
        metavar="FILE",
        type=PLACE,
        help="Look up labels that are numbers of characters, as in 360CC, in this file of characters (GBK "
        "or UTF-8).",
    ),
)


def refuse_given(names: Iterable[str], reason: str) -> None:
    """Refuse options of the running command that the user gave and that would be ignored.

    names: of parameters; reason: the rest of a sentence that begins with an option
    Raises UsageError.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[-1]} {reason}")


def refuse_images(*models: Path) -> None:
    """Refuse images in the place of models, for commands with `images_option`.

    Raises ModelNotFound for a folder, ModelUnreadable for an image.
    """
    from crnn_deploy.errors import ModelUnreadable
    from crnn_deploy.runtime.images.sources import IMAGE_SUFFIXES

    for path in models:
        check_no_folder(path, wanted="a model's file, such as model.onnx; images are given with --images")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise ModelUnreadable(path, "it is an image, not a model; images are given with --images")


def check_device(model: Path | None, device: str, allow_tf32: bool) -> None:
    """Refuse options of the device that the model or another option makes useless. Raises UsageError."""
    if model is not None and model.suffix == ".engine":
        refuse_given(
            ("device", "allow_tf32", "backend"),
            "is for .onnx files; TensorRT runs an engine on the GPU as built",
        )
    if allow_tf32 and device != "cuda":
        raise click.UsageError("--allow-tf32 goes with --device cuda")


def check_no_folder(*models: Path, wanted: str = "a checkpoint, an .onnx file or an .engine file") -> None:
    """Refuse a folder in the place of a model's file. Raises ModelNotFound."""
    from crnn_deploy.errors import ModelNotFound

    for model in models:
        if model.is_dir():
            raise ModelNotFound(model, wanted)


def open_data(data: str, kind: Any, image_folder: str | None, characters: str | None) -> Kept:
    """The dataset at a path and what `data_options` gathered; stderr says where it could be of two kinds.

    Raises DatasetNotFound, DatasetInvalid.
    """
    from crnn_deploy.datasets import open_dataset

    return open_dataset(
        data,
        kind=kind,
        images=image_folder,
        characters=characters,
        told=lambda line: say(line, err=True),
    )


def check_data_outputs(
    outputs: Iterable[Path | None], datasets: Iterable[Kept], characters: str | None = None
) -> None:
    """Refuse outputs that datasets are read from. Raises OutputIsInput, OutputUnwritable."""
    from itertools import chain

    from crnn_deploy.files import check_outputs

    files = chain.from_iterable(dataset.files() for dataset in datasets)
    check_outputs(outputs, chain([characters], files))


def alphabet_of(alphabet: Path | None, alphabet_string: str | None) -> tuple[str, ...] | None:
    """The alphabet that the user gave, if any. Raises AlphabetInvalid."""
    return _alphabet_given(alphabet, alphabet_string)[0]


def alphabet_and_blank(
    alphabet: Path | None, alphabet_string: str | None, blank: Any
) -> tuple[tuple[str, ...] | None, Any]:
    """As `alphabet_of`, and the blank: the user's, or else the class that the file's numbers leave out."""
    tokens, left_out = _alphabet_given(alphabet, alphabet_string)
    return tokens, left_out if blank is None else blank


def _alphabet_given(
    alphabet: Path | None, alphabet_string: str | None
) -> tuple[tuple[str, ...] | None, int | None]:
    """The alphabet, and the class that its numbers leave to the blank, where it has numbers."""
    from crnn_deploy.recipes.alphabets import check_alphabet, read_table

    if alphabet is not None and alphabet_string is not None:
        raise click.UsageError("--alphabet and --alphabet-string exclude each other")
    if alphabet_string is not None:
        return check_alphabet(tuple(alphabet_string), "--alphabet-string"), None
    if alphabet is None:
        return None, None
    found = read_table(alphabet)
    return found.tokens, found.left_out


def settings_of(
    recipe: str | None,
    factory: str | None,
    alphabet: Path | None,
    alphabet_string: str | None,
    blank: Any,
    activation: Any,
) -> CheckpointSettings:
    """What `checkpoint_options` gathered. Raises AlphabetInvalid."""
    from crnn_deploy.recipes.settings import CheckpointSettings

    tokens, left_out = _alphabet_given(alphabet, alphabet_string)
    where = "--alphabet-string" if alphabet is None else f"--alphabet {alphabet}"
    return CheckpointSettings(recipe, factory, tokens, blank, activation, where, left_out)


_REMEDIES = {
    "recipe": "another recipe with --recipe",
    "activation": "LeakyReLU with --activation leaky-relu",
    "alphabet": "your alphabet with --alphabet",
}


def warn_of_assumptions(manifest: Manifest) -> None:
    """Say on stderr what of a checkpoint nothing told, or is doubtful, and how to say it."""
    if "doubt" in manifest.source:
        say(f"warning: {manifest.source['doubt']}", err=True)
    if "assumed" in (source := manifest.source):
        remedies = ", ".join(_REMEDIES[name] for name in source["assumed"].split(", "))
        say(
            f"warning: assumed, since the checkpoint does not say it: {assumptions(manifest)}; "
            f"if this is wrong, the texts are wrong: give {remedies}",
            err=True,
        )


def assumptions(manifest: Manifest) -> str:
    """What of a checkpoint nothing told, with what was taken; empty where all was told."""
    shown = {
        "recipe": f"the recipe {manifest.source.get('recipe')}",
        "activation": manifest.source.get("activation", "").split(" ")[0],
        "alphabet": f"the alphabet {alphabet_in_short(manifest.alphabet)}",
    }
    return ", ".join(shown[name] for name in manifest.source.get("assumed", "").split(", ") if name)


def alphabet_in_short(alphabet: Sequence[str]) -> str:
    """Its first and last characters."""
    between = "" if all(len(token) == 1 for token in alphabet) else " "
    if len(alphabet) <= _SHOWN:
        return between.join(alphabet)
    ends = (alphabet[: _SHOWN // 4], alphabet[-_SHOWN // 4 :])
    return "...".join(between.join(end) for end in ends)
