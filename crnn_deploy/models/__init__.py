"""The model that comes with the package: printed Latin text, trained by this project (docs/model-card.md)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT"]

DEFAULT = Path(__file__).parent / "latin.onnx"
