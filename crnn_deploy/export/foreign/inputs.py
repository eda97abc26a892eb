"""How the graph of another tool is fed: which input takes images, in which layout and type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.graph.ends import PIXELS, fed, folded, inputs_of
from crnn_deploy.graph.model import session_of
from crnn_deploy.manifest import WidthRule
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["Feed", "feeds"]

_LAYOUTS = ("NCHW", "NHWC", "NWHC", "NCWH")
_GREY_LAYOUTS = ("NHW", "NWH")  # without an axis of channels
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_TRAINING = ("train", "learning_phase", "dropout")  # in the name of a switch that is off where texts are read
_PROBED = 3  # images


@dataclass(frozen=True)
class Feed:
    """A graph that takes float32 images (N, C, H, W), and what was done for it."""

    model: onnx.ModelProto
    batch: int | None  # that its exporter declared
    width: WidthRule
    frees_width: bool  # whether the graph declares no width
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...]
    misfit: ModelInvalid | None  # what to say where it does not run so, and the layout was a guess


def feeds(model: onnx.ModelProto, path: Path, recipe: Recipe) -> Iterator[Feed]:
    """The ways in which the graph may be fed, the usual one first.

    Raises ModelInvalid where its inputs are none of a recogniser, or do not fit the recipe.
    """
    images = _image_input(model, path, recipe)
    kind = images.type.tensor_type.elem_type
    if kind not in (*_FLOATS, *PIXELS):
        raise ModelInvalid(
            f"{path}: its input {images.name!r} takes {_type_name(kind)}; images are fed as floats or as "
            "grey levels from 0 to 255 in uint8, int32 or int64: export it with one of these"
        )
    channels = 1 if recipe.color == "gray" else 3
    mean, std = recipe.mean, recipe.std
    notes: tuple[str, ...] = ()
    if kind in PIXELS:
        mean, std = (0.0,) * channels, (1 / 255,) * channels
        if (mean, std) != (recipe.mean, recipe.std):
            notes = (f"it takes grey levels ({_type_name(kind)}), so the recipe's mean and std are left out",)
    elif kind != TensorProto.FLOAT:
        notes = (f"it takes {_type_name(kind)}: a cast stands before it now",)
    failures: list[ModelInvalid] = []
    layouts = _fitting(images, recipe)
    misfit = _misfit([images], path, recipe)
    for layout in layouts:
        sizes = dict(zip(layout, _sizes(images) or (None,) * len(layout), strict=True))
        declared, batch = sizes["W"], sizes["N"]
        # by one axis alone, an image that is too high passes for one that lies on its side
        guessed = misfit if "NCHW" not in layouts and None in (sizes.get("C"), sizes["H"]) else None
        said = notes
        if layout != "NCHW":
            said += (f"it takes images as {layout}: a transpose stands before it now",)
        shape = (batch or "batch", channels, recipe.height, declared or "width")
        try:
            rule = recipe.width if declared is None else _fixed(recipe.width, declared, path)
            alone, others = _without_others(fed(model, images.name, layout, shape), path, batch, rule)
        except ModelInvalid as error:
            failures.append(guessed or error)
            continue
        if rule != recipe.width:
            said += (f"its graph takes images {declared} pixels wide alone, so all are fitted to that width",)
        yield Feed(alone, batch, rule, declared is None, mean, std, (*said, *others), guessed)
    if len(failures) == len(layouts):
        raise failures[0]


def _sizes(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Declared sizes of an input's axes, None for a free one; None where not even their number is known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim
    )


def _fitting(value: onnx.ValueInfoProto, recipe: Recipe) -> list[str]:
    """Layouts in which the recipe's images have the declared sizes."""
    channels = 1 if recipe.color == "gray" else 3
    sizes = _sizes(value)
    known = {"C": channels, "H": recipe.height}
    layouts = [layout for layout in _LAYOUTS if sizes is None or len(layout) == len(sizes)]
    if channels == 1 and sizes is not None and len(sizes) == 3:
        layouts = list(_GREY_LAYOUTS)
    return [
        layout
        for layout in layouts
        if all(
            size is None or known.get(axis, size) == size
            for axis, size in zip(layout, sizes or (None,) * len(layout), strict=True)
        )
    ]


def _image_input(model: onnx.ModelProto, path: Path, recipe: Recipe) -> onnx.ValueInfoProto:
    """The one input that takes images. Raises ModelInvalid."""
    inputs = [value for value in inputs_of(model.graph) if value.type.HasField("tensor_type")]
    fitting = [value for value in inputs if _fitting(value, recipe)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ModelInvalid(
            f"{path} has several inputs that take images: {_listed(fitting)}; a CTC recogniser has one"
        )
    raise _misfit(inputs, path, recipe)


def _misfit(inputs: list[onnx.ValueInfoProto], path: Path, recipe: Recipe) -> ModelInvalid:
    channels = 1 if recipe.color == "gray" else 3
    return ModelInvalid(
        f"{path}: its input is {_listed(inputs)}, and recipe {recipe.name} gives images of {channels} "
        f"channels and {recipe.height} pixels in height ({', '.join(_LAYOUTS)} are tried); set color and "
        "height in a recipe file to what the graph takes"
    )


def _listed(values: list[onnx.ValueInfoProto]) -> str:
    return ", ".join(f"{value.name!r} {_shown(value)}" for value in values) or "none"


def _shown(value: onnx.ValueInfoProto) -> str:
    sizes = _sizes(value)
    dims = "of any shape" if sizes is None else str([size or "?" for size in sizes])
    return f"{_type_name(value.type.tensor_type.elem_type)} {dims}"


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _fixed(rule: WidthRule, width: int, path: Path) -> WidthRule:
    """The rule of a graph that takes one width. Raises ModelInvalid where the recipe has another one."""
    if not rule.minimum <= width <= rule.maximum:
        raise ModelInvalid(
            f"{path}: its graph takes images {width} pixels wide alone, and the recipe gives "
            f"{rule.minimum} to {rule.maximum}; give a recipe file with [width] minimum = {width}, "
            f"maximum = {width}, or export the model with a dynamic width"
        )
    return rule if rule.fixed else replace(rule, minimum=width, maximum=width, multiple=1)


def _without_others(
    model: onnx.ModelProto, path: Path, batch: int | None, rule: WidthRule
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph with all inputs but the images made constant; and notes of it.

    A switch of training is off. Others must not matter: the scores are the same for zeros and ones.
    Raises ModelInvalid.
    """
    images, *others = inputs_of(model.graph)
    if not others:
        return model, ()
    switches = [v for v in others if _is_switch(v)]
    free = [v for v in others if v not in switches]
    off = {value.name: _filled(value, 0) for value in switches}
    tried = [folded(model, off | {value.name: _filled(value, number) for value in free}) for number in (1, 0)]
    if free and not _same(tried, images.name, batch or _PROBED, rule.minimum):
        named = ", ".join(f"{value.name!r} ({_shown(value)})" for value in free)
        raise ModelInvalid(
            f"{path} has {len(others) + 1} inputs, and what it reads depends on {named}; export it with a "
            "constant in the place of each, so that it takes images alone"
        )
    names = ", ".join(repr(value.name) for value in others)
    return tried[0], (f"its inputs beside the images are constants now: {names}",)


def _is_switch(value: onnx.ValueInfoProto) -> bool:
    is_bool = value.type.tensor_type.elem_type == TensorProto.BOOL
    return is_bool and any(word in value.name.lower() for word in _TRAINING)


def _filled(value: onnx.ValueInfoProto, number: int) -> NDArray[Any]:
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return np.full([size or 1 for size in _sizes(value) or ()], number, kind)


def _same(models: list[onnx.ModelProto], name: str, batch: int, width: int) -> bool:
    """Whether the graphs run and put out the same."""
    dims = models[0].graph.input[0].type.tensor_type.shape.dim
    shape = (batch, dims[1].dim_value, dims[2].dim_value, width)
    images = np.random.default_rng(0).random(shape, np.float32)
    found = []
    for model in models:
        try:
            found.append(session_of(model).run(None, {name: images}))
        except Exception:  # ONNX Runtime's exceptions share no base class
            return False
    return all(
        np.array_equal(one, other, equal_nan=True)
        for one, other in zip(*found, strict=True)
        if one.dtype.kind == "f" and one.ndim > 1
    )
