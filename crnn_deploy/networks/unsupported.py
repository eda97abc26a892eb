"""Published networks that are brought here and are no CRNN with CTC: their names, told from their weights."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["unsupported"]

_TPS = "Transformation.LocalizationNetwork."
_ATTENTION = "Prediction.attention_cell."
_RCNN = "FeatureExtraction.ConvNet.2.wgf_u.weight"
# parts of names of weights, and what has them
_OTHERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("basenet.slice1.", "upconv1.conv."), "a detector of text (CRAFT), which reads nothing"),
    (("preprocessor.LocalizationNetwork.", "backbone.", "decoder."), "mmocr's CRNN with TPS rectification"),
    (
        ("encoder.rnn_encoder.", "decoder.rnn_decoder."),
        "mmocr's SAR, which reads by attention and not by CTC",
    ),
    (("decoder.text_queries", "encoder.blocks."), "PARSeq, which reads by attention and not by CTC"),
    (("feat_extractor.", "decoder.lstm_cell."), "docTR's SAR, which reads by attention and not by CTC"),
    (("vitstr.blocks.",), "ViTSTR, which reads by attention and not by CTC"),
    (("encoder.decoder.layers.", "encoder.embeddings."), "TrOCR, which reads by attention and not by CTC"),
)


def unsupported(names: Collection[str]) -> str | None:
    """What has weights of these names, in words; None where it is no published network that is known here."""
    if (clovaai := _clovaai(names)) is not None:
        return clovaai
    for parts, what in _OTHERS:
        if all(any(part in f".{name}" for name in names) for part in parts):
            return f"it is {what}"
    return None


def _clovaai(names: Collection[str]) -> str | None:
    """clovaai's networks of four stages: TPS-RCNN-BiLSTM-Attn and its relatives."""
    if not any("FeatureExtraction.ConvNet." in name for name in names):
        return None
    tps = any(_TPS in name for name in names)
    attention = any(_ATTENTION in name for name in names)
    rcnn = any(name.endswith(_RCNN) for name in names)
    sequence = any("SequenceModeling." in name for name in names)
    kind = "RCNN" if rcnn else "ResNet" if any("ConvNet.conv0_1." in name for name in names) else "VGG"
    whole = "-".join(
        ("TPS" if tps else "None", kind, "BiLSTM" if sequence else "None", "Attn" if attention else "CTC")
    )
    reasons = [
        reason
        for given, reason in (
            (tps, "it rectifies images first (TPS)"),
            (rcnn, "its features are gated recurrent convolutions (RCNN)"),
            (not sequence, "it has no BiLSTM"),
            (attention, "it reads by attention and not by CTC, which no runtime here decodes"),
        )
        if given
    ]
    if not reasons:
        return None
    built_in = "built in are None-VGG-BiLSTM-CTC and None-ResNet-BiLSTM-CTC"
    return f"it is clovaai's {whole}: {', '.join(reasons)}; {built_in}"
