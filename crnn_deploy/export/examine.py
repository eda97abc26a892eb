"""What stops a network of the user's own from being exported: told by running it, named where it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.export.scores import no_scores
from crnn_deploy.export.witness import Line, Witness, shown

__all__ = ["examine"]

_BATCH = 3
_CLOSE = 1e-3  # of outputs, relative to the largest
_ONE = 1e-3  # how near to 1 probabilities sum up

Images = Callable[[int, int], Tensor]  # so many images of a width, (N, C, H, W)


def examine(module: nn.Module, images: Images, widths: tuple[int, ...]) -> None:
    """Refuse a network whose output is not a function of each image alone, or that no graph can hold.

    module: images (N, C, H, W) -> logits (N, T, classes)
    widths: that it is used at
    Raises ModelInvalid.
    """
    batch = images(_BATCH, widths[0])
    with torch.inference_mode():
        with Witness() as witness:
            together = module(batch)
        again = module(batch)
        if not _close(together, again):
            where = f" ({shown(witness.random[0])})" if witness.random else ""
            raise ModelInvalid(
                f"the network puts out something else each time, from random numbers{where}; "
                "let it do without when it does not train (if self.training)"
            )
        _check_precision(module, batch, together)
        _check_softmax(together)
        _check_sigmoid(module, batch, together)
        alone = torch.cat([module(image[None]) for image in batch])
        if not _close(together, alone):
            raise ModelInvalid(f"the network mixes the images of a batch: {_mixing(module, batch)}")
        _check_loops(module, images, widths)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=_CLOSE * float(b.abs().max()))


def _check_precision(module: nn.Module, batch: Tensor, output: Tensor) -> None:
    """Refuse layers that put out half precision, which would be exported as it is."""
    if output.dtype != torch.float32:
        kind = str(output.dtype).removeprefix("torch.")
        raise ModelInvalid(f"the network puts out {kind}; let it compute and return float32")
    for name, layer, inner in _outputs(module, batch):
        if inner.dtype in (torch.float16, torch.bfloat16):
            kind = str(inner.dtype).removeprefix("torch.")
            raise ModelInvalid(
                f"the network computes in {kind} from its layer {name} ({type(layer).__name__}) on, as "
                "under torch.autocast; let it compute in float32 when it does not train"
            )


def _check_softmax(output: Tensor) -> None:
    """Refuse probabilities, or their logarithms, of a softmax over another axis than the classes."""
    probabilities = output if bool((output >= 0).all()) else output.exp()
    if _sums_to_one(probabilities, 2):
        return
    if (odd := no_scores(output.numpy())) is not None:
        raise ModelInvalid(f"the network puts out {odd}")
    for axis, name in ((0, "images of a batch"), (1, "time steps")):
        if output.shape[axis] > 1 and _sums_to_one(probabilities, axis):
            raise ModelInvalid(
                f"the network's softmax runs over the {name} and not over the classes; give it the axis "
                "of the classes (dim=2 of an output (N, T, classes)), or return the logits"
            )
    if output.shape[1] > 1 and _sums_to_one(probabilities.flatten(1), 1):
        raise ModelInvalid(
            "the network's softmax runs over all frames together and not over the classes of each; give it "
            "an output (N, T, classes) and dim=2, or return the logits"
        )


def _check_sigmoid(module: nn.Module, batch: Tensor, output: Tensor) -> None:
    """Refuse numbers that stay between 0 and 1 though every weight changes its sign, and logits with them."""
    if not _within_one(output) or _sums_to_one(output, 2):
        return
    with torch.no_grad():
        for weights in module.parameters():
            weights.neg_()
        try:
            turned = module(batch)
        finally:
            for weights in module.parameters():
                weights.neg_()
    if _within_one(turned):
        raise ModelInvalid(
            "the network puts out numbers from 0 to 1 that do not sum to 1 over the classes, as of a "
            "sigmoid; let it return the logits"
        )


def _within_one(output: Tensor) -> bool:
    return bool(((output >= 0) & (output <= 1)).all())


def _sums_to_one(probabilities: Tensor, axis: int) -> bool:
    return bool(((probabilities.sum(axis) - 1).abs() < _ONE).all())


def _mixing(module: nn.Module, batch: Tensor) -> str:
    """What in the network mixes the images of a batch, and what to do."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            return (
                f"{type(layer).__name__} without running statistics at {_inner(name)}; train it with "
                "track_running_stats=True, or take InstanceNorm or GroupNorm"
            )
    whole = _outputs(module, batch)
    single = [_outputs(module, image[None]) for image in batch]
    before = "the input"
    for at, (name, layer, output) in enumerate(whole):
        parts = [found[at][2] for found in single if at < len(found) and found[at][0] == name]
        if len(parts) < len(batch) or not _joined(output, parts):
            return (
                f"what one image gives depends on the others first at {name} ({type(layer).__name__}), after "
                f"{before}; let every operation there keep to its own image"
            )
        before = name
    return f"what one image gives depends on the others after {before}, the last layer"


def _joined(output: Tensor, parts: list[Tensor]) -> bool:
    """Whether some axis of the output holds what each image gives alone."""
    for axis, size in enumerate(output.shape):
        if all(part.dim() == output.dim() for part in parts) and size == sum(p.shape[axis] for p in parts):
            other = [p for p in parts if p.shape[:axis] + p.shape[axis + 1 :] != _without(output, axis)]
            if not other and _close(output, torch.cat(parts, axis)):
                return True
    return False


def _without(output: Tensor, axis: int) -> torch.Size:
    return output.shape[:axis] + output.shape[axis + 1 :]


def _outputs(module: nn.Module, images: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
    """What each layer puts out, in the order in which they run."""
    found: list[tuple[str, nn.Module, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor):
                found.append((_inner(name), layer, first))

        return hook

    handles = [
        layer.register_forward_hook(note(name))
        for name, layer in module.named_modules()
        if not any(True for _ in layer.children())
    ]
    try:
        with torch.inference_mode():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _inner(name: str) -> str:
    """The name of a layer in the user's own module, which is wrapped where its output was put in order."""
    return name.removeprefix("module.") or "the network"


def _check_loops(module: nn.Module, images: Images, widths: tuple[int, ...]) -> None:
    """Refuse Python code that runs otherwise for other widths or numbers of images: it is traced once."""
    for width in widths[1:]:
        if line := _differs(module, images(2, widths[0]), images(2, width)):
            raise ModelInvalid(
                f"the network's own code runs otherwise at a width of {widths[0]} than of {width}, as a "
                f"loop over time steps does ({shown(line)}), and a graph holds one width of it; give the "
                "recipe one [width] (minimum = maximum), or take nn.LSTM for a loop of cells"
            )
    if line := _differs(module, images(2, widths[0]), images(_BATCH, widths[0])):
        raise ModelInvalid(
            f"the network's own code runs otherwise for 2 images than for {_BATCH}, as a loop over images "
            f"does ({shown(line)}), and a graph holds one number of them; let it compute all images at once"
        )


def _differs(module: nn.Module, a: Tensor, b: Tensor) -> Line | None:
    """The line that runs more often for one input than for another, by the most."""
    lines = []
    for images in (a, b):
        with Witness() as witness:
            module(images)
        lines.append(witness.lines)
    more = (lines[0] - lines[1]) + (lines[1] - lines[0])
    return max(more, key=more.__getitem__) if more else None
