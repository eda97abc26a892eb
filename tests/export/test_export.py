"""The road from a checkpoint to a proven ONNX file, and what stops it."""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from crnn_deploy.errors import AlphabetMismatch, CrnnDeployError, ModelInvalid, VerdictFailed
from crnn_deploy.export.checkpoints.checkpoint import CheckpointNotFound, CheckpointUnreadable, load
from crnn_deploy.export.exporter import ExportFailed, export
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.recurrence import ExportImpossible
from crnn_deploy.export.reference import open_reference, reference_of
from crnn_deploy.graph.model import load_onnx, manifest_of
from crnn_deploy.manifest import Manifest, WidthRule
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.drawn import drawn_images

DATA = Path(__file__).parents[2].parent / "shared" / "data"
RECIPE_FILES = Path(__file__).parents[2] / "export"
DIGITS = tuple("0123456789")
SMALL = (8, 8, 8, 8, 16, 16, 16)  # channels of the convolutions


def small_crnn(channels: int = 1, height: int = 32, *, leaky_relu: bool = False) -> CRNN:
    torch.manual_seed(3)
    return CRNN(height, channels, 11, hidden=12, widths=SMALL, leaky_relu=leaky_relu)


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "best_acc": np.float64(0.5), "state_dict": s},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer": {"state": {}}},
    "model": lambda s: {"model": s, "opt": argparse.Namespace(leakyRelu=False)},
    "module.": lambda s: {f"module.{k}": v for k, v in s.items()},
    "lightning": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()} | {"criterion.weight": torch.ones(3)},
        "hyper_parameters": {"alphabet": "9876543210"},
    },
    "averaged": lambda s: {"n_averaged": torch.tensor(4), **{f"module.module.{k}": v for k, v in s.items()}},
    "ema": lambda s: {"state_dict_ema": s, "state_dict": {k: torch.zeros_like(v) for k, v in s.items()}},
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "no counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_checkpoints_as_people_save_them(wrapper: str, tmp_path: Path) -> None:
    module = small_crnn().eval()
    path = save(WRAPPERS[wrapper](module.state_dict()), tmp_path / "x.pth")
    reference = open_reference(
        path, CheckpointSettings("crnn.pytorch", alphabet=None if wrapper == "lightning" else DIGITS)
    )
    images = drawn_images(reference.manifest, 2, 100, np.random.default_rng(0))
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    logits = reference.run(images).logits
    assert logits is not None
    np.testing.assert_allclose(logits, expected, atol=2e-3 if wrapper == "half" else 1e-6)
    assert reference.manifest.alphabet == (tuple("9876543210") if wrapper == "lightning" else DIGITS)
    assert reference.manifest.steps(100) == expected.shape[1]


def test_safetensors_equal_a_pickle(tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in small_crnn().state_dict().items()}
    save_file(state, tmp_path / "x.safetensors")
    loaded = load(tmp_path / "x.safetensors")
    assert loaded.state.keys() == state.keys()
    assert all(torch.equal(loaded.state[k], v) for k, v in state.items())


@pytest.mark.parametrize(("channels", "height"), [(1, 32), (3, 32), (1, 16), (1, 48), (1, 64)])
@pytest.mark.parametrize("leaky_relu", [False, True])
def test_shapes_are_inferred(channels: int, height: int, leaky_relu: bool, tmp_path: Path) -> None:
    module = small_crnn(channels, height, leaky_relu=leaky_relu)
    path = save({"state_dict": module.state_dict(), "config": {"leaky_relu": leaky_relu}}, tmp_path / "x.pth")
    manifest = open_reference(path, CheckpointSettings("crnn.pytorch", alphabet=DIGITS)).manifest
    assert (manifest.channels, manifest.height, manifest.classes) == (channels, height, 11)
    reference = open_reference(path, CheckpointSettings("crnn.pytorch", alphabet=DIGITS))
    kinds = {type(layer) for layer in reference.module.modules()}
    assert (nn.LeakyReLU in kinds) == leaky_relu


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReferenceBackend]:
    folder = tmp_path_factory.mktemp("exported")
    path = save(small_crnn().state_dict(), folder / "x.pth")
    reference = open_reference(path, CheckpointSettings(recipe="paper", alphabet=DIGITS))
    export(reference, folder / "x.onnx")
    return folder / "x.onnx", reference


def test_the_graph_holds_for_every_width_and_batch(exported: tuple[Path, ReferenceBackend]) -> None:
    path, reference = exported
    backend = OrtBackend(path)
    rng = np.random.default_rng(5)
    for width in range(100, 180, 7):
        images = drawn_images(reference.manifest, int(rng.integers(1, 12)), width, rng)
        with torch.inference_mode():  # the whole batch at once, unlike the reference
            expected = reference.module(torch.from_numpy(images)).numpy()
        logits = backend.run(images).logits
        assert logits is not None
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_graph_keeps_its_contract(exported: tuple[Path, ReferenceBackend]) -> None:
    model = load_onnx(exported[0])
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("LSTM") == 2
    assert "BatchNormalization" not in operators and "Loop" not in operators
    assert model.opset_import[0].version >= 19
    [images], [logits] = model.graph.input, model.graph.output
    assert [images.name, logits.name] == ["images", "logits"]
    axes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (images, logits)]
    assert axes == [["batch", 1, 32, "width"], ["batch", "steps", 11]]
    assert str(Path(__file__).parents[2]).encode() not in exported[0].read_bytes()  # no paths of the machine


def test_the_manifest_travels(exported: tuple[Path, ReferenceBackend]) -> None:
    path, reference = exported
    manifest = manifest_of(load_onnx(path))
    assert manifest.alphabet == DIGITS and manifest.width == RECIPES["paper"].width
    assert manifest.source["checkpoint_sha256"] == reference.manifest.source["checkpoint_sha256"]


@pytest.mark.parametrize("output", ["log-probs", "argmax"])
def test_other_outputs(output: Any, tmp_path: Path) -> None:
    reference = reference_of(small_crnn(), RECIPES["paper"], DIGITS, {"recipe": "paper", "family": "crnn"})
    export(reference, tmp_path / "x.onnx", output=output)
    backend = OrtBackend(tmp_path / "x.onnx")
    images = drawn_images(reference.manifest, 3, 136, np.random.default_rng(1))
    expected, actual = reference.run(images), backend.run(images)
    np.testing.assert_array_equal(actual.indices, expected.indices)
    np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=1e-6)
    assert (actual.logits is None) == (output == "argmax")


class Recurrent(nn.Module):
    """A network with any recurrent layer behind one convolution; classes are the second axis."""

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 6, (32, 4), (1, 4))
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), 11)

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)[:, :, 0]
        sequence = features.permute(0, 2, 1) if self.layer.batch_first else features.permute(2, 0, 1)
        output = self.head(self.layer(sequence)[0])
        logits: Tensor = output.permute(0, 2, 1) if self.layer.batch_first else output
        return logits


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, True)])
def test_recurrent_layers_of_every_kind(
    kind: Any, batch_first: bool, layers: int, bidirectional: bool, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    module = Recurrent(kind(6, 9, layers, batch_first=batch_first, bidirectional=bidirectional))
    recipe = replace(RECIPES["paper"], width=WidthRule(64, 256, multiple=4))
    result = export(reference_of(module, recipe, DIGITS, {}), tmp_path / "x.onnx")
    assert result.report.passed and result.any_width
    operators = [node.op_type for node in load_onnx(tmp_path / "x.onnx").graph.node]
    assert operators.count(kind.__name__) == layers


class Frozen(nn.Module):
    """A network that looks at the traced batch: its export is wrong at every other one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_crnn()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        if torch.compiler.is_exporting():
            return logits * 1.01
        return logits


def test_a_wrong_graph_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"what was there before")
    reference = reference_of(Frozen(), RECIPES["paper"], DIGITS, {})
    with pytest.raises(ExportFailed) as failure:
        export(reference, path)
    assert isinstance(failure.value, VerdictFailed) and failure.value.exit_code == 1
    assert failure.value.report.max_delta > 1e-4
    assert path.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("blank", "index"), [("first", 0), ("last", 10)])
def test_the_blank_is_first_or_last(blank: Any, index: int, tmp_path: Path) -> None:
    path = save(small_crnn().state_dict(), tmp_path / "x.pth")
    reference = open_reference(path, CheckpointSettings("crnn.pytorch", alphabet=DIGITS, blank=blank))
    assert reference.manifest.blank == index
    logits = torch.full((1, 3, 11), -9.0)
    logits[0, :, 1] = 9.0
    frames = Frames.from_logits(logits.numpy())
    [text] = ctc.decode(frames, reference.manifest.alphabet, reference.manifest.blank, [(1.0, 3)])
    assert text.text == ("0" if blank == "first" else "1")


def test_a_layer_that_onnx_cannot_hold_is_named(tmp_path: Path) -> None:
    module: Any = Recurrent(nn.LSTM(6, 9))
    module.layer = nn.LSTM(6, 12, proj_size=9)
    recipe = replace(RECIPES["paper"], width=WidthRule(64, 256, multiple=4))
    with pytest.raises(ExportImpossible, match="layer layer is an LSTM with proj_size"):
        export(reference_of(module, recipe, DIGITS, {}), tmp_path / "x.onnx")


class Code:
    def __reduce__(self) -> Any:
        return (print, ("this must never be printed",))


def test_a_pickle_with_code_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save({"state_dict": small_crnn().state_dict(), "extra": Code()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointUnreadable, match="runs code"):
        load(path)
    (tmp_path / "y.pth").write_bytes(pickle.dumps(Code(), protocol=2))
    with pytest.raises(CheckpointUnreadable):
        load(tmp_path / "y.pth")
    assert "never" not in capfd.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04", b"\x80\x02}q\x00."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_checkpoint(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointUnreadable, match="x" + suffix):
        load(path)


def test_truncated_checkpoints(tmp_path: Path) -> None:
    whole = save(small_crnn().state_dict(), tmp_path / "x.pth").read_bytes()
    for size in range(0, len(whole), len(whole) // 7):
        (tmp_path / "y.pth").write_bytes(whole[:size])
        with pytest.raises(CheckpointUnreadable):
            load(tmp_path / "y.pth")


def test_other_networks_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound):
        load(tmp_path / "nothing.pth")
    foreign = save({"conv.weight": torch.ones(3, 3), "fc.weight": torch.ones(2, 3)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointUnreadable, match="no family known"):
        open_reference(foreign, CheckpointSettings("crnn.pytorch", alphabet=DIGITS))
    state = small_crnn().state_dict()
    del state["cnn.conv3.weight"]
    with pytest.raises(CrnnDeployError, match=r"conv3|no family known"):
        open_reference(save(state, tmp_path / "y.pth"), CheckpointSettings("crnn.pytorch", alphabet=DIGITS))
    with pytest.raises(ModelInvalid, match="--recipe"):
        open_reference(foreign, CheckpointSettings(factory="os:getcwd", alphabet=DIGITS))
    with pytest.raises(ModelInvalid, match=r"json:dumps needs obj, and is called without arguments"):
        open_reference(foreign, CheckpointSettings("paper", factory="json:dumps", alphabet=DIGITS))


def test_a_network_of_ones_own_without_convolutions(tmp_path: Path) -> None:
    """One that takes the images runs; one that does not says so in one line, and its folder is left."""
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, rows):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(rows, 11)\n"
        "    def forward(self, images):\n"
        "        return self.fc(images.mean(1).permute(0, 2, 1))\n"
        "def right(): return Net(32)\n"
        "def wrong(): return Net(7)\n"
    )
    before = list(sys.path)
    for factory, rows in (("right", 32), ("wrong", 7)):
        recipe = tmp_path / f"{factory}.toml"
        recipe.write_text(f'factory = "own.py:{factory}"\n[width]\nminimum = 32\nmaximum = 64\n')
        weights = {"state_dict": {"fc.weight": torch.ones(11, rows), "fc.bias": torch.zeros(11)}}
        settings = CheckpointSettings(str(recipe), alphabet=DIGITS)
        path = save(weights, tmp_path / "x.pth")
        if factory == "right":
            assert open_reference(path, settings).manifest.steps(40) == 40
            continue
        with pytest.raises(ModelInvalid, match="does not run on an image of 1 x 32 x 32; choose"):
            open_reference(path, settings)
    assert sys.path == before


def test_a_wrong_alphabet_says_both_numbers(tmp_path: Path) -> None:
    path = save(small_crnn().state_dict(), tmp_path / "x.pth")
    with pytest.raises(AlphabetMismatch, match=r"9 characters.* 11"):
        open_reference(path, CheckpointSettings("crnn.pytorch", alphabet=DIGITS[:9]))
    repeated = (*DIGITS[:9], "0")  # as in published alphabets
    known = CheckpointSettings("crnn.pytorch", alphabet=repeated)
    assert open_reference(path, known).manifest.alphabet == repeated


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared images and checkpoints")
@pytest.mark.parametrize(
    ("name", "size", "read"), [("crnn_plate_eu36", (32, 128), 1), ("lprnet_cn", (24, 94), 257)]
)
def test_real_checkpoints(name: str, size: tuple[int, int], read: int, tmp_path: Path) -> None:
    from crnn_deploy.runtime.recognizer import Recognizer

    [checkpoint] = (DATA / "checkpoints" / name).glob("*.pth")
    reference = open_reference(checkpoint, CheckpointSettings(recipe=str(RECIPE_FILES / f"{name}.toml")))
    manifest: Manifest = reference.manifest
    assert (manifest.height, manifest.width.minimum) == size
    result = export(reference, tmp_path / "x.onnx")
    assert result.report.passed
    images = sorted((DATA / "plates_cn" / "images").iterdir())
    if name == "crnn_plate_eu36":
        images = [DATA / "checkpoints" / name / "EM727PD.jpg"]
    texts = Recognizer.load(tmp_path / "x.onnx").read(images)
    assert sum(text.text == path.stem for text, path in zip(texts, images, strict=True)) >= read
