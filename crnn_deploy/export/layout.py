"""What a network takes and puts out, told by running it: channels, layout of the output, time steps."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid
from crnn_deploy.export.examine import examine
from crnn_deploy.export.limits import TooLarge
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.shapes import steps_by_shapes
from crnn_deploy.export.steps import probed_widths, step_rule
from crnn_deploy.export.witness import Witness, cause, shown
from crnn_deploy.manifest import StepRule, WidthRule
from crnn_deploy.networks.families import PUBLISHED
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["BatchFirst", "Layout", "accepts_any_width", "fit_channels", "laid_out", "width_grain"]

_BATCHES = (3, 1, 2)  # images that a network of the user's own is run on together
_OTHERS = (1.31, 1.67, 2.3)  # widths, in proportion, that tell time steps from classes where both are as many
_FAR = 14  # widths tried for one that the network runs at
_KINDS = ("double", "half", "bfloat16", "dtype")  # in PyTorch's errors where number formats differ
_LARGE = 2**21  # weights from which on running takes longer than loading what PyTorch needs for shapes alone
_GRAIN = 16  # widths tried for one that the network does not run at
_NEAR = 40  # pixels; where it runs within fewer alone, it was written for one width

Shape = tuple[int, ...]
Order = tuple[int, ...]  # axes of images, time steps and classes, then those of size 1


class _Unfit(Exception):
    """Images that the network does not run on; the message is why."""


@dataclass(frozen=True)
class Layout:
    """A network whose output is known."""

    module: nn.Module  # images (N, C, H, W) -> logits (N, T, classes)
    width: WidthRule  # the recipe's, or the one width that the network runs at
    steps: StepRule
    note: str | None = None  # why the width is not the recipe's


class BatchFirst(nn.Module):
    """Another module's output as (N, T, classes).

    order: the axes of images, time steps and classes, then those of size 1, which are left out
    path: where the logits stand in an output that is a dictionary or a tuple, from the outside in
    """

    def __init__(self, module: nn.Module, order: Order, path: Sequence[Any] = ()) -> None:
        super().__init__()
        self.module = module
        self.order = order
        self.path = tuple(path)

    def forward(self, images: Tensor) -> Tensor:
        output = self.module(images)
        for key in self.path:
            output = output[key]
        logits: Tensor = output.permute(self.order)
        return logits.squeeze(tuple(range(3, len(self.order)))) if len(self.order) > 3 else logits


def laid_out(module: nn.Module, recipe: Recipe, classes: int) -> Layout:
    """The network with the output (N, T, classes), and its time steps.

    The layout of the published networks is known. Another one is run on several numbers of images and at
    several widths: an axis is told by what it follows, and not by a size that another axis may have too.
    Raises ModelInvalid, AlphabetMismatch.
    """
    start = recipe.width.minimum
    if isinstance(module, PUBLISHED):
        try:
            put_out = _output(module, recipe, 1, start).shape[2]
        except _Unfit as error:
            raise _does_not_run(recipe, start, error) from error
        if put_out != classes:
            raise AlphabetMismatch(classes - 1, put_out)
        return _with_steps(module, recipe, classes, start)
    module, start = _batch_first(module, recipe, classes)
    found = _with_steps(module, recipe, classes, start)
    rule = found.width
    widths = (rule.minimum,) if rule.fixed else (rule.minimum, probed_widths(rule, rule.multiple)[-1])
    examine(module, lambda batch, width: _images(recipe, batch, width), widths)
    return found


def fit_channels(module: nn.Module, recipe: Recipe) -> Recipe:
    """The recipe for the number of channels that the first convolution takes. Raises ModelInvalid."""
    channels = 1 if recipe.color == "gray" else 3
    if isinstance(module, PUBLISHED):
        first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
        given = channels
    else:
        first, given = _first_convolution(module, recipe)
    if first is None or first.in_channels == given:
        return recipe
    if first.in_channels not in (1, 3):
        raise ModelInvalid(f"the network takes {first.in_channels} channels; images have 1 or 3")
    if channels == 1:
        return replace(
            recipe,
            color="rgb",
            mean=recipe.mean * 3,
            std=recipe.std * 3,
            width=replace(recipe.width, tall="keep"),
            grey="opencv",  # these two and `tall` are rules of grey images alone
            contrast=None,
        )
    return replace(recipe, color="gray", mean=recipe.mean[:1], std=recipe.std[:1])


def _first_convolution(module: nn.Module, recipe: Recipe) -> tuple[nn.Conv2d | None, int]:
    """The convolution that runs first, and the channels that it is given.

    A network of the user's own may hold its layers in any order, and may repeat or join channels before it.
    """
    called: list[tuple[nn.Conv2d, int]] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(layer, nn.Conv2d) and inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim >= 3:
            called.append((layer, inputs[0].shape[-3]))

    handles = [layer.register_forward_pre_hook(note) for layer in module.modules()]
    try:
        with suppress(_Unfit):
            _run(module, recipe, _BATCHES[0], recipe.width.minimum)
    finally:
        for handle in handles:
            handle.remove()
    return called[0] if called else (None, 0)


def accepts_any_width(reference: ReferenceBackend) -> bool:
    """Whether the network itself runs at widths other than a fixed one, with the time steps of its rule.

    Its own code has to make the same calls at each of them: a loop over time steps is traced at one length.
    """
    manifest = reference.manifest
    if not manifest.width.fixed:
        return True
    shape = (1, manifest.channels, manifest.height)
    widths = probed_widths(manifest.width)
    known = _steps_by_shapes(reference.module, manifest.channels, manifest.height, widths)
    if any(steps != manifest.steps(width) for width, steps in known.items()):
        return False
    calls = []
    try:
        with torch.inference_mode():
            for width in widths[-1:] if known else widths:
                with Witness() as witness:
                    steps = reference.module(torch.zeros(*shape, width)).shape[1]
                if steps != manifest.steps(width):
                    return False
                calls.append(witness.lines)
    except TooLarge:
        raise
    except Exception:  # the user's code may raise anything at sizes that it was not written for
        return False
    return all(lines == calls[0] for lines in calls)


def width_grain(reference: ReferenceBackend) -> int:
    """1 where the network runs at every width with its rule's time steps, or the multiple that it needs."""
    manifest = reference.manifest
    rule = manifest.width
    shape = (1, manifest.channels, manifest.height)
    widths = range(rule.minimum + 1, rule.minimum + min(rule.multiple, _GRAIN))
    if known := _steps_by_shapes(reference.module, manifest.channels, manifest.height, widths):
        return 1 if all(manifest.steps(width) == steps for width, steps in known.items()) else rule.multiple
    try:
        with torch.inference_mode():
            for width in widths:
                if reference.module(torch.zeros(*shape, width)).shape[1] != manifest.steps(width):
                    return rule.multiple
    except TooLarge:
        raise
    except Exception:  # the user's code may raise anything at sizes that it was not written for
        return rule.multiple
    return 1


def _steps_by_shapes(module: nn.Module, channels: int, height: int, widths: Sequence[int]) -> dict[int, int]:
    """Time steps at each width where they can be known without running the network: of a published one."""
    if not isinstance(module, PUBLISHED):  # code of the user's own may do other things with other numbers
        return {}
    if sum(weight.numel() for weight in module.parameters()) < _LARGE:
        return {}
    return steps_by_shapes(module, channels, height, widths)


def _batch_first(module: nn.Module, recipe: Recipe, classes: int) -> tuple[nn.Module, int]:
    """A network of the user's own as (N, T, classes), and a width that it runs at."""
    width = _first_width(module, recipe)
    outputs = {batch: dict(_tensors(_run(module, recipe, batch, width))) for batch in _BATCHES}
    alone, together = outputs[1], outputs[_BATCHES[0]]
    orders = {
        path: _orders({batch: tuple(outputs[batch][path].shape) for batch in _BATCHES}, classes)
        for path in together
        if all(path in outputs[batch] for batch in _BATCHES) and together[path].is_floating_point()
    }
    fitting = [path for path in orders if orders[path]]
    if not fitting:
        raise _without_layout(module, recipe, width, alone, together, classes)
    path = fitting[0] if len(fitting) == 1 else _chosen(fitting, together, orders)
    order = orders[path][0]
    if len(orders[path]) > 1:
        order = _told_apart(module, recipe, width, path, orders[path], classes)
    arguments = list(inspect.signature(module.forward).parameters.values())
    if path == () and order == (0, 1, 2) and arguments[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        return module, width
    return BatchFirst(module, order, path).eval(), width


def _first_width(module: nn.Module, recipe: Recipe) -> int:
    """The smallest width tried that the network runs at, on one image and on several.

    Raises ModelInvalid with what goes wrong at the recipe's smallest width.
    """
    rule = recipe.width
    found: ModelInvalid | None = None
    for width in [rule.minimum] if rule.fixed else dict.fromkeys([*rule.spread(_FAR)]):
        problems: dict[int, _Unfit] = {}
        witness = Witness()
        for batch in (_BATCHES[0], 1):
            try:
                with witness:
                    _run(module, recipe, batch, width)
            except _Unfit as error:
                problems[batch] = error
        if not problems:
            return width
        if len(problems) == 2:
            found = found or _turned(module, recipe, width) or _does_not_run(recipe, width, problems[1])
        elif 1 in problems:
            found = found or ModelInvalid(
                f"the network fails on one image alone: {_dropped(witness) or problems[1]}"
            )
        else:
            found = found or ModelInvalid(
                f"the network runs on one image alone and fails on {_BATCHES[0]} together: "
                f"{problems[_BATCHES[0]]}; let its sizes follow the batch (x.shape[0])"
            )
    assert found is not None
    raise found


def _does_not_run(recipe: Recipe, width: int, why: _Unfit) -> ModelInvalid:
    channels = 1 if recipe.color == "gray" else 3
    remedy = "choose the recipe's height, color and [width] to fit"
    if "cuda" in str(why).lower():
        remedy = "let it make its tensors where the images are (x.device), which is the CPU here"
    elif any(kind in str(why).lower() for kind in _KINDS):
        remedy = "let it compute in float32"
    return ModelInvalid(
        f"the network does not run on an image of {channels} x {recipe.height} x {width}; {remedy} ({why})"
    )


def _turned(module: nn.Module, recipe: Recipe, width: int) -> ModelInvalid | None:
    """What to do with a network that runs where the images' height and width change places."""
    try:
        with torch.inference_mode():
            for images in (_images(recipe, 2, width), _images(recipe, 2, width + _GRAIN)):
                module(images.transpose(2, 3))
    except TooLarge:
        raise
    except Exception:  # the user's code may raise anything
        return None
    return ModelInvalid(
        f"the network takes images with the width before the height (N, C, {width}, {recipe.height}); turn "
        "them in its forward, or in a module around it that the factory returns: net(images.transpose(2, 3))"
    )


def _dropped(witness: Witness) -> str | None:
    """Which `squeeze()` takes the axis of the batch away where there is one image."""
    if not witness.squeezed:
        return None
    return (
        "squeeze() without an axis drops the batch axis; name the axis, as in squeeze(2) "
        f"({shown(witness.squeezed[-1])})"
    )


def _without_layout(
    module: nn.Module,
    recipe: Recipe,
    width: int,
    alone: Mapping[Any, Tensor],
    together: Mapping[Any, Tensor],
    classes: int,
) -> ModelInvalid | AlphabetMismatch:
    """Why no output is (N, T, classes)."""
    batch = _BATCHES[0]
    if not together:
        return ModelInvalid("the network puts out no tensor; let it return its logits (N, T, classes)")
    if len(together) > 1:
        parts = ", ".join(f"{_named(path)} of shape {tuple(t.shape)}" for path, t in together.items())
        return ModelInvalid(
            f"none of what the network puts out ({parts}) has an axis of {classes} classes; "
            "let it return its logits (N, T, classes), and give --alphabet the characters it was trained on"
        )
    [output] = together.values()
    shape = tuple(output.shape)
    single = tuple(next(iter(alone.values())).shape) if alone else ()
    if not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        return ModelInvalid(
            f"the network puts out whole numbers ({kind}, shape {shape}), as of an argmax; "
            "let it return its logits (N, T, classes)"
        )
    if len(single) < len(shape):
        with Witness() as witness:
            _run(module, recipe, 1, width)
        return ModelInvalid(
            f"the network puts out a tensor of shape {single} for one image alone: "
            f"{_dropped(witness) or 'the batch axis is dropped'}"
        )
    if len(shape) == 2 and len(single) == 2 and shape[0] == batch * single[0] > batch:
        return ModelInvalid(
            f"the network puts out a tensor of shape {shape} for {batch} images, which joins images and time "
            "steps; let it return (N, T, classes)"
        )
    long = [axis for axis, size in enumerate(shape) if size != 1 or single[axis] != 1]
    axes = [axis for axis in long if shape[axis] == batch and single[axis] == 1]
    if len(long) != 3 or not axes:
        return ModelInvalid(
            f"the network puts out a tensor of shape {shape} for {batch} images; "
            "a CTC network puts out (N, T, classes)"
        )
    fixed = [axis for axis in long if axis != axes[0]]
    for other in _elsewhere(module, recipe, width):
        shapes = tuple(next(iter(other.values())).shape)
        fixed = [axis for axis in fixed if len(shapes) == len(shape) and shapes[axis] == shape[axis]] or fixed
    return AlphabetMismatch(classes - 1, shape[fixed[-1]])


def _elsewhere(module: nn.Module, recipe: Recipe, width: int) -> Iterator[dict[Any, Tensor]]:
    """The outputs for the largest batch at other widths, as far as the network runs there."""
    for factor in _OTHERS:
        try:
            yield dict(_tensors(_run(module, recipe, _BATCHES[0], round(width * factor))))
        except _Unfit:
            continue


def _orders(shapes: Mapping[int, Shape], classes: int) -> list[Order]:
    """How the axes may stand, by the shapes of an output for several numbers of images."""
    ranks = {len(shape) for shape in shapes.values()}
    if len(ranks) > 1 or min(ranks) < 3:
        return []
    axes = range(ranks.pop())
    found = []
    for images in axes:
        if any(shape[images] != batch for batch, shape in shapes.items()):
            continue
        for kinds in axes:
            if kinds == images or any(shape[kinds] != classes for shape in shapes.values()):
                continue
            rest = [axis for axis in axes if axis not in (images, kinds)]
            long = [axis for axis in rest if any(shape[axis] != 1 for shape in shapes.values())] or rest[-1:]
            if len(long) == 1:
                found.append((images, long[0], kinds, *(axis for axis in rest if axis != long[0])))
    return found


def _told_apart(
    module: nn.Module, recipe: Recipe, width: int, path: tuple[Any, ...], orders: list[Order], classes: int
) -> Order:
    """The order among several that other widths leave, or the one whose classes follow their own weights."""
    for outputs in _elsewhere(module, recipe, width):
        shape = tuple(outputs[path].shape) if path in outputs else ()
        left = [
            order
            for order in orders
            if len(shape) == len(order) and shape[order[0]] == _BATCHES[0] and shape[order[2]] == classes
        ]
        orders = left or orders
        if len(orders) == 1:
            return orders[0]
    before = dict(_tensors(_run(module, recipe, 1, width)))[path]
    names = [name for name, weight in module.named_parameters() if weight.shape[:1] == (classes,)]
    for name in reversed(names):  # the last layer is nearest to the output
        with _changed(module.get_parameter(name)[0]):
            delta = (dict(_tensors(_run(module, recipe, 1, width)))[path] - before).abs()
        left = [order for order in orders if _first_alone(delta, order[2])]
        if len(left) == 1:
            return left[0]
    shape = tuple(before.shape)
    raise ModelInvalid(
        f"the layout of the output {shape} is ambiguous (as many time steps as classes); "
        "give the recipe another [width], or let the factory put out (N, T, classes)"
    )


@contextmanager
def _changed(weights: Tensor) -> Iterator[None]:
    """Within it, some weights are larger by 1."""
    with torch.no_grad():
        kept = weights.clone()
        weights += 1
        try:
            yield
        finally:
            weights.copy_(kept)


def _first_alone(delta: Tensor, axis: int) -> bool:
    """Whether a change is seen at the first place of an axis and nowhere else."""
    by_place = delta.movedim(axis, 0).flatten(1).amax(1)
    return bool(by_place[0] > 0 and (by_place[1:] < 1e-6 * by_place[0]).all())


def _chosen(
    paths: list[tuple[Any, ...]], outputs: Mapping[Any, Tensor], orders: Mapping[Any, list[Order]]
) -> tuple[Any, ...]:
    """Which of several outputs that could be logits: the one of that name, or any where all read the same."""
    if named := [path for path in paths if path and path[-1] == "logits"]:
        return named[0]
    read = {path: outputs[path].argmax(orders[path][0][2]).flatten() for path in paths}
    if all(torch.equal(read[path], read[paths[0]]) for path in paths):
        raw = [path for path in paths if outputs[path].min() < 0]  # neither probabilities nor a sigmoid
        return (raw or paths)[0]
    parts = ", ".join(f"{_named(path)} of shape {tuple(outputs[path].shape)}" for path in paths)
    raise ModelInvalid(
        f"the network puts out several tensors that could be its logits ({parts}) and read differently; "
        "let it return one, or a dictionary with the key logits"
    )


def _named(path: tuple[Any, ...]) -> str:
    return "".join(f"[{key!r}]" for key in path) or "the output"


def _tensors(output: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """The tensors of an output, each with the keys that lead to it."""
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, (*path, key))
    elif isinstance(output, tuple | list):
        for at, value in enumerate(output):
            yield from _tensors(value, (*path, at))


def _with_steps(module: nn.Module, recipe: Recipe, classes: int, start: int) -> Layout:
    rule = recipe.width
    steps, failed = _counted(module, recipe, classes, probed_widths(rule))
    if rule.fixed:
        try:
            found = None if failed else step_rule(steps)
        except ModelInvalid:
            found = None
        here = step_rule({rule.minimum: steps[rule.minimum]})
        constant = len(set(steps.values())) == 1
        return Layout(module, rule, here if found is None or constant else found)
    if rule.multiple > 1:
        with suppress(ModelInvalid):
            if not failed:
                return Layout(module, rule, step_rule(steps))
        steps, failed = _counted(module, recipe, classes, probed_widths(rule, rule.multiple))
    if not failed:
        return Layout(module, rule, step_rule(steps))
    worst = next(iter(failed))
    if start in steps and len(set(steps.values())) == 1 and max(steps) - min(steps) < _NEAR:
        one = replace(rule, minimum=start, maximum=start, multiple=1)
        note = (
            f"{start} pixels for every image, not {rule.minimum} to {rule.maximum} as the recipe says: at "
            f"{worst} the network fails ({failed[worst]})"
        )
        return Layout(module, one, step_rule({start: steps[start]}), note)
    raise _fails_at_some(rule, steps, failed)


def _counted(
    module: nn.Module, recipe: Recipe, classes: int, widths: Sequence[int]
) -> tuple[dict[int, int], dict[int, _Unfit]]:
    """The time steps of one image at each width, and why it has none at others."""
    channels = 1 if recipe.color == "gray" else 3
    steps = _steps_by_shapes(module, channels, recipe.height, widths)
    failed: dict[int, _Unfit] = {}
    for width in (widths[0], widths[-1]) if steps else widths:
        try:
            shape = tuple(_output(module, recipe, 1, width).shape)
            if shape[:1] != (1,) or shape[1] < 1 or shape[2] != classes:
                raise _Unfit(f"one image gives an output of shape {shape}")
            steps[width] = shape[1]
        except _Unfit as error:
            failed[width] = error
    return steps, failed


def _fails_at_some(rule: WidthRule, steps: Mapping[int, int], failed: Mapping[int, _Unfit]) -> ModelInvalid:
    if max(steps) < min(failed):
        remedy = f"give the recipe's [width] a maximum of {max(steps)} or less"
        worst = min(failed)
    elif max(failed) < min(steps):
        remedy = f"give the recipe's [width] a minimum of {min(steps)} or more"
        worst = max(failed)
    else:
        remedy = "give the recipe one [width] (minimum = maximum), or a multiple that fits"
        worst = next(iter(failed))
    return ModelInvalid(
        f"the network does not run at every width of {rule.minimum} to {rule.maximum}; {remedy} "
        f"(at {worst}: {failed[worst]})"
    )


def _output(module: nn.Module, recipe: Recipe, batch: int, width: int) -> Tensor:
    """The tensor that a network of one tensor puts out."""
    output = _run(module, recipe, batch, width)
    assert isinstance(output, Tensor)
    return output


def _run(module: nn.Module, recipe: Recipe, batch: int, width: int) -> Any:
    try:
        with torch.inference_mode():
            return module(_images(recipe, batch, width))
    except TooLarge:
        raise
    except Exception as error:  # the user's code may raise anything
        raise _Unfit(cause(error)) from error


def _images(recipe: Recipe, batch: int, width: int) -> Tensor:
    """Noise as of normalised images, the same every time."""
    channels = 1 if recipe.color == "gray" else 3
    noise = torch.Generator().manual_seed(0)
    return torch.rand(batch, channels, recipe.height, width, generator=noise) * 2 - 1
