"""Networks of the user's own, as people write them: exported right, or refused by what they do."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid
from crnn_deploy.export.exporter import Export, export
from crnn_deploy.export.recurrence import ExportImpossible
from crnn_deploy.export.reference import open_reference, reference_of
from crnn_deploy.export.steps import step_rule
from crnn_deploy.manifest import WidthRule
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.recipe import RECIPES, Recipe
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.backends.ort import OrtBackend

DIGITS = tuple("0123456789")

# a network of 32 pixels height, one time step for 4 pixels of width, 11 classes; {body} is what differs
CODE = """
import torch
from torch import nn
from torch.nn import functional as F


class Base(nn.Module):
    def __init__(self, rnn=None, size=24):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, (8, 1))
        )
        self.rnn = rnn or nn.LSTM(12, 12, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(size, 11)

    def columns(self, x):
        return self.cnn(x).squeeze(2).permute(0, 2, 1)

    def forward(self, x):
        return self.fc(self.rnn(self.columns(x))[0])


"""


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def own(folder: Path, body: str, *, width: str = "minimum = 64, maximum = 200", before: str = "") -> Any:
    """The reference of `class Net(Base)` with this body, and the same module made without the toolkit."""
    (folder / "own.py").write_text(f"{CODE}{before}\n\nclass Net(Base):\n{indented(body)}\n")
    torch.manual_seed(2)
    module = plain(folder / "own.py")
    torch.save(module.state_dict(), folder / "own.pth")
    (folder / "own.toml").write_text(
        f'factory = "own.py:Net"\nalphabet = "0123456789"\nheight = 32\nwidth = {{{width}}}\n'
    )
    return open_reference(folder / "own.pth", CheckpointSettings(str(folder / "own.toml"))), module


def plain(path: Path) -> nn.Module:
    found = importlib.util.spec_from_file_location("own_of_a_test", path)
    assert found is not None and found.loader is not None
    code = importlib.util.module_from_spec(found)
    found.loader.exec_module(code)
    module: nn.Module = code.Net()
    return module.eval()


def noise(batch: int, width: int) -> Tensor:
    return torch.rand(batch, 1, 32, width, generator=torch.Generator().manual_seed(width)) * 2 - 1


def exported(folder: Path, body: str, expected: Any = None, **how: Any) -> Export:
    """Export a network and hold the file against the module itself, one image at a time."""
    reference, module = own(folder, body, **how)
    result = export(reference, folder / "own.onnx")
    backend = OrtBackend(folder / "own.onnx")
    rule = result.manifest.width
    for width in dict.fromkeys([rule.minimum, (rule.minimum + rule.maximum) // 16 * 8, rule.maximum]):
        for batch in (1, 4):
            images = noise(batch, width)
            with torch.inference_mode():
                rows = [(expected or (lambda y: y))(module(image[None])) for image in images]
            logits = backend.run(images.numpy()).logits
            assert logits is not None
            np.testing.assert_allclose(logits, torch.cat(rows).numpy(), atol=1e-5)
            assert result.manifest.steps(width) == logits.shape[1]
    return result


RIGHT: dict[str, str] = {
    "a squeeze() that is put right for one image": (
        "def columns(self, x):\n    f = self.cnn(x).squeeze()\n"
        "    f = f.unsqueeze(0) if f.dim() == 2 else f\n"
        "    return f.permute(0, 2, 1)"
    ),
    "int() of a size": (
        "def forward(self, x):\n    f = self.columns(x)\n    b, t = int(f.shape[0]), int(f.shape[1])\n"
        "    o = self.rnn(f)[0].contiguous().view(b * t, -1)\n    return self.fc(o).view(b, t, -1)"
    ),
    "zero states": (
        "def forward(self, x):\n    z = torch.zeros(2, x.size(0), 12)\n"
        "    return self.fc(self.rnn(self.columns(x), (z, z.clone()))[0])"
    ),
    "states that were learned": (
        "def __init__(self):\n    super().__init__(nn.GRU(12, 12, 2, bidirectional=True, batch_first=True))\n"
        "    self.state = nn.Parameter(torch.randn(4, 1, 12))\n"
        "def forward(self, x):\n    s = self.state.repeat(1, x.shape[0], 1)\n"
        "    return self.fc(self.rnn(self.columns(x), s)[0])"
    ),
    "final states that are used": (
        "def forward(self, x):\n    o, (h, c) = self.rnn(self.columns(x))\n"
        "    return self.fc(o + torch.cat([h[0], c[1]], 1)[:, None])"
    ),
    "a layer that starts where another ended": (
        "def __init__(self):\n    super().__init__(nn.LSTM(12, 24, 2, batch_first=True))\n"
        "    self.second = nn.LSTM(24, 24, 2, batch_first=True)\n"
        "def forward(self, x):\n    o, s = self.rnn(self.columns(x))\n"
        "    return self.fc(self.second(o, s)[0])"
    ),
    "nn.RNN with ReLU and without bias": (
        "def __init__(self):\n    super().__init__(nn.RNN(12, 12, 2, nonlinearity='relu', bias=False,"
        " batch_first=True, bidirectional=True))"
    ),
    "any number of arguments": (
        "def forward(self, *images, **options):\n    return super().forward(images[0])"
    ),
    "layers in another order": (
        "def __init__(self):\n    super().__init__()\n    layers = dict(self._modules)\n"
        "    self._modules.clear()\n    self.last = nn.Conv2d(12, 12, 1)\n    self._modules.update(layers)\n"
        "def columns(self, x):\n    return self.last(self.cnn(x)).squeeze(2).permute(0, 2, 1)"
    ),
    "grey as three channels": (
        "def __init__(self):\n    super().__init__()\n    self.cnn[0] = nn.Conv2d(3, 6, 3, 2, 1)\n"
        "def forward(self, x):\n    return super().forward(x.repeat(1, 3, 1, 1))"
    ),
    "as many time steps at every width": (
        "def columns(self, x):\n"
        "    return F.adaptive_avg_pool2d(self.cnn(x), (1, 25)).squeeze(2).permute(0, 2, 1)"
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_networks_that_are_exported_at_any_width(name: str, tmp_path: Path) -> None:
    result = exported(tmp_path, RIGHT[name])
    assert result.any_width and result.manifest.width == WidthRule(64, 200)


def test_colours_that_a_network_joins_itself_stay_colours() -> None:
    """Its own mean of the channels is not the grey of an image."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Conv2d(1, 11, (32, 4), 4)

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.rows(images.mean(1, keepdim=True)).squeeze(2)
            return scores.transpose(1, 2)

    recipe = Recipe("own", "a test", WidthRule(40, 200), color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert reference_of(Mean(), recipe, DIGITS, {}).manifest.color == "rgb"


def test_a_layer_of_a_class_of_ones_own(tmp_path: Path) -> None:
    """Its forward stays, around the nodes of the graph."""
    before = (
        "class Halved(nn.LSTM):\n    def forward(self, x):\n        return super().forward(x)[0] / 2, None"
    )
    body = "def __init__(self):\n    super().__init__(Halved(12, 12, bidirectional=True, batch_first=True))"
    assert exported(tmp_path, body, before=before).any_width


FIXED: dict[str, tuple[str, int]] = {
    "a hard-coded width": (
        "def columns(self, x):\n    return self.cnn(x).view(-1, 12, 20).permute(0, 2, 1)",
        20,
    ),
    "positions that were learned": (
        "def __init__(self):\n    super().__init__()\n"
        "    self.places = nn.Parameter(torch.randn(1, 20, 12))\n"
        "def columns(self, x):\n    return super().columns(x) + self.places",
        20,
    ),
    "a linear layer over the columns": (
        "def __init__(self):\n    super().__init__()\n    self.mix = nn.Linear(20, 11)\n"
        "def columns(self, x):\n    return self.mix(super().columns(x).transpose(1, 2)).transpose(1, 2)",
        11,  # as many as classes
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_networks_for_one_width_are_exported_at_it(name: str, tmp_path: Path) -> None:
    body, steps = FIXED[name]
    result = exported(tmp_path, body, width="minimum = 80, maximum = 200")
    assert not result.any_width and result.manifest.width == WidthRule(80, 80)
    assert result.manifest.steps(80) == steps
    assert "80 pixels for every image, not 80 to 200" in result.manifest.source["width"]
    assert "own.py line" in result.manifest.source["width"]


def test_a_loop_over_time_steps_is_exported_at_one_width_and_refused_at_others(tmp_path: Path) -> None:
    body = (
        "def __init__(self):\n    super().__init__(nn.LSTMCell(12, 24))\n"
        "def forward(self, x):\n    f, h = self.columns(x), torch.zeros(x.size(0), 24)\n    c, o = h, []\n"
        "    for t in range(f.shape[1]):\n        h, c = self.rnn(f[:, t], (h, c))\n        o.append(h)\n"
        "    return self.fc(torch.stack(o, 1))"
    )
    assert not exported(tmp_path, body, width="minimum = 64, maximum = 64").any_width
    with pytest.raises(ModelInvalid, match=r"own\.py line \d+: .*; give the recipe one \[width\]"):
        own(tmp_path, body)


def test_a_network_that_runs_at_multiples_of_a_width_alone(tmp_path: Path) -> None:
    body = (
        "def __init__(self):\n    super().__init__()\n    self.down = nn.Conv2d(1, 4, 8, 8)\n"
        "    self.up = nn.ConvTranspose2d(4, 1, 8, 8)\n"
        "def forward(self, x):\n    return super().forward(x + self.up(self.down(x)))"
    )
    assert exported(tmp_path, body, width="minimum = 64, maximum = 200, multiple = 8").any_width
    with pytest.raises(ModelInvalid, match="or a multiple that fits"):
        own(tmp_path, body)


LAYOUTS: dict[str, tuple[str, Any]] = {
    "time first": ("y.permute(1, 0, 2)", lambda y: y.permute(1, 0, 2)),
    "classes second": ("y.permute(0, 2, 1)", lambda y: y.permute(0, 2, 1)),
    "a fourth axis": ("y.permute(0, 2, 1).unsqueeze(2)", lambda y: y[:, :, 0].permute(0, 2, 1)),
    "a tuple": ("(y.softmax(2), y)", lambda y: y[1]),
    "a dictionary": ("{'features': f, 'head': {'logits': y}, 'loss': None}", lambda y: y["head"]["logits"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_logits_are_found_in_what_comes_out(name: str, tmp_path: Path) -> None:
    returned, logits = LAYOUTS[name]
    body = "def forward(self, x):\n    f = self.columns(x)\n    y = self.fc(self.rnn(f)[0])\n    return "
    body += returned
    reference, module = own(tmp_path, body)
    images = noise(1, 91)
    with torch.inference_mode():
        expected = logits(module(images)).numpy()
    found = reference.run(images.numpy()).logits
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-6)


class Sized(nn.Module):
    """A network with as many time steps at every width as it is told, in any order of axes."""

    def __init__(self, steps: int, classes: int, order: tuple[int, int, int]) -> None:
        super().__init__()
        self.steps, self.order = steps, order
        self.mix = nn.Conv2d(1, 5, 3, padding=1)
        self.head = nn.Linear(5, classes)

    def forward(self, images: Tensor) -> Tensor:
        columns = nn.functional.adaptive_avg_pool2d(self.mix(images), (1, self.steps))[:, :, 0]
        logits: Tensor = self.head(columns.permute(0, 2, 1)).permute(self.order)
        return logits


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(1, 2), (2, 3), (3, 3), (3, 11), (11, 3), (11, 11), (5, 2), (26, 26), (1, 3)]),
    st.permutations(range(3)),
)
def test_axes_of_one_size_are_told_apart(sizes: tuple[int, int], order: list[int]) -> None:
    steps, classes = sizes
    module = Sized(steps, classes, (order[0], order[1], order[2])).eval()
    recipe = replace(RECIPES["paper"], width=WidthRule(64, 64))
    alphabet = tuple(map(chr, range(0x4E00, 0x4E00 + classes - 1)))
    reference = reference_of(module, recipe, alphabet, {})
    images = noise(2, 64)
    with torch.inference_mode():
        put_out = module(images)
    # back to (N, T, classes), which the network itself put in that order
    expected = put_out.permute([order.index(axis) for axis in range(3)]).detach().numpy()
    found = reference.run(images.numpy()).logits
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert reference.manifest.steps(64) == steps


@pytest.mark.parametrize("recipe", ["paper", "crnn.pytorch", "mmocr"])
@pytest.mark.parametrize("characters", [1, 2, 24, 25, 26])
def test_published_layouts_are_known(recipe: str, characters: int) -> None:
    """At 100 pixels the paper's network has 26 time steps, as many as 25 characters have classes."""
    module = CRNN(32, 1, characters + 1, hidden=4, widths=(4,) * 7)
    alphabet = tuple(map(chr, range(97, 97 + characters)))
    manifest = reference_of(module, RECIPES[recipe], alphabet, {}).manifest
    assert manifest.classes == characters + 1 and manifest.steps(100) == 26
    with pytest.raises(AlphabetMismatch, match=f"puts out {characters + 1};"):
        reference_of(module, RECIPES[recipe], (*alphabet, "é"), {})


def test_the_number_of_classes_of_a_network_of_ones_own_is_told(tmp_path: Path) -> None:
    own(tmp_path, "pass")
    recipe = tmp_path / "own.toml"
    recipe.write_text(recipe.read_text().replace("0123456789", "0123"))
    with pytest.raises(AlphabetMismatch, match=r"4 characters.* puts out 11; pass the 10 characters"):
        open_reference(tmp_path / "own.pth", CheckpointSettings(str(tmp_path / "own.toml")))


REFUSED: dict[str, tuple[str, str]] = {
    "squeeze() drops the batch": (
        "def columns(self, x):\n    return self.cnn(x).squeeze().permute(0, 2, 1)",
        r"fails on one image alone: squeeze\(\) without an axis drops the batch axis; name the axis, as in "
        r"squeeze\(2\) \(own\.py line \d+: return self\.cnn\(x\)\.squeeze",
    ),
    "squeeze() of the output": (
        "def forward(self, x):\n    return super().forward(x).squeeze()",
        r"of shape \(16, 11\) for one image alone: squeeze\(\) without an axis.*own\.py line",
    ),
    "states for one image": (
        "def forward(self, x):\n    z = torch.zeros(2, 1, 12)\n"
        "    return self.fc(self.rnn(self.columns(x), (z, z))[0])",
        r"runs on one image alone and fails on 3 together: .*own\.py line \d+.*follow the batch",
    ),
    "random states": (
        "def forward(self, x):\n    z = torch.randn(2, x.size(0), 12)\n"
        "    return self.fc(self.rnn(self.columns(x), (z, z))[0])",
        r"something else each time, from random numbers \(own\.py line \d+: z = torch\.randn",
    ),
    "dropout that never ends": (
        "def forward(self, x):\n    return self.fc(F.dropout(self.rnn(self.columns(x))[0], 0.5))",
        r"something else each time.*own\.py line \d+: .*F\.dropout",
    ),
    "batch norm without statistics": (
        "def __init__(self):\n    super().__init__()\n"
        "    self.norm = nn.BatchNorm2d(1, track_running_stats=False)\n"
        "def forward(self, x):\n    return super().forward(self.norm(x))",
        "mixes the images of a batch: BatchNorm2d without running statistics at norm; train it with",
    ),
    "a mean over the batch": (
        "def columns(self, x):\n    f = super().columns(x)\n    return f / f.abs().max().item()",
        r"mixes the images of a batch: what one image gives depends on the others first at rnn \(LSTM\), "
        "after cnn.4",
    ),
    "a loop over images": (
        "def forward(self, x):\n    return torch.cat([Base.forward(self, i[None]) for i in x])",
        r"runs otherwise for 2 images than for 3, .*own\.py line",
    ),
    "a sigmoid": (
        "def forward(self, x):\n    return super().forward(x).sigmoid()",
        "numbers from 0 to 1 that do not sum to 1 over the classes, as of a sigmoid; let it return",
    ),
    "a softmax over time": (
        "def forward(self, x):\n    return F.log_softmax(super().forward(x), dim=1)",
        "softmax runs over the time steps and not over the classes",
    ),
    "a softmax over the batch": (
        "def forward(self, x):\n    return F.softmax(super().forward(x), dim=0)",
        "softmax runs over the images of a batch and not over the classes",
    ),
    "bfloat16": (
        "def forward(self, x):\n    with torch.autocast('cpu', dtype=torch.bfloat16):\n"
        "        return super().forward(x).float()",
        r"computes in bfloat16 from its layer cnn\.0 \(Conv2d\) on",
    ),
    "half precision": (
        "def forward(self, x):\n    return super().forward(x).half()",
        "puts out float16; let it compute and return float32",
    ),
    "double precision": (
        "def forward(self, x):\n    return super().forward(x.double())",
        r"does not run on an image of .*; let it compute in float32 \(.*own\.py line",
    ),
    "a GPU": (
        "def forward(self, x):\n    return super().forward(x.to('cuda:99'))",
        r"let it make its tensors where the images are \(x\.device\).*own\.py line \d+: return super",
    ),
    "a required argument": (
        "def forward(self, x, targets, *, mode):\n    return super().forward(x)",
        r"own\.py:Net: forward needs targets, mode besides the images; .*targets=None",
    ),
    "a dictionary of images": (
        "def forward(self, x):\n    return super().forward(x['image'])",
        r"one tensor \(N, C, H, W\) .*own\.py line \d+: return super",
    ),
    "an argmax": (
        "def forward(self, x):\n    return super().forward(x).argmax(2)",
        r"whole numbers \(int64, shape \(3, 16\)\), as of an argmax; let it return its logits",
    ),
    "images and time steps in one axis": (
        "def forward(self, x):\n    return super().forward(x).reshape(-1, 11)",
        r"of shape \(48, 11\) for 3 images, which joins images and time steps",
    ),
    "two heads that differ": (
        "def __init__(self):\n    super().__init__()\n    self.other = nn.Linear(24, 11)\n"
        "def forward(self, x):\n    o = self.rnn(self.columns(x))[0]\n    return self.fc(o), self.other(o)",
        r"several tensors that could be its logits \(\[0\] of shape .*\[1\] of shape .*the key logits",
    ),
    "no time steps": (
        "def forward(self, x):\n    return super().forward(x).mean(1)",
        r"of shape \(3, 11\) for 3 images; a CTC network puts out \(N, T, classes\)",
    ),
    "nothing": (
        "def forward(self, x):\n    super().forward(x)",
        "puts out no tensor",
    ),
    "an error of its own": (
        "def forward(self, x):\n    assert x.shape[2] == 48, 'images are 48 high'",
        r"does not run on an image of 1 x 32 x 64; .*images are 48 high \(at own\.py line \d+: assert",
    ),
    "a width too large": (
        "def __init__(self):\n    super().__init__()\n"
        "    self.places = nn.Parameter(torch.randn(1, 40, 12))\n"
        "def columns(self, x):\n    f = super().columns(x)\n    return f + self.places[:, :f.shape[1]]",
        r"not run at every width of 64 to 200; give the recipe's \[width\] a maximum of 1\d\d or less \(at",
    ),
    "width before height": (
        "def forward(self, x):\n    return super().forward(x.permute(0, 1, 3, 2))",
        r"width before the height \(N, C, 64, 32\); turn them .*transpose\(2, 3\)",
    ),
    "a step that follows no stride": (
        "def columns(self, x):\n"
        "    return F.interpolate(F.max_pool1d(super().columns(x).transpose(1, 2), 2), scale_factor=2)"
        ".transpose(1, 2)",
        r"time steps follow no stride \(16 at width 64, 18 at width 69, .*give the recipe one width",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_are_refused_by_what_they_do(name: str, tmp_path: Path) -> None:
    body, message = REFUSED[name]
    with pytest.raises(ModelInvalid, match=message) as refusal:
        own(tmp_path, body)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500


IMPOSSIBLE: dict[str, tuple[str, str]] = {
    "a condition on the pixels": (
        "def forward(self, x):\n    y = super().forward(x)\n    return y * 2 if y[0, 0, 0] > 99 else y",
        r"cannot export this network: .*data-dependent.*own\.py line \d+: return y \* 2 if",
    ),
    "packed sequences": (
        "def columns(self, x):\n    f = super().columns(x)\n    n = torch.full((f.shape[0],), f.shape[1])\n"
        "    return nn.utils.rnn.pack_padded_sequence(f, n, batch_first=True)\n"
        "def forward(self, x):\n    packed = self.rnn(self.columns(x))[0]\n"
        "    return self.fc(nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0])",
        r"packs the sequences of its layer rnn \(pack_padded_sequence\)",
    ),
    "a grid of the image's own size": (
        "def forward(self, x):\n    turned = torch.eye(2, 3).repeat(x.shape[0], 1, 1)\n"
        "    grid = F.affine_grid(turned, x.shape, align_corners=False)\n"
        "    return super().forward(F.grid_sample(x, grid, align_corners=False))",
        r"fixes the width while it is traced, as affine_grid does; give the recipe one \[width\]",
    ),
    "a projection": (
        "def __init__(self):\n    super().__init__(nn.LSTM(12, 30, proj_size=24, batch_first=True))",
        "layer rnn is an LSTM with proj_size",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_a_graph_cannot_hold_is_named(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body, message = IMPOSSIBLE[name]
    reference, _ = own(tmp_path, body)
    with pytest.raises(ExportImpossible, match=message):
        export(reference, tmp_path / "own.onnx")
    assert not (tmp_path / "own.onnx").exists()
    said = capfd.readouterr()
    assert said.out == "" and "def forward" not in said.err


@pytest.mark.parametrize("name", ["packed sequences", "a projection", "a condition on the pixels"])
def test_what_a_graph_cannot_hold_is_named_at_one_width(name: str, tmp_path: Path) -> None:
    """A second attempt, at that width alone, fails after the first, and ends."""
    body, message = IMPOSSIBLE[name]
    reference, _ = own(tmp_path, body, width="minimum = 64, maximum = 64")
    with pytest.raises(ExportImpossible, match=message):
        export(reference, tmp_path / "own.onnx")


@pytest.mark.parametrize("wrapped", ["nn.DataParallel(Base())", "torch.compile(Base())", "Base().half()"])
def test_wrapped_networks_are_unwrapped(wrapped: str, tmp_path: Path) -> None:
    own(tmp_path, "pass")
    with (tmp_path / "own.py").open("a") as code:
        code.write(f"\n\ndef build():\n    return {wrapped}\n")
    module = plain(tmp_path / "own.py")
    module.load_state_dict(torch.load(tmp_path / "own.pth"))
    settings = CheckpointSettings(str(tmp_path / "own.toml"), factory=f"{tmp_path / 'own.py'}:build")
    images = noise(2, 70)
    with torch.inference_mode():
        expected = module(images).numpy()
    found = open_reference(tmp_path / "own.pth", settings).run(images.numpy()).logits
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-6)


FACTORIES: dict[str, tuple[str, str]] = {
    "class Sized(Base):\n    def __init__(self, classes, hidden=3):\n        super().__init__()": (
        "Sized",
        r"own\.py:Sized needs classes, .* def build\(\): return Sized\(classes=\.\.\.\)",
    ),
    "def build():\n    open('no such weights.bin')": (
        "build",
        r"build fails: .*No such file.*\(at own\.py line \d+: open\(",
    ),
    "def build():\n    return Base": ("build", "build returned the class Base, not a torch.nn.Module"),
    "def build():\n    return Base(), 3": ("build", "build returned a tuple, not"),
    "def build():\n    return torch.jit.trace(Base().eval(), torch.ones(2, 1, 32, 64))": (
        "build",
        "TorchScript module, .* without torch.jit",
    ),
    "def other():\n    return Base()": ("build", r"has no function build; it has Base, Net, other"),
    "import sys\nsys.exit(2)": ("Net", r"ends the process while it is imported; .*__main__"),
    "import a_library_that_is_not_there": ("Net", r"cannot be imported: No module named 'a_library"),
    "def broken(:": ("Net", r"cannot be imported: .*own\.py, line \d+"),
    "1 / 0": ("Net", r"cannot be imported: division by zero \(at own\.py line \d+: 1 / 0\)"),
}


@pytest.mark.parametrize("code", FACTORIES)
def test_factories_that_make_no_network(code: str, tmp_path: Path) -> None:
    name, message = FACTORIES[code]
    own(tmp_path, "pass")
    with (tmp_path / "own.py").open("a") as file:
        file.write(f"\n\n{code}\n")
    settings = CheckpointSettings(str(tmp_path / "own.toml"), factory=f"{tmp_path / 'own.py'}:{name}")
    before, modules = list(sys.path), set(sys.modules)
    with pytest.raises(ModelInvalid, match=message):
        open_reference(tmp_path / "own.pth", settings)
    assert sys.path == before and "own" not in set(sys.modules) - modules


def test_a_factory_imports_what_lies_beside_it(tmp_path: Path) -> None:
    """And two networks from two folders each get their own, though the files have the same names."""
    for folder, factor in (("a", 2.0), ("b", 5.0)):
        (tmp_path / folder).mkdir()
        own(tmp_path / folder, "pass")
        (tmp_path / folder / "beside.py").write_text(f"FACTOR = {factor}\n")
        (tmp_path / folder / "net.py").write_text(
            "from beside import FACTOR\nfrom own import Base\n\n\n"
            "class Net(Base):\n    def forward(self, x):\n        return super().forward(x) * FACTOR\n"
        )
        settings = CheckpointSettings(str(tmp_path / folder / "own.toml"), factory="net.py:Net")
        images = noise(1, 64)
        module = plain(tmp_path / folder / "own.py")
        with torch.inference_mode():
            expected = module.load_state_dict(torch.load(tmp_path / folder / "own.pth")) and module(images)
        found = open_reference(tmp_path / folder / "own.pth", settings).run(images.numpy()).logits
        assert found is not None
        np.testing.assert_allclose(found, expected.numpy() * factor, atol=1e-5)
    assert "beside" not in sys.modules and "own" not in sys.modules


def test_an_inverted_input(tmp_path: Path) -> None:
    """mean 1 and std -1 feed 1 - x / 255."""
    from crnn_deploy.runtime.recognizer import Recognizer

    own(tmp_path, "pass")
    with (tmp_path / "own.toml").open("a") as recipe:
        recipe.write("mean = [1.0]\nstd = [-1.0]\n")
    reference = open_reference(tmp_path / "own.pth", CheckpointSettings(str(tmp_path / "own.toml")))
    export(reference, tmp_path / "own.onnx")
    grey = np.random.default_rng(0).integers(0, 256, (32, 96), np.uint8)
    module = plain(tmp_path / "own.py")
    module.load_state_dict(torch.load(tmp_path / "own.pth"))
    with torch.inference_mode():
        best = module(torch.from_numpy(1 - grey[None, None].astype(np.float32) / 255)).argmax(2)[0].tolist()
    kept = [index for index, before in zip(best, [None, *best], strict=False) if index not in (0, before)]
    [text] = Recognizer.load(tmp_path / "own.onnx").read([grey])
    assert text.text == "".join(DIGITS[index - 1] for index in kept)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(-30, 60), st.integers(70, 200), st.integers(0, 600))
def test_the_rule_of_the_time_steps_is_found(stride: int, offset: int, first: int, more: int) -> None:
    """From steps at consecutive widths and far ones, for any stride and for as many steps everywhere."""
    widths = [*range(first, first + 40), first + 40 + more]
    counts = {width: (width + offset) // stride for width in widths}
    rule = step_rule(counts)
    assert all(rule(width) == (width + offset) // stride for width in range(first, first + 40 + more))
    constant = step_rule(dict.fromkeys(widths, 7))
    assert {constant(width) for width in range(first, first + 41 + more)} == {7}
