"""Images from their bytes to the network's input."""

from __future__ import annotations

import zlib
from dataclasses import replace

from harness import fuzz, guided
from image_seeds import SEEDS

with guided():
    from crnn_deploy.manifest import AdaptiveThreshold, Clahe, Manifest, StepRule, Stretch, WidthRule
    from crnn_deploy.runtime.images.pixels import decode_image
    from crnn_deploy.runtime.images.prepare import prepare

GREY = Manifest(
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
COLOR = replace(GREY, color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3)
MANIFESTS = (
    GREY,
    replace(GREY, interpolation="pillow-bicubic", width=WidthRule(8, 65_536)),
    replace(GREY, filters=(Stretch(0.01, 96), Clahe(2.0, 8), AdaptiveThreshold(15, 8.0, False))),
    replace(COLOR, interpolation="area", width=WidthRule(100, 100, fit="letterbox", pad="edge")),
    replace(COLOR, interpolation="pillow-bilinear", height=64),
)


def checked(png: bytes) -> bytes:
    """A PNG whose checksums hold, so that what was changed in it is looked at."""
    at, whole = 8, png[:8]
    while at + 12 <= len(png):
        end = min(at + 8 + int.from_bytes(png[at : at + 4]), len(png) - 4)
        whole += png[at:end] + zlib.crc32(png[at + 4 : end]).to_bytes(4)
        at = end + 4
    return whole


def target(data: bytes) -> None:
    """Decode it and prepare it by every manifest."""
    if data.startswith(b"\x89PNG"):
        data = checked(data)
    pixels = decode_image(data, "<bytes>", max_pixels=2**22)  # larger ones take the fuzzer too long
    for manifest in MANIFESTS:
        prepared = prepare(pixels, manifest)
        assert prepared.shape[:2] == (manifest.channels, manifest.height)


fuzz(target, SEEDS)
