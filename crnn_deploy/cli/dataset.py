"""`crnn-deploy dataset`: labelled images, checked and packed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.options import (
    alphabet_of,
    check_data_outputs,
    data_options,
    max_pixels_option,
    open_data,
)
from crnn_deploy.cli.outputs import check_reports
from crnn_deploy.cli.say import progress_bar, say, say_json, say_over_bar

if TYPE_CHECKING:
    from crnn_deploy.datasets import Sample

__all__ = ["dataset"]


@click.group()
def dataset() -> None:
    """Check, pack and look at labelled images, and list the fonts that images are drawn with.

    DATA is an LMDB, a file of labels (CSV, TSV, labels.json, or lines of a name and a text) or a folder that
    holds one.
    """


@dataset.command()
@click.argument("data")
@data_options
@click.option("--recipe", metavar="NAME|FILE.toml", help="Height, width rule and alphabet of the network.")
@click.option(
    "--model",
    metavar="FILE.onnx",
    type=click.Path(path_type=Path),
    help="Height, width rule, time steps and alphabet of this model.",
)
@click.option(
    "--alphabet",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="UTF-8: its only line, or one token a line; spaces count.",
)
@click.option("--alphabet-string", metavar="TEXT", help="The characters themselves.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@max_pixels_option
@click.option("--plot", metavar="FILE.png", type=click.Path(path_type=Path), help="Draw the widths.")
def check(
    data: str,
    recipe: str | None,
    model: Path | None,
    alphabet: Path | None,
    alphabet_string: str | None,
    as_json: bool,
    max_pixels: int,
    plot: Path | None,
    **source: Any,
) -> None:
    """Report what a training on DATA would stumble over.

    Unreadable images, characters outside the alphabet, labels that need more time steps than their image
    gives (CTC: one for each character, one more between equal neighbours), empty labels, and images that are
    there twice. Without --model and --recipe the network is the paper's: height 32, width in proportion and
    at least 100, width // 4 + 1 time steps.

    \b
    crnn-deploy dataset check train/labels.csv --alphabet-string 0123456789-
    crnn-deploy dataset check train.lmdb --model model.onnx --json --plot widths.png
    crnn-deploy dataset check train.txt --characters char_std_5990.txt --images images/

    Exit code: 0, 1 when something is wrong (an image that is repeated with the same label is not), 2 for bad
    usage.
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
        from crnn_deploy.runtime.backends.ort import OrtBackend

        with closing(OrtBackend(model)) as backend:
            manifest = backend.manifest
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
    check_data_outputs((plot,), (opened,), source["characters"])
    check_reports(plot)
    check_outputs((plot,), (model, alphabet, recipe))
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
    if as_json:
        say_json(report.to_plain())
    else:
        say(report.table())
    if plot is not None:
        plot_widths(report, plot)
    if not report.passed:
        raise click.exceptions.Exit(1)


@dataset.command()
@click.argument("data")
@data_options
@click.option(
    "-o", "--output", metavar="OUT.lmdb", required=True, type=click.Path(path_type=Path), help="A new folder."
)
@click.option("--resume", is_flag=True, help="Go on with the LMDB of -o: skip the samples it has already.")
@max_pixels_option
def pack(data: str, output: Path, resume: bool, max_pixels: int, **source: Any) -> None:
    """Pack DATA into an LMDB.

    Its format is that of crnn.pytorch and deep-text-recognition-benchmark. The bytes of the images stay as
    they are. Images that cannot be read are left out, with a line each.

    \b
    crnn-deploy dataset pack train/labels.csv -o train.lmdb
    crnn-deploy dataset pack train/labels.csv -o train.lmdb --resume

    Exit code: 0, 1 when an image could not be read, 2 for bad usage, 130 when stopped by Ctrl-C or SIGTERM.
    However it was stopped, --resume goes on, and the result is the same.
    """
    from crnn_deploy.datasets.pack import pack as run
    from crnn_deploy.process import Stop

    opened = open_data(data, **source)
    check_data_outputs((output / "data.mdb",), (opened,), source["characters"])
    with (
        Stop() as stop,
        progress_bar(len(opened)) as bar,
    ):
        packed = run(
            opened,
            output,
            resume=resume,
            max_pixels=max_pixels,
            progress=lambda: bar.update(1),
            failed=say_over_bar,
            stopped=stop,
        )
    if packed.failed:
        say(f"{packed.failed} of {packed.read} images could not be read", err=True)
    if not packed.whole:
        say(f"stopped after {packed.read} of {packed.total} samples; --resume goes on", err=True)
        raise KeyboardInterrupt
    say(f"{output}: {packed.written} samples")
    if packed.failed:
        raise click.exceptions.Exit(1)


@dataset.command()
@click.argument("data", metavar="DATA|CONFIG.yaml")
@data_options
@click.option("-o", "--output", metavar="FILE.png", required=True, type=click.Path(path_type=Path))
@click.option(
    "--count", type=click.IntRange(min=1, max=2000), default=120, show_default=True, help="Images shown."
)
def preview(data: str, output: Path, count: int, **source: Any) -> None:
    """Show images over their labels, as one picture.

    DATA shows its first images; the configuration of a training shows what that training sees, images that
    are drawn on the fly among them, varied as they will be.

    \b
    crnn-deploy dataset preview training/default.yaml -o sheet.png
    crnn-deploy dataset preview train.lmdb -o sheet.png --count 40
    """
    import cv2

    from crnn_deploy.files import check_outputs, write
    from crnn_deploy.synthesis.fonts import scan
    from crnn_deploy.training.preview import contact_sheet

    check_reports(output)
    check_outputs((output,), (data,))
    if data.endswith((".yaml", ".yml")):
        from crnn_deploy.training.config import read_config
        from crnn_deploy.training.preview import training_samples

        samples: Iterator[Sample] = islice(training_samples(read_config(Path(data))), count)
    else:
        opened = open_data(data, **source)
        check_data_outputs((output,), (opened,), source["characters"])
        samples = (opened[i] for i in range(min(count, len(opened))))
    write(output, cv2.imencode(".png", contact_sheet(samples, scan("cjk")))[1].tobytes())


@dataset.command()
@click.option("--tier", type=click.Choice(["latin", "cjk"]), default="latin", show_default=True)
@click.option("--packages", is_flag=True, help="List Debian packages to install instead.")
def fonts(tier: Any, packages: bool) -> None:
    """List the fonts that images are drawn with: family, style, design, and whether it is held out.

    \b
    crnn-deploy dataset fonts
    apt-get install $(crnn-deploy dataset fonts --tier cjk --packages)
    """
    from crnn_deploy.synthesis import fonts as module

    if packages:
        say(" ".join(module.packages(tier)))
        return
    for face in module.scan(tier):
        say(f"{face.split}\t{face.lineage}\t{face.family}\t{face.style}\t{face.path}")


@dataset.command()
@click.option("-o", "--output", metavar="FILE.tar.xz", required=True, type=click.Path(path_type=Path))
@click.option("--tier", type=click.Choice(["latin", "cjk"]), default="latin", show_default=True)
@click.option(
    "--folder",
    "folders",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Where fonts are looked for, in place of the system's folders; may be repeated.",
)
def pack_fonts(output: Path, tier: Any, folders: tuple[Path, ...]) -> None:
    """Pack fonts and word lists into one file, for a machine that has none.

    A training takes it in their place, and draws the same images: --set font_pack=FILE.tar.xz. The file holds
    the fonts that `dataset fonts` lists and the system's word lists. Compressing all of Debian's fonts takes
    some minutes.

    \b
    crnn-deploy dataset pack-fonts -o fonts.tar.xz
    crnn-deploy train --config training/default.yaml --set font_pack=fonts.tar.xz
    """
    from crnn_deploy.files import check_outputs
    from crnn_deploy.synthesis.font_pack import write_font_pack
    from crnn_deploy.synthesis.fonts import FOLDERS

    found = folders or FOLDERS
    check_outputs((output,), (path for folder in found for path in folder.rglob("*")))
    packed = write_font_pack(output, tier, found)
    say(
        f"{output}: {packed.fonts} font files and {packed.word_lists} word lists, "
        f"{packed.size / 2**20:.1f} MiB"
    )
