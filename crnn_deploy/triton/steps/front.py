"""One model before the network, which is another model of the server: it prepares, groups and decodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.triton.steps.network import TritonNetwork
from crnn_deploy.triton.steps.reading import RequestReader
from crnn_deploy.triton.steps.tensors import setting

__all__ = ["FrontStep"]


class FrontStep:
    """As Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: as `TritonNetwork` has them."""
        batch = int(setting(args, "batch"))
        self._reader = RequestReader(Recognizer(TritonNetwork(args), batch=batch), batch)

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            self._reader.take(request)

    def finalize(self) -> None:
        self._reader.close()
