"""The table of network families: how to recognise each in a state dict, and to build it from the shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from crnn_deploy.networks.clovaai import FourStage, resnet, vgg
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.doctr import DoctrCRNN, vgg16_bn
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.networks.mmocr import MmocrCRNN
from crnn_deploy.networks.mobilenet import mobilenet_v3_large, mobilenet_v3_small

__all__ = ["FAMILIES", "PUBLISHED", "Family", "StateDict", "recognise"]

StateDict = Mapping[str, Tensor]

_PLAIN = re.compile(r"features\.\d+\.0\.weight")

# the modules of all families: images (N, C, H, W) -> logits (N, T, classes)
PUBLISHED = (CRNN, CompactCRNN, DoctrCRNN, FourStage, GitYccCRNN, MmocrCRNN)


@dataclass(frozen=True)
class Family:
    """One published architecture."""

    name: str  # as in Recipe.family
    recipe: str  # the one that its networks are most often prepared for
    matches: Callable[[StateDict], bool]  # told from key names and shapes
    build: Callable[
        [StateDict, bool], nn.Module
    ]  # (state dict, leaky_relu) -> module, images -> (N, T, classes)
    classes: Callable[[StateDict], int]  # number of classes, blank included
    leaky: bool = False  # whether its project has a switch between ReLU and LeakyReLU
    others: tuple[str, ...] = ()  # recipes that other projects prepare images of the same network by
    # the recipe that weights of these sizes were published with; None where they tell nothing
    published: Callable[[StateDict], str | None] | None = None


def _widths(state: StateDict, prefix: str) -> list[int]:
    """Channels of the paper's seven convolutions."""
    return [state[f"{prefix}conv{i}.weight"].shape[0] for i in range(7)]


def _build_crnn(state: StateDict, leaky_relu: bool) -> nn.Module:
    return CRNN(
        height=16 * state["cnn.conv6.weight"].shape[2],
        channels=state["cnn.conv0.weight"].shape[1],
        classes=state["rnn.1.embedding.weight"].shape[0],
        hidden=state["rnn.0.rnn.weight_hh_l0"].shape[1],
        inner=state["rnn.0.embedding.weight"].shape[0],
        widths=_widths(state, "cnn."),
        leaky_relu=leaky_relu,
    )


def _build_mmocr(state: StateDict, leaky_relu: bool) -> nn.Module:
    return MmocrCRNN(
        height=16 * state["backbone.cnn.conv6.weight"].shape[2],
        channels=state["backbone.cnn.conv0.weight"].shape[1],
        classes=state["decoder.decoder.1.embedding.weight"].shape[0],
        hidden=state["decoder.decoder.0.rnn.weight_hh_l0"].shape[1],
        inner=state["decoder.decoder.0.embedding.weight"].shape[0],
        widths=_widths(state, "backbone.cnn."),
        leaky_relu=leaky_relu,
    )


def _build_gitycc(state: StateDict, leaky_relu: bool) -> nn.Module:
    rows = state["map_to_seq.weight"].shape[1] // state["cnn.conv6.weight"].shape[0]
    return GitYccCRNN(
        height=16 * (rows + 1),
        channels=state["cnn.conv0.weight"].shape[1],
        classes=state["dense.weight"].shape[0],
        mapped=state["map_to_seq.weight"].shape[0],
        hidden=state["rnn1.weight_hh_l0"].shape[1],
        widths=_widths(state, "cnn."),
        leaky_relu=leaky_relu,
    )


def _build_four_stage(state: StateDict, convolutions: nn.Sequential) -> nn.Module:
    return FourStage(
        convolutions,
        features=state["SequenceModeling.0.rnn.weight_ih_l0"].shape[1],
        hidden=state["Prediction.weight"].shape[1],
        classes=state["Prediction.weight"].shape[0],
    )


def _build_vgg(state: StateDict, leaky_relu: bool) -> nn.Module:
    first, last = state["FeatureExtraction.ConvNet.0.weight"], state["FeatureExtraction.ConvNet.18.weight"]
    return _build_four_stage(state, vgg(first.shape[1], last.shape[0]))


def _build_resnet(state: StateDict, leaky_relu: bool) -> nn.Module:
    first, last = (
        state["FeatureExtraction.ConvNet.conv0_1.weight"],
        state["FeatureExtraction.ConvNet.bn4_2.weight"],
    )
    return _build_four_stage(state, resnet(first.shape[1], last.shape[0]))


def _build_doctr(state: StateDict, convolutions: nn.Sequential) -> nn.Module:
    return DoctrCRNN(
        convolutions,
        column=state["decoder.weight_ih_l0"].shape[1],
        hidden=state["decoder.weight_hh_l0"].shape[1],
        classes=state["linear.weight"].shape[0],
    )


def _build_compact(state: StateDict) -> nn.Module:
    plain = _plain(state)
    weights = [state[f"features.{at}.0.weight"] for at in plain]
    third, fourth, last = plain[3:]
    return CompactCRNN(
        height=16 * weights[-1].shape[2],
        channels=weights[0].shape[1],
        classes=_compact_classes(state),
        hidden=state["sequence.weight_hh_l0"].shape[1],
        widths=[len(weights[at]) for at in (0, 1, 3, 4, 5)],
        depths=(fourth - third - 1, last - fourth - 1),
        head=state["classifier.0.weight"].shape[0] if "classifier.0.weight" in state else None,
    )


def _plain(state: StateDict) -> list[int]:
    """Places of compact's convolutions that are not separable; there are six."""
    return sorted(int(key.split(".")[1]) for key in state if _PLAIN.fullmatch(key))


def _compact_classes(state: StateDict) -> int:
    """Of one matrix, or of the second of two."""
    return state["classifier.weight" if "classifier.weight" in state else "classifier.1.weight"].shape[0]


def _has(state: StateDict, *keys: str) -> bool:
    return state.keys() >= set(keys)


def _is_four_stage(state: StateDict, last: str) -> bool:
    """CTC without rectification: attention and TPS checkpoints are other networks."""
    keys = (f"FeatureExtraction.ConvNet.{last}", "SequenceModeling.1.linear.weight", "Prediction.weight")
    return _has(state, *keys) and not any(key.startswith("Transformation.") for key in state)


def _is_doctr(state: StateDict, last: str) -> bool:
    return _has(state, f"feat_extractor.{last}", "decoder.weight_ih_l1_reverse", "linear.weight")


def _classes(key: str) -> Callable[[StateDict], int]:
    return lambda state: state[key].shape[0]


def _by_classes(key: str, recipes: Mapping[int, str]) -> Callable[[StateDict], str | None]:
    """The recipe of the published networks that have so many classes; key: of the last weight."""
    return lambda state: recipes.get(state[key].shape[0])


def _of_clovaai(convolutions: str, last: str) -> Callable[[StateDict], str | None]:
    """Published with `--output_channel 512 --hidden_size 256`; last: of the convolutions' weights."""

    def recipe(state: StateDict) -> str | None:
        prediction, features = state["Prediction.weight"], state[f"FeatureExtraction.ConvNet.{last}"]
        if (features.shape[0], prediction.shape[1]) != (512, 256):
            return None
        return f"clovaai-{convolutions}" + ("-sensitive" if prediction.shape[0] == 95 else "")

    return recipe


def _nothing(state: StateDict) -> None:
    """Weights that have the same sizes whichever recipe they were trained for."""


# classes of the models in EasyOCR's config.py
_EASYOCR_G1 = {168: "easyocr-latin-g1", 187: "easyocr-cyrillic-g1", 170: "easyocr-bengali-g1"} | {
    127: "easyocr-tamil-g1",
    **dict.fromkeys((5381, 6710, 3111, 1568, 177, 188, 185), "easyocr-g1"),
}
_EASYOCR_G2 = {97: "easyocr-english-g2", 352: "easyocr-latin-g2", 208: "easyocr-cyrillic-g2"} | {
    168: "easyocr-kannada-g2",
    166: "easyocr-telugu-g2",
    **dict.fromkeys((6719, 2215, 1009), "easyocr-g2"),
}


FAMILIES: tuple[Family, ...] = (
    Family(
        name="crnn",
        recipe="crnn.pytorch",
        matches=lambda s: _has(s, "cnn.conv6.weight", "rnn.0.rnn.weight_ih_l0", "rnn.1.embedding.weight"),
        build=_build_crnn,
        classes=_classes("rnn.1.embedding.weight"),
        leaky=True,
        others=("paper", "sierkinhane-360cc"),
        published=_by_classes("rnn.1.embedding.weight", {37: "crnn.pytorch", 6736: "sierkinhane-360cc"}),
    ),
    Family(
        name="compact",
        recipe="paper",
        matches=lambda s: (
            len(plain := _plain(s)) == 6
            and plain[:4] == [0, 1, 2, 3]
            and _has(s, "sequence.weight_hh_l0")
            and (_has(s, "classifier.weight") or _has(s, "classifier.0.weight", "classifier.1.weight"))
        ),
        build=lambda s, _: _build_compact(s),
        classes=_compact_classes,
    ),
    Family(
        name="mmocr",
        recipe="mmocr",
        matches=lambda s: _has(s, "backbone.cnn.conv6.weight", "decoder.decoder.1.embedding.weight"),
        build=_build_mmocr,
        classes=_classes("decoder.decoder.1.embedding.weight"),
        leaky=True,
        others=("mmocr-0.x",),
        published=_nothing,
    ),
    Family(
        name="gitycc",
        recipe="gitycc",
        matches=lambda s: _has(
            s, "cnn.conv6.weight", "map_to_seq.weight", "rnn2.weight_ih_l0", "dense.weight"
        ),
        build=_build_gitycc,
        classes=_classes("dense.weight"),
        leaky=True,
    ),
    Family(
        name="easyocr-g2",
        recipe="easyocr-english-g2",
        # the module of clovaai-vgg with half its channels
        matches=lambda s: (
            _is_four_stage(s, "18.weight") and s["FeatureExtraction.ConvNet.18.weight"].shape[0] == 256
        ),
        build=_build_vgg,
        classes=_classes("Prediction.weight"),
        others=("easyocr-g2", "clovaai-vgg"),
        published=_by_classes("Prediction.weight", _EASYOCR_G2),
    ),
    Family(
        name="clovaai-vgg",
        recipe="clovaai-vgg",
        matches=lambda s: (
            _is_four_stage(s, "18.weight") and s["FeatureExtraction.ConvNet.18.weight"].shape[0] != 256
        ),
        build=_build_vgg,
        classes=_classes("Prediction.weight"),
        others=("easyocr-g2",),
        published=_of_clovaai("vgg", "18.weight"),
    ),
    Family(
        name="easyocr-g1",
        recipe="easyocr-latin-g1",
        # the module of clovaai-resnet with twice its LSTM units
        matches=lambda s: _is_four_stage(s, "bn4_2.weight") and s["Prediction.weight"].shape[1] == 512,
        build=_build_resnet,
        classes=_classes("Prediction.weight"),
        others=("easyocr-g1", "clovaai-resnet"),
        published=_by_classes("Prediction.weight", _EASYOCR_G1),
    ),
    Family(
        name="clovaai-resnet",
        recipe="clovaai-resnet",
        matches=lambda s: _is_four_stage(s, "bn4_2.weight") and s["Prediction.weight"].shape[1] != 512,
        build=_build_resnet,
        classes=_classes("Prediction.weight"),
        others=("easyocr-g1",),
        published=_of_clovaai("resnet", "bn4_2.weight"),
    ),
    Family(
        name="doctr-vgg16",
        recipe="doctr-vgg16",
        matches=lambda s: _is_doctr(s, "41.weight"),
        build=lambda s, _: _build_doctr(s, vgg16_bn(s["feat_extractor.0.weight"].shape[1])),
        classes=_classes("linear.weight"),
    ),
    Family(
        name="doctr-mobilenet-small",
        recipe="doctr-mobilenet-small",
        matches=lambda s: _is_doctr(s, "12.0.weight"),
        build=lambda s, _: _build_doctr(s, mobilenet_v3_small(s["feat_extractor.0.0.weight"].shape[1])),
        classes=_classes("linear.weight"),
    ),
    Family(
        name="doctr-mobilenet-large",
        recipe="doctr-mobilenet-large",
        matches=lambda s: _is_doctr(s, "16.0.weight"),
        build=lambda s, _: _build_doctr(s, mobilenet_v3_large(s["feat_extractor.0.0.weight"].shape[1])),
        classes=_classes("linear.weight"),
    ),
)


def recognise(state: StateDict) -> Family | None:
    """The family whose key names and shapes the state dict has, or None."""
    return next((family for family in FAMILIES if family.matches(state)), None)
