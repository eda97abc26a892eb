"""`POST /v1/read`: the text of the images of a request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import QueryParams

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.queue import BoxedImage, CallResults, Image, QueueFull, places
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.records import Jsonl, Record
from crnn_deploy.serving.bodies import IMAGE, BadImage, Given, images_in, regions_of
from crnn_deploy.serving.models import ServedModel
from crnn_deploy.serving.openapi import READ
from crnn_deploy.serving.options import ReadOptions, options_of
from crnn_deploy.serving.problems import Problem, file_name_sent
from crnn_deploy.serving.state import ServerState

__all__ = ["read_images", "router"]

router = APIRouter()


@router.post("/v1/read", summary="Read the text of images", response_class=Response, openapi_extra=READ)
async def read(request: Request) -> Response:
    """Read images, or boxes of images; each gives its text, or an error of its own."""
    begun = time.perf_counter()
    state: ServerState = request.app.state.server
    query: bytes = request.scope["query_string"]
    given = QueryParams(query).multi_items() if query else []
    names = [value for name, value in given if name == "model"]
    if len(names) > 1:
        raise Problem(422, "model stands twice in the address; give it once")
    options = options_of([(name, value) for name, value in given if name != "model"])
    name = names[0] if names else None
    state.models.get(name)  # an unknown one is refused before the body comes
    async with state.inflow.body(request) as body:
        images = images_in(body, request.headers.get("content-type", ""), state.settings.max_images)
        model = state.models.get(name)  # another may have taken its place meanwhile
        records, queued = await read_images(state, model, options, images)
        hint = file_name_sent(body) if images == [(IMAGE, body)] else ""
    request.scope["state"]["log"] = {"model": model.name, "images": len(records)}
    form = Jsonl(
        show_chars=options.chars,
        nbest=options.gives_alternatives(model.manifest),
        rotated=options.rotate != "none",
        boxes=any(regions_of(image) is not None for image in images),
    )
    results = [_plain(form, record) for record in records]
    if all(record.error is not None for record in records):
        raise Problem(422, f"{records[0].error}{hint}", members={"results": results})
    took = time.perf_counter() - begun
    answer = {
        "model": model.name,
        "digest": model.digest,
        "results": results,
        "milliseconds": {"queued": round(queued * 1000, 3), "total": round(took * 1000, 3)},
    }
    return json_response(answer)


def json_response(values: Any) -> Response:
    body = json.dumps(values, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")
    return Response(body, media_type="application/json")


async def read_images(
    state: ServerState, model: ServedModel, options: ReadOptions, images: Sequence[Given]
) -> tuple[list[Record], float]:
    """What becomes of each image or of each of its boxes, and the seconds until the last one was run.

    Raises Problem where the queue has no room, or never will have.
    """
    good: list[Image | BoxedImage] = [image for image in images if not isinstance(image, BadImage)]
    reading = CallResults((), 0.0)
    if places(good):
        with model.in_use():
            recognizer = await model.recognizer(options)
            reading = await _queued(state, recognizer, good)
    results = iter(reading.results)
    records = []
    for image in images:
        name, regions = image[0] if isinstance(image, tuple) else image.name, regions_of(image)
        for box, region in [(None, None)] if regions is None else enumerate(regions):
            result = image if isinstance(image, BadImage) else next(results)
            record = Record.of(
                name,
                result,
                options.min_confidence,
                with_chars=options.chars,
                box=box,
                polygon=None if region is None else region.polygon,
            )
            state.metrics.image(model.name, record.status, record.confidence)
            if isinstance(result, CrnnDeployError):
                state.metrics.error(type(result).__name__)
            records.append(record)
    return records, reading.queued


async def _queued(
    state: ServerState, recognizer: Recognizer, images: Sequence[Image | BoxedImage]
) -> CallResults:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[CallResults] = loop.create_future()

    def settle(reading: CallResults) -> None:
        if not answered.done():  # the client may have gone
            answered.set_result(reading)

    if places(images) > state.queue.size:
        raise Problem(
            413, f"more images than the queue has places ({state.queue.size}); send fewer at a time"
        )
    try:
        state.queue.submit(recognizer, images, lambda reading: loop.call_soon_threadsafe(settle, reading))
    except QueueFull as error:
        state.metrics.error("overload")
        raise Problem(503, str(error), headers={"Retry-After": "1"}) from None
    return await answered


def _plain(form: Jsonl, record: Record) -> dict[str, Any]:
    values = form.values(record)
    return {"name": values.pop("path"), **values}
