"""Networks that end in softmax are exported as log-probabilities, equal to PyTorch's own output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import reference_of
from crnn_deploy.graph.model import open_model
from crnn_deploy.graph.precision import cast, rounded
from crnn_deploy.manifest import OutputKind, WidthRule
from crnn_deploy.recipes.recipe import Recipe
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.recognizer import Recognizer

RECIPE = Recipe("own", "a test", WidthRule(40, 200))
ALPHABET = tuple("0123456789")


class Net(nn.Module):
    """A small CTC network; `end` is what its forward ends in."""

    def __init__(self, end: str, order: tuple[int, ...] = (0, 1, 2), scale: float = 20) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cnn = nn.Sequential(nn.Conv2d(1, 8, (32, 4), 4), nn.ReLU())
        self.rnn = nn.LSTM(8, 8, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 11)
        self.end, self.order = end, order
        with torch.no_grad():
            self.head.weight.mul_(scale)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.rnn(self.cnn(images).squeeze(2).permute(0, 2, 1))[0])
        name, _, axis = self.end.partition(" ")
        if name == "softmax":
            scores = scores.softmax(int(axis))
        elif name == "log_softmax":
            scores = scores.log_softmax(int(axis))
        elif name == "flat":
            scores = scores.flatten(1).softmax(1).view_as(scores)
        elif name == "percent":
            scores = scores.softmax(2) * 100
        elif name == "log10":
            scores = scores.softmax(2).log10()
        elif name == "log2":
            scores = scores.softmax(2).log2()
        elif name == "negative":
            scores = -scores.log_softmax(2)
        elif name == "sigmoid":
            scores = scores.sigmoid()
        elif name == "relu":
            scores = scores.relu()
        elif name == "by_hand":
            scores = scores.exp() / scores.exp().sum(2, keepdim=True)
        return scores.permute(self.order)


def pixels() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.5, (4, 1, 32, 120)).astype(np.float32)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
@pytest.mark.parametrize("end", ["softmax 2", "by_hand", "log_softmax 2", "none", "relu"])
def test_the_graph_says_what_pytorch_says(end: str, order: tuple[int, ...], tmp_path: Path) -> None:
    net = Net(end, order).eval()
    result = export(reference_of(net, RECIPE, ALPHABET, {}), tmp_path / "x.onnx")
    ends_in_probabilities = end in ("softmax 2", "by_hand", "log_softmax 2")
    assert result.report.passed and result.manifest.output == (
        "log-probs" if ends_in_probabilities else "logits"
    )
    with torch.inference_mode():
        own = net(torch.from_numpy(pixels())).permute(order)  # either order is its own inverse
    probabilities = own if end in ("softmax 2", "by_hand") else own.softmax(2)
    frames = OrtBackend(tmp_path / "x.onnx").run(pixels())
    np.testing.assert_array_equal(frames.indices, own.argmax(2).numpy())
    np.testing.assert_allclose(frames.probabilities, probabilities.amax(2).numpy(), atol=2e-6)
    assert frames.logits is not None
    if ends_in_probabilities:
        np.testing.assert_allclose(np.exp(frames.logits), probabilities.numpy(), atol=2e-6)


@pytest.mark.parametrize("output", ["logits", "log-probs", "argmax"])
def test_each_output_of_a_softmax_network(output: OutputKind, tmp_path: Path) -> None:
    net = Net("softmax 2").eval()
    result = export(reference_of(net, RECIPE, ALPHABET, {}), tmp_path / "x.onnx", output=output)
    assert result.manifest.output == ("argmax" if output == "argmax" else "log-probs")
    frames = OrtBackend(tmp_path / "x.onnx").run(pixels())
    with torch.inference_mode():
        own = net(torch.from_numpy(pixels()))
    np.testing.assert_allclose(frames.probabilities, own.amax(2).numpy(), atol=2e-6)


@pytest.mark.parametrize(
    ("end", "part"),
    [
        ("softmax 1", "over the time steps"),
        ("softmax 0", "over the images of a batch"),
        ("log_softmax 1", "over the time steps"),
        ("log_softmax 0", "over the images of a batch"),
        ("flat", "over all frames together"),
        ("sigmoid", "as of a sigmoid"),
        ("percent", "probabilities in percent"),
        ("log10", "logarithms to the base 10"),
        ("log2", "logarithms to the base 2"),
        ("negative", "with the wrong sign, as -log_softmax"),
    ],
)
def test_what_gives_no_probability_of_a_character_is_named(end: str, part: str) -> None:
    with pytest.raises(ModelInvalid, match=part):
        reference_of(Net(end, scale=1), RECIPE, ALPHABET, {})


def test_a_sure_network_is_sure(tmp_path: Path) -> None:
    """Probabilities taken for logits would give e / (e + 10) = 0.21."""
    export(reference_of(Net("softmax 2", scale=2000).eval(), RECIPE, ALPHABET, {}), tmp_path / "x.onnx")
    image = np.random.default_rng(5).integers(0, 256, (32, 120), np.uint8)
    [text] = Recognizer(OrtBackend(tmp_path / "x.onnx")).read([image])
    assert text.text and text.confidence > 0.99


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_half_precision_keeps_logarithms_finite(half: str, tmp_path: Path) -> None:
    """The floor of 1e-30 would be zero in fp16."""
    export(reference_of(Net("softmax 2", scale=2000).eval(), RECIPE, ALPHABET, {}), tmp_path / "x.onnx")
    model = open_model(tmp_path / "x.onnx")
    import onnx

    onnx.save(rounded(cast(model.graph, half)), tmp_path / "half.onnx")  # type: ignore[arg-type]
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "half.onnx", providers=["CPUExecutionProvider"])
    scores = session.run(None, {"images": pixels()})[0]
    assert np.isfinite(scores).all() and scores.min() < -60
