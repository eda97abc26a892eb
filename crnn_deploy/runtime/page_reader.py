"""Boxes of pages, read as images are: a page is decoded once, and its boxes go into batches with others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from crnn_deploy.errors import CrnnDeployError, ReadFailed
from crnn_deploy.regions.page_boxes import PageBoxes
from crnn_deploy.regions.region import Point, Region
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.images.pixels import MAX_PIXELS, Pixels
from crnn_deploy.runtime.recognizer import Prepared, Recognizer

__all__ = ["BoxesMissing", "Page", "PageBox", "PageDiffers", "PageReader", "boxes_of_pages"]

_SAME = 1.0  # pixels by which a page may be larger or smaller than its boxes say: programs round


class BoxesMissing(ReadFailed):
    """A page of which the file of boxes knows nothing."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "the file of boxes names no such page")


class PageDiffers(ReadFailed):
    """A page of another size than its boxes were made for."""

    def __init__(self, path: str, size: tuple[float, float], width: int, height: int) -> None:
        super().__init__(
            path,
            f"its boxes were made for a page of {size[0]:g} x {size[1]:g} pixels, and this one has "
            f"{width} x {height}; give the image that the boxes belong to",
        )


class Page:
    """A page and its boxes.

    boxes: None where nothing is known of them
    """

    def __init__(self, path: str, boxes: PageBoxes | None) -> None:
        self.path = path
        self.regions: Sequence[Region] = () if boxes is None else boxes.regions  # pixels, once it is decoded
        self._boxes = boxes
        self._pixels: Pixels | CrnnDeployError | None = None
        self._lock = Lock()

    def pixels(self, decode: Callable[[str], Pixels]) -> Pixels:
        """Its image, which threads decode once and which stays until `forget`. Raises what `decode` raises."""
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decoded(decode)
            found = self._pixels
        if isinstance(found, CrnnDeployError):
            raise found.with_traceback(None)
        return found

    @property
    def held(self) -> int:
        """Pixels that are in memory."""
        found = self._pixels
        return 0 if found is None or isinstance(found, CrnnDeployError) else found.shape[0] * found.shape[1]

    def forget(self) -> None:
        """Let go of the image; who asks for it again decodes it again."""
        self._pixels = None

    def _decoded(self, decode: Callable[[str], Pixels]) -> Pixels | CrnnDeployError:
        if self._boxes is None:
            return BoxesMissing(self.path)
        try:
            pixels = decode(self.path)
        except CrnnDeployError as error:
            return error
        (height, width), size = pixels.shape[:2], self._boxes.size
        if self._boxes.unit == "pixel" and size is not None:
            if max(abs(size[0] - width), abs(size[1] - height)) > _SAME:
                return PageDiffers(self.path, size, width, height)
        self.regions = self._boxes.in_pixels(width, height)
        return pixels


@dataclass(frozen=True, eq=False)
class PageBox:
    """A box of a page, or what stands for a page without any that are known."""

    page: Page
    number: int | None = None  # among the page's boxes, from 0

    @property
    def polygon(self) -> tuple[Point, ...] | None:
        return None if self.number is None else self.page.regions[self.number].polygon

    def __str__(self) -> str:
        return self.page.path if self.number is None else f"{self.page.path}: box {self.number}"


def boxes_of_pages(paths: Iterable[str], of: Callable[[str], PageBoxes | None]) -> Iterator[PageBox]:
    """Every box of every page, in order; a page of which `of` knows nothing gives one that cannot be read."""
    for path in paths:
        boxes = of(path)
        page = Page(path, boxes)
        if boxes is None:
            yield PageBox(page)
        yield from (PageBox(page, number) for number in range(len(page.regions)))


class PageReader:
    """Reads boxes as a recogniser reads images, for `pipeline.read_in_order`.

    Decoded pages stay in memory until later ones need the room: MAX_PIXELS together, or one that is larger.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._held: deque[Page] = deque()  # pages that are decoded, the first one first
        self._lock = Lock()

    def prepare(self, box: PageBox) -> Prepared:
        """A box as the network takes it.

        Raises ImageNotFound, ImageUnreadable, BoxesMissing, PageDiffers, RegionUnreadable.
        """
        pixels = box.page.pixels(self._decode)
        self._hold(box.page)
        assert box.number is not None
        return self._recognizer.prepare_region(pixels, box.page.regions[box.number], name=str(box))

    def read_batch(self, images: Sequence[Prepared]) -> Sequence[Text | CrnnDeployError]:
        """Texts of prepared boxes of equal columns."""
        return self._recognizer.read_batch(images)

    def _decode(self, path: str) -> Pixels:
        return self._recognizer.read_page(path)

    def _hold(self, page: Page) -> None:
        with self._lock:
            if page not in self._held:
                self._held.append(page)
            while len(self._held) > 1 and sum(one.held for one in self._held) > MAX_PIXELS:
                self._held.popleft().forget()
