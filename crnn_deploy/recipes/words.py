"""The rule by which an image becomes a network's input, as people read it."""

from __future__ import annotations

from crnn_deploy.manifest import Manifest, WidthRule
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["input_in_words"]


def input_in_words(fed: Manifest | Recipe) -> str:
    """Such as `gray, height 32, width 100 whatever the aspect, cubic`."""
    return f"{fed.color}, height {fed.height}, {_width(fed.width)}, {fed.interpolation}"


def _width(rule: WidthRule) -> str:
    if rule.fit == "letterbox":
        return f"fitted into width {rule.minimum}"
    if rule.fixed and rule.fit == "stretch":
        return f"width {rule.minimum} whatever the aspect"
    factor = "" if rule.aspect == 1 else f" x {rule.aspect:.3g}"
    steps = "" if rule.multiple == 1 else f" in multiples of {rule.multiple}"
    padded = ", padded on the right" if rule.fit == "pad" else ""
    size = f"{rule.minimum}" if rule.fixed else f"{rule.minimum} to {rule.maximum}"
    return f"width in proportion{factor}{padded} ({size}{steps})"
