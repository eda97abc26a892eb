"""What a training says while it runs: a progress bar, lines on stderr, TensorBoard."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter

from crnn_deploy.errors import printable
from crnn_deploy.files import OutputUnwritable
from crnn_deploy.metrics import Score

__all__ = ["Journal", "ValidationReading"]

_FAILURES = 3  # named in a line


@dataclass(frozen=True)
class ValidationReading:
    """One image as it is read so far."""

    pixels: NDArray[np.uint8] | None  # (H, W) or (H, W, 3) BGR; None: it could not be read
    truth: str
    raw: str  # frame by frame
    text: str  # runs merged, blanks dropped


class Journal:
    """A training's voice. A progress bar where stderr is a terminal, plain lines where it is not.

    folder: TensorBoard's files go to `folder/tensorboard`
    """

    def __init__(self, folder: Path, steps: int, done: int) -> None:
        console = Console(file=sys.stderr)
        self._folder = folder / "tensorboard"
        self._progress = Progress(
            *(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()),
            TextColumn("{task.fields[said]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=steps, completed=done, said="")
        self._reading = self._progress.add_task("validate", total=None, visible=False, said="")
        self._steps, self._unheard = steps, False
        self._since, self._done = time.perf_counter(), done

    def __enter__(self) -> Journal:
        self._hook, threading.excepthook = threading.excepthook, self._ended
        try:
            with self._writing():
                self._writer = SummaryWriter(str(self._folder), purge_step=self._done)
        except OutputUnwritable:
            threading.excepthook = self._hook
            raise
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._progress.stop()
        try:
            with self._writing():
                self._writer.close()
        except OutputUnwritable:
            if kind is None:
                raise
        finally:
            threading.excepthook = self._hook

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """TensorBoard's writer raises what its thread ran into, which names no file."""
        try:
            yield
        except OSError as error:
            reason = f"{error.strerror or error}; make room, then go on with --resume"
            raise OutputUnwritable(self._folder, reason) from error

    def _ended(self, arguments: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread ended: where the disk is full, the next line of the journal says so."""
        if not issubclass(arguments.exc_type, OSError):
            self._hook(arguments)

    def learned(self, step: int, loss: float, rate: float) -> None:
        """After every `log_every` steps: the mean loss and the learning rate."""
        now = time.perf_counter()
        speed = (step - self._done) / max(now - self._since, 1e-9)
        self._since, self._done = now, step
        with self._writing():
            self._writer.add_scalar("loss", loss, step)
            self._writer.add_scalar("learning rate", rate, step)
            self._writer.add_scalar("steps per second", speed, step)
        said = f"loss {loss:.4f}  rate {rate:.2e}  {speed:.2f} steps/s"
        self._progress.update(self._task, completed=step, said=said)
        self._say(f"step {step}/{self._steps}  {said}")

    def validating(self, name: str, done: int, images: int) -> None:
        """While a dataset is read: how many of its images are done, beginning with none."""
        if not done:
            self._progress.reset(self._reading, total=images)
        seconds = self._progress.tasks[self._reading].elapsed or 0.0
        rate = f"  {done / seconds:,.0f} images/s" if done and seconds else ""
        self._progress.update(self._reading, completed=done, visible=True, said=f"validate {name}{rate}")

    def validated(self, step: int, name: str, score: Score, failures: Sequence[str] = ()) -> None:
        """After a validation, for each dataset; with the reason of each image that could not be read."""
        self._progress.update(self._reading, visible=False)
        with self._writing():
            self._writer.add_scalar(f"exact/{name}", score.accuracy, step)
            self._writer.add_scalar(f"CER/{name}", score.cer, step)
        exact = f"exact {score.exact}/{score.images} = {score.accuracy:.2%}"
        said = f"step {step}  {name}: {exact}, CER {score.cer:.2%}"
        if failures:
            more = f"; and {len(failures) - _FAILURES} more" if len(failures) > _FAILURES else ""
            listed = "; ".join(map(printable, failures[:_FAILURES]))
            said += f"; {len(failures)} could not be read and count as wrong: {listed}{more}"
        if self._progress.disable:
            self._say(said)
        else:
            self._progress.console.print(said, highlight=False, markup=False)

    def readings(self, step: int, name: str, readings: Sequence[ValidationReading]) -> None:
        """Some images beside what was read in them."""
        rows = ["| truth | read | frame by frame |", "| --- | --- | --- |"]
        rows += [f"| {_code(r.truth)} | {_code(r.text)} | {_code(r.raw)} |" for r in readings]
        shown = [r.pixels for r in readings if r.pixels is not None]
        with self._writing():
            self._writer.add_text(f"samples/{name}", "\n".join(rows), step)
            if shown:
                self._writer.add_image(f"samples/{name}", _sheet(shown), step, dataformats="HW")

    def _say(self, line: str) -> None:
        if self._progress.disable and not self._unheard:
            try:
                print(line, file=sys.stderr, flush=True)
            except OSError:  # nobody reads on, or a log's disk is full: no reason to lose a training
                self._unheard = True


def _code(text: str) -> str:
    """As Markdown code, whatever stands in it."""
    return f"`{text}`" if text and not set("`|") & set(text) else text.replace("|", "\\|").replace("`", "\\`")


def _sheet(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images of one height below one another, (H, W) grey."""
    rows = []
    for pixels in images:
        grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.ndim == 3 else pixels
        rows.append(cv2.resize(grey, (max(1, grey.shape[1] * 32 // grey.shape[0]), 32)))
    sheet = np.full((34 * len(rows), max(row.shape[1] for row in rows)), 128, np.uint8)
    for at, row in enumerate(rows):
        sheet[34 * at : 34 * at + 32, : row.shape[1]] = row
    return sheet
