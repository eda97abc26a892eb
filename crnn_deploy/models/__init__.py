"""The model that comes with the package: printed Latin text, trained by this project (docs/model-card.md)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT", "DEFAULT_INT8"]

DEFAULT = Path(__file__).parent / "latin.onnx"
DEFAULT_INT8 = Path(__file__).parent / "latin.int8.onnx"  # for CPUs (docs/int8.md)
