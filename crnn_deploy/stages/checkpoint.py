"""Weights from the files people save: plain, wrapped, prefixed, halved, or as safetensors."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crnn_deploy.errors import CrnnDeployError

__all__ = ["Checkpoint", "CheckpointNotFound", "CheckpointUnreadable", "load"]

# an average of the weights is what its owner evaluates with, so it comes first
_WRAPPERS = (
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema", "shadow"),
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "crnn"),
)
_PREFIXES = ("module.", "model.", "_orig_mod.", "ema_model.", "net.", "network.", "crnn.", "recognizer.")
_CONFIGS = ("hyper_parameters", "hparams", "config", "cfg", "opt", "args", "params")
_ALPHABETS = ("alphabet", "alphabets", "characters", "character", "charset", "vocab")
_ACTIVATIONS = ("leaky_relu", "leakyRelu", "leakyrelu")
# plain values that trainers save beside the weights; none of them runs code
_HARMLESS: list[Any] = [
    *(argparse.Namespace, np.dtype, type(np.float64(0)).__reduce__(np.float64(0))[0]),
    *(np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType),
]


class CheckpointNotFound(CrnnDeployError, FileNotFoundError):
    """No checkpoint at this path."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"no checkpoint at {path}")


class CheckpointUnreadable(CrnnDeployError, ValueError):
    """A checkpoint that cannot be loaded, or must not be."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and what their file says of them."""

    path: Path
    state: Mapping[str, Tensor]  # fp32, names as saved
    sha256: str  # of the file
    alphabet: tuple[str, ...] | None  # as saved beside the weights
    leaky_relu: bool | None  # as saved beside the weights
    recipe: Mapping[str, Any] | None  # as this toolkit's training saves it

    def variants(self) -> Iterator[dict[str, Tensor]]:
        """The weights under every name that is left when wrappers' prefixes are taken off, as saved first."""
        yield from _without_prefixes(dict(self.state))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint without running any code of it.

    Raises CheckpointNotFound, CheckpointUnreadable.
    """
    if not path.is_file():
        raise CheckpointNotFound(path)
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    state = _unwrap(content)
    if not state:
        raise CheckpointUnreadable(path, f"it holds no weights ({_describe(content)})")
    config = _config(content)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(
        path=path,
        state={name: value.float() if value.is_floating_point() else value for name, value in state.items()},
        sha256=digest,
        alphabet=_alphabet(config),
        recipe=config["recipe"] if isinstance(config.get("recipe"), Mapping) else None,
        leaky_relu=next((bool(config[name]) for name in _ACTIVATIONS if name in config), None),
    )


def _load_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointUnreadable(path, f"not a safetensors file, or a truncated one ({error})") from error


def _load_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):  # zip archive or bare pickle
        raise CheckpointUnreadable(path, "not a PyTorch checkpoint")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower():
            raise CheckpointUnreadable(path, "not a PyTorch checkpoint") from error
        raise CheckpointUnreadable(
            path,
            "it is a pickle that runs code when loaded, so it is refused; where you trust it, save the "
            "weights alone: torch.save(model.state_dict(), FILE)",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointUnreadable(
            path, f"not a PyTorch checkpoint, or a truncated one ({reason})"
        ) from error


def _unwrap(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if any("." in name for name in tensors):
        return tensors
    return next((found for name in _WRAPPERS if (found := _unwrap(content.get(name)))), {})


def _without_prefixes(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    yield state
    for prefix in _PREFIXES:
        inner = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
        if inner:
            yield from _without_prefixes(inner)


def _config(content: Any) -> dict[str, Any]:
    """What the file says beside its weights, wrappers' own settings flattened in."""
    if not isinstance(content, Mapping):
        return {}
    config = {str(name): value for name, value in content.items() if not isinstance(value, Tensor)}
    for name in _CONFIGS:
        inner = config.get(name)
        inner = vars(inner) if isinstance(inner, argparse.Namespace) else inner
        if isinstance(inner, Mapping):
            config.update((str(key), value) for key, value in inner.items())
    return config


def _alphabet(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    for name in _ALPHABETS:
        value = config.get(name)
        if isinstance(value, str) or (
            isinstance(value, list | tuple) and all(isinstance(token, str) for token in value)
        ):
            return tuple(value) or None
    return None


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        names = ", ".join(map(str, list(content)[:6]))
        return f"its keys are {names}" if names else "it is empty"
    return f"it is a {type(content).__name__}"
