"""ONNX files whose weights lie in other files: none that protobuf's own library finds may be missed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from harness import fuzz, guided
from onnx import GraphProto, ModelProto, TensorProto, helper

with guided():
    from crnn_deploy.runtime.backends.onnx_file import check_self_contained, read_metadata

FOLDER = Path(tempfile.mkdtemp(dir="."))
NAMES = ("weights.bin", "w")
for name in NAMES:
    (FOLDER / name).write_bytes(bytes(16))


def locations(message: Any) -> set[str]:
    """Those of all tensors in a message."""
    if isinstance(message, TensorProto):
        return {entry.value for entry in message.external_data if entry.key == "location"}
    return {
        location
        for described, value in message.ListFields()
        if described.message_type is not None
        for inner in ([value] if hasattr(value, "ListFields") else value)
        for location in locations(inner)
    }


def target(data: bytes) -> None:
    """Look into it; what passes has named all its files and has the metadata that protobuf reads."""
    path = FOLDER / "model.onnx"
    path.write_bytes(data)
    found = check_self_contained(path)
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        return
    assert locations(model) <= found, (locations(model), found)
    assert read_metadata(path) == {entry.key: entry.value for entry in model.metadata_props}


def seed(place: str) -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.external_data.add(key="offset", value="0")
    inner = GraphProto(name="g", initializer=[tensor])
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    if place == "subgraph":
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=GraphProto(name="e"))
    graph = inner if place == "initializer" else GraphProto(name="g", node=[node])
    model = ModelProto(ir_version=8, graph=graph)
    helper.set_model_props(model, {"key": "value"})
    return bytes(model.SerializeToString())


fuzz(target, map(seed, ("initializer", "constant", "subgraph")))
