"""Images in, text out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike, fsdecode
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, overload

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError, ReadFailed
from crnn_deploy.manifest import Manifest
from crnn_deploy.models import DEFAULT, model_file
from crnn_deploy.process import not_forked
from crnn_deploy.runtime import long_lines
from crnn_deploy.runtime.backends.backend import Backend, BackendName, Device
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.decoding.bound import bound
from crnn_deploy.runtime.decoding.ctc import Frames, Text
from crnn_deploy.runtime.images.given import Source, is_one
from crnn_deploy.runtime.images.pixels import MAX_PIXELS, Pixels, read_image, use_image
from crnn_deploy.runtime.opening import NotPortable, Opening, Precision, opening
from crnn_deploy.runtime.orientation import ImageView, Rotate, check_rotate, surest
from crnn_deploy.runtime.prepared import CropPlace, Prepared, prepared_of
from crnn_deploy.runtime.second_reading import reread

if TYPE_CHECKING:  # what only some runs need is imported by them: 3 ms
    from crnn_deploy.regions.region import Region
    from crnn_deploy.runtime.decoding.alignment import Decoder
    from crnn_deploy.runtime.images.crop import RegionGiven

__all__ = ["Recognizer", "Wide"]

Wide = Literal["cut", "shrink"]

_TURN = 0.5  # seconds
_MOST_BYTES = 2**27  # of a page's boxes that are prepared at a time


class Recognizer:
    """A model and all that stands around it: reading, preparing, batching by width, decoding.

    The text and confidence of an image do not depend, in a single bit, on what else is read with it.

    backend: the network, or the name or path of a model; by default the package's own model `latin`
    batch: most images that run together; a manifest with `max_batch` allows no more than that
    decoder: how texts are found and how sure they are; by default as the manifest says
    wide: lines beyond the manifest's largest width are cut (`long_lines`) or shrunk to it; fixed-width
        networks always shrink
    max_pixels: an image of more is refused before it is decoded
    rotate: in which turns an image is read, of which the surest counts (`orientation`)

    >>> text = Recognizer("latin").read("word.png")
    >>> texts = Recognizer.load("model.onnx").read(["word.png", "line.png"])

    Raises LogitsMissing, what binding the decoder raises, and with a name or path what `load` raises.

    Threads share a recogniser. Pickled, as for a process of `multiprocessing`, it is a path and settings: the
    other process opens the file anew. One that was given an open network raises NotPortable then.
    """

    def __init__(
        self,
        backend: Backend | str | PathLike[str] | None = None,
        *,
        batch: int = 8,
        decoder: Decoder | None = None,
        wide: Wide = "cut",
        max_pixels: int = MAX_PIXELS,
        rotate: Rotate = "none",
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; at least one image must run at a time")
        if wide not in get_args(Wide):
            raise ValueError(f"wide is {wide!r}; it must be one of {', '.join(get_args(Wide))}")
        check_rotate(rotate)
        self._opening: Opening | None = None  # of a network that another process can open again
        if backend is None or isinstance(backend, str | PathLike):
            given = Opening(DEFAULT if backend is None else model_file(backend))
            backend, self._opening = given.open(), given.in_any_folder()
        self._backend, self._decoder = backend, decoder
        batch = min(batch, backend.manifest.max_batch or batch)
        self._batch, self._wide, self._max_pixels, self._rotate = batch, wide, max_pixels, rotate
        self._decode = bound(decoder, self.manifest)
        self._rule = long_lines.uncut(self.manifest) if wide == "cut" else self.manifest

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        batch: int = 8,
        threads: int = 1,
        backend: BackendName | Literal["auto"] | None = None,
        precision: Precision | None = None,
        device: Device = "cpu",
        tf32: bool = False,
        decoder: Decoder | None = None,
        wide: Wide = "cut",
        max_pixels: int = MAX_PIXELS,
        rotate: Rotate = "none",
    ) -> Recognizer:
        """A recogniser from a model file.

        path: of the file; a text may be the name of a shipped model (`models.model_file`)
        batch: most images that run together
        threads: threads inside one run
        backend, precision: of an .onnx file: the library and the format it runs in (`opening.opening`)
        device: where ONNX Runtime runs an .onnx file; cuda is its CUDA provider
        tf32: on cuda, whether fp32 products may round their factors to TF32: faster, and coarser than fp32
        decoder, wide, max_pixels, rotate: as of `Recognizer`
        Raises ModelNameUnknown, ModelNotFound, ModelUnreadable, ManifestMissing, ManifestInvalid,
        BackendMissing, OpenVinoRefused, Int8Missing, LogitsMissing.
        """
        given = opening(
            model_file(path),
            backend=backend,
            precision=precision,
            device=device,
            threads=threads,
            tf32=tf32,
        )
        settings = {"batch": batch, "decoder": decoder, "wide": wide, "max_pixels": max_pixels}
        return _opened(given, {**settings, "rotate": rotate})

    def __reduce__(self) -> tuple[Callable[..., Recognizer], tuple[Opening, dict[str, Any]]]:
        """Raises NotPortable."""
        if self._opening is None:
            raise NotPortable
        settings = {"batch": self._batch, "decoder": self._decoder, "wide": self._wide}
        return _opened, (
            self._opening,
            {**settings, "max_pixels": self._max_pixels, "rotate": self._rotate},
        )

    def __copy__(self) -> Recognizer:
        return self._with(self._decoder)

    def with_decoder(self, decoder: Decoder) -> Recognizer:
        """A recogniser of the same network and settings with another decoder; closing either closes both.

        Raises LogitsMissing, and what binding the decoder raises.
        """
        return self._with(decoder)

    def _with(self, decoder: Decoder | None) -> Recognizer:
        made = Recognizer(
            self._backend,
            batch=self._batch,
            decoder=decoder,
            wide=self._wide,
            max_pixels=self._max_pixels,
            rotate=self._rotate,
        )
        made._opening = self._opening
        return made

    @property
    def manifest(self) -> Manifest:
        return self._backend.manifest

    @property
    def max_pixels(self) -> int:
        return self._max_pixels

    @overload
    def read(self, images: Source) -> Text: ...  # type: ignore[overload-overlap]  # a text has texts in it
    @overload
    def read(self, images: Iterable[Source]) -> list[Text]: ...
    def read(self, images: Source | Iterable[Source]) -> Text | list[Text]:
        """Text of an image, or of each of several, in their order.

        images: one image (a path, encoded bytes, a uint8 array, grey or BGR, or a Pillow image), or any
            iterable of them; `images.pixels.read_image` says more of what is read
        Raises ImageNotFound, ImageUnreadable or ReadFailed for the first image that cannot be read, and for
        what is neither one image nor several; RunFailed where the model cannot run.
        """
        if is_one(images):
            return _text(self.try_read(cast(Source, images)))
        return [_text(result) for result in self.try_read(cast(Iterable[Source], images))]

    @overload
    def try_read(self, images: Source) -> Text | CrnnDeployError: ...  # type: ignore[overload-overlap]
    @overload
    def try_read(self, images: Iterable[Source]) -> list[Text | CrnnDeployError]: ...
    def try_read(
        self, images: Source | Iterable[Source]
    ) -> Text | CrnnDeployError | list[Text | CrnnDeployError]:
        """As `read`, but an image that cannot be read gives its error and the others are read.

        Raises RunFailed.
        """
        if is_one(images):
            [result] = self.read_prepared([self._try_prepare(cast(Source, images))])
            return result
        some = cast(Iterable[Source], images)
        return self.read_prepared(self._try_prepare(source) for source in some)

    def read_prepared(self, images: Iterable[Prepared | CrnnDeployError]) -> list[Text | CrnnDeployError]:
        """Text of images of any widths, in order; an error in the place of one stands as it is.

        An image is taken from `images` when those before it wait for others of their width or have been read.
        Raises RunFailed.
        """
        results: dict[int, Text | CrnnDeployError] = {}
        groups: Groups[tuple[int, Prepared]] = Groups(self._batch)

        def run(batch: list[tuple[int, Prepared]]) -> None:
            texts = self.read_batch([prepared for _, prepared in batch])
            results.update(zip((index for index, _ in batch), texts, strict=True))

        for index, prepared in enumerate(images):
            if isinstance(prepared, CrnnDeployError):
                results[index] = prepared
            elif batch := groups.add(prepared.columns, (index, prepared)):
                run(batch)
        while groups:
            run(groups.pop_oldest())
        return [results[index] for index in range(len(results))]

    def _try_prepare(self, source: Source) -> Prepared | CrnnDeployError:
        try:
            return self.prepare(source)
        except CrnnDeployError as error:
            return error

    def prepare(self, source: Source, *, name: str | None = None) -> Prepared:
        """An image as the network takes it.

        name: what messages call it; by default its path, or what it is
        Raises ImageNotFound, ImageUnreadable.
        """
        shown = name or _name(source)

        def ready(pixels: Pixels) -> Prepared:
            with not_forked():
                return prepared_of(pixels, self._rule, shown, self._rotate)

        grey = self.manifest.decoded_grey
        return use_image(source, ready, max_pixels=self._max_pixels, decoded_grey=grey, name=shown)

    def read_regions(self, page: Source, regions: Iterable[RegionGiven]) -> list[Text]:
        """Text of each of a page's boxes, in their order, as of the crops of `images.crop.crop`.

        page: one image, as of `read`
        regions: polygons, such as arrays (N, 2) of x and y in pixels of the page as it is shown upright. The
            points go clockwise from the top left of the text itself; `regions.region.Region` can say that
            they do not. Characters are placed in the crops.
        Raises ImageNotFound, ImageUnreadable, and RegionUnreadable or ReadFailed for the first that cannot
        be read; RunFailed.
        """
        return [_text(result) for result in self.try_read_regions(page, regions)]

    def try_read_regions(self, page: Source, regions: Iterable[RegionGiven]) -> list[Text | CrnnDeployError]:
        """As `read_regions`, but a box that cannot be read gives its error and the others are read.

        Raises ImageNotFound, ImageUnreadable, RunFailed.
        """
        return self.read_prepared(self._prepared(self.read_page(page), regions, _name(page)))

    def prepare_regions(
        self, page: Source, regions: Sequence[RegionGiven], *, name: str | None = None, first: int = 0
    ) -> list[Prepared | CrnnDeployError]:
        """Boxes of a page from the one at `first` on, as the network takes them, or why one cannot be read.

        name: what messages call the page, as of `prepare`
        The page is in memory until it returns. What takes more than half a second or 128 MiB is left out of
        the end of the list, which has at least one box.
        Raises ImageNotFound, ImageUnreadable.
        """
        shown = name or _name(page)

        def some(pixels: Pixels) -> list[Prepared | CrnnDeployError]:
            until, room = time.monotonic() + _TURN, _MOST_BYTES
            made: list[Prepared | CrnnDeployError] = []
            for one in self._prepared(pixels, regions[first:], shown, first):
                made.append(one)
                room -= one.nbytes if isinstance(one, Prepared) else 0
                if room <= 0 or time.monotonic() > until:
                    break
            return made

        grey = self.manifest.decoded_grey
        return use_image(page, some, max_pixels=self._max_pixels, decoded_grey=grey, name=shown)

    def _prepared(
        self, page: Pixels, regions: Iterable[RegionGiven], shown: str, first: int = 0
    ) -> Iterator[Prepared | CrnnDeployError]:
        """Boxes of a decoded page, one after the other; the first one has the number `first`."""
        from crnn_deploy.runtime.images.crop import region_of

        for number, region in enumerate(map(region_of, regions), first):
            try:
                yield self.prepare_region(page, region, name=f"{shown}: box {number}")
            except CrnnDeployError as error:
                yield error

    def read_page(self, page: Source) -> Pixels:
        """A page as its boxes are cut out of it. Raises ImageNotFound, ImageUnreadable."""
        return read_image(page, max_pixels=self._max_pixels, decoded_grey=self.manifest.decoded_grey)

    def prepare_region(self, page: Pixels, region: Region, *, name: str) -> Prepared:
        """A box of a page as the network takes it. Raises RegionUnreadable, ImageTooLarge."""
        from crnn_deploy.runtime.images.crop import crop

        cut = crop(page, region, name=name, max_pixels=self._max_pixels)
        place = CropPlace(cut.pixels.shape[0], cut.on_page)
        return replace(self.prepare(cut.pixels, name=name), crop=place)

    def run(self, images: Sequence[Prepared]) -> Frames:
        """What the network says of images of one width, frame by frame; of each, its first view counts.

        Raises RunFailed.
        """
        frames = self._network(np.stack([prepared.pixels for prepared in images]))
        if self.manifest.contrast is None:
            return frames
        contrasted = [prepared.contrasted for prepared in images]
        return reread(frames, contrasted, self.manifest.contrast, self.manifest.blank, self._network)

    def _network(self, pixels: NDArray[np.float32]) -> Frames:
        if pixels.shape[3] <= self.manifest.width.maximum:
            return self._backend.run(pixels)
        return long_lines.run(self._backend.run, pixels, self.manifest, self._batch)

    def read_batch(self, images: Sequence[Prepared]) -> list[Text | CrnnDeployError]:
        """Text of images of equal columns; ReadFailed for one in which nothing can be read.

        Raises RunFailed.
        """
        with not_forked():
            texts = self._read_batch(images) if self._rotate == "none" else self._read_views(images)
        return [image.placed(text) for image, text in zip(images, texts, strict=True)]

    def _read_views(self, images: Sequence[Prepared]) -> list[Text | CrnnDeployError]:
        """The surest reading of each image; views of one width run together, whatever they show."""
        readings: dict[tuple[int, int], tuple[ImageView, Text | CrnnDeployError]] = {}  # by image and view
        groups: Groups[tuple[tuple[int, int], ImageView, Prepared]] = Groups(self._batch)

        def run(batch: list[tuple[tuple[int, int], ImageView, Prepared]]) -> None:
            texts = self._read_batch([prepared for _, _, prepared in batch])
            readings.update({key: (view, text) for (key, view, _), text in zip(batch, texts, strict=True)})

        for at, image in enumerate(images):
            for place, one in enumerate((image, *image.others)):
                assert one.view is not None
                if batch := groups.add(one.pixels.shape[2], ((at, place), one.view, one)):
                    run(batch)
        while groups:
            run(groups.pop_oldest())
        return [
            surest([readings[at, place] for place in range(1 + len(image.others))])
            for at, image in enumerate(images)
        ]

    def _read_batch(self, images: Sequence[Prepared]) -> list[Text | CrnnDeployError]:
        return self.read_frames(self.run(images), images)

    def read_frames(self, frames: Frames, images: Sequence[Prepared]) -> list[Text | CrnnDeployError]:
        """Text of images from what the network has said of them; of each image its pixels are not used."""
        steps = frames.indices.shape[1]
        pixels_per_frame = [(prepared.span / steps, prepared.width) for prepared in images]
        texts = self._texts(frames, pixels_per_frame, images)
        for at in np.flatnonzero(~np.isfinite(frames.probabilities).all(axis=1)).tolist():
            texts[at] = ReadFailed(images[at].name, "the network puts out NaN for it")
        return texts

    def _texts(
        self, frames: Frames, pixels_per_frame: Sequence[tuple[float, int]], images: Sequence[Prepared]
    ) -> list[Text | CrnnDeployError]:
        try:
            return [*self._decode(frames, pixels_per_frame)]
        except CrnnDeployError as error:  # in one image nothing can be read that is allowed
            if len(images) == 1:
                return [ReadFailed(images[0].name, str(error))]
        return [
            text
            for at in range(len(images))
            for text in self._texts(frames.row(at), pixels_per_frame[at : at + 1], images[at : at + 1])
        ]

    def close(self) -> None:
        self._backend.close()


def _opened(given: Opening, settings: dict[str, Any]) -> Recognizer:
    """A recogniser of a file as it was decided to be run."""
    made = Recognizer(given.open(), **settings)
    made._opening = given.in_any_folder()
    return made


def _text(result: Text | CrnnDeployError) -> Text:
    if isinstance(result, CrnnDeployError):
        raise result
    return result


def _name(source: Source) -> str:
    return fsdecode(source) if isinstance(source, str | PathLike) else f"<{type(source).__name__}>"
