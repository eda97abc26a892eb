"""Make a wider or deeper compact network that reads exactly as a trained smaller one, to train it further.

\b
    python training/grow.py training/print.pth wide.pth --widths 32,64,128,192,256 --hidden 192
    python training/grow.py training/latin.pth deep.pth --depths 3,5

What is not given stays. The new units read the outputs of the old ones, but no old unit reads the new ones:
the weights between them are zero (Chen, Goodfellow and Shlens, Net2Net, arXiv 1511.05641). A new convolution
adds to its input, and the weights of its last norm are zero (Goyal and others, arXiv 1706.02677, section
5.1). So the logits do not change until training changes those weights.

To start a training for an alphabet of thousands of characters:

\b
    python training/grow.py training/print.pth start.pth --widths 32,64,128,192,256 --hidden 192 \\
        --head 128 --recipe training/chinese.toml

This replaces the last layer with a product of two, the nearest to it of that size, and takes the input rule
of another recipe. A training with `start.checkpoint: start.pth` and its own `alphabet` keeps the rows of the
characters that are in both alphabets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from crnn_deploy.cli.script import ScriptCommand
from crnn_deploy.export.reference import open_reference, reference_of
from crnn_deploy.files import check_outputs
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.recipes.recipe import find_recipe
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.training.state import save_weights

_NUMBERS = {"widths": (5, "five", "32,64,128,192,256"), "depths": (2, "two", "3,5")}
_MOST = 4096  # channels, units or features
_LIKENESS = 1e-3  # largest difference of a logit that rounding makes


def grown(old: CompactCRNN, widths: Sequence[int], hidden: int, depths: tuple[int, int]) -> CompactCRNN:
    """The network with more channels, LSTM units or separable convolutions; the same logits.

    Shape: as `CompactCRNN`
    """
    channels = old.features[0][0].in_channels
    classes = old.classifier.out_features
    new = CompactCRNN(old.height, channels, classes, hidden, widths=widths, depths=depths)
    before = {_moved(name, old.depths, depths): value for name, value in old.state_dict().items()}
    after = new.state_dict()
    for name, value in before.items():
        if name.startswith("sequence."):
            _copy_lstm(value, after[name])
        elif name.startswith("classifier.weight"):
            _copy_halves(value, after[name])
        else:
            _copy(value, after[name])
    for name in after.keys() - before.keys():
        if name.endswith("norm2.weight"):  # of a convolution that adds to its input
            after[name].zero_()
    new.load_state_dict(after)
    return new


def _moved(name: str, before: tuple[int, int], after: tuple[int, int]) -> str:
    """The name in a network of other depths."""
    part, at, *rest = name.split(".")
    if part != "features":
        return name
    place = int(at)
    if place >= 4 + before[0]:  # from the fourth change of size on
        place += after[0] - before[0]
    if int(at) >= 5 + sum(before):  # the last
        place += after[1] - before[1]
    return ".".join((part, str(place), *rest))


def _copy(old: Tensor, new: Tensor) -> None:
    """A convolution's weight, or one number a channel."""
    if old.ndim > 1:
        new[: old.shape[0], old.shape[1] :] = 0
    new[tuple(slice(size) for size in old.shape)] = old


def _copy_lstm(old: Tensor, new: Tensor) -> None:
    """Rows are four gates of all units; columns are inputs or units."""
    for gate_old, gate_new in zip(old.chunk(4), new.chunk(4), strict=True):
        _copy(gate_old, gate_new)


def _copy_halves(old: Tensor, new: Tensor) -> None:
    """Columns are the units of both directions."""
    for half_old, half_new in zip(old.chunk(2, 1), new.chunk(2, 1), strict=True):
        _copy(half_old, half_new)


def factorised(classifier: nn.Linear, head: int) -> nn.Sequential:
    """The two layers with `head` features between them whose product is nearest to a layer's weights.

    What is left out are its smallest singular values (Eckart and Young, Psychometrika 1, 1936); both layers
    take an equal share of the others.
    """
    left, values, right = torch.linalg.svd(classifier.weight.detach(), full_matrices=False)
    kept = min(head, len(values))
    first = nn.Linear(classifier.in_features, head, bias=False)
    second = nn.Linear(head, classifier.out_features)
    with torch.no_grad():
        first.weight[:kept] = values[:kept].sqrt().unsqueeze(1) * right[:kept]
        second.weight[:, :kept] = left[:, :kept] * values[:kept].sqrt()
        second.weight[:, kept:] = 0
        second.bias.copy_(classifier.bias)
    return nn.Sequential(first, second)


def numbers(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    count, word, example = _NUMBERS[str(option.name)]
    found = tuple(int(part) if part.strip().isdecimal() else 0 for part in text.split(","))
    if len(found) != count or not all(1 <= one <= _MOST for one in found):
        raise click.BadParameter(
            f"{text!r} is not {word} numbers from 1 to {_MOST} by commas, such as {example}"
        )
    return found


def check_larger(old: CompactCRNN, widths: Sequence[int], hidden: int, depths: Sequence[int]) -> None:
    """Raises click.UsageError where a size is smaller than it was."""
    for word, new, before in (("width", widths, old.widths), ("depth", depths, old.depths)):
        if any(after < size for after, size in zip(new, before, strict=True)):
            raise click.UsageError(f"no {word} may be smaller than it was: {','.join(map(str, before))}")
    if hidden < old.sequence.hidden_size:
        raise click.UsageError(f"--hidden may not be smaller than it was: {old.sequence.hidden_size}")
    if not isinstance(old.classifier, nn.Linear):
        raise click.UsageError("its last layer is a product of two (--head) already, which cannot be grown")


@click.command(cls=ScriptCommand, help=__doc__)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--widths",
    callback=numbers,
    help="Give the five stages these numbers of channels, separated by commas.",
)
@click.option(
    "--hidden",
    type=click.IntRange(1, _MOST),
    help="Give the LSTM this many units per direction.",
)
@click.option(
    "--depths",
    callback=numbers,
    help="Give the third and the fourth stage these numbers of separable convolutions, separated by a comma.",
)
@click.option(
    "--head",
    type=click.IntRange(1, _MOST),
    help="Replace the last layer with two, with this many features between them.",
)
@click.option("--recipe", help="Take the input rule of this recipe, instead of the checkpoint's.")
def main(
    checkpoint: Path,
    output: Path,
    widths: tuple[int, ...] | None,
    hidden: int | None,
    depths: tuple[int, int] | None,
    head: int | None,
    recipe: str | None,
) -> None:
    check_outputs((output,), (checkpoint,))
    torch.manual_seed(0)
    opened = open_reference(checkpoint, CheckpointSettings(None))
    old = opened.module
    if not isinstance(old, CompactCRNN):
        raise click.UsageError(f"{checkpoint} is a {type(old).__name__}, not a compact network")
    widths, depths, hidden = widths or old.widths, depths or old.depths, hidden or old.sequence.hidden_size
    check_larger(old, widths, hidden, depths)
    new = grown(old, widths, hidden, depths)
    images = torch.randn(4, old.features[0][0].in_channels, old.height, 200)
    with torch.no_grad():
        difference = (old.eval()(images) - new.eval()(images)).abs().max().item()
    if difference > _LIKENESS:
        raise click.ClickException(f"the larger network's logits differ by {difference:.2g}")
    manifest = opened.manifest
    if head is not None:
        assert isinstance(new.classifier, nn.Linear)
        new.classifier = factorised(new.classifier, head)
        with torch.no_grad():
            difference = (old(images) - new(images)).abs().max().item()
    if recipe is not None:
        manifest = reference_of(new, find_recipe(recipe), manifest.alphabet, {}).manifest
    save_weights(output, new, manifest, None)
    count = sum(weight.numel() for weight in nn.ParameterList(new.parameters()))
    click.echo(f"{output}: {count:,} parameters, logits within {difference:.1g} of {checkpoint}")


if __name__ == "__main__":
    main()
