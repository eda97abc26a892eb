"""This toolkit's recogniser behind LitServe, in the environment that `benchmarks.serving.peers` makes.

Images come as JSON with base64, as in LitServe's own examples. `Recognizer` gives the texts. It groups by
width what LitServe hands to it, so nothing is padded.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import litserve

from crnn_deploy.runtime.recognizer import Recognizer

__all__ = ["run"]


class One(litserve.LitAPI):  # type: ignore[misc]
    """A call of the recogniser for each request."""

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._model = model

    def setup(self, device: str) -> None:
        self._recognizer = Recognizer.load(self._model)

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def predict(self, image: bytes) -> tuple[str, float]:
        text = self._recognizer.read(image)
        return text.text, text.confidence

    def encode_response(self, output: tuple[str, float]) -> dict[str, object]:
        return {"text": output[0], "confidence": output[1]}


class Many(One):
    """A call of the recogniser for all requests that LitServe has collected."""

    def batch(self, inputs: Sequence[bytes]) -> Sequence[bytes]:
        return inputs

    def predict(self, images: Sequence[bytes]) -> list[tuple[str, float]]:  # type: ignore[override]
        return [(text.text, text.confidence) for text in self._recognizer.read(images)]

    def unbatch(self, output: list[tuple[str, float]]) -> list[tuple[str, float]]:
        return output


def run(model: str, port: int, together: int) -> None:
    """Serve until stopped.

    together: most requests that LitServe collects for a call
    """
    api = Many(model, max_batch_size=together, batch_timeout=0.005) if together > 1 else One(model)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=together > 1)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
