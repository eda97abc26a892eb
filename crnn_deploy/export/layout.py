"""Which axes of a network's output are images, time steps and classes, told by running it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid
from crnn_deploy.export.examine import examine
from crnn_deploy.export.limits import TooLarge
from crnn_deploy.export.probe import Unfit, does_not_run, noise_images, output_of, run_on_noise
from crnn_deploy.export.steps import probed_widths
from crnn_deploy.export.widths import Layout, with_steps
from crnn_deploy.export.witness import Witness, shown
from crnn_deploy.networks.families import PUBLISHED
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["BatchFirst", "laid_out"]

_BATCHES = (3, 1, 2)  # images that a network of the user's own is run on together
_OTHERS = (1.31, 1.67, 2.3)  # widths, in proportion, that tell time steps from classes where both are as many
_FAR = 14  # widths tried for one that the network runs at
_ANOTHER = 16  # pixels by which a second width differs

Shape = tuple[int, ...]
Order = tuple[int, ...]  # axes of images, time steps and classes, then those of size 1


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
            put_out = output_of(module, recipe, 1, start).shape[2]
        except Unfit as error:
            raise does_not_run(recipe, start, error) from error
        if put_out != classes:
            raise AlphabetMismatch(classes - 1, put_out)
        return with_steps(module, recipe, classes, start)
    module, start = _batch_first(module, recipe, classes)
    found = with_steps(module, recipe, classes, start)
    rule = found.width
    widths = (rule.minimum,) if rule.fixed else (rule.minimum, probed_widths(rule, rule.multiple)[-1])
    examine(module, lambda batch, width: noise_images(recipe, batch, width), widths)
    return found


def _batch_first(module: nn.Module, recipe: Recipe, classes: int) -> tuple[nn.Module, int]:
    """A network of the user's own as (N, T, classes), and a width that it runs at."""
    width = _first_width(module, recipe)
    outputs = {batch: dict(_tensors(run_on_noise(module, recipe, batch, width))) for batch in _BATCHES}
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
        problems: dict[int, Unfit] = {}
        witness = Witness()
        for batch in (_BATCHES[0], 1):
            try:
                with witness:
                    run_on_noise(module, recipe, batch, width)
            except Unfit as error:
                problems[batch] = error
        if not problems:
            return width
        if len(problems) == 2:
            found = found or _turned(module, recipe, width) or does_not_run(recipe, width, problems[1])
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


def _turned(module: nn.Module, recipe: Recipe, width: int) -> ModelInvalid | None:
    """What to do with a network that runs where the images' height and width change places."""
    try:
        with torch.inference_mode():
            for images in (noise_images(recipe, 2, width), noise_images(recipe, 2, width + _ANOTHER)):
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
            run_on_noise(module, recipe, 1, width)
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
            yield dict(_tensors(run_on_noise(module, recipe, _BATCHES[0], round(width * factor))))
        except Unfit:
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
    before = dict(_tensors(run_on_noise(module, recipe, 1, width)))[path]
    names = [name for name, weight in module.named_parameters() if weight.shape[:1] == (classes,)]
    for name in reversed(names):  # the last layer is nearest to the output
        with _changed(module.get_parameter(name)[0]):
            delta = (dict(_tensors(run_on_noise(module, recipe, 1, width)))[path] - before).abs()
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
