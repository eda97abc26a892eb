"""The weights of a checkpoint in a module."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from crnn_deploy.export.checkpoints.checkpoint import CheckpointUnreadable

__all__ = ["load_state"]


def load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Raises CheckpointUnreadable where one is missing, unknown or of another shape."""
    # how many batches batch norm saw matters to training alone, and old checkpoints lack it
    own = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        shapes = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointUnreadable(path, f"its weights do not fit the network: {shapes}") from error
    missing = [name for name in result.missing_keys if name in own]
    if missing and not result.unexpected_keys and all(_is_statistic(name) for name in missing):
        raise CheckpointUnreadable(
            path,
            f"it lacks the running statistics of batch norm ({', '.join(missing[:2])}, ...), as of weights "
            "that were saved from named_parameters(); save them all: torch.save(model.state_dict(), FILE)",
        )
    if missing or result.unexpected_keys:
        raise CheckpointUnreadable(
            path,
            f"its weights do not fit the network: {_listed(missing, 'missing')}, "
            f"{_listed(result.unexpected_keys, 'unknown')}",
        )


def _is_statistic(name: str) -> bool:
    return name.endswith((".running_mean", ".running_var"))


def _listed(names: list[str], what: str) -> str:
    return f"{len(names)} {what}" + (f" ({', '.join(names[:3])})" if names else "")
