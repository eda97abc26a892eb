"""Keys in, results out in the same order: a key without a result holds back the results behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Generic, TypeVar

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.decoding.ctc import Text

__all__ = ["InOrder", "Result", "Taken"]

Key = TypeVar("Key")  # what says which image: its path, or a box of a page
Result = tuple[Key, Text | CrnnDeployError]  # which image, and what was read in it
Taken = list[tuple[int, Key]]  # places in the input, and keys


class InOrder(Generic[Key]):
    """What was taken of an input and not yet given.

    size: most keys of that
    """

    def __init__(self, keys: Iterable[Key], size: int) -> None:
        self._remaining, self._size = iter(keys), size
        self._keys: dict[int, Key] = {}  # of all that was taken and is not yet ready, by place
        self._done: dict[int, Text | CrnnDeployError] = {}
        self._given = 0
        self.taken = 0
        self.ready: list[Result[Key]] = []  # in order, to be given next
        self._exhausted = False

    def take(self, most: int) -> Taken[Key]:
        """The next keys of the input, as far as there is room for them."""
        room = self._size - len(self._keys) - len(self.ready)
        if self._exhausted or room <= 0:
            return []
        some = list(enumerate(islice(self._remaining, min(most, room)), self.taken))
        self.taken += len(some)
        self._keys.update(some)
        self._exhausted = not some
        return some

    def add(self, results: Mapping[int, Text | CrnnDeployError]) -> None:
        """Results by place; those that come next become ready to be given."""
        self._done.update(results)
        while (result := self._done.pop(self._given, None)) is not None:
            self.ready.append((self._keys.pop(self._given), result))
            self._given += 1

    def give(self) -> list[Result[Key]]:
        """What is ready; it has left then."""
        given, self.ready = self.ready, []
        return given
