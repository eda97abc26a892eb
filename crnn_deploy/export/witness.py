"""What the code of a network does while it runs, by file and line: for errors that say where to look."""

from __future__ import annotations

import linecache
import sys
import sysconfig
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from crnn_deploy.errors import first_line, shortened

__all__ = ["Line", "Witness", "caller", "cause", "shown"]

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parents[1])
_PYTHON = sysconfig.get_path("stdlib")
_LONGEST = 90  # characters of a line of code in an error
_RANDOM = {"rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "randperm", "bernoulli"} | {
    *("bernoulli_", "multinomial", "normal", "normal_", "uniform_", "random_", "poisson", "exponential_"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "rrelu"),
}

Line = tuple[str, int]  # path and number


class Witness(TorchFunctionMode):
    """Within `with`, notes what the code of a network asks PyTorch for.

    random: where it asks for random numbers
    squeezed: where `squeeze()` without an axis is given a first axis of size 1, the batch of one image
    lines: how often each line calls PyTorch
    """

    def __init__(self) -> None:
        super().__init__()
        self.random: list[Line] = []
        self.squeezed: list[Line] = []
        self.lines: Counter[Line] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if (line := caller(sys._getframe(1))) is not None:
            self.lines[line] += 1
            if name in _RANDOM and kwargs.get("training", True):
                self.random.append(line)
            if name == "squeeze" and len(args) == 1 and not kwargs and args[0].shape[:1] == (1,):
                self.squeezed.append(line)
        return func(*args, **kwargs)


def caller(frame: FrameType | None) -> Line | None:
    """The line of the user's own code that a frame of PyTorch's was called from, if there is one."""
    while frame is not None and not frame.f_code.co_filename.startswith(_HERE):
        if _own(frame.f_code.co_filename):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def cause(error: BaseException) -> str:
    """The first line of an error, and the last line of the user's own code that led to it."""
    lines = [
        (entry.filename, entry.lineno)
        for entry in traceback.extract_tb(error.__traceback__)
        if _own(entry.filename) and entry.lineno is not None
    ]
    said = first_line(error)
    return f"{said} (at {shown(lines[-1])})" if lines else said


def shown(line: Line) -> str:
    """`net.py line 12: f = x.squeeze()`."""
    path, number = line
    code = linecache.getline(path, number).strip()
    return f"{Path(path).name} line {number}" + (f": {shortened(code, _LONGEST)}" if code else "")


def _own(path: str) -> bool:
    """Whether a file is neither PyTorch's nor Python's nor this package's."""
    standard = path.startswith(_PYTHON) and "site-packages" not in path
    return not (standard or path.startswith(("<", _TORCH, _HERE)))
