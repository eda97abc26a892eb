"""How OpenVINO is imported. Standard library alone, so that `doctor` can do it where all else is broken."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

__all__ = ["without_telemetry"]


def without_telemetry() -> Any:
    """The library's module. Raises what its import raises.

    As soon as it is imported, OpenVINO tells Google Analytics so and writes an identifier below the user's
    home, unless this package of its own is missing.
    """
    reports = "openvino_telemetry"
    before = sys.modules.get(reports)
    sys.modules[reports] = None  # type: ignore[assignment]  # so that its import fails
    try:
        return import_module("openvino")
    finally:
        del sys.modules[reports]
        if before is not None:
            sys.modules[reports] = before
