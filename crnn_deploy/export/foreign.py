"""A manifest for a CTC ONNX model that was exported elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid, ModelUnreadable, first_line
from crnn_deploy.export.steps import probed_widths, step_rule
from crnn_deploy.files import replacing
from crnn_deploy.graph.model import attach_manifest, load_onnx, session_of
from crnn_deploy.manifest import Manifest
from crnn_deploy.recipes.alphabets import AlphabetInvalid, check_alphabet
from crnn_deploy.recipes.recipe import Blank, Recipe, find_recipe
from crnn_deploy.runtime.backends.ort import OrtBackend, open_session

__all__ = ["describe"]

_BATCH = 3  # images probed together
_CLOSE = 1e-3  # an image's scores alone and in a batch, relative to the largest
_SMALLEST = 1e-30  # probability whose logarithm is still a float


def describe(
    foreign: Path,
    path: Path,
    recipe_name: str,
    alphabet: tuple[str, ...] | None,
    blank: Blank | int | None,
) -> Manifest:
    """Write `foreign` with a manifest; its output becomes (N, T, classes) logits or log-probabilities.

    Raises AlphabetMismatch, AlphabetInvalid, ModelInvalid, ModelUnreadable, first_line, RecipeInvalid.
    """
    recipe = find_recipe(recipe_name)
    model = load_onnx(foreign)
    session = open_session(foreign, threads=1)
    name = session.get_inputs()[0].name
    if len(session.get_inputs()) != 1:
        raise ModelInvalid(f"{foreign} has {len(session.get_inputs())} inputs; a CTC recogniser has one")
    fixed = next((size for size in session.get_inputs()[0].shape[:1] if isinstance(size, int)), None)
    channels = 1 if recipe.color == "gray" else 3

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return np.asarray(session.run(None, {name: images})[0])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelUnreadable(
                foreign,
                f"it does not run on {images.shape}: choose the recipe's height, color and [width] to fit "
                f"({first_line(error)[:120]})",
            ) from error

    def noise(batch: int, width: int) -> NDArray[np.float32]:
        return np.random.default_rng(0).random((batch, channels, recipe.height, width), np.float32)

    images = noise(fixed or _BATCH, recipe.width.minimum)
    sample = run(images)
    tokens = alphabet or _paddle_characters(model, sample) or recipe.alphabet
    if tokens is None:
        raise AlphabetInvalid(f"{foreign} names no characters; pass --alphabet FILE")
    tokens = check_alphabet(tokens, "the model")
    order = _order(sample, len(images), len(tokens) + 1)
    if fixed:
        session = _with_free_batch(model)
    _check_batch(run, images, sample, order[0], foreign)
    sample = sample.transpose(order)
    probabilities = bool((sample >= 0).all() and np.allclose(sample.sum(axis=2), 1, atol=1e-3))
    _normalise_output(model, order, probabilities)
    manifest = Manifest(
        alphabet=tokens,
        blank=(recipe if blank is None else replace(recipe, blank=blank)).blank_class(len(tokens)),
        color=recipe.color,
        height=recipe.height,
        width=recipe.width,
        mean=recipe.mean,
        std=recipe.std,
        interpolation=recipe.interpolation,
        steps=step_rule({w: run(noise(1, w)).transpose(order).shape[1] for w in _probed(recipe)}),
        output="log-probs" if probabilities else "logits",
        filters=recipe.filters,
        grey=recipe.grey,
        contrast=recipe.contrast,
        source={"recipe": recipe.name, "family": "foreign ONNX"},
    )
    attach_manifest(model, manifest)
    with replacing(path) as temporary:
        onnx.save(model, temporary)
        backend = OrtBackend(temporary)
        backend.run(images)
        backend.close()
    return manifest


def _with_free_batch(model: onnx.ModelProto) -> Any:
    """A session of the model once the batch that its exporter declared is taken out of it."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]  # shapes that speak of the frozen one
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return session_of(model)


def _check_batch(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    images: NDArray[np.float32],
    together: NDArray[np.float32],
    axis: int,
    path: Path,
) -> None:
    """Refuse a graph that reads an image otherwise alone than in batches of its own size and of others.

    together: what the graph as it came makes of `images`
    axis: the batch's in the output
    """
    refusal = ModelInvalid(
        f"{path} reads an image otherwise in a batch than alone; export it again with a dynamic batch axis, "
        "and no operator that joins the images of a batch"
    )
    more = np.resize(images, (max(_BATCH, len(images)), *images.shape[1:]))
    try:
        alone = np.concatenate([run(image[None]) for image in more], axis)
        both = (together, alone.take(range(len(images)), axis)), (run(more), alone)
    except ModelUnreadable as error:
        raise refusal from error
    tolerance = _CLOSE * float(np.abs(alone).max())
    for batch, expected in both:
        if batch.shape != expected.shape or not np.allclose(batch, expected, rtol=0, atol=tolerance):
            raise refusal


def _paddle_characters(model: onnx.ModelProto, sample: NDArray[np.float32]) -> tuple[str, ...] | None:
    """The `character` metadata of PaddleOCR and RapidOCR files: one token per line, the blank left out.

    PaddleOCR appends a space to its dictionary when it reads it (`use_space_char`), where the classes say so.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == "character"), None)
    if not text:
        return None
    tokens = tuple(text.removesuffix("\n").split("\n"))
    sizes = sample.shape[1:]
    with_space = len(tokens) + 1 not in sizes and len(tokens) + 2 in sizes and " " not in tokens
    return (*tokens, " ") if with_space else tokens


def _order(sample: NDArray[np.float32], batch: int, classes: int) -> tuple[int, int, int]:
    if sample.ndim != 3:
        raise ModelInvalid(f"the model puts out a tensor of shape {sample.shape}, not (N, T, classes)")
    orders = [
        (first, 3 - first - axis, axis)
        for first in (0, 1)
        for axis in (2, 1, 0)
        if axis != first and sample.shape[first] == batch and sample.shape[axis] == classes
    ]
    if not orders:
        raise AlphabetMismatch(classes - 1, sample.shape[2])
    return orders[0]


def _normalise_output(model: onnx.ModelProto, order: tuple[int, int, int], probabilities: bool) -> None:
    """Append what turns the first output into (N, T, classes) scores; drop the other outputs."""
    graph = model.graph
    last = graph.output[0].name
    if order != (0, 1, 2):
        graph.node.append(helper.make_node("Transpose", [last], ["crnn_deploy_ntc"], perm=order))
        last = "crnn_deploy_ntc"
    if probabilities:
        smallest = helper.make_tensor("crnn_deploy_smallest", TensorProto.FLOAT, [], [_SMALLEST])
        graph.initializer.append(smallest)
        graph.node.append(helper.make_node("Max", [last, smallest.name], ["crnn_deploy_positive"]))
        graph.node.append(helper.make_node("Log", ["crnn_deploy_positive"], ["crnn_deploy_log_probs"]))
        last = "crnn_deploy_log_probs"
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, None, None]))


def _probed(recipe: Recipe) -> list[int]:
    return [recipe.width.minimum] if recipe.width.fixed else probed_widths(recipe.width)
