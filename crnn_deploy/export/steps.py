"""How many time steps a network gives at each width: told by running it at some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.manifest import StepRule, WidthRule

__all__ = ["probed_widths", "step_rule"]

_PROBES = 40  # consecutive widths tried; more than twice the largest stride of a known network
_FAR = 14  # widths from the smallest to the largest
_SHOWN = 4  # widths whose time steps an error shows


def probed_widths(rule: WidthRule, multiple: int = 1) -> list[int]:
    """Consecutive widths, which tell the stride, and far ones, which tell whether it holds.

    multiple: of all widths
    """
    near = range(rule.minimum, rule.minimum + _PROBES * multiple, multiple)
    return [*near, *(max(rule.minimum, width // multiple * multiple) for width in rule.spread(_FAR))]


def step_rule(steps: Mapping[int, int]) -> StepRule:
    """The `(width + offset) // stride` that gives these time steps at these widths. Raises ModelInvalid.

    A network with as many steps at every width has a stride larger than the range of its widths.
    """
    if len(steps) == 1:
        [(width, count)] = steps.items()
        stride = max(1, width // count)
        return StepRule(stride, stride * count - width)
    for rule in _candidates(min(steps), steps[min(steps)]):
        if all(rule(width) == count for width, count in steps.items()):
            return rule
    if len(set(steps.values())) == 1:
        stride = max(steps) - min(steps) + 1
        return StepRule(stride, stride * steps[min(steps)] - min(steps))
    shown = [
        f"{steps[width]} at width {width}" for width in sorted(steps) if steps.get(width - 1) != steps[width]
    ]
    raise ModelInvalid(
        f"the network's time steps follow no stride ({', '.join(shown[:_SHOWN])}, ...); "
        "give the recipe one width (minimum = maximum), or widths at a multiple that they follow"
    )


def _candidates(width: int, count: int) -> Iterator[StepRule]:
    for stride in range(1, _PROBES // 2 + 1):
        for offset in range(stride * count - width, stride * (count + 1) - width):
            yield StepRule(stride, offset)
