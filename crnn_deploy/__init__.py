"""From a CRNN checkpoint to the text of your images.

>>> from crnn_deploy import Recognizer
>>> [text] = Recognizer().read(["word.png"])

Names are loaded when first asked for, so that importing the package costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module

TYPE_CHECKING = False  # of `typing`, which takes 5 ms; until it is there, a signal is Python's own affair
if TYPE_CHECKING:
    from crnn_deploy.errors import CrnnDeployError
    from crnn_deploy.manifest import Manifest, StepRule, WidthRule
    from crnn_deploy.runtime.decoding.ctc import Char, Text
    from crnn_deploy.runtime.recognizer import Recognizer

    __version__: str

# ONNX Runtime reports to its maker unless this is set when it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Char",
    "CrnnDeployError",
    "Manifest",
    "Recognizer",
    "StepRule",
    "Text",
    "WidthRule",
    "__version__",
]

_HOMES = {
    "Char": "crnn_deploy.runtime.decoding.ctc",
    "CrnnDeployError": "crnn_deploy.errors",
    "Manifest": "crnn_deploy.manifest",
    "Recognizer": "crnn_deploy.runtime.recognizer",
    "StepRule": "crnn_deploy.manifest",
    "Text": "crnn_deploy.runtime.decoding.ctc",
    "WidthRule": "crnn_deploy.manifest",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # 40 ms, for which most runs have no use

        value: object = version("crnn-deploy")
    elif name in _HOMES:
        from crnn_deploy.process import not_forked

        with not_forked():
            value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
