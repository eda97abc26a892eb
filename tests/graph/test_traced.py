"""Sizes of the traced input that stay in a graph are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from crnn_deploy.graph.model import load_onnx
from crnn_deploy.graph.traced import baked_constants


def test_the_scan_finds_sizes_of_the_traced_input(tiny_onnx: Path) -> None:
    model = load_onnx(tiny_onnx)
    traced = {"batch": 7, "width": 151, "time steps": 38}
    assert baked_constants(model, traced) == []
    last = model.graph.output[0].name
    shapes = {"as an initializer": [7, -1, 11], "as a node": [-1, 38, 11], "free": [0, -1, 11]}
    for name, shape in shapes.items():
        tensor = onnx.numpy_helper.from_array(np.array(shape), name)
        if name == "as a node":
            model.graph.node.append(onnx.helper.make_node("Constant", [], [name], value=tensor))
        else:
            model.graph.initializer.append(tensor)
        model.graph.node.append(onnx.helper.make_node("Reshape", [last, name], [f"out {name}"], name=name))
    assert baked_constants(model, traced) == [
        "Reshape as an initializer: 7 = batch",
        "Reshape as a node: 38 = time steps",
    ]
