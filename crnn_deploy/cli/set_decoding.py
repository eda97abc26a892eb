"""`crnn-deploy set-decoding`: how a model's texts are found, kept in its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.decoding_options import decoding_options, rule_given
from crnn_deploy.cli.options import MODEL, output_option
from crnn_deploy.cli.outputs import check_kind_of
from crnn_deploy.cli.say import say

if TYPE_CHECKING:
    from crnn_deploy.manifest import Manifest

__all__ = ["set_decoding"]


@click.command("set-decoding")
@click.argument("model", metavar="MODEL.onnx", type=MODEL)
@output_option("OUT.onnx")
@decoding_options(files=False)
def set_decoding(model: Path, output: Path, **decoding: Any) -> None:
    """Keep a decoder and its settings in a model's file.

    The new settings replace those in the manifest of MODEL. `infer`, `evaluate` and `Recognizer` use them
    when they read images with OUT, unless you give others. OUT does not hold word lists and language models,
    which stay separate files. OUT may be MODEL.

    \b
    crnn-deploy set-decoding plates.onnx --mask AA999AA -o plates.onnx
    crnn-deploy set-decoding plates.onnx -o plain.onnx
    """
    from dataclasses import replace

    from crnn_deploy.decoding_rule import DecodingRule
    from crnn_deploy.graph.model import rewrite
    from crnn_deploy.runtime.decoding.build import decoder_of

    def change(manifest: Manifest) -> Manifest:
        # confidences were calibrated with their aggregate, so these two stay together
        kept = manifest.decoding
        plain = DecodingRule(aggregate=kept.aggregate, temperature=kept.temperature)
        rule = rule_given(replace(manifest, decoding=plain), decoding)
        if rule.aggregate != kept.aggregate:
            rule = replace(rule, temperature=1.0)
        changed = replace(manifest, decoding=rule)
        decoder_of(rule).bind(manifest.alphabet, manifest.blank)  # what cannot work says so now
        return changed

    check_kind_of(model, output)
    rule = rewrite(model, output, change).decoding
    shown = ", ".join(f"{name} {value!r}" for name, value in rule.to_plain().items() if name != "decoder")
    say(f"{output}: {rule.decoder}" + (f", {shown}" if shown else ""))
