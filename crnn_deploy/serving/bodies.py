"""The body of a request: received within limits, and the images in it."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from crnn_deploy.errors import ReadFailed, first_line, shortened
from crnn_deploy.runtime.queue import Image
from crnn_deploy.serving.problems import Problem
from crnn_deploy.serving.settings import ServerSettings

__all__ = ["BadImage", "Given", "Inflow", "JsonImages", "images_in"]

_BODIES_AT_ONCE = 8  # as many bodies of the largest size may be in memory; smaller ones, as many as fit
_BEGINNING = (
    2**18
)  # bytes of each body that have room of their own, lest a few large ones shut out all others
_BEGINNINGS_AT_ONCE = 256
_LONGEST_NAME = 1024  # characters
_MOST_SIGNS = _LONGEST_NAME + 8  # braces, brackets and commas for each image of a body of JSON


class BadImage(ReadFailed):
    """An image of a request that cannot be taken out of it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name


Given = Image | BadImage


class JsonImage(BaseModel):
    """An image in JSON."""

    model_config = ConfigDict(extra="forbid")

    data: Annotated[str, Field(description="The encoded image file in base64.")]
    name: Annotated[
        Annotated[str, StringConstraints(max_length=_LONGEST_NAME)] | None,
        Field(description="What the answer calls it."),
    ] = None


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

    most: images of a request
    Raises Problem.
    """
    kind, parameters = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return _parts(body, parameters.get(b"boundary", b""), most)
    if kind == b"application/json":
        return _of_json(body, most)
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        return [("image", body)]
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
    if sum(body.count(sign) for sign in (b"{", b"[", b",")) > (most + 1) * _MOST_SIGNS:
        raise Problem(413, f"the JSON holds more than {most} images with their names; send them in several")
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
        raise _not_as_told(f": {first_line(error)}") from None
    return [_decoded(image, at) for at, image in enumerate(given.images, 1)]


def _with_few_keys(value: Any) -> Any:
    """An object of JSON cut to a key more than it may have, since Pydantic makes an error of every other."""
    most = len(JsonImage.model_fields) + 1
    return dict(islice(value.items(), most)) if isinstance(value, dict) else value


def _not_as_told(how: str) -> Problem:
    form = '{"images": [{"data": BASE64, "name": NAME}, ...]}'
    return Problem(400, f"the JSON is not as it should be{how}; send {form}")


def _decoded(image: JsonImage, at: int) -> Given:
    name = image.name or f"image {at}"
    try:
        return name, base64.b64decode(image.data, validate=True)
    except (binascii.Error, ValueError):
        return BadImage(name, "its data is not base64")


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
        if len(self.images) == self._most:
            raise _too_many(self._most)
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
        if b"filename" not in parameters:
            field = shortened(parameters.get(b"name", b"").decode(errors="replace"))
            raise Problem(
                422,
                f"the part {field!r} has no file name, so it is no image; options stand in the address, such "
                "as /v1/read?decoder=beam",
            )
        name = parameters[b"filename"].decode(errors="replace")[:_LONGEST_NAME]
        self.images.append((name or f"image {len(self.images) + 1}", b"".join(self._data)))

    def _on_end(self) -> None:
        self.ended = True
