"""Files of boxes, of all kinds: what is read can be looked at, written, and filled."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from harness import fuzz, guided

with guided():
    from crnn_deploy.regions.formats import pages_in
    from crnn_deploy.regions.region import problem
    from crnn_deploy.regions.written_page import ReadLine, filled_page, new_page

sys.path.append(str(Path(__file__).parents[1] / "regions"))
from box_examples import EXAMPLES

FILE = Path(tempfile.mkdtemp()) / "boxes"


def target(data: bytes) -> None:
    """A file of boxes."""
    FILE.write_bytes(data)
    for page in pages_in(str(FILE)):
        for region in page.in_pixels(70, 50):
            problem(region.polygon, (70, 50))
        lines = [ReadLine(region, "text", 0.5) for region in page.regions]
        new_page(page.image, (70, 50), lines, creator="crnn-deploy")
        if page.document:
            filled_page(page.document, lines)


fuzz(target, EXAMPLES.values())
