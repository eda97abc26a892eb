"""The images of all requests that wait, read one width at a time.

Triton's dynamic batcher joins requests in the order of their arrival and ends a batch where the shape changes
(triton-inference-server/core, dynamic_batch_scheduler.cc), so words would run nearly one by one. Here a model
takes one request at a time and answers it later through its response sender, as Triton's Python backend
allows from release 24.06 on; meanwhile a queue joins the images of one width among all that wait.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Condition
from typing import Any

import triton_python_backend_utils as triton

from crnn_deploy.runtime.queue import CallResults, ReadQueue
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.triton.steps.tensors import FINAL, MOST_IMAGES, NAME, error_response, images_of, response_of

__all__ = ["RequestReader"]

_WINDOW = 8  # times a batch: images that wait here; then requests stay with Triton, or go to other instances
_MAX_WAIT = 0.05  # seconds for which an image lets fuller batches of other widths run


class RequestReader:
    """Reads the requests of one instance of a model.

    batch: most images that run together
    """

    def __init__(self, recognizer: Recognizer, batch: int) -> None:
        self._recognizer, self._most = recognizer, _WINDOW * batch
        self._answered = Condition()
        self._queue = ReadQueue(
            size=self._most + MOST_IMAGES, batch=batch, max_wait=_MAX_WAIT, watch=_Unwatched()
        )

    def take(self, request: Any) -> None:
        """A request that is answered later; waits while there is enough to do."""
        send = request.get_response_sender().send
        try:
            images = [(NAME, image) for image in images_of(request)]
        except Exception as error:
            send(error_response(error), flags=FINAL)
            return
        with self._answered:
            self._answered.wait_for(lambda: self._queue.waiting < self._most)
        self._queue.submit(self._recognizer, images, partial(self._answer, send))

    def _answer(self, send: Callable[..., None], reading: CallResults) -> None:
        try:
            send(response_of(reading.results), flags=FINAL)
        except Exception as error:  # whoever asked may be gone
            triton.Logger.log_warn(f"crnn-deploy: a response could not be sent: {error}")
        with self._answered:
            self._answered.notify_all()

    def close(self) -> None:
        """Answers what was taken."""
        self._queue.close()


class _Unwatched:
    """Triton has counters of its own."""

    def queued(self, count: int) -> None:
        pass

    def prepared(self, seconds: float) -> None:
        pass

    def waited(self, seconds: float) -> None:
        pass

    def ran(self, width: int, size: int, seconds: float) -> None:
        pass
