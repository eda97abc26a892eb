"""`crnn-deploy build-engine`: an ONNX file becomes a TensorRT engine."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.options import (
    CHECKPOINT_ONLY,
    FILE,
    MODEL,
    checkpoint_option,
    checkpoint_options,
    images_option,
    output_option,
    refuse_given,
    refuse_images,
    settings_of,
)
from crnn_deploy.cli.say import progress_bar, say
from crnn_deploy.cli.values import OneOf

if TYPE_CHECKING:
    from crnn_deploy.process import Stop
    from crnn_deploy.runtime.backends.engine_file import Range

__all__ = ["build_engine"]

_TICKS = 1000  # of the progress bar


def _range(_: click.Context, param: click.Parameter, value: str | None) -> Range | None:
    """MIN,OPT,MAX."""
    if value is None:
        return None
    from crnn_deploy.runtime.backends.engine_file import Range

    try:
        low, tuned, high = map(int, value.split(","))
        return Range(low, tuned, high)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not MIN,OPT,MAX with 1 <= MIN <= OPT <= MAX") from error


@click.command("build-engine")
@click.argument("model", metavar="MODEL.onnx", type=MODEL)
@output_option("FILE.engine", default="beside the model, or in this folder for a shipped model")
@click.option(
    "--fp32",
    "precision",
    flag_value="fp32",
    default="fp32",
    help="Build in fp32, as the model is. This is the default.",
)
@click.option(
    "--tf32",
    "precision",
    flag_value="tf32",
    help="Build in fp32, but round the factors of products to TF32 (10 bits of mantissa instead of 23).",
)
@click.option("--fp16", "precision", flag_value="fp16", help="Build in half precision (fp16).")
@click.option(
    "--bf16",
    "precision",
    flag_value="bf16",
    help="Build in bfloat16, which is less exact than fp16 and does not overflow.",
)
@click.option(
    "--int8",
    "precision",
    flag_value="int8",
    help="Build a model that `quantize` wrote: its Q/DQ nodes say what runs in int8.",
)
@click.option(
    "--keep-fp32",
    metavar="PATTERN",
    multiple=True,
    help="Keep the ONNX nodes with this name or operator in fp32, such as LSTM or 'node_conv2d*', when the "
    "others get half precision. Repeat the option for more.",
)
@click.option(
    "--no-ladder",
    is_flag=True,
    help="Fail if half precision changes the text, instead of trying a safer precision.",
)
@click.option(
    "--builder",
    type=OneOf(["auto", "tensorrt", "tensorrt-rtx"]),
    default="auto",
    show_default=True,
    help="Build with this library. auto takes TensorRT if it is installed, else TensorRT for RTX.",
)
@click.option(
    "--width-range",
    metavar="MIN,OPT,MAX",
    callback=_range,
    show_default="all widths of the model",
    help="Build for widths from MIN to MAX pixels, fastest at OPT.",
)
@click.option(
    "--batch-range",
    metavar="MIN,OPT,MAX",
    callback=_range,
    show_default="1,8,32",
    help="Build for batches from MIN to MAX images, fastest at OPT.",
)
@click.option(
    "--profiles",
    metavar="N",
    type=click.IntRange(min=1),
    show_default="one for each doubling of the width",
    help="Split the range of widths into this many optimisation profiles.",
)
@click.option(
    "--target",
    "targets",
    metavar="sm_XX|current",
    multiple=True,
    help="Build for this GPU with TensorRT for RTX: its compute capability such as sm_89, or current for "
    "the GPU of this machine. Repeat the option for more. Newer GPUs run the engine too if the library "
    "allows it.",
)
@click.option(
    "--timing-cache",
    metavar="FILE",
    type=FILE,
    help="Read timings from this file and keep new ones in it, which makes the next build faster.",
)
@click.option(
    "--workspace",
    metavar="MIB",
    type=click.IntRange(min=1),
    show_default="TensorRT's own",
    help="Allow each layer at most this many MiB of memory for its own work.",
)
@click.option(
    "--optimization-level",
    metavar="N",
    type=click.IntRange(0, 5),
    show_default="TensorRT's own",
    help="Set TensorRT's optimisation level. A higher level takes longer to build.",
)
@click.option(
    "--argmax",
    is_flag=True,
    help="Put out only the best class of each frame, so that less is copied from the GPU.",
)
@images_option(default="only drawn images")
@checkpoint_option(required=False)
@checkpoint_options
def build_engine(
    model: Path,
    output: Path | None,
    precision: Any,
    keep_fp32: tuple[str, ...],
    no_ladder: bool,
    builder: Any,
    width_range: Range | None,
    batch_range: Range | None,
    profiles: int | None,
    targets: tuple[str, ...],
    timing_cache: Path | None,
    workspace: int | None,
    optimization_level: int | None,
    argmax: bool,
    images: str | None,
    checkpoint: Path | None,
    **source: Any,
) -> None:
    """Build a TensorRT engine from an ONNX file.

    MODEL.onnx is a file that `export`, `quantize` or `describe` wrote. The command first checks half
    precision on the CPU, where it rounds every tensor. If this machine has a GPU, it then checks the engine
    on the GPU. The checks read drawn images and those of --images. They compare with MODEL.onnx, or with
    --checkpoint in PyTorch.

    If a precision overflows or changes confident texts, the command tries the next safer one: first recurrent
    layers and head in fp32, then bf16, then TF32, then fp32. FILE.engine has TensorRT's own format (a plan).
    FILE.engine.json beside it holds the manifest, and says from what and for what the engine was built.

    \b
    crnn-deploy build-engine model.onnx --fp16
    crnn-deploy build-engine model.onnx --fp16 --width-range 100,160,320 --batch-range 1,8,64 -o small.engine
    crnn-deploy build-engine model.onnx --bf16 --builder tensorrt-rtx --target sm_89 --target sm_120

    The exit code is 0 on success, 1 when a check or the build fails, 2 for bad input, 130 when Ctrl-C stopped
    the build. The engine is written only with 0.
    """
    if checkpoint is None:
        refuse_given(CHECKPOINT_ONLY, "describes a checkpoint; name it with --checkpoint FILE")
    refuse_images(model)

    from crnn_deploy.errors import ModelUnreadable
    from crnn_deploy.files import check_outputs
    from crnn_deploy.models import shipped
    from crnn_deploy.process import Stop
    from crnn_deploy.runtime.backends.engine_file import sidecar_of
    from crnn_deploy.runtime.images.sources import find

    place = Path(model.name) if model in shipped().values() else model
    path = output or place.with_suffix(".engine")
    if path.suffix != ".engine":
        raise ModelUnreadable(path, "the engine's name ends in .engine")
    named = (model, checkpoint, source["alphabet"], source["recipe"])
    check_outputs(
        (path, sidecar_of(path), timing_cache),
        chain(named, () if images is None else find((images,), ())),
    )
    with ExitStack() as stack:
        # before torch and TensorRT are imported: an exception within their C++ ends Python on the spot
        stop = stack.enter_context(Stop())

        from crnn_deploy.engine.build import BATCH, BuildSettings
        from crnn_deploy.engine.build import build_engine as run
        from crnn_deploy.engine.ladder import table
        from crnn_deploy.verdict.fidelity import DRAWN

        settings = BuildSettings(
            precision=precision,
            builder=builder,
            widths=width_range,
            batch=batch_range or BATCH,
            profiles=profiles,
            targets=targets,
            timing_cache=timing_cache,
            workspace=workspace,
            optimization_level=optimization_level,
            keep_fp32=keep_fp32,
            ladder=not no_ladder,
            argmax=argmax,
            images=images,
            checkpoint=checkpoint,
            source=settings_of(**source),
        )
        bars = _Bars(stack, stop, 2 * DRAWN)
        result = run(
            model,
            path,
            settings,
            arguments=_arguments(),
            checked=bars.checked,
            progress=bars.built,
            stopped=stop,
        )
    if result.unchecked is not None:
        say(f"not checked on the GPU here: {result.unchecked}", err=True)
    say(table(result.rungs, result.gpu))
    engine = result.engine
    origin = "the engine's inspector" if engine.layers_from == "engine" else "the network's tensor types"
    say(f"layers: {engine.shares()}, by {origin}")
    for profile in engine.profiles:
        say(f"profile: batch {profile.batch}, width {profile.width}")
    say(
        f"{path}: {engine.precision}, {engine.engine_bytes / 1e6:.1f} MB, {engine.builder} "
        f"{engine.builder_version} for {engine.built_for()}, built in {engine.build_seconds} s"
    )


class _Bars:
    """A bar for the check on the CPU and one for the build, on stderr when that is a terminal."""

    def __init__(self, stack: ExitStack, stop: Stop, images: int) -> None:
        self._stack, self._stop = stack, stop
        self._checking = progress_bar(images, "check", show_pos=False)
        self._building = progress_bar(
            _TICKS, "build", show_pos=False, show_eta=False, item_show_func=lambda phase: phase
        )
        self._start: float | None = None

    def checked(self, images: int) -> None:
        if self._stop():
            raise KeyboardInterrupt
        self._checking.update(images)

    def built(self, share: float, phase: str) -> None:
        if self._start is None:
            if self._checking.pos:
                self._checking.render_finish()
            self._stack.enter_context(self._building)
            self._start = time.monotonic()
        elapsed = time.monotonic() - self._start
        step = max(0, round(share * _TICKS) - self._building.pos)
        self._building.update(step, f"{elapsed:.0f} s, {phase}")


def _arguments() -> tuple[str, ...]:
    """What the user gave, to say how the engine is built again."""
    context = click.get_current_context()
    given = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        source = context.get_parameter_source(parameter.name or "")
        if source is not click.core.ParameterSource.COMMANDLINE:
            continue
        if isinstance(parameter, click.Argument):
            given.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            if value is True or value == parameter.flag_value:
                given.append(parameter.opts[-1])
        else:
            for item in value if isinstance(value, tuple) else (value,):
                given += [
                    parameter.opts[-1] if parameter.opts[-1].startswith("-") else parameter.opts[0],
                    str(item),
                ]
    return tuple(given)
