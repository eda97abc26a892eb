"""Tensors of the Open Inference Protocol (KServe v2) as they stand in HTTP bodies.

A body is JSON, and with Triton's binary tensor data extension the tensors' bytes behind it
(kserve/open-inference-protocol, specification/protocol/inference_rest.md; triton-inference-server/server,
docs/protocol/extension_binary_data.md). Of the data types there are those that a recogniser takes and gives:
BYTES, of which an element in JSON is base64 in a request and text in an answer, and FP64.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crnn_deploy.errors import CrnnDeployError, did_you_mean, shortened
from crnn_deploy.serving.problems import file_name_sent

__all__ = [
    "INPUT",
    "OUTPUTS",
    "InferenceRequest",
    "TensorsInvalid",
    "encode_response",
    "parse_request",
]

INPUT = "image"
OUTPUTS = {"text": "BYTES", "confidence": "FP64", "error": "BYTES"}  # name and datatype

_LENGTH = struct.Struct("<I")  # of an element of BYTES
_MOST_IN_JSON = 4096  # values beside those of the images' data; options and tensors need some dozens
_MOST_TENSORS = 16
_LONGEST = 1024  # characters of an id, a name or a parameter's name


class TensorsInvalid(CrnnDeployError, ValueError):
    """A request that is not one of the Open Inference Protocol, or not one for a recogniser."""


@dataclass(frozen=True)
class InferenceRequest:
    """A request, taken apart."""

    images: Sequence[bytes]  # encoded image files
    shape: tuple[int, ...]  # (N,) or (N, 1), as the images were given; the outputs have it too
    id: str | None  # which the answer repeats
    parameters: Mapping[str, bool | int | float | str]  # without those of the protocol itself
    outputs: Mapping[str, bool]  # in the order in which they are wanted, and whether as binary data


_Name = Annotated[str, Field(max_length=_LONGEST)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _InputParameters(_Strict):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class _GivenInput(_Strict):
    name: _Name
    shape: Annotated[list[int], Field(max_length=8)]
    datatype: _Name
    parameters: _InputParameters = _InputParameters()
    data: list[Any] | None = None


class _OutputParameters(_Strict):
    binary_data: bool | None = None


class _WantedOutput(_Strict):
    name: _Name
    parameters: _OutputParameters = _OutputParameters()


class _RequestJson(_Strict):
    id: _Name | None = None
    model_name: str | None = None  # Triton's examples have it; the address counts
    parameters: dict[_Name, Any] = {}
    inputs: Annotated[list[_GivenInput], Field(max_length=_MOST_TENSORS)]
    outputs: Annotated[list[_WantedOutput], Field(max_length=_MOST_TENSORS)] | None = None


def parse_request(body: bytes, header_length: str | None, *, max_images: int) -> InferenceRequest:
    """An inference request from its body.

    header_length: the header Inference-Header-Content-Length: bytes of the JSON, where binary data follow it
    max_images: more are refused
    Raises TensorsInvalid.
    """
    end = len(body) if header_length is None else _header_end(header_length, len(body))
    request = _parsed(body[:end], max_images)
    [given] = _chosen(request.inputs)
    count = _count(given, max_images)
    size = given.parameters.binary_data_size
    if size is None:
        if end < len(body):
            raise TensorsInvalid(
                f"{len(body) - end:,} bytes follow the JSON, but no input says binary_data_size in its "
                "parameters"
            )
        images = _from_json(given, count)
    else:
        if header_length is None:
            raise TensorsInvalid(
                "an input says binary_data_size, but the request has no header "
                "Inference-Header-Content-Length, which gives the bytes of the JSON before the binary data"
            )
        if given.data is not None:
            raise TensorsInvalid(f"the input {INPUT} has both data and binary_data_size; give one")
        if size != len(body) - end:
            raise TensorsInvalid(
                f"binary_data_size of {INPUT} is {size:,}, but {len(body) - end:,} bytes follow the JSON"
            )
        images = _elements(body, end, count)
    parameters = dict(request.parameters)
    for name, value in parameters.items():
        if not isinstance(value, bool | int | float | str):
            raise TensorsInvalid(f"the parameter {shortened(name)} must be a text, a number, true or false")
    binary = parameters.pop("binary_data_output", False)
    if not isinstance(binary, bool):
        raise TensorsInvalid("the parameter binary_data_output must be true or false")
    wanted = _wanted(request.outputs, binary)
    return InferenceRequest(images, tuple(given.shape), request.id, parameters, wanted)


def encode_response(
    model_name: str, version: str, request: InferenceRequest, values: Mapping[str, Sequence[str | float]]
) -> tuple[bytes, int | None]:
    """The body of an answer, and the bytes of its JSON where binary data follow it.

    values: of each of OUTPUTS, one for each image
    """
    tensors: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, binary in request.outputs.items():
        tensor: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": request.shape}
        if binary:
            parts.append(_packed(values[name]))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            tensor["data"] = list(values[name])
        tensors.append(tensor)
    named = {} if request.id is None else {"id": request.id}
    answer = {"model_name": model_name, "model_version": version, **named, "outputs": tensors}
    header = json.dumps(answer, allow_nan=False).encode()
    return b"".join((header, *parts)), len(header) if parts else None


def _header_end(header_length: str, size: int) -> int:
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 20):
        raise TensorsInvalid(
            f"Inference-Header-Content-Length is {shortened(header_length)!r}; it must be the bytes of the "
            "JSON"
        )
    if (end := int(header_length)) > size:
        raise TensorsInvalid(f"Inference-Header-Content-Length is {end:,}, but the body has {size:,} bytes")
    return end


def _parsed(text: bytes, max_images: int) -> _RequestJson:
    # each value follows a comma or the bracket that it is in, so memory is bounded before anything is parsed
    if text.count(b",") + text.count(b"[") + text.count(b"{") > 2 * max_images + _MOST_IN_JSON:
        raise TensorsInvalid(f"the JSON has too many values for {max_images} images; send fewer at once")
    try:
        return _RequestJson.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        hint = file_name_sent(text)
        raise TensorsInvalid(f"the body is not the JSON of an inference request: {first['msg'][14:]}{hint}")
    place = shortened(".".join(map(str, first["loc"])))
    if first["type"] == "extra_forbidden":
        raise TensorsInvalid(f"{place} in the inference request is not known here; leave it out")
    raise TensorsInvalid(f"{place or 'the inference request'}: {first['msg'][0].lower()}{first['msg'][1:]}")


def _chosen(inputs: Sequence[_GivenInput]) -> Sequence[_GivenInput]:
    for given in inputs:
        if given.name != INPUT:
            raise TensorsInvalid(f"there is no input {shortened(given.name)!r}; the only one is {INPUT}")
    if len(inputs) != 1:
        raise TensorsInvalid(f"the request must have the input {INPUT} once; it has it {len(inputs)} times")
    return inputs


def _count(given: _GivenInput, max_images: int) -> int:
    """How many images an input holds."""
    if given.datatype != "BYTES":
        raise TensorsInvalid(
            f"the input {INPUT} is {shortened(given.datatype)}; it must be BYTES, each an encoded image file"
        )
    count, *others = given.shape or [0]
    if not given.shape or count < 1 or others not in ([], [1]):
        shape = shortened(str(given.shape))
        raise TensorsInvalid(
            f"the input {INPUT} has the shape {shape}; it must be [N] or [N, 1], N at least 1"
        )
    if count > max_images:
        raise TensorsInvalid(f"{count:,} images are more than the limit of {max_images}; send fewer at once")
    return count


def _from_json(given: _GivenInput, count: int) -> list[bytes]:
    if given.data is None:
        raise TensorsInvalid(f"the input {INPUT} has neither data nor binary_data_size in its parameters")
    flat = given.data
    if len(given.shape) == 2 and all(isinstance(row, list) and len(row) == 1 for row in flat):
        flat = [row[0] for row in flat]
    if len(flat) != count:
        raise TensorsInvalid(f"data of {INPUT} has {len(flat):,} elements, but its shape says {count:,}")
    return [_decoded(text, at) for at, text in enumerate(flat)]


def _decoded(text: object, at: int) -> bytes:
    reason = "is not text"
    if isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):  # ValueError: not ASCII
            reason = "is not base64"
    raise TensorsInvalid(
        f"element {at} of {INPUT} {reason}; in JSON an image is the base64 of its file, and as binary data "
        "the file itself"
    )


def _elements(body: bytes, start: int, count: int) -> list[bytes]:
    """The elements of a tensor of BYTES that takes the body from `start` on."""
    found: list[bytes] = []
    at = start
    while at < len(body):
        if len(found) == count:
            raise TensorsInvalid(f"the binary data of {INPUT} goes on after its {count:,} elements")
        data_at = at + _LENGTH.size
        if data_at > len(body) or (end := data_at + _LENGTH.unpack_from(body, at)[0]) > len(body):
            raise TensorsInvalid(f"element {len(found)} of {INPUT} goes beyond the end of the binary data")
        found.append(body[data_at:end])
        at = end
    if len(found) < count:
        raise TensorsInvalid(
            f"the binary data of {INPUT} has {len(found):,} elements, but its shape says {count:,}"
        )
    return found


def _wanted(outputs: Sequence[_WantedOutput] | None, binary: bool) -> dict[str, bool]:
    """The outputs that are asked for and whether as binary data; all of them where none is named."""
    if not outputs:
        return dict.fromkeys(OUTPUTS, binary)
    wanted: dict[str, bool] = {}
    for one in outputs:
        if one.name not in OUTPUTS:
            raise TensorsInvalid(
                f"there is no output {shortened(one.name)!r}{did_you_mean(one.name, OUTPUTS)}; "
                f"there are {', '.join(OUTPUTS)}"
            )
        if one.name in wanted:
            raise TensorsInvalid(f"the output {one.name} is asked for twice")
        said = one.parameters.binary_data
        wanted[one.name] = binary if said is None else said
    return wanted


def _packed(values: Sequence[str | float]) -> bytes:
    """A tensor of BYTES or FP64 as binary data."""
    parts: list[bytes] = []
    for value in values:
        if isinstance(value, str):
            data = value.encode(errors="backslashreplace")
            parts += _LENGTH.pack(len(data)), data
        else:
            parts.append(struct.pack("<d", value))
    return b"".join(parts)
