"""From a checkpoint to the PyTorch reference: which network, which alphabet, which input rule."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid, first_line
from crnn_deploy.export.activation import ActivationTold, activation_of
from crnn_deploy.export.checkpoint import Checkpoint, CheckpointUnreadable, load
from crnn_deploy.export.fitting import Fitting, fitting_recipe
from crnn_deploy.export.limits import TooLarge, bounded_outputs, bounded_weights
from crnn_deploy.export.pytorch import ReferenceBackend, one_thread
from crnn_deploy.export.shapes import steps_by_shapes
from crnn_deploy.export.steps import probed_widths, step_rule
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

__all__ = [
    "BatchFirst",
    "accepts_any_width",
    "open_checkpoint",
    "open_reference",
    "reference_of",
]

_PROBE_BATCH = 3
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
    recipe, told = (find_recipe(settings.recipe), "--recipe") if settings.recipe else (None, "")
    if recipe is None and fed is not None:
        recipe, told = _recipe_of(fed), "the other model's manifest"
    elif recipe is None and checkpoint.recipe is not None:
        try:
            recipe, told = recipe_of_checkpoint(checkpoint.recipe, path), "the checkpoint"
        except RecipeInvalid as error:
            raise CheckpointUnreadable(path, str(error)) from error
    spec = settings.factory or (recipe.factory if recipe else None)
    with bounded_outputs() as watch:
        if spec:
            if recipe is None:
                raise ModelInvalid("--factory needs a --recipe FILE.toml that says how its input is prepared")
            if settings.activation is not None:
                raise ModelInvalid("--activation is of the families known here; your own network has its own")
            module = _own_module(spec, checkpoint, recipe.folder)
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


def _recipe_of(fed: Manifest) -> Recipe:
    """What a manifest says of a recipe; its name as the manifest has it."""
    name = fed.source.get("recipe", "")
    return Recipe(
        name=name,
        about="",
        factory=RECIPES[name].factory if name in RECIPES else None,
        blank="first" if fed.blank == 0 else "last",
        color=fed.color,
        height=fed.height,
        width=fed.width,
        mean=fed.mean,
        std=fed.std,
        interpolation=fed.interpolation,
        filters=fed.filters,
    )


def open_checkpoint(path: Path, settings: CheckpointSettings, manifest: Manifest | None) -> ReferenceBackend:
    """A checkpoint in PyTorch, fed as another model's manifest says where there is one.

    Raises what `open_reference` raises.
    """
    if manifest is None:
        return open_reference(path, settings)
    known = replace(
        settings,
        alphabet=settings.alphabet or manifest.alphabet,
        blank=settings.blank or ("first" if manifest.blank == 0 else "last"),
    )
    backend = open_reference(path, known, fed=manifest)
    return ReferenceBackend(backend.module, replace(manifest, output="logits", steps=backend.manifest.steps))


def _with_alphabet(
    module: nn.Module, checkpoint: Checkpoint, facts: _Facts, settings: CheckpointSettings
) -> ReferenceBackend:
    recipe = facts.fitting.recipe
    alphabet = settings.alphabet or checkpoint.alphabet or recipe.alphabet
    if alphabet is None:
        raise AlphabetInvalid(
            f"neither {checkpoint.path} nor the recipe {recipe.name} holds an alphabet; "
            f"pass --alphabet FILE. {recipe.about}"
        )
    source = {"checkpoint_sha256": checkpoint.sha256, "family": facts.family, "recipe": recipe.name}
    source["recipe_from"] = facts.fitting.told
    source["torch"] = torch.__version__
    assumed = ["recipe"] if facts.fitting.assumed else []
    if facts.activation is not None:
        source["activation"] = facts.activation.line()
        assumed += ["activation"] if facts.activation.assumed else []
    if alphabet is settings.alphabet:
        source["alphabet"] = "as given"
    elif alphabet is checkpoint.alphabet:
        source["alphabet"] = "the checkpoint's"
    else:
        source["alphabet"] = f"the recipe {recipe.name}'s, assumed"
        assumed.append("alphabet")
    if assumed:
        source["assumed"] = ", ".join(assumed)
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

    Raises ModelInvalid, AlphabetMismatch.
    """
    module = module.eval().float()
    recipe = _fit_channels(module, recipe)
    module = _batch_first(module, recipe, len(alphabet) + 1)
    width = recipe.width
    try:
        steps = _steps(module, recipe, probed_widths(width))
    except ModelInvalid:
        if not width.fixed:
            raise
        steps = {width.minimum: _run(module, recipe, 1, width.minimum).shape[1]}
    manifest = Manifest(
        alphabet=alphabet,
        blank=0 if recipe.blank == "first" else len(alphabet),
        color=recipe.color,
        height=recipe.height,
        width=width,
        mean=recipe.mean,
        std=recipe.std,
        interpolation=recipe.interpolation,
        steps=step_rule(steps),
        filters=recipe.filters,
        source=source,
    )
    return ReferenceBackend(module, manifest)


def _steps(module: nn.Module, recipe: Recipe, widths: list[int]) -> dict[int, int]:
    """Time steps at each width; where shapes tell them, the network runs at the first and the last alone."""
    channels = 1 if recipe.color == "gray" else 3
    steps = steps_by_shapes(module, channels, recipe.height, widths)
    if steps and all(_run(module, recipe, 1, w).shape[1] == steps[w] for w in (widths[0], widths[-1])):
        return steps
    return {w: _run(module, recipe, 1, w).shape[1] for w in widths}


def accepts_any_width(reference: ReferenceBackend) -> bool:
    """Whether the network itself runs at widths other than a fixed one, with the time steps of its rule."""
    manifest = reference.manifest
    if not manifest.width.fixed:
        return True
    shape = (1, manifest.channels, manifest.height)
    widths = probed_widths(manifest.width)
    if steps := steps_by_shapes(reference.module, *shape[1:], widths):
        if any(steps[width] != manifest.steps(width) for width in widths):
            return False
        widths = widths[-1:]
    try:
        with torch.inference_mode():
            for width in widths:
                if reference.module(torch.zeros(*shape, width)).shape[1] != manifest.steps(width):
                    return False
    except RuntimeError:
        return False
    return True


def _family_module(
    checkpoint: Checkpoint,
    given: Fitting | None,
    settings: CheckpointSettings,
    fed: Manifest | None,
    watch: Callable[[nn.Module], None],
) -> tuple[nn.Module, _Facts]:
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
        _load_state(module, state, checkpoint.path)
        watch(module)
        return module

    if settings.activation is not None and not family.leaky:
        raise ModelInvalid(
            f"{checkpoint.path} is {family.name}, which has no switch between ReLU and LeakyReLU; "
            "leave --activation out"
        )
    module = build(False)  # what is no such network says so, before anybody is asked for its recipe
    fitting = given or fitting_recipe(family, state, checkpoint.saved, settings.blank, checkpoint.path)
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


def _recognised(state: StateDict, path: Path) -> Family | None:
    try:
        return recognise(state)
    except IndexError as error:
        raise CheckpointUnreadable(path, f"one of its weights lacks an axis ({error})") from error


def _own_module(spec: str, checkpoint: Checkpoint, folder: Path) -> nn.Module:
    with _from_here():
        module = _factory(spec, folder)()
    if not isinstance(module, nn.Module):
        raise ModelInvalid(f"{spec} returned a {type(module).__name__}, not a torch.nn.Module")
    names = set(module.state_dict())
    state = next((s for s in checkpoint.variants() if names & s.keys()), dict(checkpoint.state))
    _load_state(module, state, checkpoint.path)
    return module


@contextmanager
def _from_here() -> Iterator[None]:
    """Within it, packages of the current folder are found: for the user's own module, and for no other."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove("")


def _factory(spec: str, folder: Path) -> Any:
    name, _, attribute = spec.rpartition(":")
    if not name or not attribute:
        raise ModelInvalid(f"--factory is package.module:name or file.py:name, not {spec!r}")
    try:
        if name.endswith(".py"):
            path = folder / name if (folder / name).is_file() else Path(name)
            found = importlib.util.spec_from_file_location(path.stem, path)
            assert found is not None and found.loader is not None
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
        else:
            module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise ModelInvalid(f"{spec} cannot be imported: {error}") from error
    if not callable(factory := getattr(module, attribute, None)):
        raise ModelInvalid(f"{name} has no function {attribute}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ModelInvalid(f"{spec} is called without arguments, and needs some: {error}") from error
    except ValueError:
        pass  # a builtin without a signature
    return factory


def _load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    # how many batches batch norm saw matters to training alone, and old checkpoints lack it
    own = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        shapes = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointUnreadable(path, f"its weights do not fit the network: {shapes}") from error
    missing = [name for name in result.missing_keys if name in own]
    if missing or result.unexpected_keys:
        raise CheckpointUnreadable(
            path,
            f"its weights do not fit the network: {len(missing)} missing ({', '.join(missing[:3])}), "
            f"{len(result.unexpected_keys)} unknown ({', '.join(result.unexpected_keys[:3])})",
        )


def _fit_channels(module: nn.Module, recipe: Recipe) -> Recipe:
    """The recipe for the number of channels that the first convolution takes."""
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    channels = 1 if recipe.color == "gray" else 3
    if first is None or first.in_channels == channels:
        return recipe
    if first.in_channels not in (1, 3):
        raise ModelInvalid(f"the network takes {first.in_channels} channels; images have 1 or 3")
    if channels == 1:
        return replace(recipe, color="rgb", mean=recipe.mean * 3, std=recipe.std * 3)
    return replace(recipe, color="gray", mean=recipe.mean[:1], std=recipe.std[:1])


class BatchFirst(nn.Module):
    """Another module's output as (N, T, classes)."""

    def __init__(self, module: nn.Module, order: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module
        self.order = order

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return logits.permute(self.order)


def _batch_first(module: nn.Module, recipe: Recipe, classes: int) -> nn.Module:
    shape = tuple(_run(module, recipe, _PROBE_BATCH, recipe.width.minimum).shape)
    if len(shape) != 3:
        raise ModelInvalid(
            f"the network puts out a tensor of shape {shape}; a CTC network puts out (N, T, classes)"
        )
    orders = [
        (batch, 3 - batch - axis, axis)
        for batch in (0, 1)
        for axis in range(3)
        if axis != batch and shape[batch] == _PROBE_BATCH and shape[axis] == classes
    ]
    if not orders:
        # the published layouts are (N, T, classes) and (T, N, classes)
        raise AlphabetMismatch(classes - 1, shape[2])
    if len(orders) > 1:
        raise ModelInvalid(
            f"the layout of the output {shape} is ambiguous (as many time steps as classes); "
            "give the recipe another [width], or let the factory put out (N, T, classes)"
        )
    return module if orders[0] == (0, 1, 2) else BatchFirst(module, orders[0]).eval()


def _run(module: nn.Module, recipe: Recipe, batch: int, width: int) -> Tensor:
    channels = 1 if recipe.color == "gray" else 3
    images = torch.zeros(batch, channels, recipe.height, width)
    try:
        with torch.inference_mode():
            logits = module(images)
    except (RuntimeError, ValueError) as error:
        raise ModelInvalid(
            f"the network does not run on an image of {channels} x {recipe.height} x {width}; choose the "
            f"recipe's height, color and [width] to fit ({first_line(error)})"
        ) from error
    if not isinstance(logits, Tensor):
        raise ModelInvalid(f"the network puts out a {type(logits).__name__}, not a tensor of logits")
    return logits
