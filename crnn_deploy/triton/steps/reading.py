"""A thread that reads the images of all requests that wait, one width at a time.

Triton's dynamic batcher joins requests in the order of their arrival and ends a batch where the shape changes
(triton-inference-server/core, dynamic_batch_scheduler.cc), so words would run nearly one by one. Here a model
takes one request at a time and answers it later through its response sender, as Triton's Python backend
allows from release 24.06 on; meanwhile the thread finds the images of one width among all that wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from typing import Any, NamedTuple

import triton_python_backend_utils as triton

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.recognizer import Prepared, Recognizer
from crnn_deploy.triton.steps.tensors import FINAL, error_response, failure, images_of, response_of

__all__ = ["ReadingThread"]

_WINDOW = 8  # times a batch: so many images wait; then the server keeps requests, or gives them to others

Result = Text | CrnnDeployError


class _Request:
    """A request and the results that it has so far."""

    def __init__(self, images: Sequence[bytes], send: Callable[..., None]) -> None:
        self.images, self._send = images, send
        self._results: dict[int, Result] = {}

    def take(self, place: int, result: Result) -> None:
        """The result of one image; the last one is answered with all others."""
        self._results[place] = result
        if len(self._results) == len(self.images):
            self._send(response_of([self._results[at] for at in range(len(self.images))]), flags=FINAL)


class _Item(NamedTuple):
    """An image of a request."""

    request: _Request
    place: int
    prepared: Prepared


class ReadingThread:
    """Takes requests and answers each when its images are read.

    batch: most images that run together
    """

    def __init__(self, recognizer: Recognizer, batch: int) -> None:
        self._recognizer, self._batch = recognizer, batch
        self._changed = Condition()
        self._arrived: deque[_Request] = deque()
        self._images = 0  # of all requests that are not answered
        self._closed = False
        self._thread = Thread(target=self._work, name="reading", daemon=True)
        self._thread.start()

    def put(self, images: Sequence[bytes], send: Callable[..., None]) -> None:
        """A request to be answered later; waits while there is enough to do.

        send: its response sender's
        """
        with self._changed:
            self._changed.wait_for(lambda: self._images < _WINDOW * self._batch)
            self._images += len(images)
            self._arrived.append(_Request(images, send))
            self._changed.notify_all()

    def execute(self, requests: Sequence[Any]) -> None:
        """What a model's `execute` does with its requests."""
        for request in requests:
            send = request.get_response_sender().send
            try:
                self.put(images_of(request), send)
            except Exception as error:
                send(error_response(error), flags=FINAL)

    def close(self) -> None:
        """Waits until all is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        groups: Groups[_Item] = Groups(self._batch)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._arrived or groups or self._closed)
                requests = list(self._arrived)
                self._arrived.clear()
            if not requests and not groups:
                return
            for request in requests:
                for place, image in enumerate(request.images):
                    try:
                        prepared = self._recognizer.prepare(image)
                    except Exception as error:
                        self._answer(request, place, failure(error))
                        continue
                    if batch := groups.add(prepared.columns, _Item(request, place, prepared)):
                        self._read(batch)
            if groups:  # so that none waits for others of its width while new ones come
                self._read(groups.pop_oldest())

    def _read(self, batch: Sequence[_Item]) -> None:
        try:
            results = self._recognizer.read_batch([item.prepared for item in batch])
        except Exception as error:
            if len(batch) == 1:
                results = [failure(error)]
            else:
                for item in batch:  # the others are not to blame
                    self._read([item])
                return
        for item, result in zip(batch, results, strict=True):
            self._answer(item.request, item.place, result)

    def _answer(self, request: _Request, place: int, result: Result) -> None:
        try:
            request.take(place, result)
        except Exception as error:  # the client may be gone
            triton.Logger.log_warn(f"crnn-deploy: a response could not be sent: {error}")
        with self._changed:
            self._images -= 1
            self._changed.notify_all()
