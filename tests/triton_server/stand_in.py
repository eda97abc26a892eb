"""Triton's onnxruntime backend, which the server inside nvidia-pytriton's wheel lacks, in Python.

As the real one, it runs the requests of a batch, which the server's dynamic batcher made, as one.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

__all__ = ["PROGRAM", "put_stand_in"]

PROGRAM = """
import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        [self.input] = [one["name"] for one in config["input"]]
        self.outputs = [one["name"] for one in config["output"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        given = [triton.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        assert len({images.shape[1:] for images in given}) == 1, "images of several widths in one batch"
        said = self.session.run(self.outputs, {self.input: np.concatenate(given)})
        ends = np.cumsum([len(images) for images in given])
        return [
            triton.InferenceResponse(
                [
                    triton.Tensor(name, values[end - len(images) : end])
                    for name, values in zip(self.outputs, said)
                ]
            )
            for images, end in zip(given, ends)
        ]
"""


def put_stand_in(model: Path) -> None:
    """Let Python run a network of a repository; all else that its configuration says stays."""
    file = model / "config.pbtxt"
    config = text_format.Parse(file.read_text(encoding="utf-8"), pb.ModelConfig())
    assert config.backend == "onnxruntime"
    config.backend = "python"
    file.write_text(text_format.MessageToString(config), encoding="utf-8")
    (model / "1" / "model.py").write_text(PROGRAM, encoding="utf-8")
