"""From a checkpoint to the PyTorch reference: which network, which alphabet, which input rule."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid, first_line
from crnn_deploy.export.activation import leaky_relu
from crnn_deploy.export.checkpoint import Checkpoint, CheckpointUnreadable, load
from crnn_deploy.export.limits import TooLarge, bounded_outputs, bounded_weights
from crnn_deploy.export.pytorch import ReferenceBackend
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
            module, told = _own_module(spec, checkpoint, recipe.folder), {"family": "own"}
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
    return ReferenceBackend(backend.module, replace(manifest, output="logits", steps=backend.manifest.steps))


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

    Raises ModelInvalid, AlphabetMismatch.
    """
    module = module.eval().float()
    recipe = _fit_channels(module, recipe)
    module = _batch_first(module, recipe, len(alphabet) + 1)
    width = recipe.width
    try:
        steps = {w: _run(module, recipe, 1, w).shape[1] for w in probed_widths(width)}
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
        grey=recipe.grey,
        contrast=recipe.contrast,
        source=source,
    )
    return ReferenceBackend(module, manifest)


def accepts_any_width(reference: ReferenceBackend) -> bool:
    """Whether the network itself runs at widths other than a fixed one, with the time steps of its rule."""
    manifest = reference.manifest
    if not manifest.width.fixed:
        return True
    shape = (1, manifest.channels, manifest.height)
    try:
        with torch.inference_mode():
            for width in probed_widths(manifest.width):
                if reference.module(torch.zeros(*shape, width)).shape[1] != manifest.steps(width):
                    return False
    except RuntimeError:
        return False
    return True


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
        _load_state(module, state, checkpoint.path)
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
