"""Manifests: the JSON value in a model's metadata, what it makes of an image, and its decoder."""

from __future__ import annotations

from dataclasses import replace

from harness import fuzz, guided

with guided():
    import numpy as np

    from crnn_deploy.decoding_rule import DecodingRule
    from crnn_deploy.manifest import AdaptiveThreshold, Clahe, Manifest, StepRule, Stretch, WidthRule
    from crnn_deploy.runtime.decoding.build import decoder_of
    from crnn_deploy.runtime.images.prepare import prepare
    from crnn_deploy.runtime.long_lines import uncut

SEED = Manifest(
    alphabet=tuple("abc"),
    blank=0,
    color="gray",
    height=32,
    width=WidthRule(32, 640, multiple=4),
    mean=(0.5,),
    std=(0.5,),
    interpolation="linear",
    steps=StepRule(4, 0),
)
FILTERED = replace(
    SEED, filters=(Stretch(0.01, 96), Clahe(2.0, 8), AdaptiveThreshold(15, 10.0, True)), max_batch=4
)
RULE = DecodingRule("beam", 5, 2, mask="a9*", pattern="[a-c]{1,3}|(?=b)a*", min_length=1, max_length=9)
SEEDS = (
    SEED,
    FILTERED,
    replace(SEED, decoding=RULE, interpolation="pillow-bicubic"),
    replace(
        SEED, decoding=DecodingRule(allow="ab", hotwords=("cab",), temperature=1.5, aggregate="likelihood")
    ),
    replace(SEED, color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3, width=WidthRule(128, 128, fit="letterbox")),
)
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 60), np.uint8)


def target(data: bytes) -> None:
    """Read it; what is read is written and read to the same, prepares an image and binds a decoder."""
    manifest = Manifest.from_json(data.decode("utf-8", "replace"))
    assert Manifest.from_json(manifest.to_json()) == manifest
    for one in (manifest, uncut(manifest)):
        prepared = prepare(IMAGE, one)
        assert prepared.shape[:2] == (one.channels, one.height) and np.isfinite(prepared).all()
    decoder_of(manifest.decoding).bind(manifest.alphabet, manifest.blank)


fuzz(target, [seed.to_json().encode() for seed in SEEDS])
