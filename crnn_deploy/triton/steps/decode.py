"""The ensemble's last step: from the network's output to the text.

What the ensemble's network did not run (a `width` of 0 from `prepare`) is read here from the images, by
requests to the network within the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.decoding.ctc import Frames, Text
from crnn_deploy.runtime.recognizer import Prepared, Recognizer
from crnn_deploy.runtime.second_reading import sureness
from crnn_deploy.triton.steps.network import TritonNetwork
from crnn_deploy.triton.steps.tensors import error_response, failure, images_of, response_of, setting

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """As Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: as `TritonNetwork` has them."""
        self._network = TritonNetwork(args)
        self._recognizer = Recognizer(self._network, batch=int(setting(args, "batch")))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            return response_of(self._results(request))
        except Exception as error:
            return error_response(error)

    def _results(self, request: Any) -> list[Text | CrnnDeployError]:
        [width] = triton.get_input_tensor_by_name(request, "width").as_numpy().tolist()
        if width:
            outputs = [
                triton.get_input_tensor_by_name(request, f"network_{name}") for name in self._network.outputs
            ]
            frames = self._network.frames(outputs, width)
            if not self._unsure(frames):
                return self._recognizer.read_frames(frames, [_NAMELESS])
        return self._read(images_of(request))

    def _read(self, images: list[bytes]) -> list[Text | CrnnDeployError]:
        try:
            return self._recognizer.try_read(images)
        except Exception as error:
            if len(images) == 1:
                return [failure(error)]
        return [result for image in images for result in self._read([image])]  # the others are not to blame

    def _unsure(self, frames: Frames) -> bool:
        """Whether the image may be read a second time, with its contrast stretched."""
        manifest = self._recognizer.manifest
        return manifest.contrast is not None and sureness(frames, manifest.blank) < manifest.contrast.below


# where characters stand is not told, so the image's own width is not needed
_NAMELESS = Prepared(np.empty((0, 0, 0), np.float32), "<bytes>", 0.0, 0)
