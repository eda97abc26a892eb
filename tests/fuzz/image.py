"""Images from their bytes to the network's input."""

from __future__ import annotations

from dataclasses import replace

from harness import fuzz, guided
from image_seeds import SEEDS

with guided():
    from crnn_deploy import image
    from crnn_deploy.manifest import AdaptiveThreshold, Clahe, Manifest, StepRule, WidthRule

GRAY = Manifest(
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
COLOR = replace(GRAY, color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3)
MANIFESTS = (
    GRAY,
    replace(GRAY, interpolation="pillow-bicubic", width=WidthRule(8, 65_536)),
    replace(GRAY, filters=(Clahe(2.0, 8), AdaptiveThreshold(15, 8.0, False))),
    replace(COLOR, interpolation="area", width=WidthRule(100, 100, fit="letterbox", pad="edge")),
    replace(COLOR, interpolation="pillow-bilinear", height=64),
)


def target(data: bytes) -> None:
    """Decode it and prepare it by every manifest."""
    pixels = image.decode(data, "<bytes>", max_pixels=2**22)  # larger ones take the fuzzer too long
    for manifest in MANIFESTS:
        prepared = image.prepare(pixels, manifest)
        assert prepared.shape[:2] == (manifest.channels, manifest.height)


fuzz(target, SEEDS)
