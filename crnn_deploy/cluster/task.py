"""What an actor needs to read as `infer` does: the model's files and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import read_regular, write
from crnn_deploy.runtime.backends.installed import version_of
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.stores.store import Store, Stores

__all__ = ["ModelFiles", "Task", "VersionDiffers"]

_MOST_BYTES = 2**34  # of a model


class VersionDiffers(CrnnDeployError, RuntimeError):
    """A node on which another version of the toolkit is installed."""

    def __init__(self, here: str, there: str) -> None:
        super().__init__(
            f"it has crnn-deploy {here}, and the command that began the run is {there}; install {there} on "
            "every node"
        )


@dataclass(frozen=True)
class ModelFiles:
    """A model and the files beside it that it is read with, so that a node needs no file of its own."""

    name: str  # of the model's file
    content: Mapping[str, bytes]  # by path relative to the model's folder

    @classmethod
    def of(cls, model: Path) -> ModelFiles:
        """An .onnx file with the weights beside it, or an .engine file with its sidecar.

        Raises ModelUnreadable, OSError.
        """
        if model.suffix == ".engine":
            from crnn_deploy.runtime.backends.engine_file import sidecar_of

            names = {model.name, sidecar_of(model).name}
        else:
            from crnn_deploy.runtime.backends.onnx_file import check_self_contained

            names = {model.name, *check_self_contained(model)}
        return cls(
            model.name, {name: read_regular(model.parent / name, _MOST_BYTES) for name in sorted(names)}
        )

    def put(self, folder: Path) -> Path:
        """Write them into a folder; the model's path. Raises OutputUnwritable."""
        for name, data in self.content.items():
            write(folder / name, data)
        return folder / self.name


@dataclass(frozen=True)
class Task:
    """What every chunk of a run has in common."""

    model: ModelFiles
    digest: str  # SHA-256 of the model
    output: str  # address of the output folder
    stores: Stores  # of the inputs and the output
    run: str  # SHA-256 of the run's settings, which every file of rows carries
    opening: Mapping[str, Any] = field(default_factory=dict)  # what `Recognizer.load` takes beside the path
    show_chars: bool = False
    nbest: bool = False
    batch: int = 8  # most images that run together
    threads: int = 1  # that load, prepare and read
    version: str = field(default_factory=partial(version_of, "crnn-deploy"))

    @property
    def columns(self) -> dict[str, Any]:
        """What `table_of` takes beside the records."""
        rotated = self.opening.get("rotate", "none") != "none"
        return {
            **{"model": self.digest, "version": self.version, "show_chars": self.show_chars},
            **{"nbest": self.nbest, "rotated": rotated},
        }

    def output_store(self) -> Store:
        """The output folder. Raises AddressInvalid, LibraryMissing."""
        store, path = self.stores.open(self.output)
        return store.below(path)

    def open(self, folder: Path) -> Recognizer:
        """The recogniser, whose files are put into `folder`.

        Raises VersionDiffers, and what `Recognizer.load` raises.
        """
        if (here := version_of("crnn-deploy")) != self.version:
            raise VersionDiffers(here, self.version)
        return Recognizer.load(self.model.put(folder), batch=self.batch, **self.opening)
