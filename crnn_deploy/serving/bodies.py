"""The body of a request: received within limits, and the images in it."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, WithJsonSchema
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from crnn_deploy.errors import ReadFailed, first_line, shortened
from crnn_deploy.regions.region import Region
from crnn_deploy.runtime.queue import BoxedImage, Image
from crnn_deploy.serving.problems import Problem, file_name_sent
from crnn_deploy.serving.settings import ServerSettings

__all__ = ["IMAGE", "BadImage", "Given", "Inflow", "JsonImages", "images_in", "regions_of"]

IMAGE = "image"  # what one without a name is called
_BODIES_AT_ONCE = 8  # as many bodies of the largest size may be in memory; smaller ones, as many as fit
_BEGINNING = (
    2**18
)  # bytes of each body that have room of their own, lest a few large ones shut out all others
_BEGINNINGS_AT_ONCE = 256
_LONGEST_NAME = 1024  # characters
_MOST_SIGNS = _LONGEST_NAME + 8  # braces, brackets and commas for each image of a body of JSON
_MOST_POINTS = 1000  # of a box; whether it crosses itself takes 40 ms then, and 100 times that for 10,000


class BadImage(ReadFailed):
    """An image of a request that cannot be taken out of it."""

    def __init__(self, name: str, reason: str, regions: Sequence[Region] | None = None) -> None:
        super().__init__(name, reason)
        self.name, self.regions = name, regions


Given = Image | BoxedImage | BadImage


def regions_of(image: Given) -> Sequence[Region] | None:
    """The boxes of an image; None where it is to be read as a whole."""
    return image.regions if isinstance(image, BoxedImage | BadImage) else None


_POLYGONS = {  # of an image
    "type": ["array", "null"],
    "items": {
        "type": "array",
        "maxItems": _MOST_POINTS,
        "items": {
            "description": "x and y in pixels of the image as it is shown upright.",
            "type": "array",
            "items": {"type": "number"},
            "minItems": 2,
            "maxItems": 2,
        },
    },
}


class JsonImage(BaseModel):
    """An image in JSON."""

    model_config = ConfigDict(extra="forbid")

    data: Annotated[str, Field(description="The encoded image file in base64.")]
    name: Annotated[
        Annotated[str, StringConstraints(max_length=_LONGEST_NAME)] | None,
        Field(description="What the answer calls it."),
    ] = None
    boxes: Annotated[
        Any,  # looked at by `_regions`, since Pydantic makes an error of every point
        WithJsonSchema(_POLYGONS),
        Field(description="Read these boxes of the image, each by itself, and not the whole image."),
    ] = None
    ordered: Annotated[
        bool,
        Field(description="Whether the points of its boxes go clockwise from the text's own top left."),
    ] = True


class JsonImages(BaseModel):
    """A body of JSON."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[JsonImage], Field(min_length=1)]


class Inflow:
    """Receives bodies; so many bytes of all together are in memory, and more are refused."""

    def __init__(self, settings: ServerSettings) -> None:
        self._most, self._time = settings.max_bytes, settings.body_time
        self._room = _BODIES_AT_ONCE * settings.max_bytes
        self._room_to_begin = _BEGINNINGS_AT_ONCE * _BEGINNING

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, which counts among those in memory for as long as the block runs.

        Raises Problem where it is empty, too large or too slow, and where others leave it no room.
        """
        if (coding := request.headers.get("content-encoding", "identity")) != "identity":
            raise Problem(415, f"a body of Content-Encoding {shortened(coding)} is not read; send it plain")
        declared = request.headers.get("content-length")
        if declared is not None and int(declared) > self._most:
            raise self._too_large()
        chunks: list[bytes] = []
        held = 0
        try:
            try:
                async with asyncio.timeout(self._time):
                    async for chunk in request.stream():
                        if held + len(chunk) > self._most:
                            raise self._too_large()
                        self._take(held, held + len(chunk))
                        held += len(chunk)
                        chunks.append(chunk)
            except TimeoutError:
                raise Problem(
                    408,
                    f"the body did not come within {self._time:g} seconds",
                    headers={"Connection": "close"},
                ) from None
            except ClientDisconnect:
                raise Problem(400, "the connection was closed before the body was there") from None
            if not held:
                raise Problem(400, "the body is empty; send an image")
            body = b"".join(chunks)
            chunks.clear()  # else it is in memory twice for as long as it is read
            yield body
        finally:
            self._give_back(held)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"the body has more than {self._most:,} bytes; send fewer images at a time",
            headers={"Connection": "close"},
        )

    def _take(self, held: int, more: int) -> None:
        """Room for a body that grows from `held` bytes to `more`. Raises Problem."""
        begun = min(more, _BEGINNING) - min(held, _BEGINNING)
        rest = more - held - begun
        if begun > self._room_to_begin or rest > self._room:
            raise Problem(
                503,
                "other requests fill the memory that is set aside for bodies; try again later",
                headers={"Retry-After": "1"},
            )
        self._room_to_begin -= begun
        self._room -= rest

    def _give_back(self, held: int) -> None:
        begun = min(held, _BEGINNING)
        self._room_to_begin += begun
        self._room += held - begun


def images_in(body: bytes, content_type: str, most: int) -> list[Given]:
    """The images in a body: one that is the body itself, several in multipart/form-data or in JSON.

    most: images of a request, of which each box of an image counts as one
    Raises Problem.
    """
    given = _images_in(body, content_type, most)
    boxes = [regions_of(image) for image in given]
    if any(one is not None for one in boxes):
        count = sum(1 if one is None else len(one) for one in boxes)
        if count > most:
            raise Problem(
                413, f"more than {most} images and boxes in a request, {count}; send them in several"
            )
        if not count:
            raise Problem(422, "no image of the request has a box, so there is nothing to read; send boxes")
    return given


def _images_in(body: bytes, content_type: str, most: int) -> list[Given]:
    kind, parameters = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return _parts(body, parameters.get(b"boundary", b""), most)
    if kind == b"application/json":
        return _of_json(body, most)
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        return [(IMAGE, body)]
    raise Problem(
        415,
        f"a body of Content-Type {shortened(content_type) or 'unknown'} is not read; send image/*, "
        "application/octet-stream, multipart/form-data or application/json",
        headers={"Accept": "image/*, application/octet-stream, multipart/form-data, application/json"},
    )


def _too_many(most: int) -> Problem:
    return Problem(413, f"more than {most} images in a request; send them in several")


def _of_json(body: bytes, most: int) -> list[Given]:
    # values that are refused cost far more memory and time than their bytes, so they are counted first
    if _signs(body) > _most_signs(most):
        raise Problem(
            413,
            f"the JSON has more lists and commas than {most} images with their names and boxes need; send "
            "fewer at a time, or boxes of fewer points",
        )
    try:
        value = _with_few_keys(from_json(body))
        if isinstance(value, dict) and isinstance(images := value.get("images"), list):
            if len(images) > most:
                raise _too_many(most)
            value["images"] = [_with_few_keys(image) for image in images]
        given = JsonImages.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise _not_as_told(f"{place and f' at {shortened(place[1:])}'}: {first['msg']}") from None
    except ValueError as error:
        raise _not_as_told(f": {first_line(error)}", body) from None
    return [_decoded(image, at) for at, image in enumerate(given.images, 1)]


def _signs(json: bytes) -> int:
    return sum(json.count(sign) for sign in (b"{", b"[", b","))


def _most_signs(most: int) -> int:
    """Of the JSON of a request; a point of a box has three."""
    return (most + 1) * _MOST_SIGNS + 3 * _MOST_POINTS


def _with_few_keys(value: Any) -> Any:
    """An object of JSON cut to a key more than it may have, since Pydantic makes an error of every other."""
    most = len(JsonImage.model_fields) + 1
    return dict(islice(value.items(), most)) if isinstance(value, dict) else value


def _not_as_told(how: str, body: bytes = b"") -> Problem:
    form = '{"images": [{"data": BASE64, "name": NAME}, ...]}'  # boxes may stand there too
    return Problem(400, f"the JSON does not have the right form{how}; send {form}{file_name_sent(body)}")


def _decoded(image: JsonImage, at: int) -> Given:
    name = image.name or f"image {at}"
    regions = None
    if image.boxes is not None:
        regions = _regions(image.boxes, "the JSON", f"images[{at - 1}].boxes", image.ordered)
    try:
        data = base64.b64decode(image.data, validate=True)
    except (binascii.Error, ValueError):
        return BadImage(name, "its data is not base64", regions)
    return (name, data) if regions is None else BoxedImage(name, data, regions)


def _regions(given: Any, what: str, place: str, ordered: bool = True) -> tuple[Region, ...]:
    """Polygons of JSON; what is wrong with one of them as a polygon, its own result says.

    what, place: of the request, for messages
    Raises Problem.
    """

    def wrong(place: str, reason: str) -> Problem:
        where = place and f" at {place}"
        form = "[[[x, y], ...], ...]"
        return Problem(400, f"{what} cannot be read{where}: {reason}; send boxes as {form}")

    if not isinstance(given, list):
        raise wrong(place, "no list of boxes")
    regions = []
    for at, polygon in enumerate(given):
        if not isinstance(polygon, list):
            raise wrong(f"{place}[{at}]", "it is not a list of points")
        if len(polygon) > _MOST_POINTS:
            raise Problem(413, f"a box has more than {_MOST_POINTS:,} points; leave some out")
        for number, point in enumerate(polygon):
            if not (isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))):
                raise wrong(f"{place}[{at}][{number}]", "it is not a point of two numbers")
        regions.append(Region(tuple((float(x), float(y)) for x, y in polygon), ordered=ordered))
    return tuple(regions)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _parts(body: bytes, boundary: bytes, most: int) -> list[Given]:
    if not boundary:
        raise Problem(400, "the Content-Type multipart/form-data names no boundary")
    parts = _Parts(body, most)
    try:
        parser = MultipartParser(boundary, parts.callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Problem(400, f"the multipart body is broken: {first_line(error)}") from None
    if not parts.ended:
        raise Problem(400, "the multipart body ends before its last boundary")
    if not parts.images:
        raise Problem(400, "the multipart body has no parts; send an image in each")
    return parts.images


class _Parts:
    """Takes the parts of a multipart body as its parser finds them."""

    def __init__(self, body: bytes, most: int) -> None:
        self.images: list[Given] = []
        self.ended = False
        self._signs = 0  # of all boxes
        self._most = most
        self._data: list[bytes] = []
        self._field, self._value, self._disposition = b"", b"", b""
        self.callbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._data, self._disposition = [], b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        if parameters.get(b"name") == b"boxes":
            self._take_boxes()
            return
        if b"filename" not in parameters:
            field = shortened(parameters.get(b"name", b"").decode(errors="replace"))
            raise Problem(
                422,
                f"the part {field!r} has no file name, so it is no image; curl sends an image with -F "
                "images=@FILE, and options stand in the address, such as /v1/read?decoder=beam",
            )
        if len(self.images) == self._most:
            raise _too_many(self._most)
        name = parameters[b"filename"].decode(errors="replace")[:_LONGEST_NAME]
        self.images.append((name or f"image {len(self.images) + 1}", b"".join(self._data)))

    def _take_boxes(self) -> None:
        """Boxes belong to the image right before them."""
        image = self.images[-1] if self.images else None
        if not isinstance(image, tuple):
            raise Problem(422, "a part 'boxes' belongs right behind the part of its image, one behind each")
        data = b"".join(self._data)
        self._signs += _signs(data)
        if self._signs > _most_signs(self._most):
            raise Problem(
                413,
                f"the parts 'boxes' have more lists and commas than {self._most} boxes need; send fewer at a "
                "time, or boxes of fewer points",
            )
        what = f"the part 'boxes' of image {len(self.images)}"
        try:
            given = from_json(data)
        except ValueError as error:
            raise Problem(400, f"{what} is no JSON: {first_line(error)}") from None
        self.images[-1] = BoxedImage(*image, _regions(given, what, ""))

    def _on_end(self) -> None:
        self.ended = True
