"""A network that another model of the same Triton server runs, as a backend of this toolkit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from numpy.typing import NDArray

from crnn_deploy.errors import RunFailed
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.outputs import frames_of
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.triton.steps.tensors import setting

__all__ = ["TritonNetwork"]

_MOST_MANIFEST = 2**25  # bytes


class TritonNetwork:
    """Runs images of one width by a request within the server (business logic scripting).

    args: what the Python backend passes to `initialize`; the parameters name the network, its input and its
        outputs, and manifest.json lies beside model.py
    Raises ManifestInvalid.
    """

    def __init__(self, args: dict[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        self.manifest = Manifest.from_json((folder / "manifest.json").read_text(encoding="utf-8"))
        self._network, self._input = setting(args, "network"), setting(args, "network_input")
        self.outputs = setting(args, "network_outputs").split("\n")

    def run(self, images: NDArray[np.float32]) -> Frames:
        """Raises RunFailed."""
        request = triton.InferenceRequest(
            model_name=self._network,
            requested_output_names=self.outputs,
            inputs=[triton.Tensor(self._input, images)],
            preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            raise RunFailed(Path(self._network), images.shape, response.error().message())
        given = {tensor.name(): tensor for tensor in response.output_tensors()}
        return self.frames([given[name] for name in self.outputs], images.shape[3])

    def frames(self, outputs: list[Any], width: int) -> Frames:
        """What the network's output tensors say of images of a width. Raises RunFailed."""
        arrays = [tensor.as_numpy() for tensor in outputs]
        shape = (len(arrays[0]), self.manifest.channels, self.manifest.height, width)
        return frames_of(arrays, np.broadcast_to(np.float32(0), shape), self.manifest, Path(self._network))

    def close(self) -> None:
        pass
