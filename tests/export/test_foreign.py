"""`describe`: what other tools' graphs put out is the same with it, or it says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_models import (
    ALPHABET,
    CLASSES,
    HEIGHT,
    RECIPE,
    STRIDE,
    Foreign,
    expected,
    images,
    kernel,
    node,
    softmax,
)
from onnx import TensorProto, helper, numpy_helper

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.export.foreign.describe import Described, describe
from crnn_deploy.graph.model import open_model
from crnn_deploy.runtime.backends.ort import OrtBackend


def described(model: Foreign | onnx.ModelProto, folder: Path, recipe: str = RECIPE) -> tuple[Described, Path]:
    (folder / "own.toml").write_text(recipe)
    given, out = folder / "rec.onnx", folder / "out.onnx"
    onnx.save(model.model() if isinstance(model, Foreign) else model, given)
    return describe(given, out, str(folder / "own.toml"), tuple(ALPHABET), None), out


def check(
    model: Foreign | onnx.ModelProto,
    folder: Path,
    *,
    recipe: str = RECIPE,
    width: int = 84,
    close: float = 1e-5,
) -> Described:
    """Described, the model reads as NumPy does: alone, in a batch, and at a width of its rule."""
    result, out = described(model, folder, recipe)
    open_model(out)  # ONNX's checker
    backend = OrtBackend(out)
    given = images(width=width)
    probabilities = softmax(expected(given))
    manifest = backend.manifest
    fed = given
    if manifest.std != (0.5,):  # grey levels
        fed = ((given * 0.5 + 0.5 - manifest.mean[0]) / np.float32(manifest.std[0])).astype(np.float32)
    frames = backend.run(fed)
    np.testing.assert_array_equal(frames.indices, probabilities.argmax(axis=2))
    np.testing.assert_allclose(frames.probabilities, probabilities.max(axis=2), atol=close)
    assert frames.logits is not None
    np.testing.assert_allclose(softmax(frames.logits.astype(np.float64)), probabilities, atol=close)
    for row, image in enumerate(fed):
        np.testing.assert_allclose(backend.run(image[None]).logits[0], frames.logits[row], atol=close)  # type: ignore[index]
    assert manifest.output == result.manifest.output
    return result


def refused(model: Foreign | onnx.ModelProto, folder: Path, recipe: str = RECIPE) -> str:
    with pytest.raises(CrnnDeployError) as raised:
        described(model, folder, recipe)
    assert not (folder / "out.onnx").exists()
    message = str(raised.value)
    assert "\n" not in message
    return message


LAYOUTS: dict[str, tuple[tuple[int | str, ...], list[int]]] = {
    "NHWC": (("n", HEIGHT, "w", 1), [0, 3, 1, 2]),
    "NWHC": (("n", "w", HEIGHT, 1), [0, 3, 2, 1]),
    "NCWH": (("n", 1, "w", HEIGHT), [0, 1, 3, 2]),
}


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_transpose_is_put_in_front(layout: str, declared: bool, tmp_path: Path) -> None:
    shape, order = LAYOUTS[layout]
    free = ("n", "a", "b", "c")
    model = Foreign([node("Transpose", "x", "images", perm=order)], shape=shape if declared else free)
    result = check(model, tmp_path)
    assert any(layout in note for note in result.notes)


@pytest.mark.parametrize(("layout", "order"), [("NHW", [0, 1, 2]), ("NWH", [0, 2, 1])])
@pytest.mark.parametrize("opset", [11, 17])
def test_an_input_without_channels(layout: str, order: list[int], opset: int, tmp_path: Path) -> None:
    shape = ("n", HEIGHT, "w") if layout == "NHW" else ("n", "w", HEIGHT)
    before = [
        node("Transpose", "x", "nhw", perm=order),
        helper.make_node("Unsqueeze", ["nhw"], ["images"], axes=[1]),
    ]
    if opset == 17:
        before[1] = node("Unsqueeze", "nhw one", "images")
    check(Foreign(before, shape=shape, constants={"one": np.array([1])}, opset=opset), tmp_path)


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE"])
def test_a_cast_is_put_in_front(kind: str, tmp_path: Path) -> None:
    before = [node("Cast", "x", "images", to=TensorProto.FLOAT)]
    result = check(Foreign(before, kind=getattr(TensorProto, kind)), tmp_path, close=2e-2)
    assert any(kind.lower() in note for note in result.notes)


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("kind", ["UINT8", "INT32", "INT64"])
def test_grey_levels(kind: str, opset: int, tmp_path: Path) -> None:
    before = [
        node("Cast", "x", "levels", to=TensorProto.FLOAT),
        node("Div", "levels most", "values"),
        node("Sub", "values half", "centred"),
        node("Div", "centred half", "images"),
    ]
    constants = {"most": np.asarray(np.float32(255)), "half": np.asarray(np.float32(0.5))}
    result = check(
        Foreign(before, kind=getattr(TensorProto, kind), constants=constants, opset=opset), tmp_path
    )
    assert result.manifest.std == (1 / 255,) and any("grey levels" in note for note in result.notes)


def test_an_input_of_another_kind_is_named(tmp_path: Path) -> None:
    before = [node("Cast", "x", "images", to=TensorProto.FLOAT)]
    assert "'x' takes int8" in refused(Foreign(before, kind=TensorProto.INT8), tmp_path)


OUTPUTS = {
    "TNC": [node("Transpose", "logits", "out", perm=[1, 0, 2])],
    "NCT": [node("Transpose", "logits", "out", perm=[0, 2, 1])],
    "CNT": [node("Transpose", "logits", "out", perm=[2, 0, 1])],
    "NC1T": [node("Transpose", "logits", "moved", perm=[0, 2, 1]), node("Unsqueeze", "moved two", "out")],
    "NCT1": [node("Transpose", "logits", "moved", perm=[0, 2, 1]), node("Unsqueeze", "moved three", "out")],
    "N1TC": [node("Unsqueeze", "logits one", "out")],
    "(NT)C": [node("Reshape", "logits rows", "out")],
    "(TN)C": [node("Transpose", "logits", "moved", perm=[1, 0, 2]), node("Reshape", "moved rows", "out")],
    "softmax": [node("Softmax", "logits", "out", axis=2)],
    "log-softmax": [node("LogSoftmax", "logits", "out", axis=2)],
    "softmax NCT": [node("Softmax", "logits", "p", axis=2), node("Transpose", "p", "out", perm=[0, 2, 1])],
    "softmax by hand": [
        node("Exp", "logits", "e"),
        node("ReduceSum", "e two", "sum", keepdims=1),
        node("Div", "e sum", "out"),
    ],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_scores_are_put_in_order(name: str, tmp_path: Path) -> None:
    constants = {name: np.array([at]) for at, name in enumerate(("zero", "one", "two", "three"))}
    constants["rows"] = np.array([-1, CLASSES])
    result = check(Foreign(after=OUTPUTS[name], constants=constants), tmp_path)
    assert result.manifest.output == ("log-probs" if "soft" in name else "logits")


@pytest.mark.parametrize("name", ["NTC", "TNC", "NCT", "CNT"])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("last", ["logits", "softmax"])
def test_as_many_steps_as_classes(name: str, fixed: bool, last: str, tmp_path: Path) -> None:
    """At the width where the layout is looked for, its sizes do not tell."""
    width = CLASSES * STRIDE
    recipe = RECIPE.replace("40", str(width)).replace("400", "400")
    scores = [node("Softmax" if last == "softmax" else "Identity", "logits", "s")]
    perm = ["NTC".index(axis) for axis in name]
    after = [*scores, node("Transpose", "s", "out", perm=perm)]
    shape = ("n", 1, HEIGHT, width if fixed else "w")
    check(Foreign(after=after, shape=shape), tmp_path, recipe=recipe, width=width)


def test_half_precision_scores(tmp_path: Path) -> None:
    model = Foreign(
        after=[node("Cast", "logits", "out", to=TensorProto.FLOAT16)], outputs={"out": TensorProto.FLOAT16}
    )
    check(model, tmp_path, close=5e-3)


def test_half_precision_probabilities(tmp_path: Path) -> None:
    after = [node("Cast", "logits", "half", to=TensorProto.FLOAT16), node("Softmax", "half", "out", axis=2)]
    result = check(Foreign(after=after, outputs={"out": TensorProto.FLOAT16}), tmp_path, close=5e-3)
    assert result.manifest.output == "log-probs"


SEVERAL = {
    "index first": (
        [node("ArgMax", "logits", "index", axis=2, keepdims=0), node("Identity", "logits", "out")],
        {"index": TensorProto.INT64, "out": TensorProto.FLOAT},
    ),
    "probabilities first": (
        [node("Softmax", "logits", "p", axis=2), node("Identity", "logits", "out")],
        {"p": TensorProto.FLOAT, "out": TensorProto.FLOAT},
    ),
    "features first": (
        [node("Concat", "logits logits", "wide", axis=2), node("Identity", "logits", "out")],
        {"wide": TensorProto.FLOAT, "out": TensorProto.FLOAT},
    ),
    "index alone": ([node("ArgMax", "logits", "out", axis=2, keepdims=0)], {"out": TensorProto.INT64}),
    "index of probabilities": (
        [node("Softmax", "logits", "p", axis=2), node("ArgMax", "p", "out", axis=2, keepdims=0)],
        {"out": TensorProto.INT64},
    ),
    "the best five": (
        [node("TopK", "logits five", "values out", axis=2)],
        {"values": TensorProto.FLOAT, "out": TensorProto.INT64},
    ),
    "index and probability": (
        [
            node("Softmax", "logits", "p", axis=2),
            node("ArgMax", "p", "out", axis=2, keepdims=0),
            node("ReduceMax", "p", "best", axes=[2], keepdims=0),
        ],
        {"out": TensorProto.INT64, "best": TensorProto.FLOAT},
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_the_scores_are_found_among_the_outputs(name: str, tmp_path: Path) -> None:
    after, outputs = SEVERAL[name]
    model = Foreign(after=after, outputs=outputs, constants={"five": np.array([5])})
    result = check(model, tmp_path)
    assert any("its scores are taken from" in note for note in result.notes)
    assert len(onnx.load(tmp_path / "out.onnx").graph.output) == 1


def test_outputs_that_read_differently_are_named(tmp_path: Path) -> None:
    after = [node("Identity", "logits", "main"), node("Neg", "logits", "other")]
    outputs = {"main": TensorProto.FLOAT, "other": TensorProto.FLOAT}
    message = refused(Foreign(after=after, outputs=outputs), tmp_path)
    assert "'main'" in message and "'other'" in message and "extract_model" in message


WRONG = {
    "a sigmoid": ([node("Sigmoid", "logits", "out")], "sigmoid"),
    "softmax over the steps": ([node("Softmax", "logits", "out", axis=1)], "over the time steps"),
    "softmax over the images": ([node("Softmax", "logits", "out", axis=0)], "over the images of a batch"),
    "log-softmax over the steps": ([node("LogSoftmax", "logits", "out", axis=1)], "over the time steps"),
    "softmax over all": ([node("Softmax", "logits", "out", axis=1)], "over all frames together"),
    "the mean over the batch": (
        [node("ReduceMean", "logits", "mean", axes=[0]), node("Sub", "logits mean", "out")],
        "otherwise in a batch than alone",
    ),
    "dropout in training": ([node("Dropout", "logits ratio yes", "out")], "model.eval()"),
    "random numbers": (
        [node("RandomNormalLike", "logits", "random"), node("Add", "logits random", "out")],
        "each time it runs",
    ),
    "one class less": ([node("Slice", "logits zero six two", "out")], "the network puts out 6"),
    "a text's class": ([node("ReduceMax", "logits", "out", axes=[1], keepdims=0)], "as a classifier does"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_recogniser_is_named(name: str, tmp_path: Path) -> None:
    after, part = WRONG[name]
    constants = {
        **{"ratio": np.asarray(np.float32(0.5)), "yes": np.asarray(True)},
        **{"zero": np.array([0]), "six": np.array([6]), "two": np.array([2])},
    }
    # before opset 13, softmax ran over all axes from the one that it names
    model = Foreign(after=after, constants=constants, opset=11 if name.endswith("all") else 17)
    assert part in refused(model, tmp_path)


@pytest.mark.parametrize("where", ["graph", "branch", "old"])
def test_batch_norm_in_training_mode_is_named(where: str, tmp_path: Path) -> None:
    ones = {name: np.ones(CLASSES, np.float32) for name in ("scale", "bias", "mean", "var")}
    moved = node("Transpose", "logits", "nct", perm=[0, 2, 1])
    norm = node("BatchNormalization", "moved scale bias mean var", "normed m v", name="bn", training_mode=1)
    if where == "old":
        norm = node("BatchNormalization", "moved scale bias mean var", "normed m v sm sv", name="bn")
    moved.output[0] = "moved"
    after = [moved, norm, node("Transpose", "normed", "out", perm=[0, 2, 1])]
    model = Foreign(after=after, constants=ones, opset=11 if where == "old" else 17).model()
    if where == "branch":
        nodes = list(model.graph.node)
        inner = helper.make_graph(
            [nodes[-2]], "then", [], [helper.make_tensor_value_info("normed", TensorProto.FLOAT, None)]
        )
        nodes[-2] = helper.make_node("If", ["yes"], ["normed"], then_branch=inner, else_branch=inner)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "yes"))
    message = refused(model, tmp_path)
    assert "BatchNormalization 'bn'" in message and "model.eval()" in message


@pytest.mark.parametrize("used", ["not at all", "times zero", "for shapes"])
@pytest.mark.parametrize("shape", [(1,), ("n",), ()])
def test_an_input_that_does_not_matter_becomes_constant(
    used: str, shape: tuple[int | str, ...], tmp_path: Path
) -> None:
    after = [node("Identity", "logits", "out")]
    if used != "not at all":
        operator = "Mul" if used == "times zero" else "Sub"
        after = [
            node("Cast", "length", "float", to=TensorProto.FLOAT),
            node(operator, "float float" if operator == "Sub" else "float nothing", "zeros"),
            node("ReduceMax", "zeros", "added", keepdims=0),
            node("Add", "logits added", "out"),
        ]
    model = Foreign(
        after=after,
        inputs={"length": (TensorProto.INT64, shape)},
        constants={"nothing": np.asarray(np.float32(0))},
    )
    assert any("'length'" in note for note in check(model, tmp_path).notes)
    assert [value.name for value in onnx.load(tmp_path / "out.onnx").graph.input] == ["x"]


def test_an_input_that_matters_is_named(tmp_path: Path) -> None:
    model = Foreign(after=[node("Mul", "logits factor", "out")], inputs={"factor": (TensorProto.FLOAT, (1,))})
    message = refused(model, tmp_path)
    assert "2 inputs" in message and "'factor'" in message and "constant" in message


def test_a_switch_of_training_is_off(tmp_path: Path) -> None:
    model = Foreign(
        after=[node("Dropout", "logits ratio is_training", "out")],
        inputs={"is_training": (TensorProto.BOOL, ())},
        constants={"ratio": np.asarray(np.float32(0.5))},
    )
    check(model, tmp_path)


@pytest.mark.parametrize("name", ["input:0", "serving_default_x:0", "ü ¬\x07", "images", "a/b\\c", "0"])
def test_names_of_any_kind(name: str, tmp_path: Path) -> None:
    check(Foreign(name=name), tmp_path)
    moved = helper.make_node(
        "Transpose", [name], ["images" if name != "images" else "other"], perm=[0, 3, 1, 2]
    )
    if name != "images":
        check(Foreign([moved], name=name, shape=("n", HEIGHT, "w", 1)), tmp_path)


@pytest.mark.parametrize(
    ("opset", "ir"), [(7, 3), (8, 3), (9, 4), (11, 6), (12, 7), (13, 7), (20, 9), (22, 10)]
)
@pytest.mark.parametrize("last", ["Identity", "Softmax", "flat"])
def test_versions_old_and_new(opset: int, ir: int, last: str, tmp_path: Path) -> None:
    after = (
        [node(last, "logits", "out", **({"axis": 2} if last == "Softmax" else {}))]
        if last != "flat"
        else [node("Reshape", "logits rows", "out")]
    )
    model = Foreign(
        [node("Transpose", "x", "images", perm=[0, 3, 1, 2])],
        after,
        shape=("n", HEIGHT, "w", 1),
        constants={"rows": np.array([-1, CLASSES])},
        opset=opset,
        ir=ir,
    )
    check(model, tmp_path)


def test_a_newer_version_is_named(tmp_path: Path) -> None:
    model = Foreign().model()
    model.ir_version = 99
    assert "newer ONNX" in refused(model, tmp_path)


def test_nodes_in_any_order(tmp_path: Path) -> None:
    """As onnxruntime's float16 conversion leaves them."""
    model = Foreign(after=[node("Softmax", "logits", "p", axis=2), node("Identity", "p", "out")]).model()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    check(model, tmp_path)


def test_weights_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(RECIPE)
    given, out = tmp_path / "rec.onnx", tmp_path / "out.onnx"
    onnx.save(Foreign().model(), given, save_as_external_data=True, location="w.bin", size_threshold=0)
    describe(given, out, str(tmp_path / "own.toml"), tuple(ALPHABET), None)
    (tmp_path / "w.bin").unlink()
    logits = OrtBackend(out).run(images()).logits
    assert logits is not None
    np.testing.assert_allclose(logits, expected(images()), atol=1e-5)


@pytest.mark.parametrize("opset", [9, 11, 17])
@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("layout", ["NTC", "TNC", "flat"])
def test_a_batch_that_stands_in_the_graph(layout: str, batch: int, opset: int, tmp_path: Path) -> None:
    """Fewer images run beside others of zeros; of one image alone, each runs by itself."""
    shape = {"NTC": [batch, -1, CLASSES], "TNC": [-1, batch, CLASSES], "flat": [-1, CLASSES * batch]}[layout]
    after = [node("Reshape", "logits shape", "frozen")]
    if layout == "TNC":
        after = [node("Transpose", "logits", "tnc", perm=[1, 0, 2]), node("Reshape", "tnc shape", "frozen")]
    if layout == "flat":
        after += [node("Reshape", "frozen back", "out")]
    else:
        after += [node("Identity", "frozen", "out")]
    constants = {"shape": np.array(shape), "back": np.array([batch, -1, CLASSES])}
    model = Foreign(after=after, shape=(batch, 1, HEIGHT, "w"), constants=constants, opset=opset)
    if opset < 10 and batch > 1:
        assert "dynamic batch axis" in refused(model, tmp_path)
        return
    result = check(model, tmp_path)
    assert result.manifest.max_batch == batch and any("max_batch" in note for note in result.notes)


def test_a_batch_that_stands_in_a_graph_of_any_batch(tmp_path: Path) -> None:
    """Declared free, traced with one image."""
    after = [node("Reshape", "logits shape", "out")]
    model = Foreign(after=after, constants={"shape": np.array([1, -1, CLASSES])})
    assert check(model, tmp_path).manifest.max_batch == 1


def test_a_declared_width(tmp_path: Path) -> None:
    result = check(Foreign(shape=("n", 1, HEIGHT, 84)), tmp_path)
    assert result.manifest.width.minimum == result.manifest.width.maximum == 84
    assert any("84 pixels wide" in note for note in result.notes)
    (tmp_path / "out.onnx").unlink()
    message = refused(replace(Foreign(), shape=("n", 1, HEIGHT, 600)), tmp_path)
    assert "minimum = 600" in message


def test_a_width_that_stands_in_the_graph(tmp_path: Path) -> None:
    after = [node("Reshape", "logits shape", "out")]
    message = refused(Foreign(after=after, constants={"shape": np.array([-1, 10, CLASSES])}), tmp_path)
    assert "runs on images 40 pixels wide" in message and "maximum = 40" in message


@pytest.mark.parametrize(("shape", "part"), [(("n", 1, 64, "w"), "64"), (("n", 3, HEIGHT, "w"), "3")])
def test_another_height_or_colour_is_named(shape: tuple[int | str, ...], part: str, tmp_path: Path) -> None:
    message = refused(Foreign(shape=shape), tmp_path)
    assert part in message and "height" in message and "color" in message


def test_a_multiple_that_the_network_needs(tmp_path: Path) -> None:
    """Two columns at a time: at odd numbers of steps it does not run."""
    after = [
        node("Reshape", "logits pairs", "paired"),
        node("Reshape", "paired back", "out"),
    ]
    constants = {"pairs": np.array([0, -1, 2 * CLASSES]), "back": np.array([0, -1, CLASSES])}
    recipe = RECIPE + f"multiple = {2 * STRIDE}\n"
    check(Foreign(after=after, constants=constants), tmp_path, recipe=recipe, width=88)


@pytest.mark.parametrize("operator", ["If", "Loop", "NonZero"])
def test_graphs_that_decide_while_they_run(operator: str, tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    constants = {"yes": np.asarray(True), "once": np.asarray(np.int64(1))}
    if operator == "If":
        branch = helper.make_graph(
            [node("Softmax", "logits", "said", axis=2)], "b", [], [info("said", TensorProto.FLOAT, None)]
        )
        after = [node("If", "yes", "out", then_branch=branch, else_branch=branch)]
    elif operator == "Loop":
        body = helper.make_graph(
            [node("Identity", "go", "goes"), node("Identity", "state", "next")],
            "b",
            [
                info("at", TensorProto.INT64, []),
                info("go", TensorProto.BOOL, []),
                info("state", TensorProto.FLOAT, None),
            ],
            [info("goes", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, None)],
        )
        after = [node("Loop", "once yes logits", "out", body=body)]
    else:
        constants["line"] = np.ones(CLASSES, np.float32)
        constants["one"] = np.array([-1])
        after = [
            node("NonZero", "line", "found"),
            node("Reshape", "found one", "classes"),
            node("Gather", "logits classes", "out", axis=2),
        ]
    check(Foreign(after=after, constants=constants), tmp_path)


def test_the_blank_of_keras_is_hinted_at(tmp_path: Path) -> None:
    """Its ctc_decode takes the last class for the blank."""
    bias = np.zeros(CLASSES, np.float32)
    bias[-1] = 60
    weights = kernel() * np.float32(0.1)
    model = Foreign(after=[node("Add", "logits bias", "out")], constants={"bias": bias}, weights=weights)
    result, _ = described(model, tmp_path)
    assert any("--blank last" in note for note in result.notes)
    (tmp_path / "own.toml").write_text(RECIPE)
    said = describe(
        tmp_path / "rec.onnx", tmp_path / "out.onnx", str(tmp_path / "own.toml"), tuple(ALPHABET), "last"
    )
    assert said.manifest.blank == CLASSES - 1 and not said.notes


def test_probabilities_near_zero_have_logarithms(tmp_path: Path) -> None:
    """A sure softmax gives zeros; with a floor of 1e-30 their logarithms are finite."""
    weights = kernel() * np.float32(40)
    after = [
        node("Exp", "logits", "unused"),
        node("Softmax", "logits", "p", axis=2),
        node("Relu", "p", "out"),
    ]
    described(Foreign(after=after, weights=weights), tmp_path)
    logits = OrtBackend(tmp_path / "out.onnx").run(images()).logits
    assert logits is not None and np.isfinite(logits).all() and logits.min() == np.float32(np.log(1e-30))
    exact = np.log(np.maximum(softmax(expected(images(), weights)), 1e-30))
    np.testing.assert_allclose(np.maximum(logits, -60), np.maximum(exact, -60), atol=2e-3)
