"""One model before the network, which is another model of the server: it prepares, groups and decodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.triton.steps.network import TritonNetwork
from crnn_deploy.triton.steps.reading import ReadingThread
from crnn_deploy.triton.steps.tensors import setting

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """As Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: as `TritonNetwork` has them."""
        batch = int(setting(args, "batch"))
        self._thread = ReadingThread(Recognizer(TritonNetwork(args), batch=batch), batch)

    def execute(self, requests: Sequence[Any]) -> None:
        self._thread.execute(requests)

    def finalize(self) -> None:
        self._thread.close()
