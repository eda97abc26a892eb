"""The application of a worker: its routes, and how they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from crnn_deploy import __version__
from crnn_deploy.errors import first_line
from crnn_deploy.runtime.queue import ReadQueue
from crnn_deploy.serving import open_inference, read
from crnn_deploy.serving.access_log import AccessLog, internal_problem
from crnn_deploy.serving.bodies import Inflow
from crnn_deploy.serving.metrics import Metrics
from crnn_deploy.serving.models import Models, ServedModel
from crnn_deploy.serving.origins import PAGE, SameOrigin
from crnn_deploy.serving.problems import Problem, problem_response
from crnn_deploy.serving.settings import ServerSettings
from crnn_deploy.serving.state import ServerState
from crnn_deploy.serving.tokens import RequireToken, Tokens, is_loopback

__all__ = ["make_app"]

_LOOKS = 1.0  # seconds between two looks at the models' files
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}  # of the page's files
_READS = "images are read by POST /v1/read"
_log = logging.getLogger("crnn_deploy.serving")
_pages = APIRouter(include_in_schema=False)


def make_app(settings: ServerSettings, metrics: Metrics, tokens: Tokens | None = None) -> ASGIApp:
    """The application, with its models loaded.

    tokens: of those who may call; None: everybody may
    Raises what opening a model raises.
    """
    models = Models(settings)
    for model in models:
        metrics.model(model.name, model.digest)
    queue = ReadQueue(
        size=settings.queue, batch=settings.max_batch, max_wait=settings.max_wait, watch=metrics
    )
    state = ServerState(settings, models, queue, Inflow(settings), metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(state))
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await asyncio.to_thread(queue.close)
        metrics.publish()

    app = FastAPI(
        title="crnn-deploy",
        version=__version__,
        description="Text of images, read by a CRNN.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the place to go to would be made of what the client says this host is
    )
    app.state.server = state
    app.include_router(read.router)
    app.include_router(open_inference.router)
    app.include_router(_pages)
    app.add_exception_handler(Problem, _problem)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_problem)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, internal_problem)
    guarded: ASGIApp = _Direct(app)
    if tokens is not None:
        guarded = RequireToken(guarded, tokens)
    elif not settings.open_to_all:
        guarded = SameOrigin(guarded, loopback=is_loopback(settings.host))
    return AccessLog(guarded, metrics)


class _Direct:
    """Takes requests for texts past FastAPI's layers, which cost 0.2 ms where a small network takes 1 ms."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = _direct(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except Problem as problem:
            response = await _problem(request, problem)
        await response(scope, receive, send)


def _direct(scope: Scope) -> Callable[[Request], Awaitable[Response]] | None:
    """The handler of a request for texts."""
    match scope["path"].split("/"):
        case ["", "v1", "read"]:
            scope["route"] = "/v1/read"
            return read.read
        case ["", "v2", "models", name, "infer"]:
            scope["route"] = "/v2/models/{name}/infer"
            return partial(open_inference.infer, name=name)
    return None


async def _problem(request: Request, problem: Problem) -> Response:
    return problem_response(request.scope, problem.status, str(problem), problem.headers, problem.members)


async def _http_problem(request: Request, error: HTTPException) -> Response:
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"there is nothing at this address; {_READS}"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        then = "send an image by POST" if "POST" in allowed else _READS
        detail = f"this address does not answer {request.method[:20]}; {then}"
    return problem_response(request.scope, error.status_code, detail, error.headers)


@_pages.get("/v1/models")
async def list_models(request: Request) -> Response:
    """What is served, for the page."""
    state: ServerState = request.app.state.server
    return read.json_response({"models": [_facts(model) for model in state.models]})


def _facts(model: ServedModel) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "name": model.name,
        "digest": model.digest,
        "alphabet_size": len(manifest.alphabet),
        "height": manifest.height,
        "color": manifest.color,
        "output": manifest.output,
        "decoder": manifest.decoding.decoder,
    }


@_pages.get("/metrics")
async def metrics(request: Request) -> Response:
    state: ServerState = request.app.state.server
    body, content_type = state.metrics.exposition()
    return Response(body, headers={"Content-Type": content_type})


@_pages.api_route("/", methods=["GET", "HEAD"])
async def page() -> Response:
    return _file_of_page("index.html")


@_pages.get("/page/{name}")
async def file_of_page(name: str) -> Response:
    return _file_of_page(name)


def _file_of_page(name: str) -> Response:
    """Raises HTTPException."""
    found = {file.name: file for file in files("crnn_deploy.serving").joinpath("page").iterdir()}
    if name not in found:
        raise HTTPException(404)
    content_type = f"{_TYPES[Path(name).suffix]}; charset=utf-8"
    data = found[name].read_bytes()
    return Response(data, headers={**PAGE, "Content-Type": content_type, "Cache-Control": "no-cache"})


async def _watch(state: ServerState) -> None:
    """Swap models whose files change and publish the metrics, for as long as the server runs."""
    while True:
        state.metrics.publish()
        await asyncio.sleep(_LOOKS)
        for old in state.models.changed():
            await _reload(state, old)


async def _reload(state: ServerState, old: ServedModel) -> None:
    try:
        model = await asyncio.to_thread(state.models.load_anew, old)
    except Exception as error:  # whatever is wrong with the new file, the old model reads on
        _log.error("a changed model is not taken, and the old one reads on: %s", first_line(error))
        state.metrics.reloaded(old.name, False)
        return
    state.models.swap(model)
    state.metrics.model(model.name, model.digest)
    state.metrics.reloaded(model.name, True)
    _log.info("%s: %s took the place of %s", model.path, model.digest[:12], old.digest[:12])
