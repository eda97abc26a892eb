"""What a runtime must not follow is refused, wherever in an ONNX file it hides."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from google.protobuf.message import DecodeError  # noqa: E402
from onnx import (  # noqa: E402
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
)

from crnn_deploy.errors import ModelUnreadable  # noqa: E402
from crnn_deploy.runtime.backends.onnx_file import check_self_contained, read_metadata  # noqa: E402


def external(location: str, name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="16")
    return tensor


def sparse(values: TensorProto, indices: TensorProto) -> SparseTensorProto:
    return SparseTensorProto(values=values, indices=indices, dims=[8])


def inline(name: str = "i") -> TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [1], [0])


def graph_of(*nodes: NodeProto, **parts: Any) -> GraphProto:
    return GraphProto(name="g", node=nodes, **parts)


def model_of(*nodes: NodeProto, functions: Sequence[FunctionProto] = (), **parts: Any) -> ModelProto:
    return ModelProto(ir_version=8, graph=graph_of(*nodes, **parts), functions=functions)


def constant(**attributes: Any) -> NodeProto:
    return helper.make_node("Constant", [], ["c"], **attributes)


def condition(branch: GraphProto) -> NodeProto:
    return helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=graph_of())


def function(*nodes: NodeProto, **parts: Any) -> FunctionProto:
    return FunctionProto(name="f", domain="own", node=nodes, **parts)


PLACES: dict[str, Callable[[str], ModelProto]] = {
    "initializer": lambda at: model_of(initializer=[inline(), external(at)]),
    "sparse values": lambda at: model_of(sparse_initializer=[sparse(external(at), inline())]),
    "sparse indices": lambda at: model_of(sparse_initializer=[sparse(inline(), external(at))]),
    "constant": lambda at: model_of(constant(value=external(at))),
    "constant, sparse": lambda at: model_of(constant(sparse_value=sparse(external(at), inline()))),
    "list of tensors": lambda at: model_of(constant(values=[inline(), external(at)])),
    "list of sparse tensors": lambda at: model_of(constant(values=[sparse(inline(), external(at))])),
    "subgraph": lambda at: model_of(condition(graph_of(initializer=[external(at)]))),
    "subgraph of a subgraph": lambda at: model_of(
        condition(graph_of(condition(graph_of(constant(value=external(at))))))
    ),
    "list of subgraphs": lambda at: model_of(
        constant(bodies=[graph_of(), graph_of(initializer=[external(at)])])
    ),
    "function": lambda at: model_of(functions=[function(constant(value=external(at)))]),
    "function's subgraph": lambda at: model_of(
        functions=[function(condition(graph_of(initializer=[external(at)])))]
    ),
    "function's default": lambda at: model_of(
        functions=[function(attribute_proto=[helper.make_attribute("d", external(at))])]
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the model, beside a secret."""
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (tmp_path / "model" / "deep").mkdir(parents=True)
    return tmp_path / "model"


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("place", PLACES)
def test_weights_are_followed_to_wherever_they_are_named(place: str, folder: Path) -> None:
    for location in ("weights.bin", "deep/weights.bin", "deep/../weights.bin"):
        (folder / location).write_bytes(bytes(16))
        check_self_contained(saved(PLACES[place](location), folder))
    for location in (
        "../secret.bin",
        "deep/../../secret.bin",
        str(folder.parent / "secret.bin"),
        "/etc/passwd",
    ):
        with pytest.raises(ModelUnreadable, match="outside its folder"):
            check_self_contained(saved(PLACES[place](location), folder))


def test_a_link_is_followed_to_what_it_means(folder: Path) -> None:
    (folder / "symbolic").symlink_to("../secret.bin")
    (folder / "up").symlink_to("..")
    os.link(folder.parent / "secret.bin", folder / "hard")
    for location, reason in {
        "symbolic": "outside its folder",
        "up/secret.bin": "outside its folder",
        "hard": "hard link",
    }.items():
        with pytest.raises(ModelUnreadable, match=reason):
            check_self_contained(saved(PLACES["initializer"](location), folder))


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("none.bin", "'none.bin' is missing"),
        ("loop", "cannot be read"),
        ("n" * 5000, "cannot be read"),
        ("nul\0.bin", "cannot be read"),
        ("deep", "not a regular file"),
        ("", "not a regular file"),
        ("pipe", "not a regular file"),
    ],
)
def test_weights_that_are_no_file_are_refused(location: str, reason: str, folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelUnreadable, match=reason):
        check_self_contained(saved(PLACES["initializer"](location), folder))


@pytest.mark.parametrize(
    "model",
    [
        model_of(helper.make_node("EPContext", [], ["y"], domain="com.microsoft")),
        model_of(condition(graph_of(helper.make_node("EPContext", [], ["y"])))),
        model_of(functions=[function(helper.make_node("EPContext", [], ["y"]))]),
    ],
    ids=["graph", "subgraph", "function"],
)
def test_a_compiled_binary_is_refused(model: ModelProto, folder: Path) -> None:
    with pytest.raises(ModelUnreadable, match="EPContext"):
        check_self_contained(saved(model, folder))


def test_endless_nesting_is_refused(folder: Path) -> None:
    def field(number: int, value: bytes) -> bytes:
        size = len(value)
        return bytes([number << 3 | 2, size & 127 | 128, size >> 7]) + value

    path = folder / "model.onnx"
    for depth, refused in ((20, False), (1000, True)):
        graph = b""
        for _ in range(depth):  # graph.node.attribute.g
            graph = field(1, field(5, field(6, graph)))
        path.write_bytes(field(7, graph))
        if refused:
            with pytest.raises(ModelUnreadable, match="nested too deeply"):
                check_self_contained(path)
        else:
            check_self_contained(path)


def test_a_field_number_that_a_reader_would_cut_short_is_refused(folder: Path) -> None:
    """Tags are 32 bits; the low bits of this one say `graph`."""
    honest = PLACES["initializer"]("../secret.bin").graph.SerializeToString()
    tag, size = bytes([0x80 | 0x3A, 0x80, 0x80, 0x80, 0x10]), bytes([len(honest)])
    path = folder / "model.onnx"
    path.write_bytes(b"\x3a\x00" + tag + size + honest)
    assert len(honest) < 128
    with pytest.raises(ModelUnreadable, match="not an ONNX file"):
        check_self_contained(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello, this is a text file\n", b"\x89PNG\r\n\x1a\n", bytes(100), b"\xff" * 100, b"\x08\x08"],
)
def test_what_is_no_onnx_file_is_refused(data: bytes, folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelUnreadable, match=r"model\.onnx: not an ONNX file"):
        check_self_contained(path)


def test_a_truncated_file_is_refused_wherever_it_is_cut(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(bytes(16))
    path = saved(PLACES["subgraph"]("weights.bin"), folder)
    data = path.read_bytes()
    check_self_contained(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelUnreadable):
            check_self_contained(path)


def test_a_file_that_cannot_be_opened_is_refused(folder: Path) -> None:
    """A FIFO is not waited for."""
    os.mkfifo(folder / "pipe.onnx")
    for path in (folder, folder / "pipe.onnx", folder / "none.onnx"):
        for read in (check_self_contained, read_metadata):
            with pytest.raises(ModelUnreadable, match="cannot be read"):
                read(path)


def field(number: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def with_entry(*texts: bytes) -> bytes:
    """A model with an external tensor, the entry of its location as it is given."""
    tensor = inline().SerializeToString() + field(13, b"".join(texts)) + b"\x70\x01"
    return bytes(model_of().SerializeToString()) + field(7, field(5, tensor))


KEY = field(1, b"location")
HIDDEN = {  # what follows or precedes the location, which protobuf passes over or overrules
    "varint": (KEY, field(2, b"hard"), b"\x10\x00"),
    "varint as key": (KEY, field(2, b"hard"), b"\x08\x00"),
    "8 bytes": (KEY, field(2, b"hard"), b"\x11weights."),
    "8 bytes as key": (KEY, field(2, b"hard"), b"\x09offset__"),
    "4 bytes": (KEY, field(2, b"hard"), b"\x15.bin"),
    "another field": (KEY, field(2, b"hard"), field(3, b"weights.bin")),
    "twice": (KEY, field(2, b"weights.bin"), field(2, b"hard")),
    "twice as key": (field(1, b"offset"), field(2, b"hard"), KEY),
    "overlong tag": (KEY, b"\x92\x00", field(2, b"hard")[1:]),
    "group": (KEY, b"\x1b", field(2, b"weights.bin"), b"\x1c", field(2, b"hard")),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_a_location_is_found_as_protobuf_finds_it(case: str, folder: Path) -> None:
    os.link(folder.parent / "secret.bin", folder / "hard")
    (folder / "weights.bin").write_bytes(bytes(16))
    path = folder / "model.onnx"
    path.write_bytes(with_entry(*HIDDEN[case]))
    assert "hard" in locations(ModelProto.FromString(path.read_bytes()))
    with pytest.raises(ModelUnreadable, match=r"hard link|not an ONNX file"):
        check_self_contained(path)


def test_an_address_in_memory_is_no_location(folder: Path) -> None:
    (folder / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (folder / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(16))
    with pytest.raises(ModelUnreadable, match="address in memory"):
        check_self_contained(saved(PLACES["initializer"]("*/_ORT_MEM_ADDR_/*"), folder))


def locations(message: Any) -> set[str]:
    """Those of all tensors in a message, as protobuf's own library reads them."""
    if isinstance(message, TensorProto):
        return {entry.value for entry in message.external_data if entry.key == "location"}
    return {
        location
        for described, value in message.ListFields()
        if described.message_type is not None
        for inner in ([value] if hasattr(value, "ListFields") else value)
        for location in locations(inner)
    }


SEEDS = [make("../secret.bin").SerializeToString() for make in PLACES.values()]
INSIDE = [make("weights.bin").SerializeToString() for make in PLACES.values()]
INSIDE += [with_entry(*parts).replace(b"hard", b"abcd") for parts in HIDDEN.values()]


@given(
    st.sampled_from(INSIDE),
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=3
    ),
)
@settings(deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_location_that_protobuf_finds_is_missed(
    folder: Path, data: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    for name in ("weights.bin", "abcd"):
        (folder / name).write_bytes(bytes(16))
    for at, removed, put in edits:
        data = data[:at] + put + data[at + removed :]
    path = folder / "model.onnx"
    path.write_bytes(data)
    try:
        found = check_self_contained(path)
    except ModelUnreadable:
        return
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        return
    assert locations(model) <= found


@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.sampled_from(SEEDS), st.integers(0, 400), st.binary(max_size=3)).map(
            lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + len(t[2]) :]
        ),
    )
)
@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_pass_or_are_unreadable(folder: Path, data: bytes) -> None:
    path = folder / "model.onnx"
    path.write_bytes(data)
    try:
        check_self_contained(path)
    except ModelUnreadable as error:
        assert str(error).startswith(str(path))
