"""A manifest for a CTC ONNX model that was exported elsewhere.

How images are fed and where the scores stand is told by running the graph; what a runtime needs beyond that,
a cast, a transpose or a logarithm, is put into the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid, ModelUnreadable
from crnn_deploy.export.foreign.graph import ForeignGraph
from crnn_deploy.export.foreign.inputs import feeds
from crnn_deploy.files import replacing
from crnn_deploy.graph.ends import training_nodes
from crnn_deploy.graph.model import attach_manifest, load_onnx
from crnn_deploy.manifest import Manifest, OutputKind
from crnn_deploy.recipes.alphabets import AlphabetInvalid, check_alphabet
from crnn_deploy.recipes.recipe import RECIPES, Blank, Recipe, find_recipe
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.backends.run_time_scales import has_run_time_scales

__all__ = ["Described", "describe"]

_BATCHES = (3, 5)  # images probed together: one that is not the number of classes


@dataclass(frozen=True)
class Described:
    """What was written, and what a person should know of it."""

    manifest: Manifest
    notes: tuple[str, ...]  # sentences without a full stop


def describe(
    foreign: Path,
    path: Path,
    recipe_name: str,
    alphabet: tuple[str, ...] | None,
    blank: Blank | int | None,
) -> Described:
    """Write `foreign` with a manifest; it takes float32 images (N, C, H, W) then, and puts out logits or
    log-probabilities (N, T, classes).

    Raises AlphabetMismatch, AlphabetInvalid, ModelInvalid, ModelUnreadable, RecipeInvalid.
    """
    recipe = find_recipe(recipe_name)
    model = load_onnx(foreign)
    if training := training_nodes(model):
        raise ModelInvalid(
            f"{foreign} was exported in training mode ({', '.join(training[:3])}), so what it reads hangs on "
            "chance or on the other images; export it again after model.eval()"
        )
    given, told = _characters(model, alphabet, recipe)
    assumed = not alphabet and any(given[0] is known.alphabet for known in RECIPES.values())
    try:
        graph = _opened(model, foreign, recipe, given)
    except AlphabetMismatch as error:
        if given[0] is not recipe.alphabet:
            raise
        raise AlphabetMismatch(error.tokens, error.classes, f"the recipe {recipe.name}") from error
    feed, found = graph.feed, graph.found
    recipe = replace(recipe, width=feed.width, mean=feed.mean, std=feed.std)
    tokens = check_alphabet(found.tokens, "the model")
    graph.check_repeats()
    graph.scored()
    graph.free_batch(has_run_time_scales(model.SerializeToString()))
    steps = graph.steps()
    if steps(recipe.width.maximum) == 1 and not recipe.width.fixed:
        raise ModelInvalid(
            f"{foreign} puts out one row of scores for an image of any width, as a classifier does; a CTC "
            "recogniser puts out one for each time step, (N, T, classes)"
        )
    output: OutputKind = "log-probs" if found.kind == "probabilities" else found.kind
    manifest = (recipe if blank is None else replace(recipe, blank=blank)).manifest(
        tokens,
        steps,
        output=output,
        source={"recipe": recipe.name, "family": "foreign ONNX", "alphabet": told}
        | ({"assumed": "alphabet"} if assumed else {}),
        max_batch=graph.max_batch,
    )
    notes = [*feed.notes, *found.notes, *graph.notes]
    if blank is None and (hint := graph.blank_hint(manifest)):
        notes.append(hint)
    attach_manifest(graph.model, manifest)
    with replacing(path) as temporary:
        onnx.save(graph.model, temporary)
        backend = OrtBackend(temporary)
        backend.run(graph.noise(2, recipe.width.minimum))
        backend.close()
    return Described(manifest, tuple(notes))


def _characters(
    model: onnx.ModelProto, alphabet: tuple[str, ...] | None, recipe: Recipe
) -> tuple[tuple[tuple[str, ...], ...], str]:
    """The alphabets that may be the model's, of which the classes choose; and where they come from.

    PaddleOCR and RapidOCR keep one token per line in the metadata `character`, the blank left out. PaddleOCR
    appends a space to its dictionary when it reads it (`use_space_char`).
    """
    if alphabet:
        return (alphabet,), "--alphabet"
    text = next((entry.value for entry in model.metadata_props if entry.key == "character"), None)
    if text:
        tokens = tuple(text.removesuffix("\n").split("\n"))
        with_space = ((*tokens, " "),) if " " not in tokens else ()
        return (tokens, *with_space), "the file's metadata `character`"
    if recipe.alphabet:
        assumed = any(recipe.alphabet is known.alphabet for known in RECIPES.values())
        return (recipe.alphabet,), f"the recipe {recipe.name}'s{', assumed' if assumed else ''}"
    raise AlphabetInvalid("the file names no characters; pass --alphabet FILE")


def _opened(
    model: onnx.ModelProto, path: Path, recipe: Recipe, given: tuple[tuple[str, ...], ...]
) -> ForeignGraph:
    """The graph fed in the first way in which it runs and puts out scores.

    Raises AlphabetMismatch, ModelInvalid, ModelUnreadable.
    """
    failures: list[Exception] = []
    for feed in feeds(model, path, recipe):
        batch = next(size for size in _BATCHES if all(size != len(tokens) + 1 for tokens in given))
        for images in (feed.batch,) if feed.batch else (batch, 1):
            try:
                return ForeignGraph(path, recipe, feed, images, given)
            except (ModelInvalid, ModelUnreadable, ValueError) as error:
                failures.append(error)
        if feed.misfit is not None and isinstance(failures[-1], ModelUnreadable):
            failures.append(feed.misfit)
    # where it runs and puts out something else, that is the cause
    raise next((e for e in failures if not isinstance(e, ModelUnreadable)), failures[0])
