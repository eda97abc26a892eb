"""The models that come with the package, by name: trained by this project (docs/model-card.md)."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from crnn_deploy.errors import CrnnDeployError, did_you_mean, is_address

__all__ = [
    "DEFAULT",
    "DEFAULT_INT8",
    "ModelElsewhere",
    "ModelNameUnknown",
    "int8_files",
    "model_file",
    "shipped",
]

_FOLDER = Path(__file__).parent
DEFAULT = _FOLDER / "latin.onnx"
DEFAULT_INT8 = _FOLDER / "latin.int8.onnx"  # for CPUs (docs/int8.md)


class ModelNameUnknown(CrnnDeployError, FileNotFoundError):
    """A name that is neither that of a shipped model nor that of a file."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"neither a shipped model nor a file is called {name!r}{did_you_mean(name, shipped())}; "
            f"shipped are {', '.join(shipped())}; "
            "a model of your own is given as a path, such as model.onnx"
        )


class ModelElsewhere(CrnnDeployError, ValueError):
    """The address of a server or of a store in the place of a model's file."""

    def __init__(self, address: str) -> None:
        then = "give a file, or ask a server with crnn_deploy.Client (docs/serving.md)"
        if not address.lower().startswith("http"):
            then = "download the model, and give its file"
        super().__init__(
            f"{address} is an address, but the toolkit runs models itself, from files of this machine; {then}"
        )


def shipped() -> dict[str, Path]:
    """The shipped models by name: the files' names without `.onnx`."""
    return {name: _FOLDER / f"{name}.onnx" for name in sorted(path.stem for path in _FOLDER.glob("*.onnx"))}


def model_file(given: str | PathLike[str]) -> Path:
    """The file of a model that is given by name or by path.

    A text that is the name of a shipped model means that model, even where a file is called the same;
    `./latin` and a `Path` mean files. Any other text is a path.
    Raises ModelNameUnknown where a text has neither folder nor suffix and no file is called so, and
    ModelElsewhere for an address.
    """
    path = Path(given)
    if not isinstance(given, str):
        return path
    if is_address(given):
        raise ModelElsewhere(given)
    if (found := shipped().get(given)) is not None:
        return found
    if given == path.name and not path.suffix and not os.path.exists(path):
        raise ModelNameUnknown(given)
    return path


def int8_files(model: Path) -> tuple[Path, Path]:
    """Where the INT8 files of a model lie: with weights of 7 bits, for every CPU, and of 8 bits.

    A model that is such a file already has itself.
    """
    stem = model.name.removesuffix(".onnx").removesuffix(".int8").removesuffix(".int8-w8")
    return model.with_name(f"{stem}.int8.onnx"), model.with_name(f"{stem}.int8-w8.onnx")
