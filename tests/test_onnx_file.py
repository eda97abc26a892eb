"""What an ONNX file must not do to a runtime: lead it to other files, or hand it a compiled binary."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from crnn_deploy.backends.onnx_file import check_self_contained
from crnn_deploy.errors import ModelUnreadable
from crnn_deploy.recognizer import Recognizer


def external(location: str, name: str = "w") -> TensorProto:
    """A tensor whose values lie in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def in_initializer(location: str) -> onnx.ModelProto:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return model([node], [external(location)])


def in_constant(location: str) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(
        helper.make_attribute("value", numpy_helper.from_array(np.zeros(4, np.float32)))
    )
    constant.attribute[0].t.CopyFrom(external(location))
    return model([constant, helper.make_node("Add", ["x", "w"], ["y"])], [])


def in_subgraph(location: str) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["z"])], "b", [], [value], [external(location)]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    condition = numpy_helper.from_array(np.array(True), "c")
    return model([node], [condition])


def in_function(location: str) -> onnx.ModelProto:
    constant = in_constant(location).graph.node[0]
    function = helper.make_function(
        "own",
        "F",
        ["a"],
        ["b"],
        [constant, helper.make_node("Add", ["a", "w"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    made = model([helper.make_node("F", ["x"], ["y"], domain="own")], [])
    made.functions.append(function)
    return made


def model(nodes: list[Any], initializers: list[TensorProto]) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


PLACES = [in_initializer, in_constant, in_subgraph, in_function]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "link.bin", "hard.bin"]
)
def test_weights_outside_the_folder_are_refused(
    place: Callable[[str], onnx.ModelProto], location: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(secret)
    os.link(secret, folder / "hard.bin")
    path = folder / "m.onnx"
    path.write_bytes(place(location).SerializeToString())
    with pytest.raises(ModelUnreadable, match="refused"):
        check_self_contained(path)
    with pytest.raises(ModelUnreadable, match="refused"):
        Recognizer.load(path)


@pytest.mark.parametrize("place", PLACES)
def test_weights_beside_the_model_are_accepted(
    place: Callable[[str], onnx.ModelProto], tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(place("weights.bin").SerializeToString())
    with pytest.raises(ModelUnreadable, match="missing"):
        check_self_contained(path)
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    check_self_contained(path)


def test_a_compiled_binary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context=b"code")
    path.write_bytes(model([node], []).SerializeToString())
    with pytest.raises(ModelUnreadable, match="EPContext"):
        check_self_contained(path)


def test_a_truncated_file_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    data = tiny_onnx.read_bytes()
    check_self_contained(tiny_onnx)
    for size in range(0, len(data) - 1, max(1, len(data) // 40)):
        path = tmp_path / "m.onnx"
        path.write_bytes(data[:size])
        with pytest.raises(ModelUnreadable):
            Recognizer.load(path)


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_refused_or_let_through(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    try:
        check_self_contained(path)
    except ModelUnreadable as error:
        assert str(path) in str(error)


def run(code: str, path: Path) -> str:
    """What a fresh interpreter says that finds `path` first."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_both_onnxruntimes_are_named(tiny_onnx: Path, tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    code = (
        f"from crnn_deploy.cli.main import main; main(['infer', '--model', {str(tiny_onnx)!r}, {__file__!r}])"
    )
    said = run(code, tmp_path)
    assert "overwrite each other" in said and "pip uninstall" in said and "Traceback" not in said


def test_no_onnxruntime_names_the_extra(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')\n")
    code = (
        f"from crnn_deploy.cli.main import main; main(['infer', '--model', {str(tiny_onnx)!r}, {__file__!r}])"
    )
    said = run(code, tmp_path)
    assert "crnn-deploy[cpu]" in said and "Traceback" not in said
