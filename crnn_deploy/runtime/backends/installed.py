"""Which packages a Python here imports, asked of the file system alone: nothing is imported for it.

`importlib.metadata` would tell it too, for a tenth of the time to a first text.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

__all__ = ["onnxruntime_distributions", "onnxruntime_too_old", "version_of"]

_OLDEST = (1, 24)  # whose reading of files that a model names is guarded
_NAMES = {"onnxruntime", "onnxruntime_gpu"}


def onnxruntime_distributions() -> set[str]:
    """Those in the folder that `import onnxruntime` takes its package from.

    Two in one folder have overwritten each other's files. One in a later folder of the path is not imported
    and overwrites nothing.
    """
    for folder in sys.path:
        if isinstance(folder, str) and os.path.isfile(os.path.join(folder, "onnxruntime", "__init__.py")):
            try:
                names = os.listdir(folder or ".")
            except OSError:  # a folder that may be entered and not read
                return set()
            return _NAMES & {name.partition("-")[0] for name in names if name.endswith(".dist-info")}
    return set()


def version_of(distribution: str) -> str:
    """The version of a distribution, such as onnxruntime-gpu; empty where it was not installed."""
    about = re.compile(rf"{distribution.replace('-', '_')}-([^-]+)(-py[0-9.]+)?\.(dist|egg)-info")
    for folder in sys.path:
        if isinstance(folder, str) and os.path.isdir(folder or "."):
            with suppress(OSError):  # a folder that may be entered and not read
                for name in os.listdir(folder or "."):
                    if found := about.fullmatch(name):
                        return found[1]
    return ""


def onnxruntime_too_old(version: str) -> str | None:
    """Why a version of ONNX Runtime is not used, and what to do; None where it is."""
    if tuple(map(int, re.findall(r"\d+", version)[:2])) >= _OLDEST:
        return None
    oldest = ".".join(map(str, _OLDEST))
    return (
        f"ONNX Runtime {version} is too old: before {oldest} it reads any file that a model names; "
        "run pip install --upgrade 'crnn-deploy[cpu]' (or [gpu])"
    )
