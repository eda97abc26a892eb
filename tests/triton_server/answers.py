"""What `infer` reads and what a server answers, in one form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from crnn_deploy import Recognizer
from crnn_deploy.errors import CrnnDeployError

__all__ = ["Answer", "answers_of", "long_line", "read_here"]

Answer = tuple[str, float, str]  # text, confidence, error


def read_here(model: Path | str, images: Sequence[bytes]) -> list[Answer]:
    """By the recogniser in this process, which `infer` reads with."""
    results = Recognizer.load(model).try_read(images)
    return [
        ("", 0.0, str(one).replace("<bytes>", "image"))
        if isinstance(one, CrnnDeployError)
        else (one.text, one.confidence, "")
        for one in results
    ]


def answers_of(outputs: Any) -> list[Answer]:
    """Of a server: text, confidence and error by name."""
    texts, errors = ([value.decode() for value in outputs[name].tolist()] for name in ("text", "error"))
    return list(zip(texts, outputs["confidence"].tolist(), errors, strict=True))


def long_line(image: bytes, width: int) -> bytes:
    """An image beside itself until it is so wide."""
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    repeated = np.tile(pixels, (1, -(-width // pixels.shape[1]), 1))[:, :width]
    return cv2.imencode(".png", repeated)[1].tobytes()
