"""At which widths a network runs, and how many time steps it gives there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import nn

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.export.limits import TooLarge
from crnn_deploy.export.probe import Unfit, output_of
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.shapes import steps_by_shapes
from crnn_deploy.export.steps import probed_widths, step_rule
from crnn_deploy.export.witness import Witness
from crnn_deploy.manifest import StepRule, WidthRule
from crnn_deploy.networks.families import PUBLISHED
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["Layout", "accepts_any_width", "width_grain", "with_steps"]

_LARGE = 2**21  # weights from which on running takes longer than loading what PyTorch needs for shapes alone
_GRAIN = 16  # widths tried for one that the network does not run at
_NEAR = 40  # pixels; where it runs within fewer alone, it was written for one width


@dataclass(frozen=True)
class Layout:
    """A network whose output is known."""

    module: nn.Module  # images (N, C, H, W) -> logits (N, T, classes)
    width: WidthRule  # the recipe's, or the one width that the network runs at
    steps: StepRule
    note: str | None = None  # why the width is not the recipe's


def with_steps(module: nn.Module, recipe: Recipe, classes: int, start: int) -> Layout:
    rule = recipe.width
    steps, failed = _counted(module, recipe, classes, probed_widths(rule))
    if rule.fixed:
        try:
            found = None if failed else step_rule(steps)
        except ModelInvalid:
            found = None
        here = step_rule({rule.minimum: steps[rule.minimum]})
        constant = len(set(steps.values())) == 1
        return Layout(module, rule, here if found is None or constant else found)
    if rule.multiple > 1:
        with suppress(ModelInvalid):
            if not failed:
                return Layout(module, rule, step_rule(steps))
        steps, failed = _counted(module, recipe, classes, probed_widths(rule, rule.multiple))
    if not failed:
        return Layout(module, rule, step_rule(steps))
    worst = next(iter(failed))
    if start in steps and len(set(steps.values())) == 1 and max(steps) - min(steps) < _NEAR:
        one = replace(rule, minimum=start, maximum=start, multiple=1)
        note = (
            f"{start} pixels for every image, not {rule.minimum} to {rule.maximum} as the recipe says: at "
            f"{worst} the network fails ({failed[worst]})"
        )
        return Layout(module, one, step_rule({start: steps[start]}), note)
    raise _fails_at_some(rule, steps, failed)


def _counted(
    module: nn.Module, recipe: Recipe, classes: int, widths: Sequence[int]
) -> tuple[dict[int, int], dict[int, Unfit]]:
    """The time steps of one image at each width, and why it has none at others."""
    channels = 1 if recipe.color == "gray" else 3
    steps = _steps_by_shapes(module, channels, recipe.height, widths)
    failed: dict[int, Unfit] = {}
    for width in (widths[0], widths[-1]) if steps else widths:
        try:
            shape = tuple(output_of(module, recipe, 1, width).shape)
            if shape[:1] != (1,) or shape[1] < 1 or shape[2] != classes:
                raise Unfit(f"one image gives an output of shape {shape}")
            steps[width] = shape[1]
        except Unfit as error:
            failed[width] = error
            steps.pop(width, None)
    return steps, failed


def _fails_at_some(rule: WidthRule, steps: Mapping[int, int], failed: Mapping[int, Unfit]) -> ModelInvalid:
    if max(steps) < min(failed):
        remedy = f"give the recipe's [width] a maximum of {max(steps)} or less"
        worst = min(failed)
    elif max(failed) < min(steps):
        remedy = f"give the recipe's [width] a minimum of {min(steps)} or more"
        worst = max(failed)
    else:
        remedy = "give the recipe one [width] (minimum = maximum), or a multiple that fits"
        worst = next(iter(failed))
    return ModelInvalid(
        f"the network does not run at every width of {rule.minimum} to {rule.maximum}; {remedy} "
        f"(at {worst}: {failed[worst]})"
    )


def accepts_any_width(reference: ReferenceBackend) -> bool:
    """Whether the network itself runs at widths other than a fixed one, with the time steps of its rule.

    Its own code has to make the same calls at each of them: a loop over time steps is traced at one length.
    """
    manifest = reference.manifest
    if not manifest.width.fixed:
        return True
    shape = (1, manifest.channels, manifest.height)
    widths = probed_widths(manifest.width)
    known = _steps_by_shapes(reference.module, manifest.channels, manifest.height, widths)
    if any(steps != manifest.steps(width) for width, steps in known.items()):
        return False
    calls = []
    try:
        with torch.inference_mode():
            for width in widths[-1:] if known else widths:
                with Witness() as witness:
                    steps = reference.module(torch.zeros(*shape, width)).shape[1]
                if steps != manifest.steps(width):
                    return False
                calls.append(witness.lines)
    except TooLarge:
        raise
    except Exception:  # the user's code may raise anything at sizes that it was not written for
        return False
    return all(lines == calls[0] for lines in calls)


def width_grain(reference: ReferenceBackend) -> int:
    """1 where the network runs at every width with its rule's time steps, or the multiple that it needs."""
    manifest = reference.manifest
    rule = manifest.width
    shape = (1, manifest.channels, manifest.height)
    widths = range(rule.minimum + 1, rule.minimum + min(rule.multiple, _GRAIN))
    if known := _steps_by_shapes(reference.module, manifest.channels, manifest.height, widths):
        return 1 if all(manifest.steps(width) == steps for width, steps in known.items()) else rule.multiple
    try:
        with torch.inference_mode():
            for width in widths:
                if reference.module(torch.zeros(*shape, width)).shape[1] != manifest.steps(width):
                    return rule.multiple
    except TooLarge:
        raise
    except Exception:  # the user's code may raise anything at sizes that it was not written for
        return rule.multiple
    return 1


def _steps_by_shapes(module: nn.Module, channels: int, height: int, widths: Sequence[int]) -> dict[int, int]:
    """Time steps at each width where they can be known without running the network: of a published one."""
    if not isinstance(module, PUBLISHED):  # code of the user's own may do other things with other numbers
        return {}
    if sum(weight.numel() for weight in module.parameters()) < _LARGE:
        return {}
    return steps_by_shapes(module, channels, height, widths)
