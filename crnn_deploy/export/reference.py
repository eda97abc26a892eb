"""From a checkpoint to the PyTorch reference: which network, which alphabet, which input rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from crnn_deploy.errors import ModelInvalid, first_line
from crnn_deploy.export.activation import leaky_relu
from crnn_deploy.export.checkpoint import Checkpoint, CheckpointUnreadable, load
from crnn_deploy.export.layout import fit_channels, laid_out
from crnn_deploy.export.limits import TooLarge, bounded_outputs, bounded_weights
from crnn_deploy.export.own_network import own_module
from crnn_deploy.export.probabilities import with_logarithms
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.weights import load_state
from crnn_deploy.manifest import Manifest
from crnn_deploy.networks.families import FAMILIES, Family, StateDict, recognise
from crnn_deploy.recipes.alphabets import AlphabetInvalid, check_alphabet
from crnn_deploy.recipes.recipe import (
    HIGHEST,
    RECIPES,
    Recipe,
    RecipeInvalid,
    find_recipe,
    recipe_of_checkpoint,
)
from crnn_deploy.recipes.settings import CheckpointSettings

__all__ = ["open_checkpoint", "open_reference", "reference_of"]

_SPARE = 2**26  # numbers that a family's network has of itself, besides those told by the checkpoint's shapes


def open_reference(path: Path, settings: CheckpointSettings) -> ReferenceBackend:
    """The network of a checkpoint in fp32, with its manifest.

    Code of the user's own runs where `settings` name it, or a recipe file that they name; a checkpoint
    names none.

    Raises CheckpointNotFound, CheckpointUnreadable, RecipeInvalid, ModelInvalid, AlphabetInvalid,
    AlphabetMismatch.
    """
    checkpoint = load(path)
    recipe = find_recipe(settings.recipe) if settings.recipe else None
    if recipe is None and checkpoint.recipe is not None:
        try:
            recipe = recipe_of_checkpoint(checkpoint.recipe, path)
        except RecipeInvalid as error:
            raise CheckpointUnreadable(path, str(error)) from error
    spec = settings.factory or (recipe.factory if recipe else None)
    with bounded_outputs() as watch:
        if spec:
            if recipe is None:
                raise ModelInvalid("--factory needs a --recipe FILE.toml that says how its input is prepared")
            module, told = own_module(spec, checkpoint, recipe.folder), {"family": "own"}
        else:
            module, told, recipe = _family_module(checkpoint, recipe, watch)
        try:
            return _with_alphabet(module, recipe, checkpoint, told, settings)
        except TooLarge as error:
            raise CheckpointUnreadable(path, str(error)) from error


def open_checkpoint(path: Path, settings: CheckpointSettings, manifest: Manifest | None) -> ReferenceBackend:
    """A checkpoint in PyTorch, fed as another model's manifest says where there is one.

    Raises what `open_reference` raises.
    """
    if manifest is None:
        return open_reference(path, settings)
    built_in = manifest.source.get("recipe") in RECIPES  # others stand in a file, or in the checkpoint itself
    known = CheckpointSettings(
        recipe=settings.recipe or (manifest.source["recipe"] if built_in else None),
        factory=settings.factory,
        alphabet=settings.alphabet or manifest.alphabet,
        blank=settings.blank or ("first" if manifest.blank == 0 else "last"),
    )
    backend = open_reference(path, known)
    return ReferenceBackend(
        backend.module, replace(manifest, output=backend.manifest.output, steps=backend.manifest.steps)
    )


def _with_alphabet(
    module: nn.Module,
    recipe: Recipe,
    checkpoint: Checkpoint,
    told: dict[str, str],
    settings: CheckpointSettings,
) -> ReferenceBackend:
    alphabet = settings.alphabet or checkpoint.alphabet or recipe.alphabet
    if alphabet is None:
        raise AlphabetInvalid(
            f"neither {checkpoint.path} nor the recipe {recipe.name} holds an alphabet; "
            f"pass --alphabet FILE. {recipe.about}"
        )
    source = {"checkpoint_sha256": checkpoint.sha256, **told, "recipe": recipe.name}
    source["torch"] = torch.__version__
    if alphabet is recipe.alphabet:
        source["alphabet"] = "the recipe's"
    return reference_of(
        module,
        replace(recipe, blank=settings.blank or recipe.blank),
        check_alphabet(alphabet, "the checkpoint" if alphabet is checkpoint.alphabet else "the model"),
        source,
    )


def reference_of(
    module: nn.Module, recipe: Recipe, alphabet: tuple[str, ...], source: dict[str, str]
) -> ReferenceBackend:
    """A backend from a module and a recipe; output layout, classes and time steps are told by running it.

    A network that ends in softmax is given a logarithm, and its manifest says log-probs.
    Raises ModelInvalid, AlphabetMismatch.
    """
    module = module.eval().float()
    recipe = fit_channels(module, recipe)
    found = laid_out(module, recipe, len(alphabet) + 1)
    module, output = with_logarithms(found.module, replace(recipe, width=found.width))
    if found.note is not None:
        source = {**source, "width": found.note}
    manifest = Manifest(
        alphabet=alphabet,
        blank=0 if recipe.blank == "first" else len(alphabet),
        color=recipe.color,
        height=recipe.height,
        width=found.width,
        mean=recipe.mean,
        std=recipe.std,
        interpolation=recipe.interpolation,
        steps=found.steps,
        output=output,
        filters=recipe.filters,
        source=source,
    )
    return ReferenceBackend(module, manifest)


def _family_module(
    checkpoint: Checkpoint, recipe: Recipe | None, watch: Callable[[nn.Module], None]
) -> tuple[nn.Module, dict[str, str], Recipe]:
    for state in checkpoint.variants():
        if (family := _recognised(state, checkpoint.path)) is not None:
            break
    else:
        names = ", ".join(list(checkpoint.state)[:4])
        known = ", ".join(family.name for family in FAMILIES)
        raise CheckpointUnreadable(
            checkpoint.path,
            f"its weights ({names}, ...) are of no family known here ({known}); "
            "export your own network with --factory package.module:name --recipe FILE.toml",
        )
    if recipe is None:
        recipe = RECIPES[family.recipe]

    def build(leaky_relu: bool) -> nn.Module:
        try:
            with bounded_weights(_SPARE + 2 * sum(value.numel() for value in state.values())):
                module = family.build(state, leaky_relu)
        except (KeyError, IndexError) as error:
            reason = f"it looks like {family.name}, but {error} is missing or of another shape"
            raise CheckpointUnreadable(checkpoint.path, reason) from error
        except (TooLarge, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            reason = f"it looks like {family.name}, but its shapes make no network: {first_line(error)}"
            raise CheckpointUnreadable(checkpoint.path, reason) from error
        if (height := getattr(module, "height", 1)) > HIGHEST:
            reason = f"its network takes images {height} pixels high; the limit is {HIGHEST}"
            raise CheckpointUnreadable(checkpoint.path, reason)
        load_state(module, state, checkpoint.path)
        watch(module)
        return module

    told = {"family": family.name}
    leaky = False
    try:
        if family.leaky:
            leaky, why = _leaky_relu(build, recipe, checkpoint)
            told["activation"] = f"{'LeakyReLU' if leaky else 'ReLU'} ({why})"
        module = build(leaky)
    except (TooLarge, RuntimeError) as error:
        raise CheckpointUnreadable(
            checkpoint.path, f"its network does not run: {first_line(error)}"
        ) from error
    return module, told, replace(recipe, height=getattr(module, "height", recipe.height))


def _recognised(state: StateDict, path: Path) -> Family | None:
    try:
        return recognise(state)
    except IndexError as error:
        raise CheckpointUnreadable(path, f"one of its weights lacks an axis ({error})") from error


def _leaky_relu(
    build: Callable[[bool], nn.Module], recipe: Recipe, checkpoint: Checkpoint
) -> tuple[bool, str]:
    """Whether the activation is LeakyReLU, and what says so."""
    if recipe.leaky_relu is not None:
        return recipe.leaky_relu, f"recipe {recipe.name}"
    if checkpoint.leaky_relu is not None:
        return checkpoint.leaky_relu, "saved beside the weights"
    leaky = leaky_relu(build, recipe)
    if leaky is not None:
        return leaky, "told by batch norm's means"
    return False, "the published default; for LeakyReLU give a recipe with leaky_relu = true"
