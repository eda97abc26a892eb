"""What a model file knows of itself: alphabet, blank, input rule and time steps."""

from crnn_deploy.manifest.bounds import MOST_WIDTH
from crnn_deploy.manifest.filters import (
    AdaptiveThreshold,
    Clahe,
    Contrast,
    Filter,
    Stretch,
    filter_from_plain,
    filter_to_plain,
)
from crnn_deploy.manifest.manifest import (
    METADATA_KEY,
    SCHEMA,
    Color,
    Grey,
    Interpolation,
    Manifest,
    OutputKind,
)
from crnn_deploy.manifest.width_rule import (
    Fit,
    MultipleOf,
    Order,
    Resize,
    Rounding,
    StepRule,
    Tall,
    WidthRule,
)

__all__ = [
    "METADATA_KEY",
    "MOST_WIDTH",
    "SCHEMA",
    "AdaptiveThreshold",
    "Clahe",
    "Color",
    "Contrast",
    "Filter",
    "Fit",
    "Grey",
    "Interpolation",
    "Manifest",
    "MultipleOf",
    "Order",
    "OutputKind",
    "Resize",
    "Rounding",
    "StepRule",
    "Stretch",
    "Tall",
    "WidthRule",
    "filter_from_plain",
    "filter_to_plain",
]
