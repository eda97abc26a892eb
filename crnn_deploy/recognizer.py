"""Images in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fsdecode
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn_deploy import ctc, image
from crnn_deploy.backends import Backend, Device, open_backend
from crnn_deploy.batching import batches
from crnn_deploy.ctc import Text
from crnn_deploy.errors import CrnnDeployError, ReadFailed
from crnn_deploy.manifest import Manifest
from crnn_deploy.models import DEFAULT

__all__ = ["Recognizer"]


class Recognizer:
    """A model and all that stands around it: reading, preparing, batching by width, decoding.

    The text and confidence of an image do not depend, in a single bit, on what else is read with it.

    backend: the network; by default the package's own model, which reads printed Latin text
    batch: most images that run together

    >>> [text] = Recognizer().read(["word.png"])
    >>> [text] = Recognizer.load("model.onnx").read(["word.png"])
    """

    def __init__(self, backend: Backend | None = None, *, batch: int = 8) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; at least one image must run at a time")
        self._backend = open_backend(DEFAULT) if backend is None else backend
        self._batch = batch

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, batch: int = 8, threads: int = 1, device: Device = "cpu"
    ) -> Recognizer:
        """A recogniser from a model file.

        batch: most images that run together
        threads: threads inside one run
        device: where an ONNX file runs; cuda is ONNX Runtime's CUDA provider
        Raises ModelNotFound, ModelUnreadable, ManifestMissing, ManifestInvalid, BackendMissing.
        """
        return cls(open_backend(Path(path), threads=threads, device=device), batch=batch)

    @property
    def manifest(self) -> Manifest:
        return self._backend.manifest

    def read(self, images: Iterable[image.Source]) -> list[Text]:
        """Text of each image, in order: paths, encoded bytes, uint8 arrays (grey or BGR) or PIL images.

        Raises ImageNotFound, ImageUnreadable or ReadFailed for the first image that cannot be read, RunFailed
        where the model cannot run.
        """
        results = self.try_read(list(images))
        for result in results:
            if isinstance(result, CrnnDeployError):
                raise result
        return [result for result in results if isinstance(result, Text)]

    def try_read(self, images: Sequence[image.Source]) -> list[Text | CrnnDeployError]:
        """As `read`, but an image that cannot be read gives its error and the others are read.

        Raises RunFailed.
        """
        results: dict[int, Text | CrnnDeployError] = {}
        scales: dict[int, tuple[float, int]] = {}
        for batch in batches(self._prepared(images, results, scales), self._batch):
            frames = self._backend.run(batch.images)
            texts = ctc.decode(
                frames,
                self.manifest.alphabet,
                self.manifest.blank,
                [(scales[i][0] / frames.indices.shape[1], scales[i][1]) for i in batch.indices],
            )
            for i, text, probabilities in zip(batch.indices, texts, frames.probabilities, strict=True):
                results[i] = text
                if not np.isfinite(probabilities).all():
                    results[i] = ReadFailed(_name(images[i]), "the network puts out NaN for it")
        return [results[i] for i in range(len(images))]

    def _prepared(
        self,
        images: Sequence[image.Source],
        errors: dict[int, Text | CrnnDeployError],
        scales: dict[int, tuple[float, int]],
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for index, source in enumerate(images):
            try:
                pixels = image.read(source)
                prepared = image.prepare(pixels, self.manifest)
            except CrnnDeployError as error:
                errors[index] = error
                continue
            width = pixels.shape[1]
            # the network's whole input spans this many of the image's own pixels
            scales[index] = (
                prepared.shape[2] * width / image.content_width(pixels.shape, self.manifest),
                width,
            )
            yield index, prepared

    def close(self) -> None:
        self._backend.close()


def _name(source: image.Source) -> str:
    return fsdecode(source) if isinstance(source, str | PathLike) else f"<{type(source).__name__}>"
