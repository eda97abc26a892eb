"""Manifests: the JSON value in a model's metadata."""

from __future__ import annotations

from harness import fuzz, guided

with guided():
    from crnn_deploy.manifest import Manifest, StepRule, WidthRule

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


def target(data: bytes) -> None:
    """Read it; what is read is written and read to the same."""
    manifest = Manifest.from_json(data.decode("utf-8", "replace"))
    assert Manifest.from_json(manifest.to_json()) == manifest


fuzz(target, [SEED.to_json().encode()])
