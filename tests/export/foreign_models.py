"""CTC graphs as other tools write them, around one convolution that NumPy can follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HEIGHT, STRIDE = 16, 4
ALPHABET = "abcdef"
CLASSES = len(ALPHABET) + 1

RECIPE = f"""
color = "gray"
height = {HEIGHT}
mean = [0.5]
std = [0.5]
[width]
minimum = 40
maximum = 400
"""


def kernel(seed: int = 0, classes: int = CLASSES) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.4, (classes, 1, HEIGHT, STRIDE)).astype(np.float32)


def expected(images: NDArray[np.float32], weights: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """Logits (N, T, classes) of images (N, 1, H, W), by NumPy alone."""
    weights = kernel() if weights is None else weights
    steps = images.shape[3] // STRIDE
    patches = images[:, 0, :, : steps * STRIDE].reshape(len(images), HEIGHT, steps, STRIDE)
    logits: NDArray[np.float64] = np.einsum(
        "nhts,chs->ntc", patches.astype(np.float64), weights[:, 0].astype(np.float64)
    )
    return logits


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=2, keepdims=True)
    return result


def images(count: int = 4, width: int = 84, seed: int = 1) -> NDArray[np.float32]:
    """Prepared images (N, 1, H, W), as the recipe has them."""
    grey = np.random.default_rng(seed).integers(0, 256, (count, 1, HEIGHT, width))
    return ((grey.astype(np.float32) / 255 - 0.5) / 0.5).astype(np.float32)


@dataclass
class Foreign:
    """A graph: what stands before the convolution, and what behind its logits (N, T, classes).

    before: nodes from the input `x` to `images` (N, 1, H, W) float32
    after: nodes from `logits` to the outputs
    """

    before: Sequence[onnx.NodeProto] = ()
    after: Sequence[onnx.NodeProto] = ()
    shape: Sequence[int | str] = ("n", 1, HEIGHT, "w")
    kind: int = TensorProto.FLOAT
    outputs: Mapping[str, int] = field(default_factory=lambda: {"out": TensorProto.FLOAT})
    inputs: Mapping[str, tuple[int, Sequence[int | str]]] = field(default_factory=dict)  # others
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    name: str = "x"
    opset: int = 17
    ir: int = 8
    weights: NDArray[np.float32] = field(default_factory=kernel)

    def model(self) -> onnx.ModelProto:
        squeeze = (
            helper.make_node("Squeeze", ["features", "two"], ["nct"])
            if self.opset >= 13
            else helper.make_node("Squeeze", ["features"], ["nct"], axes=[2])
        )
        first = "images" if self.before else self.name
        last = "logits" if self.after else next(iter(self.outputs))
        nodes = [
            *self.before,
            helper.make_node("Conv", [first, "kernel"], ["features"], strides=[HEIGHT, STRIDE]),
            squeeze,
            helper.make_node("Transpose", ["nct"], [last], perm=[0, 2, 1]),
            *self.after,
        ]
        constants = {"kernel": self.weights, **self.constants}
        if self.opset >= 13:
            constants["two"] = np.array([2], np.int64)
        inputs = [helper.make_tensor_value_info(self.name, self.kind, self.shape)]
        inputs += [helper.make_tensor_value_info(name, *told) for name, told in self.inputs.items()]
        weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        if self.ir < 4:
            inputs += [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights]
        graph = helper.make_graph(
            nodes,
            "foreign",
            inputs,
            [helper.make_tensor_value_info(name, kind, None) for name, kind in self.outputs.items()],
            weights,
        )
        domains = {node.domain for node in nodes if node.domain}
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(graph, opset_imports=imports, ir_version=self.ir)

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node of names with spaces between them."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)
