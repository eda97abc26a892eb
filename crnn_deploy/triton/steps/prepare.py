"""The ensemble's first step: from an encoded image to the network's input.

Outputs `pixels` FP32 [1, C, H, W], as wide as the image asks for, and `width` INT32 [1], which is W. A width
of 0 says that the last step reads the request's images itself, since there are several, or one that is cut
into parts or cannot be read; the network gets its smallest input then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.triton.steps.network import TritonNetwork
from crnn_deploy.triton.steps.tensors import error_response, images_of

__all__ = ["PrepareStep"]


class PrepareStep:
    """As Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: as `TritonNetwork` has them."""
        self._recognizer = Recognizer(TritonNetwork(args))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            pixels = self._pixels(images_of(request))
        except Exception as error:
            return error_response(error)
        width = 0 if pixels is None else pixels.shape[2]
        if pixels is None:
            manifest = self._recognizer.manifest
            pixels = np.zeros((manifest.channels, manifest.height, manifest.width.minimum), np.float32)
        return triton.InferenceResponse(
            [triton.Tensor("pixels", pixels[None]), triton.Tensor("width", np.array([width], np.int32))]
        )

    def _pixels(self, images: list[bytes]) -> NDArray[np.float32] | None:
        """(C, H, W) of a single image that the network takes as it is."""
        if len(images) > 1:
            return None
        try:
            pixels = self._recognizer.prepare(images[0]).pixels
        except CrnnDeployError:
            return None
        return pixels if pixels.shape[2] <= self._recognizer.manifest.width.maximum else None
