"""The models of a server: loaded by name, and loaded anew beside the old one when their file changes."""

from __future__ import annotations

import asyncio
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crnn_deploy.errors import CrnnDeployError, ModelNotFound, ModelUnreadable, did_you_mean, shortened
from crnn_deploy.files import sha256
from crnn_deploy.models import shipped
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.opening import Opening
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.serving.options import ReadOptions
from crnn_deploy.serving.problems import Problem
from crnn_deploy.serving.settings import ServerSettings

__all__ = ["ModelWatch", "Models", "NameTwice", "ServedModel", "check_models", "served_name"]

_MOST_RECOGNIZERS = 16  # of a model, one for each set of options that was asked for lately; some take 10 MB

_BLANK = np.full((32, 100), 255, np.uint8)  # an image

Signature = tuple[int, int, int]


class NameTwice(CrnnDeployError, ValueError):
    """Two models that would be served under one name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"two models would be served as {name}; a file is served under its name without the ending, so "
            "give each once, and rename a file where two have one name"
        )


def check_models(models: Iterable[Opening]) -> None:
    """Raises NameTwice, ModelNotFound and ModelUnreadable for what tells itself before a model is opened."""
    names = set()
    for opening in models:
        signature_of(opening.path)
        _digest(opening.path)
        if (name := served_name(opening.path)) in names:
            raise NameTwice(name)
        names.add(name)


class ModelWatch(Protocol):
    """Who is told of a model's files."""

    def model(self, name: str, digest: str) -> None:
        """A model is served from now on."""

    def reloaded(self, name: str, ok: bool) -> None:
        """A file that changed was loaded, or could not be."""


class ServedModel:
    """A model file that is open, and its recognisers by options.

    Raises ModelUnreadable for a file that changes while it is loaded, and what `Opening.open` raises.
    """

    def __init__(self, name: str, opening: Opening, settings: ServerSettings) -> None:
        self.name, self.opening, self.path = name, opening, opening.path
        self._settings = settings
        self.signature = signature_of(self.path)
        self.digest = _digest(self.path)
        self._backend: Backend = opening.open()
        if _digest(self.path) != self.digest:
            self._backend.close()
            raise ModelUnreadable(self.path, "it changed while it was loaded")
        self.manifest = self._backend.manifest
        self._recognizers: OrderedDict[tuple[Any, ...], Recognizer] = OrderedDict()
        self._users, self._retired = 0, False

    async def recognizer(self, options: ReadOptions) -> Recognizer:
        """The recogniser for these options. Raises Problem where the model cannot do what they ask."""
        key = options.key
        if (found := self._recognizers.get(key)) is None:
            found = await asyncio.to_thread(self._made, options)  # a decoder may take a while to be made
            self._recognizers[key] = found
            if len(self._recognizers) > _MOST_RECOGNIZERS:
                self._recognizers.popitem(last=False)
        else:
            self._recognizers.move_to_end(key)
        return found

    def _made(self, options: ReadOptions) -> Recognizer:
        try:
            rule = options.rule(self.manifest)
            made = Recognizer(
                self._backend,
                batch=self._settings.max_batch,
                decoder=None if rule == self.manifest.decoding else decoder_of(rule),
                max_pixels=self._settings.max_pixels,
                rotate=options.rotate,
            )
        except Problem:
            raise
        except CrnnDeployError as error:
            raise Problem(422, str(error)) from error
        if rule.decoder != "greedy":
            made.try_read(_BLANK)  # numba compiles when it runs first, which the queue need not wait for
        return made

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block the model stays open, whatever becomes of its file."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._close_unused()

    def retire(self) -> None:
        """Close it when nobody uses it."""
        self._retired = True
        self._close_unused()

    def _close_unused(self) -> None:
        if self._retired and not self._users:
            self._backend.close()


@dataclass
class _LastLook:
    """A model's file as it was looked at last."""

    signature: Signature
    tried: Signature | None = None  # that of a file which could not be loaded


class Models:
    """The models of a server by name; used in one thread. Raises what ServedModel raises."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._models: dict[str, ServedModel] = {}
        for opening in settings.models:
            name = served_name(opening.path)
            self._models[name] = ServedModel(name, opening, settings)
        self._seen = {name: _LastLook(model.signature) for name, model in self._models.items()}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, name: str | None) -> ServedModel:
        """A model by name; without one, the first. Raises Problem."""
        if name is None:
            return next(iter(self._models.values()))
        if (found := self._models.get(name)) is None:
            served = shortened(", ".join(self._models), 300)
            hint = did_you_mean(name, self._models)
            raise Problem(404, f"no model is called {shortened(name)!r}{hint}; served are {served}")
        return found

    def changed(self) -> list[ServedModel]:
        """The models whose files have changed since they were loaded.

        A file counts when two looks in a row find it the same, so none is loaded half written.
        """
        found = []
        for name, model in self._models.items():
            seen = self._seen[name]
            try:
                now = signature_of(model.path)
            except CrnnDeployError:
                continue  # gone: the old one is served on
            at_rest, seen.signature = now == seen.signature, now
            if at_rest and now not in (model.signature, seen.tried):
                seen.tried = now
                found.append(model)
        return found

    def load_anew(self, model: ServedModel) -> ServedModel:
        """The model in the same file as it is now, beside the old one. Raises what ServedModel raises."""
        return ServedModel(model.name, model.opening, self._settings)

    def swap(self, model: ServedModel) -> None:
        """Serve a model in the place of that of its name, which is closed when it is unused."""
        old, self._models[model.name] = self._models[model.name], model
        old.retire()


def served_name(path: Path) -> str:
    """The name under which a file is served: that of a shipped model, or the file's without its ending."""
    stem = os.fsencode(path.stem).decode(errors="replace")  # JSON and metrics are UTF-8
    return next((name for name, file in shipped().items() if file == path), stem)


def signature_of(path: Path) -> Signature:
    """What tells that a file has changed, without reading it. Raises ModelNotFound."""
    try:
        status = os.stat(path)
    except OSError:
        raise ModelNotFound(path) from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelNotFound(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _digest(path: Path) -> str:
    """SHA-256 of the file. Raises ModelUnreadable."""
    try:
        return sha256(path)
    except OSError as error:
        raise ModelUnreadable(path, f"cannot be read: {error.strerror or error}") from error
