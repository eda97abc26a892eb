"""Weights from the files people save: plain, wrapped, prefixed, halved, or as safetensors."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.export.torch_file import FileBroken, NamesCode, Stored, read_saved
from crnn_deploy.files import open_regular, sha256

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
_MOST_WRAPPERS = 100
_LONGEST_NAME = 512  # characters
_LARGEST_ALPHABET = 200_000  # characters


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
    saved: Mapping[str, Any]  # all that the file says beside its weights, settings flattened

    def variants(self) -> Iterator[dict[str, Tensor]]:
        """The weights under every name that is left when wrappers' prefixes are taken off, as saved first."""
        yield from _without_prefixes(dict(self.state))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint without running any code of it.

    Raises CheckpointNotFound, CheckpointUnreadable.
    """
    try:
        with open_regular(path) as file:
            digest = sha256(file)
            content = _safetensors(path) if path.suffix == ".safetensors" else _saved(path, file)
            found = _unwrap(content)
            if not found:
                raise CheckpointUnreadable(path, f"it holds no weights ({_describe(content)})")
            state = _weights(found, path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CheckpointNotFound(path) from error
    except FileBroken as error:
        raise CheckpointUnreadable(path, f"not a PyTorch checkpoint, or a truncated one ({error})") from error
    except OSError as error:
        raise CheckpointUnreadable(path, f"it cannot be read ({error.strerror or error})") from error
    config = _config(content)
    recipe = content.get("recipe")
    return Checkpoint(
        path=path,
        state=state,
        sha256=digest,
        alphabet=_alphabet(config, path),
        leaky_relu=next((bool(found) for found in map(config.get, _ACTIVATIONS) if _is_number(found)), None),
        recipe=recipe if isinstance(recipe, Mapping) else None,
        saved=config,
    )


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, KeyError, AttributeError, RuntimeError, ValueError) as error:
        raise CheckpointUnreadable(path, f"not a safetensors file, or a truncated one ({error})") from error


def _saved(path: Path, file: BinaryIO) -> Any:
    try:
        return read_saved(file)
    except NamesCode as error:
        raise CheckpointUnreadable(
            path,
            f"it is a pickle that runs code when loaded ({str(error)[:80]}), so it is refused; where you "
            "trust it, save the weights alone: torch.save(model.state_dict(), FILE)",
        ) from error


def _unwrap(content: Any) -> dict[str, Tensor | Stored]:
    """The first weights that are found within wrappers, each of which is looked into once."""
    seen: set[int] = set()

    def unwrap(content: Any) -> dict[str, Tensor | Stored]:
        if not isinstance(content, Mapping) or id(content) in seen or len(seen) == _MOST_WRAPPERS:
            return {}
        seen.add(id(content))
        tensors = {
            name: value
            for name, value in content.items()
            if isinstance(name, str) and isinstance(value, Tensor | Stored)
        }
        if any("." in name for name in tensors):
            return tensors
        return next((found for name in _WRAPPERS if (found := unwrap(content.get(name)))), {})

    return unwrap(content)


def _weights(found: Mapping[str, Tensor | Stored], path: Path) -> dict[str, Tensor]:
    """In fp32, but for whole numbers; one that has several names is read once."""
    done: dict[int, Tensor] = {}
    for name, value in found.items():
        if len(name) > _LONGEST_NAME:
            raise CheckpointUnreadable(path, f"a weight has a name of {len(name):,} characters")
        if id(value) not in done:
            tensor = value.tensor() if isinstance(value, Stored) else value
            done[id(value)] = tensor.float() if tensor.is_floating_point() else tensor
    return {name: done[id(value)] for name, value in found.items()}


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
    config = {name: value for name, value in content.items() if isinstance(name, str)}
    for name in _CONFIGS:
        inner = config.get(name)
        inner = vars(inner) if isinstance(inner, argparse.Namespace) else inner
        if isinstance(inner, Mapping):
            config.update((key, value) for key, value in inner.items() if isinstance(key, str))
    return config


def _is_number(value: object) -> bool:
    """A flag, or a slope, as trainers save them."""
    return isinstance(value, bool | int | float)


def _alphabet(config: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    for name in _ALPHABETS:
        value = config.get(name)
        if not isinstance(value, str | list | tuple) or not all(isinstance(token, str) for token in value):
            continue
        if len(value) > _LARGEST_ALPHABET or any(len(token) > _LONGEST_NAME for token in value):
            raise CheckpointUnreadable(path, f"its {name} of {len(value):,} characters is no alphabet")
        return tuple(value) or None
    return None


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        names = ", ".join(name[:40] for name in list(content)[:6] if isinstance(name, str))
        return f"its keys are {names}" if names else "it has no keys that are words"
    return f"it is a {type(content).__name__}"
