"""One model that does all: it prepares images, runs the network in its own process, and decodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from crnn_deploy.runtime.backends.backend import Device
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.triton.steps.reading import RequestReader
from crnn_deploy.triton.steps.tensors import setting

__all__ = ["ReadStep"]


class ReadStep:
    """As Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: as `TritonNetwork` has them; the model's file lies in the version's folder."""
        file = Path(args["model_repository"]) / args["model_version"] / setting(args, "file")
        batch = int(setting(args, "batch"))
        device = cast(Device, setting(args, "device"))
        self._recognizer = Recognizer.load(file, batch=batch, device=device)
        self._reader = RequestReader(self._recognizer, batch)

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            self._reader.take(request)

    def finalize(self) -> None:
        self._reader.close()
        self._recognizer.close()
