"""`crnn-deploy train`: a CRNN from images and a YAML file."""

from __future__ import annotations

import math
import time
from pathlib import Path

import click

from crnn_deploy.cli.options import FILE, resume_option
from crnn_deploy.cli.say import say, working

__all__ = ["train"]


@click.command()
@click.option(
    "--config",
    "path",
    metavar="FILE.yaml",
    required=True,
    type=FILE,
    help="Read the training's configuration from this file.",
)
@click.option(
    "--set",
    "changes",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a key of the configuration, such as optimizer.lr=0.001 or train.0.path=own.lmdb. Repeat "
    "the option for more.",
)
@click.option(
    "--minutes",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    help="Save and stop before this many minutes have passed.",
)
@resume_option
@click.option(
    "--qat", is_flag=True, help="Finetune for INT8: round numbers as `quantize` will do (docs/int8.md)."
)
def train(path: Path, changes: tuple[str, ...], minutes: float | None, resume: bool, qat: bool) -> None:
    """Train a CRNN on drawn or labelled images.

    The training writes two checkpoints to the folder that the configuration calls `out`: best.pth, which was
    best in validation, and last.pth, from which --resume continues. `export` and `evaluate` read both. After
    Ctrl-C or SIGTERM, the training finishes its step, saves and stops. With --minutes, it saves and stops
    when there is no time for another step. It leaves out a validation for which there is no time.

    \b
    crnn-deploy train --config training/own.yaml --set train.0.path=crops/labels.txt
    crnn-deploy train --config training/own.yaml --resume --minutes 30
    torchrun --nproc-per-node 2 -m crnn_deploy train --config training/print.yaml

    The exit code is 0 at the last step or when the minutes are over, 1 when a loss, a gradient or a weight
    is no finite number any more, 2 for a bad configuration or bad data, 130 when a signal stopped the
    training.
    """
    started = time.monotonic()
    if minutes is not None and math.isnan(minutes):
        raise click.BadParameter("it is a number of minutes", param_hint="--minutes")
    with working("load PyTorch"):
        from crnn_deploy.training.config import read_config
        from crnn_deploy.training.loop import train as run

    if qat:
        from crnn_deploy.quantization.qdq import WEIGHT_LEVEL

        changes = (*changes, f"qat={WEIGHT_LEVEL}")
    config = read_config(path, changes)
    unread = sorted({"network", "recipe"} & config.model_fields_set) if config.start is not None else []
    if unread:
        say(
            f"the checkpoint decides about {', '.join(unread)}; the configuration's own are not used",
            err=True,
        )
    outcome = run(
        config,
        resume=resume,
        until=None if minutes is None else started + 60 * minutes,
        told=lambda line: say(line, err=True),
        during=working,
    )
    for name, score in outcome.scores.items():
        say(f"{name}: exact {score.exact} of {score.images} ({score.accuracy:.2%}), CER {score.cer:.2%}")
    if outcome.stopped:
        say(f"stopped after step {outcome.step} of {config.steps}; --resume goes on", err=True)
        raise KeyboardInterrupt
    if outcome.late and outcome.step < config.steps:
        say(
            f"the {minutes:g} minutes are spent after step {outcome.step} of {config.steps}; "
            "--resume goes on",
            err=True,
        )
    elif outcome.late:
        say(f"the {minutes:g} minutes are spent: the last validation was left out", err=True)
