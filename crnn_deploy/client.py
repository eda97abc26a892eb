"""A recogniser behind the port of `crnn-deploy serve`, used as a `Recognizer` is.

>>> from crnn_deploy.client import Client
>>> text = Client("http://127.0.0.1:8000").read("word.png")
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain, count
from threading import Event, Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypedDict, Unpack, cast, overload

from crnn_deploy.errors import (
    CrnnDeployError,
    LibraryMissing,
    ReadFailed,
    did_you_mean,
    first_line,
    shortened,
)
from crnn_deploy.files import parse_json
from crnn_deploy.regions.region import Region
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.images.given import Source, is_one
from crnn_deploy.sent import (
    NAME,
    Sent,
    SentBox,
    SentImage,
    SentPage,
    batches,
    boxes_at_once,
    in_json,
    result_of,
    sent_image,
)

if TYPE_CHECKING:
    import httpx

    from crnn_deploy.runtime.images.crop import RegionGiven

__all__ = [
    "AddressInvalid",
    "AnswerInvalid",
    "Client",
    "ImageRefused",
    "ReadSettings",
    "ServerBusy",
    "ServerRefused",
    "ServerTooSlow",
    "ServerUnreachable",
]

_IN_FLIGHT = 4  # requests
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds, before jitter
_BUSY = (502, 503, 504)  # what a server or a proxy before it answers when it has no time
_LEAST = Region(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))  # the smallest box that a request can have
_IDLE = 2.0  # seconds that an unused connection is kept; the server ends it after 30


class AddressInvalid(CrnnDeployError, ValueError):
    """What is no address of a server."""


class ServerUnreachable(CrnnDeployError, ConnectionError):
    """No connection to the server, or one that broke off."""


class ServerTooSlow(CrnnDeployError, TimeoutError):
    """A server that does not answer in time."""


class ServerRefused(CrnnDeployError, RuntimeError):
    """A request that the server does not take; its message says why.

    status: of HTTP
    request_id: under which the server's log has it
    """

    def __init__(self, address: str, status: int, detail: str, request_id: str | None) -> None:
        super().__init__(f"{address} answers {status}: {detail}")
        self._given = address, status, detail, request_id
        self.status, self.request_id = status, request_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given


class ServerBusy(ServerRefused):
    """A server that had no room for the request, however often it was asked."""


class AnswerInvalid(CrnnDeployError, ValueError):
    """An answer that is not one of `crnn-deploy serve`."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address} does not answer as crnn-deploy serve does ({reason}); check the address")
        self._given = address, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given


class ImageRefused(ReadFailed):
    """An image, or a page with one box, that is larger than the server takes."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self).removesuffix(f": {self.reason}"), self.reason)


class ReadSettings(TypedDict, total=False):
    """How a server reads the images of a client; what is absent is as the model's manifest says.

    `crnn-deploy infer --help` says what each of them means.
    """

    decoder: Literal["greedy", "beam"]
    nbest: int
    beam_width: int
    allow: str
    block: str
    mask: str
    pattern: str
    min_length: int
    max_length: int
    hotwords: Sequence[str]
    boost: float
    chars: bool  # whether texts have their characters; without it `Text.chars` is empty
    rotate: Literal["none", "90", "auto", "180"]


class _Answer(NamedTuple):
    """What a server answers."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_Result = Text | CrnnDeployError


class Client:
    """Reads images by a server; texts and confidences are bitwise those that a Recognizer gives here.

    One exception, where the model's grey is the decoder's own: a colour array or Pillow image of more than
    16,383 pixels a side, or of which boxes are read.

    url: of the server, such as http://127.0.0.1:8000
    token: one of the server's --token-file
    model: the name under which the server has it; by default its first one
    timeout: seconds in which a request must be answered, attempts that failed included
    retries: attempts after the first, where the server is busy (it says for how long) or cannot be reached
    settings: how images are read

    Many images go in several requests, a few of them at a time. Threads share a client; pickled, it is its
    address and settings, and the other process makes connections of its own.
    Raises AddressInvalid, LibraryMissing.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        model: str | None = None,
        timeout: float = 60.0,
        retries: int = 8,
        **settings: Unpack[ReadSettings],
    ) -> None:
        if unknown := settings.keys() - ReadSettings.__annotations__.keys():
            known = ", ".join(ReadSettings.__annotations__)
            hint = did_you_mean(name := min(unknown), ReadSettings.__annotations__)
            raise TypeError(f"there is no setting {name!r}{hint}; there are {known}")
        if not timeout > 0 or retries < 0:
            raise ValueError(
                f"timeout is {timeout} and retries {retries}; they must be above 0 and at least 0"
            )
        self._address = _checked(url)
        self._given = {"token": token, "model": model, "timeout": timeout, "retries": retries, **settings}
        self._headers = {} if token is None else {"Authorization": f"Bearer {_checked_token(token)}"}
        self._parameters = tuple(_query({"model": model, **settings}))
        self._timeout, self._retries = timeout, retries
        self._http: httpx.Client | None = None
        self._process = 0  # whose connections these are
        self._lock = Lock()

    def __reduce__(self) -> tuple[Callable[..., Client], tuple[str, dict[str, Any]]]:
        return _made, (self._address, self._given)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End its connections; reading makes new ones."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None and self._process == os.getpid():
            http.close()

    @overload
    def read(self, images: Source) -> Text: ...  # type: ignore[overload-overlap]  # a text has texts in it
    @overload
    def read(self, images: Iterable[Source]) -> list[Text]: ...
    def read(self, images: Source | Iterable[Source]) -> Text | list[Text]:
        """Text of an image, or of each of several, in their order, as of `Recognizer.read`.

        Files are sent as they are. What is given as pixels is sent without loss.
        Raises ImageNotFound, ImageUnreadable or ReadFailed for the first image that cannot be read, and for
        what is neither one image nor several; ServerUnreachable, ServerTooSlow, ServerBusy, ServerRefused,
        AnswerInvalid.
        """
        if is_one(images):
            return _text(self.try_read(cast(Source, images)))
        return [_text(result) for result in self.try_read(cast(Iterable[Source], images))]

    @overload
    def try_read(self, images: Source) -> Text | CrnnDeployError: ...  # type: ignore[overload-overlap]
    @overload
    def try_read(self, images: Iterable[Source]) -> list[Text | CrnnDeployError]: ...
    def try_read(self, images: Source | Iterable[Source]) -> _Result | list[_Result]:
        """As `read`, but an image that cannot be read gives its error and the others are read.

        Raises ServerUnreachable, ServerTooSlow, ServerBusy, ServerRefused, AnswerInvalid.
        """
        if is_one(images):
            [result] = self._read([sent_image(cast(Source, images))], Event())
            return result
        return self._read_all(batches(map(sent_image, cast(Iterable[Source], images))))

    def read_regions(self, page: Source, regions: Iterable[RegionGiven]) -> list[Text]:
        """Text of each of a page's boxes, in their order, as of `Recognizer.read_regions`.

        The page goes along with each 128 boxes. A server takes no box of more than 1,000 points.
        Raises ImageNotFound, ImageUnreadable, and RegionUnreadable or ReadFailed for the first that cannot
        be read; ServerUnreachable, ServerTooSlow, ServerBusy, ServerRefused, AnswerInvalid.
        """
        return [_text(result) for result in self.try_read_regions(page, regions)]

    def try_read_regions(self, page: Source, regions: Iterable[RegionGiven]) -> list[_Result]:
        """As `read_regions`, but a box that cannot be read gives its error and the others are read.

        Raises ImageNotFound, ImageUnreadable, ServerUnreachable, ServerTooSlow, ServerBusy, ServerRefused,
        AnswerInvalid.
        """
        from crnn_deploy.runtime.images.crop import region_of

        image = sent_image(page)
        if isinstance(image, CrnnDeployError):
            raise image
        sent = SentPage(image)
        boxes = [SentBox(sent, number, region_of(region)) for number, region in enumerate(regions)]
        if not boxes:
            _ = sent.pixels  # a page that is none raises its error all the same
        # those of a request are alike in what their points promise
        boxes.sort(key=lambda box: box.region.ordered)
        parts = chain.from_iterable(
            boxes_at_once([box for box in boxes if box.region.ordered == ordered])
            for ordered in (False, True)
        )
        results = self._read_all(parts)
        numbered = {box.number: result for box, result in zip(boxes, results, strict=True)}
        return [numbered[number] for number in range(len(boxes))]

    def _read_all(self, parts: Iterable[Sequence[Sent | CrnnDeployError]]) -> list[_Result]:
        """Results of any number of requests, of which a few are in memory."""
        results: list[_Result] = []
        stopped = Event()
        sent: deque[Future[list[_Result]]] = deque()
        try:
            for some in parts:
                if len(sent) == _IN_FLIGHT:
                    results += sent.popleft().result()
                sent.append(_in_thread(partial(self._read, some, stopped)))
            while sent:
                results += sent.popleft().result()
        finally:
            stopped.set()
        return results

    def _read(self, images: Sequence[Sent | CrnnDeployError], stopped: Event) -> list[_Result]:
        """Results of the images of a request; an error in the place of one stands as it is."""
        good = [image for image in images if not isinstance(image, CrnnDeployError)]
        found = iter(self._ask(good, stopped) if good else ())
        return [image if isinstance(image, CrnnDeployError) else next(found) for image in images]

    def _ask(self, images: Sequence[Sent], stopped: Event) -> list[_Result]:
        response = self._answer(images, stopped)
        try:
            answer, reason = parse_json(response.body), f"status {response.status}"
        except ValueError as error:
            answer, reason = None, first_line(error)
        results = answer.get("results") if isinstance(answer, dict) else None
        if response.status in (200, 422) and isinstance(results, list):
            try:
                return [result_of(image, plain) for image, plain in zip(images, results, strict=True)]
            except CrnnDeployError:  # of the page, none of whose boxes can be read
                raise
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise AnswerInvalid(self._address, f"{type(error).__name__} in its results") from error
        detail = answer.get("detail") if isinstance(answer, dict) else None
        if response.status < 400 or not isinstance(detail, str):
            raise AnswerInvalid(self._address, reason)
        if response.status == 413 and len(images) > 1 and isinstance(images[0], SentBox):
            [alone] = self._ask([replace(images[0], region=_LEAST)], stopped)
            if isinstance(alone, ImageRefused):  # the page is too large, whatever its boxes
                return [ImageRefused(image.name, alone.reason) for image in images]
        if response.status == 413 and len(images) > 1:
            half = len(images) // 2
            return self._ask(images[:half], stopped) + self._ask(images[half:], stopped)
        if response.status == 413:
            return [ImageRefused(images[0].name, detail)]
        raise self._refused(ServerRefused, response, detail)

    def _answer(self, images: Sequence[Sent], stopped: Event) -> _Answer:
        """What the server answers once it is neither busy nor out of reach.

        Raises ServerUnreachable, ServerTooSlow, ServerBusy, AnswerInvalid.
        """
        import httpx

        failure: CrnnDeployError
        until = time.monotonic() + self._timeout
        for attempt in count():
            asked = 0.0  # seconds for which the server wants to be left alone
            try:
                response = self._post(images, until)
            except (httpx.TimeoutException, TimeoutError):
                raise ServerTooSlow(f"{self._address} does not answer within {self._timeout:g} s") from None
            except httpx.TransportError as error:
                then = "; start one with crnn-deploy serve" if _is_refused(error) else ""
                failure = ServerUnreachable(f"{self._address} cannot be reached: {first_line(error)}{then}")
            except httpx.RequestError as error:
                raise AnswerInvalid(self._address, first_line(error)) from None
            else:
                if response.status not in _BUSY:
                    return response
                failure = self._refused(ServerBusy, response, _detail(response))
                asked = _retry_after(response.headers.get("Retry-After", ""))
            pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)
            pause = max(pause, asked * random.uniform(1, 1.5))
            if attempt == self._retries or time.monotonic() + pause > until or stopped.wait(pause):
                raise failure
        raise AssertionError

    def _post(self, images: Sequence[Sent], until: float) -> _Answer:
        """Raises TimeoutError and what httpx raises."""
        url = f"{self._address}/v1/read"
        kind = "application/octet-stream"
        body: dict[str, Any]
        whole = [image for image in images if isinstance(image, SentImage)]
        boxes = [image for image in images if isinstance(image, SentBox)]
        if boxes:
            plain = {"Content-Type": "application/json"}
            body = {"content": in_json(boxes), "headers": {**self._headers, **plain}}
        elif len(whole) == 1:
            body = {"content": whole[0].data, "headers": {**self._headers, "Content-Type": kind}}
        else:
            parts = [("image", (NAME, image.data, kind)) for image in whole]
            body = {"files": parts, "headers": self._headers}
        timeout = max(
            until - time.monotonic(), 0.001
        )  # of each wait for the network, of which there are many
        with self._connections().stream(
            "POST", url, params=self._parameters, timeout=timeout, **body
        ) as response:
            chunks = []
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                if time.monotonic() > until:
                    raise TimeoutError
        return _Answer(response.status_code, response.headers, b"".join(chunks))

    def _connections(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._http is None or self._process != os.getpid():  # a fork's connections are its parent's
                limits = httpx.Limits(max_connections=None, keepalive_expiry=_IDLE)
                self._http, self._process = httpx.Client(limits=limits), os.getpid()
            return self._http

    def _refused(self, kind: type[ServerRefused], response: _Answer, detail: str) -> ServerRefused:
        return kind(self._address, response.status, detail, response.headers.get("X-Request-ID"))


def _in_thread(work: Callable[[], list[_Result]]) -> Future[list[_Result]]:
    """What `work` gives, in a thread for which the process does not wait when it ends (as on Ctrl-C)."""
    future: Future[list[_Result]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _made(url: str, given: dict[str, Any]) -> Client:
    return Client(url, **given)


def _checked(url: str) -> str:
    """The address of a server, without a slash at its end. Raises AddressInvalid, LibraryMissing."""
    try:
        import httpx
    except ImportError as error:
        raise LibraryMissing("crnn_deploy.client", "httpx", "client") from error
    shown = shortened(repr(url), 200)
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise AddressInvalid(f"{shown} is no address: {first_line(error)}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
        raise AddressInvalid(f"{shown} is no address of a server; give one such as http://127.0.0.1:8000")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise AddressInvalid(
            "the address of a server has no user, query or fragment; pass token, model and settings by name"
        )
    return str(parsed).rstrip("/")


def _checked_token(token: str) -> str:
    if not token or not all("!" <= sign <= "~" for sign in token):
        raise ValueError(
            "the token is empty or has characters that no header takes; pass one line of the file"
        )
    return token


def _query(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if name == "hotwords":
            yield from ((name, word) for word in value)
        elif isinstance(value, bool):
            yield name, "true" if value else "false"
        elif value is not None:
            yield name, str(value)


def _detail(response: _Answer) -> str:
    """What a busy server or a proxy before it says."""
    try:
        answer = parse_json(response.body)
    except ValueError:
        answer = None
    detail = answer.get("detail") if isinstance(answer, dict) else None
    return detail if isinstance(detail, str) else "it is busy or starts"


def _is_refused(error: BaseException | None) -> bool:
    """Whether nothing listens at the address; httpx tells it in the error that caused its own."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def _retry_after(value: str) -> float:
    """Seconds that a header Retry-After asks for: a number of them, or a date (RFC 9110, 10.2.3)."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _text(result: _Result) -> Text:
    if isinstance(result, CrnnDeployError):
        raise result
    return result
