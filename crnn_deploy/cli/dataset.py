"""`crnn-deploy dataset`: labelled images, checked and packed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.group import Group
from crnn_deploy.cli.options import (
    DATA_ONLY,
    FILE,
    PLACE,
    alphabet_of,
    alphabet_options,
    check_data_outputs,
    data_options,
    json_options,
    max_images_option,
    max_pixels_option,
    model_option,
    open_data,
    output_option,
    plot_option,
    recipe_option,
    refuse_given,
    resume_option,
    tier_option,
)
from crnn_deploy.cli.outputs import check_report, check_reports, put_report
from crnn_deploy.cli.say import progress_bar, say, say_over_bar, working
from crnn_deploy.cli.values import OneOf
from crnn_deploy.errors import amount

if TYPE_CHECKING:
    from crnn_deploy.datasets import Sample

__all__ = ["dataset"]

_MOST_SHOWN = 2000  # images, of a picture
_FONTS = "look at the fonts of this machine"


@click.group(cls=Group)
def dataset() -> None:
    """Check, pack and show labelled images.

    DATA is an LMDB, a file of labels (CSV, TSV, labels.json, or lines of a name and a text), or a folder that
    holds one of these. It may also be WebDataset tars: one tar, a folder of tars, or a pattern such as
    train-{000000..000099}.tar. Tars lie on this machine or in a store (s3://, gs://, hdfs://).

    Images can also be drawn. The commands effects, fonts and pack-fonts are about the effects and fonts of
    drawn images.
    """


@dataset.command()
@click.argument("data", type=PLACE)
@data_options
@recipe_option(default="paper")
@model_option()
@alphabet_options
@max_pixels_option
@json_options
@plot_option
def check(
    data: str,
    recipe: str | None,
    model: Path | None,
    alphabet: Path | None,
    alphabet_string: str | None,
    max_pixels: int,
    as_json: bool,
    json_file: Path | None,
    plot: Path | None,
    **source: Any,
) -> None:
    """Report what is wrong with labelled images.

    DATA is a file of labels, an LMDB, or tars with an image and a text for each sample. Tars may lie in a
    store (s3://, gs://, hdfs://). The check finds unreadable images, characters outside the alphabet, empty
    labels, images that occur twice, and labels that need more time steps than their image gives. CTC needs
    one time step for each character, and one more between equal neighbours.

    Height, width rule, time steps and alphabet come from --model or --recipe. Without both, the check takes
    the recipe paper: height 32, width in proportion and at least 100, width // 4 + 1 time steps.

    \b
    crnn-deploy dataset check train/labels.csv --alphabet-string 0123456789-
    crnn-deploy dataset check train.lmdb --model model.onnx --json --plot widths.png
    crnn-deploy dataset check train.txt --characters char_std_5990.txt --image-folder images/

    The exit code is 0 when nothing is wrong, 1 when something is, 2 for bad usage. An image that is repeated
    with the same label is reported, but not as wrong.
    """
    if model is not None and recipe is not None:
        raise click.UsageError("--model and --recipe exclude each other")

    from crnn_deploy.datasets.check import check as run
    from crnn_deploy.datasets.check import steps_of
    from crnn_deploy.files import check_outputs

    if plot is not None:
        from crnn_deploy.datasets.plot import plot_widths
    tokens = alphabet_of(alphabet, alphabet_string)
    if model is not None:
        from crnn_deploy.runtime.backends.backend import manifest_of

        manifest = manifest_of(model)
        height, width, steps = manifest.height, manifest.width, manifest.steps
        tokens = tokens or manifest.alphabet
    else:
        from crnn_deploy.recipes.recipe import find_recipe

        rules = find_recipe(recipe or "paper")
        height, width, steps = rules.height, rules.width, steps_of(rules)
        tokens = tokens or (rules.alphabet if recipe is not None else None)
    if tokens is None and source["characters"] is not None:
        from crnn_deploy.datasets.labels import characters_alphabet

        tokens = characters_alphabet(source["characters"])
    opened = open_data(data, **source)
    check_data_outputs((json_file, plot), (opened,), source["characters"])
    check_report(json_file, plot)
    check_outputs((json_file, plot), (model, alphabet, recipe))
    with progress_bar(len(opened)) as bar:
        report = run(
            opened,
            height=height,
            width=width,
            steps=steps,
            alphabet=tokens,
            max_pixels=max_pixels,
            progress=lambda: bar.update(1),
        )
    put_report(report.table(), report.to_plain(), as_json=as_json, json_file=json_file)
    if plot is not None:
        plot_widths(report, plot)
    if not report.passed:
        raise click.exceptions.Exit(1)


@dataset.command()
@click.argument("data", type=PLACE)
@data_options
@output_option("FOLDER", anywhere=True)
@click.option(
    "--pack-format",
    type=OneOf(["lmdb", "webdataset"]),
    show_default="webdataset for an address in a store, otherwise lmdb",
    help="Write one LMDB, or a folder of tars that the webdataset library reads.",
)
@click.option(
    "--samples-per-shard",
    metavar="N",
    type=click.IntRange(min=1),
    show_default="10000 for webdataset; one LMDB for lmdb",
    help="Write shards of at most this many samples: OUT/000000.tar or OUT/000000.lmdb, and so on.",
)
@resume_option
@max_pixels_option
def pack(
    data: str,
    output: str,
    pack_format: str | None,
    samples_per_shard: int | None,
    resume: bool,
    max_pixels: int,
    **source: Any,
) -> None:
    """Pack DATA into a new LMDB or into shards.

    DATA is a file of labels, an LMDB, or tars with an image and a text for each sample. Tars may lie in a
    store (s3://, gs://, hdfs://). An LMDB is a folder OUT.lmdb, in the format of crnn.pytorch and
    deep-text-recognition-benchmark. Shards lie in one folder, together with their index, shards.json.
    Commands that read DATA take that folder.

    The bytes of the images stay as they are. The command leaves out images that it cannot read, and stderr
    names each of them.

    \b
    crnn-deploy dataset pack train/labels.csv -o train.lmdb
    crnn-deploy dataset pack train/labels.csv -o train.lmdb --resume
    crnn-deploy dataset pack train.lmdb -o shards --pack-format webdataset --samples-per-shard 10000
    crnn-deploy dataset pack train.lmdb -o s3://bucket/train

    The exit code is 0 on success, 1 when an image could not be read, 2 for bad usage, 130 when Ctrl-C or
    SIGTERM stopped the packing. However it was stopped, --resume continues, and the result is the same.
    """
    from crnn_deploy.datasets.pack import pack as pack_one
    from crnn_deploy.datasets.pack_shards import SAMPLES_PER_SHARD, pack_lmdbs, pack_tars
    from crnn_deploy.process import Stop
    from crnn_deploy.stores.address import is_remote

    remote = is_remote(output)
    if remote and pack_format == "lmdb":
        raise click.UsageError(
            "--pack-format lmdb: an LMDB is written to this machine; leave --pack-format out for tars"
        )
    tars = remote or pack_format == "webdataset"
    if output.lower().endswith(".tar"):
        raise click.UsageError(
            f"--output {output}: name a folder, in which the tars are 000000.tar and so on"
        )
    path = Path(output)
    opened = open_data(data, **source)
    if not remote:
        check_data_outputs((path / "data.mdb",), (opened,), source["characters"])
    with (
        Stop() as stop,
        progress_bar(len(opened)) as bar,
    ):
        settings: dict[str, Any] = dict(
            resume=resume,
            max_pixels=max_pixels,
            progress=lambda: bar.update(1),
            failed=say_over_bar,
            stopped=stop,
        )
        if tars:
            settings["samples_per_shard"] = samples_per_shard or SAMPLES_PER_SHARD
            packed = pack_tars(opened, output, **settings)
        elif samples_per_shard is not None:
            packed = pack_lmdbs(opened, path, samples_per_shard=samples_per_shard, **settings)
        else:
            packed = pack_one(opened, path, **settings)
    if packed.failed:
        say(f"{packed.failed} of {packed.read} images could not be read", err=True)
    if not packed.whole:
        say(f"stopped after {packed.read} of {packed.total} samples; --resume goes on", err=True)
        raise KeyboardInterrupt
    say(f"{output}: {amount(packed.written, 'sample')}")
    if packed.failed:
        raise click.exceptions.Exit(1)


@dataset.command()
@click.argument("data", metavar="DATA|CONFIG.yaml", type=PLACE)
@data_options
@output_option("FILE.png")
@max_images_option(120)
def preview(data: str, output: Path, max_images: int, **source: Any) -> None:
    """Show images over their labels, as one picture.

    With DATA, the picture shows its first images. With the configuration of a training, it shows images as
    the training would see them: drawn ones too, and all with its random changes (augmentation).

    \b
    crnn-deploy dataset preview training/print.yaml -o sheet.png
    crnn-deploy dataset preview train.lmdb -o sheet.png --max-images 40
    """
    if max_images > _MOST_SHOWN:
        raise click.UsageError(f"--max-images: one picture shows {_MOST_SHOWN} images at most")
    of_training = data.endswith((".yaml", ".yml"))
    if of_training:
        refuse_given(DATA_ONLY, f"describes a dataset; {data} is the configuration of a training")

    import cv2

    from crnn_deploy.files import check_outputs, write
    from crnn_deploy.synthesis.fonts import scan
    from crnn_deploy.training.preview import contact_sheet, shown

    check_reports(output)
    check_outputs((output,), (data,))
    if of_training:
        from crnn_deploy.training.config import read_config
        from crnn_deploy.training.preview import training_samples

        count = max_images
        samples: Iterator[Sample] = islice(training_samples(read_config(Path(data)), count), count)
    else:
        opened = open_data(data, **source)
        check_data_outputs((output,), (opened,), source["characters"])
        count = min(max_images, len(opened))
        samples = (shown(opened, i) for i in range(count))
    with working(_FONTS):
        faces = scan("cjk")
    with progress_bar(count, "preview", iterable=samples) as bar:
        sheet = contact_sheet(bar, faces)
    write(output, cv2.imencode(".png", sheet)[1].tobytes())


_folder_option = click.option(
    "--folder",
    "folders",
    metavar="DIR",
    multiple=True,
    type=FILE,
    help="Look for fonts in this folder instead of the system's folders. Repeat the option for more.",
)


@dataset.command()
@click.argument("style", type=OneOf(["scene", "document"]))
@output_option("FILE.png")
@_folder_option
@click.option(
    "--photographs",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Take the backgrounds of scenes from the .jpg files of this folder.",
)
def effects(style: Any, output: Path, folders: tuple[Path, ...], photographs: Path | None) -> None:
    """Show what can happen to drawn text, one effect after the other.

    The argument is a style of drawn text. Each style has a table of effects. The picture has six images for
    each effect. Each image has that effect and no other.

    \b
    crnn-deploy dataset effects scene -o scene.png
    crnn-deploy dataset effects document -o document.png
    """
    import cv2

    from crnn_deploy.files import write
    from crnn_deploy.synthesis.effect_samples import EACH, EFFECTS, effect_samples
    from crnn_deploy.synthesis.fonts import FOLDERS, scan
    from crnn_deploy.training.preview import contact_sheet

    if photographs is not None and style != "scene":
        raise click.UsageError("--photographs is for the style `scene`")
    check_reports(output)
    found = sorted(photographs.glob("*.jpg")) if photographs is not None else []
    if photographs is not None and not found:
        raise click.UsageError(
            f"there are no photographs (.jpg) in {photographs}; fetch them (python training/fetch.py "
            "photographs), or leave --photographs out"
        )
    with working(_FONTS):
        faces = scan("latin", folders or FOLDERS)
    samples = effect_samples(style, faces, found)
    with progress_bar(EACH * len(EFFECTS[style]), "effects", iterable=samples) as bar:
        sheet = contact_sheet(bar, faces)
    write(output, cv2.imencode(".png", sheet)[1].tobytes())


@dataset.command()
@tier_option
@_folder_option
@click.option(
    "--packages",
    is_flag=True,
    help="List Debian packages that hold fonts, instead of the fonts of this machine.",
)
def fonts(tier: Any, folders: tuple[Path, ...], packages: bool) -> None:
    """List the fonts that images are drawn with.

    Each line has the font's split (whether it is held out from training), design, family, style and path.

    \b
    crnn-deploy dataset fonts
    crnn-deploy dataset fonts --folder runs/fonts
    apt-get install $(crnn-deploy dataset fonts --tier cjk --packages)
    """
    from crnn_deploy.synthesis import fonts as module

    check_report()
    if packages:
        say(" ".join(module.packages(tier)))
        return
    with working(_FONTS):
        faces = module.scan(tier, folders or module.FOLDERS)
    for face in faces:
        say(f"{face.split}\t{face.lineage}\t{face.family}\t{face.style}\t{face.path}")


@dataset.command()
@output_option("FILE.tar.xz")
@tier_option
@_folder_option
def pack_fonts(output: Path, tier: Any, folders: tuple[Path, ...]) -> None:
    """Pack fonts and word lists into one file.

    The file is for a machine without fonts and word lists. With --set font_pack=FILE.tar.xz, a training there
    draws the same images as on this machine. The file holds the fonts that `dataset fonts` lists, and the
    word lists of the system. Compressing all of Debian's fonts takes some minutes.

    \b
    crnn-deploy dataset pack-fonts -o fonts.tar.xz
    crnn-deploy train --config training/print.yaml --set font_pack=fonts.tar.xz
    """
    from crnn_deploy.files import check_outputs
    from crnn_deploy.synthesis.font_pack import write_font_pack
    from crnn_deploy.synthesis.fonts import FOLDERS

    found = folders or FOLDERS
    check_outputs((output,), (path for folder in found for path in folder.rglob("*")))
    with working("pack the fonts, which takes some minutes where there are many"):
        packed = write_font_pack(output, tier, found)
    say(
        f"{output}: {packed.fonts} font files and {packed.word_lists} word lists, "
        f"{packed.size / 2**20:.1f} MiB"
    )
