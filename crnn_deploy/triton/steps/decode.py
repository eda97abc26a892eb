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
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.second_reading import sureness
from crnn_deploy.triton.network import OWN
from crnn_deploy.triton.steps.network import TritonNetwork
from crnn_deploy.triton.steps.reading import RequestReader
from crnn_deploy.triton.steps.tensors import FINAL, NAME, error_response, response_of, setting

__all__ = ["DecodeStep"]

# of an image, its name for messages; where characters stand is not told, so its width is not needed
_IMAGE = Prepared(np.empty((0, 0, 0), np.float32), NAME, 0.0, 0)


class DecodeStep:
    """As Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: as `TritonNetwork` has them."""
        self._network, batch = TritonNetwork(args), int(setting(args, "batch"))
        self._recognizer = Recognizer(self._network, batch=batch)
        self._reader = RequestReader(self._recognizer, batch)

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            send = request.get_response_sender().send
            try:
                results = self._decoded(request)
            except Exception as error:
                send(error_response(error), flags=FINAL)
                continue
            if results is None:
                self._reader.take(request)
            else:
                send(response_of(results), flags=FINAL)

    def _decoded(self, request: Any) -> list[Text | CrnnDeployError] | None:
        """What the network's output says, unless the images themselves must be read."""
        [width] = triton.get_input_tensor_by_name(request, "width").as_numpy().tolist()
        if not width:
            return None
        names = [OWN + name for name in self._network.outputs]
        outputs = [triton.get_input_tensor_by_name(request, name) for name in names]
        frames = self._network.frames(outputs, width)
        manifest = self._recognizer.manifest
        # an image that is read unsurely may be read a second time, with its contrast stretched
        if manifest.contrast and sureness(frames, manifest.blank) < manifest.contrast.below:
            return None
        return self._recognizer.read_frames(frames, [_IMAGE])

    def finalize(self) -> None:
        self._reader.close()
