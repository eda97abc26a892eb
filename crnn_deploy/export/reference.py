"""From a checkpoint to the PyTorch reference: which network, which alphabet, which input rule."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid, first_line
from crnn_deploy.export.activation import ActivationTold, activation_of
from crnn_deploy.export.alphabet import alphabet_of
from crnn_deploy.export.channels import fit_channels
from crnn_deploy.export.checkpoints.checkpoint import Checkpoint, CheckpointUnreadable, load
from crnn_deploy.export.checkpoints.finite import first_not_finite, why_not_finite
from crnn_deploy.export.checkpoints.weights import load_state
from crnn_deploy.export.fitting import Fitting, doubt_of, fitting_recipe, recipes_with
from crnn_deploy.export.layout import laid_out
from crnn_deploy.export.limits import TooLarge, bounded_outputs, bounded_weights
from crnn_deploy.export.own_network import own_module
from crnn_deploy.export.probabilities import with_logarithms
from crnn_deploy.export.pytorch import ReferenceBackend, one_thread
from crnn_deploy.manifest import Manifest
from crnn_deploy.networks.families import FAMILIES
from crnn_deploy.networks.unsupported import unsupported
from crnn_deploy.recipes.recipe import (
    HIGHEST,
    Recipe,
    RecipeInvalid,
    find_recipe,
    recipe_of_checkpoint,
    recipe_of_manifest,
)
from crnn_deploy.recipes.settings import CheckpointSettings

__all__ = ["open_checkpoint", "open_reference", "reference_of"]

_OWN = "export your own network with --factory package.module:name --recipe FILE.toml"
_SPARE = 2**26  # numbers that a family's network has of itself, besides those told by the checkpoint's shapes


@one_thread()
def open_reference(
    path: Path, settings: CheckpointSettings, *, fed: Manifest | None = None
) -> ReferenceBackend:
    """The network of a checkpoint in fp32, with its manifest.

    Code of the user's own runs where `settings` name it, or a recipe file that they name; a checkpoint
    names none.

    fed: the manifest of a model that was made of the checkpoint; it says what the settings leave open
    Raises CheckpointNotFound, CheckpointUnreadable, RecipeInvalid, RecipeUnclear, ModelInvalid,
    AlphabetInvalid, AlphabetMismatch.
    """
    checkpoint = load(path)
    if (name := first_not_finite(checkpoint.state)) is not None:
        raise CheckpointUnreadable(
            path,
            f"its weights hold {why_not_finite(checkpoint.state[name])}, first in {name}: the training that "
            "saved it diverged; take a checkpoint from before, or train again at a lower learning rate",
        )
    recipe, told = (find_recipe(settings.recipe), "--recipe") if settings.recipe else (None, "")
    if recipe is None and fed is not None:
        recipe, told = recipe_of_manifest(fed), "the other model's manifest"
    elif recipe is None and checkpoint.recipe is not None:
        try:
            recipe, told = recipe_of_checkpoint(checkpoint.recipe, path), "the checkpoint"
        except RecipeInvalid as error:
            raise CheckpointUnreadable(path, str(error)) from error
    spec = settings.factory or (recipe.factory if recipe else None)
    with bounded_outputs() as watch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, on what a network does: a fault of it is an error
        if spec:
            if recipe is None:
                raise ModelInvalid("--factory needs a --recipe FILE.toml that says how its input is prepared")
            if settings.activation is not None:
                raise ModelInvalid("--activation is of the families known here; your own network has its own")
            module = own_module(spec, checkpoint, recipe.folder)
            facts = _Facts("own", Fitting(recipe, told))
        else:
            given = None if recipe is None else Fitting(recipe, told)
            module, facts = _family_module(checkpoint, given, settings, fed, watch)
        try:
            return _with_alphabet(module, checkpoint, facts, settings)
        except TooLarge as error:
            raise CheckpointUnreadable(path, str(error)) from error


@dataclass(frozen=True)
class _Facts:
    """What is known of a network, and what tells it."""

    family: str
    fitting: Fitting
    activation: ActivationTold | None = None  # None where there is no choice


def open_checkpoint(path: Path, settings: CheckpointSettings, manifest: Manifest | None) -> ReferenceBackend:
    """A checkpoint in PyTorch, fed as another model's manifest says where there is one.

    Raises what `open_reference` raises.
    """
    if manifest is None:
        return open_reference(path, settings)
    known = replace(
        settings,
        alphabet=settings.alphabet or manifest.alphabet,
        blank=manifest.blank if settings.blank is None else settings.blank,
    )
    backend = open_reference(path, known, fed=manifest)
    return ReferenceBackend(
        backend.module, replace(manifest, output=backend.manifest.output, steps=backend.manifest.steps)
    )


def _with_alphabet(
    module: nn.Module, checkpoint: Checkpoint, facts: _Facts, settings: CheckpointSettings
) -> ReferenceBackend:
    recipe = facts.fitting.recipe
    alphabet = alphabet_of(checkpoint, recipe, settings)
    source = {"checkpoint_sha256": checkpoint.sha256, "family": facts.family, "recipe": recipe.name}
    source["recipe_from"] = facts.fitting.told
    source["torch"] = torch.__version__
    assumed = ["recipe"] if facts.fitting.assumed else []
    if facts.activation is not None:
        source["activation"] = facts.activation.line()
        assumed += ["activation"] if facts.activation.assumed else []
    source["alphabet"] = alphabet.told
    assumed += ["alphabet"] if alphabet.assumed else []
    if assumed:
        source["assumed"] = ", ".join(assumed)
    if facts.fitting.doubt:
        source["doubt"] = facts.fitting.doubt
    try:
        return reference_of(module, replace(recipe, blank=alphabet.blank), alphabet.tokens, source)
    except AlphabetMismatch as error:
        network = checkpoint.network if facts.family != "own" else None
        named = [] if network is None else recipes_with(network.family, error.classes)
        raise AlphabetMismatch(error.tokens, error.classes, alphabet.owner, named) from error


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
    recipe = replace(recipe, width=found.width)
    module, output = with_logarithms(found.module, recipe)
    if found.note is not None:
        source = {**source, "width": found.note}
    manifest = recipe.manifest(alphabet, found.steps, output=output, source=source)
    return ReferenceBackend(module, manifest)


def _family_module(
    checkpoint: Checkpoint,
    given: Fitting | None,
    settings: CheckpointSettings,
    fed: Manifest | None,
    watch: Callable[[nn.Module], None],
) -> tuple[nn.Module, _Facts]:
    if (found := checkpoint.network) is None:
        names = ", ".join(list(checkpoint.state)[:4])
        known = ", ".join(family.name for family in FAMILIES)
        what = unsupported(checkpoint.state) or (
            f"its weights ({names}, ...) are of no family known here ({known})"
        )
        raise CheckpointUnreadable(checkpoint.path, f"{what}; {_OWN}")
    state, family = found.state, found.family

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

    if settings.activation is not None and not family.leaky:
        raise ModelInvalid(
            f"{checkpoint.path} is {family.name}, which has no switch between ReLU and LeakyReLU; "
            "leave --activation out"
        )
    module = build(False)  # what is no such network says so, before anybody is asked for its recipe
    if given is not None:
        fitting = replace(given, doubt=doubt_of(given.recipe, family, state))
    else:
        fitting = fitting_recipe(family, state, checkpoint.saved, settings.blank, checkpoint.path)
    activation = None
    try:
        if family.leaky:
            activation = activation_of(build, fitting.recipe, checkpoint, settings.activation, fed)
            module = build(True) if activation.leaky else module
    except (TooLarge, RuntimeError) as error:
        raise CheckpointUnreadable(
            checkpoint.path, f"its network does not run: {first_line(error)}"
        ) from error
    recipe = replace(fitting.recipe, height=getattr(module, "height", fitting.recipe.height))
    return module, _Facts(family.name, replace(fitting, recipe=recipe), activation)
