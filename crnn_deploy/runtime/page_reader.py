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
from crnn_deploy.runtime.images.crop import in_reading_order
from crnn_deploy.runtime.images.pixels import MAX_PIXELS, Pixels
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.records import box_key

__all__ = ["BoxesMissing", "Page", "PageBox", "PageDiffers", "PageReader", "pages_of"]

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

    boxes: None where nothing is known of them, or why they cannot be told
    """

    def __init__(self, path: str, boxes: PageBoxes | CrnnDeployError | None) -> None:
        self.path, self.boxes = path, boxes
        self.regions: Sequence[Region] = boxes.regions if isinstance(boxes, PageBoxes) else ()
        self.size: tuple[int, int] | None = (
            None  # width and height, once it is decoded; so are `regions` then
        )
        self._pixels: Pixels | CrnnDeployError | None = None
        self._lock = Lock()

    def pixels(self, decode: Callable[[str], Pixels]) -> Pixels:
        """Its image, which threads decode once and which stays until `forget`.

        Raises what `decode` raises, BoxesMissing, PageDiffers, and the error that is in the place of boxes.
        """
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decoded(decode)
            found = self._pixels
        if isinstance(found, CrnnDeployError):
            raise found.with_traceback(None)
        return found

    @property
    def each(self) -> Sequence[PageBox]:
        """Its boxes, in their order; one that cannot be read where there is no telling which there are."""
        if isinstance(self.boxes, PageBoxes):
            return [PageBox(self, number) for number in range(len(self.regions))]
        return [PageBox(self)]

    @property
    def held(self) -> int:
        """Pixels that are in memory."""
        found = self._pixels
        return 0 if found is None or isinstance(found, CrnnDeployError) else found.shape[0] * found.shape[1]

    def forget(self) -> None:
        """Let go of the image; who asks for it again decodes it again."""
        self._pixels = None

    def _decoded(self, decode: Callable[[str], Pixels]) -> Pixels | CrnnDeployError:
        boxes = self.boxes
        if not isinstance(boxes, PageBoxes):
            return BoxesMissing(self.path) if boxes is None else boxes
        try:
            pixels = decode(self.path)
        except CrnnDeployError as error:
            return error
        height, width = pixels.shape[:2]
        across, down = (width, height) if boxes.size is None or boxes.unit != "pixel" else boxes.size
        if max(abs(across - width), abs(down - height)) > _SAME:
            return PageDiffers(self.path, (across, down), width, height)
        self.size = width, height
        self.regions = [*map(in_reading_order, boxes.in_pixels(width, height))]
        return pixels


@dataclass(frozen=True, eq=False)
class PageBox:
    """A box of a page, or what stands for a page without any that are known."""

    page: Page
    number: int | None = None  # among the page's boxes, from 0

    @property
    def key(self) -> str:
        """That of its record."""
        return box_key(self.page.path, self.number)

    @property
    def polygon(self) -> tuple[Point, ...] | None:
        return None if self.number is None else self.page.regions[self.number].polygon

    def __str__(self) -> str:
        return self.page.path if self.number is None else f"{self.page.path}: box {self.number}"


def pages_of(paths: Iterable[str], of: Callable[[str], PageBoxes | None]) -> Iterator[Page]:
    """The pages with their boxes; where `of` raises an error, it stands in the place of these."""
    for path in paths:
        try:
            yield Page(path, of(path))
        except CrnnDeployError as error:
            yield Page(path, error)


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
