"""Checkpoints as training scripts save them: read to the same weights, or refused with cause and remedy."""

from __future__ import annotations

import argparse
import datetime
import pickle
import random
import sys
import types
import warnings
import zipfile
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crnn_deploy.export.checkpoints.checkpoint import CheckpointUnreadable
from crnn_deploy.export.reference import open_reference
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.settings import CheckpointSettings

DIGITS = tuple("0123456789")
FED = CheckpointSettings(recipe="crnn.pytorch", activation="relu", alphabet=DIGITS)
SMALL = (2, 2, 2, 2, 2, 2, 2)


def network(seed: int = 0) -> CRNN:
    torch.manual_seed(seed)
    return CRNN(32, 1, 11, 4, widths=SMALL)


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def weights_read(path: Path) -> dict[str, torch.Tensor]:
    module = open_reference(path, FED).module
    return {name.removeprefix("module."): value for name, value in module.state_dict().items()}


STATE: dict[str, Any] = dict(network().state_dict())
OTHER: dict[str, Any] = dict(network(1).state_dict())
LAYERS = [name.removesuffix(".weight") for name in STATE if name.endswith(".weight")]
COUNTED = {"total_ops": torch.zeros(1, dtype=torch.float64), "total_params": torch.zeros(1)}

HELD: dict[str, Any] = {
    **{
        f"in {name}": {"epoch": 1, name: STATE, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}
        for name in ("model_state", "net_state_dict", "model_dict", "state", "module", "generator", "netG")
    },
    "in three wrappers": {"checkpoint": {"best": {"model": STATE}}},
    "a pair": (STATE, {"lr": 1}),
    "a list of one": [STATE],
    "of a learner": prefixed("student.", STATE),
    "of a class": {"state_dict": prefixed("self.crnn_model.", STATE)},
    "of many wrappers": prefixed("module._orig_mod.model.net.", STATE),
    "counted by thop": {**STATE, **COUNTED, **{f"{layer}.total_ops": torch.zeros(1) for layer in LAYERS}},
    "beside a loss": {**STATE, "criterion.weight": torch.ones(11), "loss.center.weight": torch.ones(2, 2)},
    "beside a loss in a module": prefixed("model.", STATE) | {"loss_fn.weight": torch.ones(11)},
    "beside metrics": prefixed("crnn.", STATE)
    | {"val_acc.total": torch.ones(1), "train_cer.n": torch.ones(1)},
    "averaged by torch": {"n_averaged": torch.tensor(7), **prefixed("module.", STATE)},
    "with its average": prefixed("model.", OTHER) | prefixed("ema_model.", STATE),
    "with its average below": {**OTHER, **prefixed("ema.module.", STATE)},
    "with mmcv's average": {**STATE, **{f"ema_{name.replace('.', '_')}": v for name, v in OTHER.items()}},
    "in parts": {
        part: {n.removeprefix(f"{part}."): v for n, v in STATE.items() if n.startswith(part)}
        for part in ("cnn", "rnn")
    },
    "NumPy's arrays": {name: value.numpy() for name, value in STATE.items()},
    "NumPy's arrays in Fortran's order": {n: np.asfortranarray(v.numpy()) for n, v in STATE.items()},
    "NumPy's halves": {"params": {n: v.half().float().numpy().astype("f8") for n, v in STATE.items()}},
    "parameters": {n: nn.Parameter(v) if v.is_floating_point() else v for n, v in STATE.items()},
}


@pytest.mark.parametrize("how", HELD)
def test_the_same_weights_however_they_are_held(how: str, tmp_path: Path) -> None:
    torch.save(HELD[how], tmp_path / "x.pth")
    read = weights_read(tmp_path / "x.pth")
    assert read.keys() == STATE.keys()
    for name, value in STATE.items():
        tolerance = 1e-3 if "halves" in how else 0
        torch.testing.assert_close(read[name].double(), value.double(), rtol=tolerance, atol=tolerance)


def test_values_of_all_kinds_may_stand_beside_the_weights(tmp_path: Path) -> None:
    now = datetime.datetime(2024, 5, 6, 7, 8, tzinfo=datetime.UTC)
    beside = {
        **{
            "best": np.bool_(True),
            "flag": True,
            "acc": np.float64(0.5),
            "word": np.str_("x"),
            "step": np.int32(3),
        },
        **{"path": Path("/a/b"), "when": now, "day": now.date(), "took": now - now, "price": Decimal("1.5")},
        **{
            "logs": defaultdict(list, loss=[1.0]),
            "recent": deque([1, 2], maxlen=5),
            "args": argparse.Namespace(a=1),
        },
        **{
            "order": OrderedDict(a=1),
            "numbers": {1, 2},
            "frozen": frozenset((3,)),
            "span": range(3),
            "z": 1 + 2j,
        },
        **{
            "seed": np.random.get_state(),
            "python_seed": random.getstate(),
            "torch_seed": torch.get_rng_state(),
        },
        **{
            "generator": np.random.default_rng(0),
            "history": np.arange(4.0),
            "times": np.array([now], "M8[s]"),
        },
        **{
            "bytes": b"\x00\xff",
            "more": bytearray(b"ab"),
            "device": torch.device("cpu"),
            "dtype": torch.float16,
        },
        **{"version": torch.__version__, "simple": types.SimpleNamespace(b=2), "size": torch.Size([1, 2])},
        **{"words": np.array(["ab", "c"]), "things": np.array([1, "a"], object), "none": None},
    }
    for protocol in (2, 4, 5):
        torch.save({"state_dict": STATE, **beside}, tmp_path / "x.pth", pickle_protocol=protocol)
        assert weights_read(tmp_path / "x.pth").keys() == STATE.keys()


def of_module(name: str, kind: type, patch: pytest.MonkeyPatch) -> None:
    """Let a class be that of a library that is not installed."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        patch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(name))
    kind.__module__, kind.__qualname__ = name, kind.__name__
    setattr(sys.modules[name], kind.__name__, kind)


def test_what_libraries_keep_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mmengine's epoch_N.pth and Lightning's checkpoints with OmegaConf have it, by the classes' names."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self.__dict__ = {"max_length": 10, "_log_history": np.arange(3.0), "_count_history": np.ones(3)}

    class DictConfig:
        def __init__(self, content: Any) -> None:
            self.__dict__ = {"_metadata": None, "_parent": None, "_content": content}

    class AnyNode:
        def __init__(self, value: Any) -> None:
            self.__dict__ = {"_metadata": None, "_val": value}

    class AttributeDict(dict[str, Any]):
        pass

    of_module("mmengine.logging.history_buffer", HistoryBuffer, monkeypatch)
    of_module("omegaconf.dictconfig", DictConfig, monkeypatch)
    of_module("omegaconf.nodes", AnyNode, monkeypatch)
    of_module("lightning_fabric.utilities.data", AttributeDict, monkeypatch)
    hub = {
        "log_scalars": OrderedDict(loss=HistoryBuffer()),
        "runtime_info": OrderedDict(seed=np.bool_(False)),
    }
    hyper = AttributeDict(cfg=DictConfig({"data": DictConfig({"alphabet": AnyNode("QWERTZUIOP")})}))
    content = {"state_dict": STATE, "message_hub": hub, "hyper_parameters": hyper, "meta": {"epoch": 3}}
    torch.save(content, tmp_path / "x.pth")
    reference = open_reference(
        tmp_path / "x.pth", CheckpointSettings(recipe="crnn.pytorch", activation="relu")
    )
    assert "".join(reference.manifest.alphabet) == "QWERTZUIOP"


class Own:
    """A class of the user's own."""


CLOVAAI = {
    "FeatureExtraction.ConvNet.conv0_1.weight": torch.ones(1, 1, 3, 3),
    "SequenceModeling.1.linear.weight": torch.ones(2, 2),
    "Prediction.weight": torch.ones(2, 2),
}
ATTENTION = {**CLOVAAI, "Prediction.attention_cell.i2h.weight": torch.ones(2, 2)}
del ATTENTION["Prediction.weight"]
REFUSED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "two networks": (
        prefixed("teacher.", OTHER) | prefixed("student.", STATE),
        ("teacher.", "student.", "save"),
    ),
    "a transformer before it": (
        prefixed("crnn.", STATE) | {"stn.loc.weight": torch.ones(2)},
        ("stn.loc.weight",),
    ),
    "a list": (list(STATE.values()), ("a list of", "without names", "state_dict()")),
    "one tensor": (torch.ones(3), ("a single tensor",)),
    "an own class": ({"state_dict": STATE, "cfg": Own()}, ("test_checkpoint_forms.Own", "state_dict()")),
    "no weights": ({"epoch": 3, "model_name": "crnn"}, ("epoch, model_name", "state_dict()")),
    "NaN": (
        {**STATE, "cnn.conv0.weight": STATE["cnn.conv0.weight"] * float("nan")},
        ("cnn.conv0.weight", "NaN"),
    ),
    "no statistics": (
        {name: value for name, value in STATE.items() if "running" not in name},
        ("running statistics", "named_parameters()", "state_dict()"),
    ),
    "one missing": (
        {name: value for name, value in STATE.items() if name != "rnn.0.rnn.bias_hh_l0"},
        ("1 missing (rnn.0.rnn.bias_hh_l0), 0 unknown",),
    ),
    "no numbers": ({name: value.to("meta") for name, value in STATE.items()}, ("meta device",)),
    "sparse": (
        {**STATE, "rnn.1.embedding.weight": STATE["rnn.1.embedding.weight"].to_sparse()},
        ("sparse tensors", "to_dense()"),
    ),
    "TPS": (
        prefixed("module.", {**CLOVAAI, "Transformation.LocalizationNetwork.conv.0.weight": torch.ones(1)}),
        ("TPS-ResNet-BiLSTM-CTC", "--factory"),
    ),
    "attention": (ATTENTION, ("None-ResNet-BiLSTM-Attn", "attention")),
    "RCNN": (
        {"FeatureExtraction.ConvNet.2.wgf_u.weight": torch.ones(1), **dict(list(CLOVAAI.items())[1:])},
        ("None-RCNN-BiLSTM-CTC",),
    ),
    "a detector": (
        {"module.basenet.slice1.0.weight": torch.ones(1), "module.upconv1.conv.0.weight": torch.ones(1)},
        ("detector",),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_says_why(what: str, tmp_path: Path) -> None:
    content, words = REFUSED[what]
    torch.save(content, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", *words)


def refused(path: Path, *words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointUnreadable) as caught:
            open_reference(path, FED)
    said = str(caught.value)
    assert all(word in said for word in words) and "\n" not in said, said


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.trace(network().eval(), torch.zeros(1, 1, 32, 100)).save(str(path))  # type: ignore[no-untyped-call]
    refused(path, "a TorchScript file", "state_dict()")
    np.savez(tmp_path / "w.npz", **{name: value.numpy() for name, value in STATE.items()})
    refused(tmp_path / "w.npz", ".npz", "torch.from_numpy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/crnn.pth", b"x" * 100)
    refused(path, "unpack", "crnn.pth")
    for start, word in (
        (b"", "empty"),
        (b"<!DOCTYPE html>\n<html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x08\x0a\x12\x07pytorch\x1a", "describe"),
    ):
        path.write_bytes(start)
        refused(path, word)


def test_a_plain_pickle_of_numpys_arrays_is_read(tmp_path: Path) -> None:
    for protocol in (2, 4, 5):
        data = pickle.dumps({name: value.numpy() for name, value in STATE.items()}, protocol)
        (tmp_path / "x.pkl").write_bytes(data)
        assert torch.equal(weights_read(tmp_path / "x.pkl")["cnn.conv0.weight"], STATE["cnn.conv0.weight"])


def test_an_array_is_no_larger_than_its_bytes(tmp_path: Path) -> None:
    data = pickle.dumps({"a.b": np.ones(4)}, 2)
    (tmp_path / "x.pkl").write_bytes(data.replace(b"K\x04\x85", b"J\x00\x00\x00\x70\x85"))
    refused(tmp_path / "x.pkl", "larger than it is")


def test_safetensors_are_known_by_their_beginning(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(prefixed("student.", STATE), tmp_path / "x.bin")
    assert weights_read(tmp_path / "x.bin").keys() == STATE.keys()
