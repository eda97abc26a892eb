"""What reports share: templates, and images that stand inside the page."""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

__all__ = ["inline", "inline_figure", "inline_pixels", "template"]


def template(name: str) -> jinja2.Template:
    """A template of `templates/`; what is put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crnn_deploy.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def inline(png: bytes) -> str:
    """A PNG file as an address."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def inline_figure(figure: Any) -> str:
    """A matplotlib figure as an address."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return inline(stream.getvalue())


def inline_pixels(pixels: NDArray[np.uint8]) -> str:
    """An image (H, W) or (H, W, 3) BGR as an address."""
    encoded: NDArray[Any] = cv2.imencode(".png", pixels)[1]
    return inline(encoded.tobytes())
