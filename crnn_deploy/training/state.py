"""What a training keeps: weights to export, and all that a resumed run needs to go on as if never stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.export.checkpoints.finite import first_not_finite, why_not_finite
from crnn_deploy.export.checkpoints.stored import FileBroken, NamesCode, with_tensors
from crnn_deploy.export.checkpoints.torch_file import read_saved
from crnn_deploy.files import OutputUnwritable, open_regular, replacing
from crnn_deploy.manifest import Manifest, filter_to_plain
from crnn_deploy.training.config import Config

__all__ = ["LAST", "ResumeImpossible", "load", "save_training", "save_weights", "tensors_of"]

LAST = "last.pth"
# what may not change: the position in the stream of images would mean another image
_FIXED = (
    *("seed", "batch", "window", "train", "font_pack", "augment", "ignore_case"),
    *("network", "start", "alphabet", "recipe", "optimizer", "ema", "precision", "qat"),
)


class ResumeImpossible(CrnnDeployError, ValueError):
    """A training that cannot go on from what is there."""


def tensors_of(
    module: nn.Module, average: Mapping[str, Tensor] | None, optimizer: Optimizer
) -> dict[str, Tensor]:
    """Every tensor of a training by a name of its own: weights, average, the optimiser's state."""
    parts: dict[str, Mapping[Any, Any]] = {"": module.state_dict(), "average of ": average or {}}
    parts |= {f"optimiser's state {at} ": state for at, state in enumerate(optimizer.state.values())}
    return {
        f"{part}{name}": value
        for part, tensors in parts.items()
        for name, value in tensors.items()
        if isinstance(value, Tensor)
    }


def save_weights(
    path: Path, module: nn.Module, manifest: Manifest, average: Mapping[str, Tensor] | None
) -> None:
    """Write weights, averaged ones where there are any, alphabet and input rule; atomically."""
    _save(path, {"state_dict": average or module.state_dict(), **_told(module, manifest)})


def save_training(
    path: Path,
    module: nn.Module,
    manifest: Manifest,
    average: Mapping[str, Tensor] | None,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    config: Config,
    *,
    step: int,
    best: float,
    world: int,
) -> None:
    """Write the whole state of a training after `step` steps; atomically."""
    training = {
        "step": step,
        "best": best,
        "world": world,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "config": config.model_dump_json(),
    }
    weights = {"state_dict": module.state_dict()}
    if average is not None:
        weights["state_dict_ema"] = dict(average)
    _save(path, {**weights, **_told(module, manifest), "training": training})


def load(
    path: Path,
    module: nn.Module,
    manifest: Manifest,
    average: dict[str, Tensor] | None,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    config: Config,
    world: int,
) -> tuple[int, float]:
    """Restore a training; its step and its best accuracy so far. Raises ResumeImpossible."""
    broken = ResumeImpossible(f"{path} is not the state of a training, or a truncated one")
    try:
        with open_regular(path) as file:
            content = with_tensors(read_saved(file))
        training = content["training"]
        step, best, saved_world = training["step"], training["best"], training["world"]
        alphabet = tuple(content["alphabet"])
        before = Config.model_validate_json(training["config"])
    except FileNotFoundError as error:
        raise ResumeImpossible(f"there is nothing to resume at {path}") from error
    except (FileBroken, NamesCode, OSError, KeyError, TypeError, ValueError) as error:
        raise broken from error
    if type(step) is not int or step < 0 or not isinstance(best, float):
        raise broken
    changed = [name for name in _FIXED if _fixed(before, name) != _fixed(config, name)]
    changed += ["alphabet"] if alphabet != manifest.alphabet and "alphabet" not in changed else []
    changed += ["the number of processes"] if saved_world != world else []
    if changed:
        raise ResumeImpossible(
            f"{path} was trained with another {', '.join(changed)}; set another `out` and start a new run"
        )
    try:
        module.load_state_dict(content["state_dict"])
        if average is not None:
            for name, value in content["state_dict_ema"].items():
                average[name].copy_(value)
        optimizer.load_state_dict(training["optimizer"])
        scaler.load_state_dict(training["scaler"])
        torch.set_rng_state(training["rng"])
        if torch.cuda.is_available() and training["cuda_rng"]:
            torch.cuda.set_rng_state_all(training["cuda_rng"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise broken from error
    found = tensors_of(module, average, optimizer)
    if (name := first_not_finite(found)) is not None:
        raise ResumeImpossible(
            f"{path} holds {why_not_finite(found[name])}, first in {name}: that training diverged before it "
            "was saved; start a new run with another `out` and a lower optimizer.lr, from best.pth if that "
            "is sound"
        )
    return step, best


def _fixed(config: Config, name: str) -> Any:
    """A key's value; of the optimiser's all but the learning rate, which is set anew at each step."""
    return config.optimizer.model_copy(update={"lr": 1.0}) if name == "optimizer" else getattr(config, name)


def _told(module: nn.Module, manifest: Manifest) -> dict[str, Any]:
    """What weights alone do not say: alphabet and input rule."""
    names = ("color", "height", "mean", "std", "interpolation", "grey")
    recipe = {name: getattr(manifest, name) for name in names}
    recipe |= {
        "about": "as trained",
        "blank": {0: "first", len(manifest.alphabet): "last"}.get(manifest.blank, manifest.blank),
        "width": manifest.width.to_plain(),
        "leaky_relu": any(isinstance(layer, nn.LeakyReLU) for layer in module.modules()),
        "filters": [filter_to_plain(item) for item in manifest.filters],
    }
    if manifest.contrast is not None:
        recipe["contrast"] = asdict(manifest.contrast)
    return {"alphabet": list(manifest.alphabet), "recipe": recipe}


def _save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of torch.save whole, or leave the one that is there. Raises OutputUnwritable."""
    with replacing(path) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            # torch's writer raises an error of its own after that of the system
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            reason = getattr(cause, "strerror", None) or next(iter(str(cause).splitlines()), "")
            then = "go on with --resume from the state saved before" if path.exists() else "start again"
            raise OutputUnwritable(path, f"{reason}; make room, then {then}") from error
