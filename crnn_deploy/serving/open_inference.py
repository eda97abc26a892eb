"""The Open Inference Protocol (KServe v2), so that clients of Triton and KServe read here unchanged.

A model has one input `image` (BYTES, encoded image files) and the outputs of `tensors.OUTPUTS`, one element
for each image. Options of `POST /v1/read` stand in the request's `parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from crnn_deploy import __version__
from crnn_deploy.errors import did_you_mean, shortened
from crnn_deploy.serving.models import ServedModel
from crnn_deploy.serving.options import ReadOptions, options_of
from crnn_deploy.serving.problems import OPEN_INFERENCE, Problem
from crnn_deploy.serving.read import json_response, read_images
from crnn_deploy.serving.state import ServerState
from crnn_deploy.serving.tensors import INPUT, OUTPUTS, TensorsInvalid, encode_response, parse_request

__all__ = ["router"]

_VERSION = "1"  # of every model
_HEADER_LENGTH = "Inference-Header-Content-Length"
_SHOWN_ELSEWHERE = ("chars", "nbest", "min_confidence")  # options for which there is no output
_OPTIONS = [name for name in ReadOptions.model_fields if name not in _SHOWN_ELSEWHERE]

router = APIRouter(prefix=OPEN_INFERENCE, include_in_schema=False)


@router.get("")
async def server_metadata() -> Response:
    extensions = ["binary_tensor_data", "parameters"]
    return json_response({"name": "crnn-deploy", "version": __version__, "extensions": extensions})


@router.api_route("/health/live", methods=["GET", "HEAD"])  # some load balancers ask by HEAD
async def live() -> Response:
    return json_response({"live": True})


@router.api_route("/health/ready", methods=["GET", "HEAD"])
async def ready() -> Response:
    return json_response({"ready": True})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model_metadata(request: Request, name: str, version: str = _VERSION) -> Response:
    model = _model(request, name, version)
    answer = {
        "name": model.name,
        "versions": [_VERSION],
        "platform": "onnx_onnxv1" if model.path.suffix == ".onnx" else "tensorrt_plan",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": one, "datatype": kind, "shape": [-1]} for one, kind in OUTPUTS.items()],
    }
    return json_response(answer)


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str = _VERSION) -> Response:
    model = _model(request, name, version)
    return json_response({"name": model.name, "ready": True})


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str = _VERSION) -> Response:
    state = _state(request)
    _model(request, name, version)  # an unknown one is refused before the body comes
    async with state.inflow.body(request) as body:
        try:
            given = parse_request(
                body, request.headers.get(_HEADER_LENGTH), max_images=state.settings.max_images
            )
        except TensorsInvalid as error:
            raise Problem(400, str(error)) from None
        options = _options(given.parameters)
        images = [(f"image {at}", data) for at, data in enumerate(given.images, 1)]
        model = state.models.get(name)  # another may have taken its place meanwhile
        records, _ = await read_images(state, model, options, images)
    request.scope["state"]["log"] = {"model": model.name, "images": len(records)}
    values: dict[str, Sequence[str | float]] = {
        "text": [record.text for record in records],
        "confidence": [record.confidence or 0.0 for record in records],
        "error": [record.error or "" for record in records],
    }
    answer, header_length = encode_response(model.name, _VERSION, given, values)
    if header_length is None:
        return Response(answer, media_type="application/json")
    return Response(
        answer, headers={_HEADER_LENGTH: str(header_length)}, media_type="application/octet-stream"
    )


def _state(request: Request) -> ServerState:
    state: ServerState = request.app.state.server
    return state


def _model(request: Request, name: str, version: str) -> ServedModel:
    """Raises Problem."""
    model = _state(request).models.get(name)
    if version != _VERSION:
        raise Problem(404, f"{model.name} has no version {shortened(version)!r}, but {_VERSION} alone")
    return model


def _options(parameters: Mapping[str, Any]) -> ReadOptions:
    """Options from a request's parameters, in which hotwords are a text with one on each line.

    Raises Problem.
    """
    for name in parameters:
        if name in _SHOWN_ELSEWHERE:
            raise Problem(400, f"{name} has no output in this protocol; use POST /v1/read for it")
        if name not in _OPTIONS:
            hint = did_you_mean(name, _OPTIONS)
            raise Problem(
                400, f"there is no parameter {shortened(name)!r}{hint}; there are {', '.join(_OPTIONS)}"
            )
    values = dict(parameters)
    if isinstance(words := values.get("hotwords"), str):
        values["hotwords"] = words.splitlines()
    return options_of(values)
