"""What is told of an image before it is decoded."""

from __future__ import annotations

from harness import fuzz, guided
from image_seeds import SEEDS

with guided():
    from crnn_deploy.runtime.images.header import MAX_PIXELS, MAX_SIDE, plain_png, probe


def target(data: bytes) -> None:
    """Probe it; what is accepted has a size within the limits."""
    header = probe(data)
    assert 0 < header.width <= MAX_SIDE and 0 < header.height <= MAX_SIDE and header.decoded <= MAX_PIXELS
    if header.format == "PNG":
        assert probe(plain_png(data, header, "<bytes>")) == header


fuzz(target, SEEDS)
