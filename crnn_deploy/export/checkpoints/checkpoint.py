"""Weights from the files people save: plain, wrapped, prefixed, halved, or as safetensors."""

from __future__ import annotations

import argparse
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from crnn_deploy.errors import CrnnDeployError, nothing_at
from crnn_deploy.export.checkpoints.file_kinds import is_safetensors
from crnn_deploy.export.checkpoints.stored import AnotherFile, FileBroken, NamesCode, NumpyArray, Stored
from crnn_deploy.export.checkpoints.torch_file import read_saved
from crnn_deploy.files import open_regular, sha256
from crnn_deploy.networks.families import Family, StateDict, recognise
from crnn_deploy.recipes.tables import Candidate, candidates

__all__ = ["Checkpoint", "CheckpointNotFound", "CheckpointUnreadable", "FamilyWeights", "load"]

_Weight = Tensor | Stored | NumpyArray

# an average of the weights is what its owner evaluates with, so it comes first
_WRAPPERS = (
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema", "shadow"),
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "crnn"),
)
_CONFIGS = ("hyper_parameters", "hparams", "config", "cfg", "opt", "args", "params")
_ACTIVATIONS = ("leaky_relu", "leakyRelu", "leakyrelu")
_NO_WEIGHTS = (
    "optimizer",
    "optimizers",
    "optimizer_states",
    "optim",
    "optimizer_state_dict",
    "scheduler",
    "scaler",
)
_MOST_WRAPPERS = 100
_DEEPEST_WRAPPER = 8
_MOST_BRANCHES = 2000  # of names, that are looked at for a network
_DEEPEST_PREFIX = 8
_MOST_CLASSES = 50_000
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8)
_LONGEST_NAME = 512  # characters
# what stands beside a network in its owner's module and is no part of it, as the first part of a name
_BESIDE = re.compile(
    r"(\w+_)?(loss(es)?|loss_?f(n|unc|unction)?|lossf(n|unc)|criterions?|criteri(a|on)|crit|metrics?|acc|accuracy"
    r"|cer|wer)(_\w+)?|ema_\w+|n_averaged|initted|num_updates",
    re.IGNORECASE,
)
# weights that are no numbers in their places, by what makes them again
_NO_PLAIN_TENSORS = {
    "torch._utils._rebuild_meta_tensor_no_storage": (
        "its weights are on the meta device, which keeps their shapes and not their numbers; save the "
        "network after its weights are loaded"
    ),
    "torch._utils._rebuild_qtensor": (
        "its weights are quantised by PyTorch; give the float checkpoint that they were made of, and let "
        "crnn-deploy quantize quantise the exported graph"
    ),
    "torch._utils._rebuild_sparse_tensor": (
        "it has sparse tensors; save them dense: torch.save({name: value.to_dense() if value.is_sparse else "
        "value for name, value in model.state_dict().items()}, FILE)"
    ),
}
_COUNTED = (".total_ops", ".total_params")  # what thop leaves in every layer that it counts
_AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?|shadow)([._]|$)", re.IGNORECASE)


class CheckpointNotFound(CrnnDeployError, FileNotFoundError):
    """No checkpoint at this path."""

    def __init__(self, path: Path) -> None:
        super().__init__(nothing_at(path, "checkpoint", "the file of a checkpoint, such as model.pth"))


class CheckpointUnreadable(CrnnDeployError, ValueError):
    """A checkpoint that cannot be loaded, or must not be."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True)
class FamilyWeights:
    """Weights of a published family, under the family's own names."""

    state: dict[str, Tensor]
    family: Family

    @property
    def classes(self) -> int:
        """Of its output, the blank included."""
        return self.family.classes(self.state)


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and what their file says of them."""

    path: Path
    state: Mapping[str, Tensor]  # fp32, names as saved
    sha256: str  # of the file
    tables: tuple[Candidate, ...]  # what may be its alphabet
    leaky_relu: bool | None  # as saved beside the weights
    recipe: Mapping[str, Any] | None  # as this toolkit's training saves it
    saved: Mapping[str, Any]  # all that the file says beside its weights, settings flattened

    def variants(self) -> Iterator[dict[str, Tensor]]:
        """The weights under every name that is left when the names of what holds them are taken off.

        As saved first, then without one part of the names, and so on.
        """
        for _, state in _branches(dict(self.state)):
            yield state

    def fitting(self, names: Collection[str]) -> dict[str, Tensor]:
        """The weights of a network whose weights have these names; as saved where none has one of them."""
        wanted = frozenset(names)
        best = max(self.variants(), key=lambda state: len(wanted & state.keys()))
        if not wanted & best.keys():
            return dict(self.state)
        return {name: value for name, value in best.items() if name in wanted or not _is_beside(name)}

    @cached_property
    def network(self) -> FamilyWeights | None:
        """The weights of a published family.

        Whatever holds them is taken off, and so are losses and metrics beside them. An average of the same
        weights comes first. Raises CheckpointUnreadable where two networks fit, and where beside the network
        there is something that its images or its output may go through.
        """
        found: dict[str, FamilyWeights] = {}
        for prefix, state in _branches(dict(self.state)):
            if any(prefix.startswith(other) for other in found if other):
                continue  # within a network that was found
            own = {name: value for name, value in state.items() if not _is_beside(name)}
            if (family := self._recognised(own)) is not None:
                found[prefix] = FamilyWeights(own, family)
        averages = [prefix for prefix in found if _AVERAGE.search(prefix)]
        chosen = averages or list(found)
        if "" in found and not averages:
            chosen = [""]
        if len(chosen) > 1:
            names = " and ".join(f"{prefix}*" for prefix in chosen[:3])
            raise CheckpointUnreadable(
                self.path,
                f"it holds {len(chosen)} networks, {names}; save the weights of one alone, as in "
                f"{{name.removeprefix({chosen[0]!r}): value for name, value in state.items() "
                f"if name.startswith({chosen[0]!r})}}",
            )
        if not chosen:
            return None
        [prefix] = chosen
        network = found[prefix]
        if prefix == "":  # what lies in another network is not its own
            inner = tuple(other for other in found if other)
            state = {name: value for name, value in network.state.items() if not name.startswith(inner)}
            return FamilyWeights(state, network.family)
        self._check_beside(prefix, found)
        return network

    def _check_beside(self, prefix: str, found: Mapping[str, FamilyWeights]) -> None:
        """Refuse a network that is a part of something else. Raises CheckpointUnreadable."""
        networks = tuple(other for other in found if other)
        others = [
            name
            for name in self.state
            if not name.startswith(networks)
            and ("" not in found or name not in found[""].state)
            and not any(_BESIDE.fullmatch(part) for part in name.split("."))
            and not _AVERAGE.search(name)
        ]
        if others:
            raise CheckpointUnreadable(
                self.path,
                f"beside the network ({prefix}*) it holds weights that the network does not have "
                f"({', '.join(others[:3])}), which its images or texts may go through; save the network's "
                "weights alone where they do not, or export the whole with --factory and --recipe",
            )

    def _recognised(self, state: StateDict) -> Family | None:
        try:
            return recognise(state)
        except IndexError as error:
            raise CheckpointUnreadable(self.path, f"one of its weights lacks an axis ({error})") from error

    @cached_property
    def classes(self) -> frozenset[int]:
        """How many classes the network has; of one that is not known here, as many as any layer puts out."""
        if self.network is not None:
            return frozenset((self.network.classes,))
        return frozenset(value.shape[0] for value in self.state.values() if value.ndim)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint without running any code of it.

    Raises CheckpointNotFound, CheckpointUnreadable.
    """
    try:
        with open_regular(path) as file:
            digest = sha256(file)
            packed = path.suffix == ".safetensors" or is_safetensors(file)
            content = _safetensors(path) if packed else _saved(path, file)
            found = _unwrap(content)
            if not found:
                raise CheckpointUnreadable(path, f"it holds no weights{_describe(content)}")
            state = _weights(found, path)
            beside = _beside_weights(content)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CheckpointNotFound(path) from error
    except AnotherFile as error:
        raise CheckpointUnreadable(path, str(error)) from error
    except FileBroken as error:
        raise CheckpointUnreadable(
            path, f"not a PyTorch checkpoint, or a truncated one ({error}); download or save it again"
        ) from error
    except OSError as error:
        raise CheckpointUnreadable(path, f"it cannot be read ({error.strerror or error})") from error
    config = _config(content)
    recipe = content.get("recipe") if isinstance(content, Mapping) else None
    return Checkpoint(
        path=path,
        state=state,
        sha256=digest,
        tables=tuple(candidates(beside)),
        leaky_relu=next((bool(found) for found in map(config.get, _ACTIVATIONS) if _is_number(found)), None),
        recipe=recipe if isinstance(recipe, Mapping) else None,
        saved=config,
    )


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
        weights: dict[str, Any] = load_file(path)
    except (SafetensorError, KeyError, AttributeError, RuntimeError, ValueError) as error:
        raise CheckpointUnreadable(path, f"not a safetensors file, or a truncated one ({error})") from error
    return {**told, "state_dict": weights}


def _saved(path: Path, file: BinaryIO) -> Any:
    try:
        return read_saved(file)
    except NamesCode as error:
        if (held := _NO_PLAIN_TENSORS.get(str(error))) is not None:
            raise CheckpointUnreadable(path, held) from error
        raise CheckpointUnreadable(
            path,
            f"it is a pickle that runs code when loaded ({str(error)[:80]}), so it is refused; where you "
            "trust it, save the weights alone: torch.save(model.state_dict(), FILE)",
        ) from error


def _unwrap(content: Any) -> dict[str, _Weight]:
    """The first weights that are found within wrappers, each of which is looked into once.

    The names that trainers give them come first, then all others in their order. Where the parts of a network
    lie in dictionaries of their own, they are joined.
    """
    seen: set[int] = set()

    def unwrap(content: Any, depth: int) -> dict[str, _Weight]:
        if isinstance(content, list | tuple) and len(content) <= _MOST_WRAPPERS:
            content = {str(at): inner for at, inner in enumerate(content)}
        if not isinstance(content, Mapping) or id(content) in seen or len(seen) == _MOST_WRAPPERS:
            return {}
        seen.add(id(content))
        tensors = _named_tensors(content)
        if any("." in name for name in tensors):
            return tensors
        if depth == _DEEPEST_WRAPPER:
            return {}
        if found := next((found for n in _WRAPPERS if (found := unwrap(content.get(n), depth + 1))), {}):
            return found
        inner_ones = {
            name: _named_tensors(inner)
            for name, inner in content.items()
            if isinstance(name, str) and name not in _NO_WEIGHTS and isinstance(inner, Mapping)
        }
        parts = {name: inner for name, inner in inner_ones.items() if any("." in inside for inside in inner)}
        if len(parts) > 1:
            return {
                f"{part}.{name}": value for part, inside in parts.items() for name, value in inside.items()
            }
        others = (inner for name, inner in content.items() if name not in (*_WRAPPERS, *_NO_WEIGHTS))
        return next((found for inner in others if (found := unwrap(inner, depth + 1))), {})

    return unwrap(content, 0)


def _named_tensors(content: Mapping[Any, Any]) -> dict[str, _Weight]:
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str)
        and (
            isinstance(value, Tensor | Stored) or (isinstance(value, NumpyArray) and value.values is not None)
        )
    }


def _weights(found: Mapping[str, _Weight], path: Path) -> dict[str, Tensor]:
    """In fp32, but for whole numbers; one that has several names is read once."""
    done: dict[int, Tensor] = {}
    kept = {name: value for name, value in found.items() if not f".{name}".endswith(_COUNTED)}
    for name, value in kept.items():
        if len(name) > _LONGEST_NAME:
            raise CheckpointUnreadable(path, f"a weight has a name of {len(name):,} characters")
        if id(value) not in done:
            tensor = value if isinstance(value, Tensor) else value.tensor()
            done[id(value)] = tensor.float() if tensor.is_floating_point() else tensor
    return {name: done[id(value)] for name, value in kept.items()}


def _branches(state: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The weights whose names begin alike, by what they begin with, which is taken off; all of them first."""
    waiting = deque([("", state, 0)])
    count = 0
    while waiting and count < _MOST_BRANCHES:
        prefix, inside, depth = waiting.popleft()
        count += 1
        yield prefix, inside
        if depth == _DEEPEST_PREFIX:
            continue
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in inside.items():
            part, dot, rest = name.partition(".")
            if dot:
                parts.setdefault(part, {})[rest] = value
        waiting.extend((f"{prefix}{part}.", rest, depth + 1) for part, rest in parts.items())


def _is_beside(name: str) -> bool:
    return _BESIDE.fullmatch(name.partition(".")[0]) is not None


def _beside_weights(content: Any) -> dict[str, Any]:
    """What an open file says beside its weights; classes in tensors of one number as numbers."""
    parts = content if isinstance(content, list | tuple) else [content]
    return {
        name: inner
        for part in parts[:_MOST_WRAPPERS]
        if isinstance(part, Mapping)
        for name, value in part.items()
        if isinstance(name, str) and name not in _NO_WEIGHTS
        if not (isinstance(inner := _as_numbers(value), Mapping) and _named_tensors(inner))
    }


def _as_numbers(value: Any) -> Any:
    """A dictionary of tensors of one whole number each as one of numbers; anything else as it is."""
    if not isinstance(value, Mapping) or not 0 < len(value) <= _MOST_CLASSES:
        return value
    if not all(
        isinstance(inner, Tensor | Stored) and prod(inner.shape) == 1 and inner.dtype in _WHOLE
        for inner in value.values()
    ):
        return value
    tensors = {n: t if isinstance(t, Tensor) else t.tensor() for n, t in value.items()}
    return {name: int(tensor.item()) for name, tensor in tensors.items()}


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


def _describe(content: Any) -> str:
    save = "save them with torch.save(model.state_dict(), FILE)"
    if isinstance(content, list | tuple) and any(isinstance(item, Tensor | Stored) for item in content):
        return f": it is a {type(content).__name__} of {len(content)} tensors without names; {save}"
    if isinstance(content, Mapping):
        names = ", ".join(name[:40] for name in list(content)[:6] if isinstance(name, str))
        return f" ({f'its keys are {names}' if names else 'it has no keys that are words'}); {save}"
    kinds = {Stored: "a single tensor", NumpyArray: "a single array"}
    return f" (it is {kinds.get(type(content), f'a {type(content).__name__}')}); {save}"
