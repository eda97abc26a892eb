"""From a CRNN checkpoint to the text of your images.

>>> from crnn_deploy import Recognizer
>>> text = Recognizer().read("word.png")

Names are loaded when first asked for, so that importing the package costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module

from crnn_deploy.process import not_forked  # here, so that a fork waits for the first name already

TYPE_CHECKING = False  # of `typing`, which takes 5 ms; until it is there, a signal is Python's own affair
if TYPE_CHECKING:
    from crnn_deploy.client import Client
    from crnn_deploy.datasets import Dataset, open_dataset
    from crnn_deploy.errors import CrnnDeployError
    from crnn_deploy.evaluation.evaluate import evaluate
    from crnn_deploy.manifest import Manifest, StepRule, WidthRule
    from crnn_deploy.metrics import score
    from crnn_deploy.regions.region import Region
    from crnn_deploy.runtime.decoding.alignment import Decoder
    from crnn_deploy.runtime.decoding.beam import Beam
    from crnn_deploy.runtime.decoding.constraints import Constraint
    from crnn_deploy.runtime.decoding.ctc import Char, Text
    from crnn_deploy.runtime.decoding.lm import open_language_model
    from crnn_deploy.runtime.decoding.scoring import Scorer
    from crnn_deploy.runtime.recognizer import Recognizer

    __version__: str

# ONNX Runtime reports to its maker unless this is set when it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Beam",
    "Char",
    "Client",
    "Constraint",
    "CrnnDeployError",
    "Dataset",
    "Decoder",
    "Manifest",
    "Recognizer",
    "Region",
    "Scorer",
    "StepRule",
    "Text",
    "WidthRule",
    "__version__",
    "evaluate",
    "open_dataset",
    "open_language_model",
    "score",
]

_HOMES = {
    "Beam": "crnn_deploy.runtime.decoding.beam",
    "Char": "crnn_deploy.runtime.decoding.ctc",
    "Client": "crnn_deploy.client",
    "Constraint": "crnn_deploy.runtime.decoding.constraints",
    "CrnnDeployError": "crnn_deploy.errors",
    "Dataset": "crnn_deploy.datasets",
    "Decoder": "crnn_deploy.runtime.decoding.alignment",
    "Manifest": "crnn_deploy.manifest",
    "Recognizer": "crnn_deploy.runtime.recognizer",
    "Region": "crnn_deploy.regions.region",
    "Scorer": "crnn_deploy.runtime.decoding.scoring",
    "StepRule": "crnn_deploy.manifest",
    "Text": "crnn_deploy.runtime.decoding.ctc",
    "WidthRule": "crnn_deploy.manifest",
    "evaluate": "crnn_deploy.evaluation.evaluate",
    "open_dataset": "crnn_deploy.datasets",
    "open_language_model": "crnn_deploy.runtime.decoding.lm",
    "score": "crnn_deploy.metrics",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # 40 ms, for which most runs have no use

        value: object = version("crnn-deploy")
    elif name in _HOMES:
        with not_forked():
            value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
