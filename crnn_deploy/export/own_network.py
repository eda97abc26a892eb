"""A network of the user's own: the module that their code makes, with the checkpoint's weights in it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.export.checkpoint import Checkpoint
from crnn_deploy.export.weights import load_state

__all__ = ["own_module"]


def own_module(spec: str, checkpoint: Checkpoint, folder: Path) -> nn.Module:
    with _from_here():
        module = _factory(spec, folder)()
    if not isinstance(module, nn.Module):
        raise ModelInvalid(f"{spec} returned a {type(module).__name__}, not a torch.nn.Module")
    names = set(module.state_dict())
    state = next((s for s in checkpoint.variants() if names & s.keys()), dict(checkpoint.state))
    load_state(module, state, checkpoint.path)
    return module


@contextmanager
def _from_here() -> Iterator[None]:
    """Within it, packages of the current folder are found: for the user's own module, and for no other."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove("")


def _factory(spec: str, folder: Path) -> Any:
    name, _, attribute = spec.rpartition(":")
    if not name or not attribute:
        raise ModelInvalid(f"--factory is package.module:name or file.py:name, not {spec!r}")
    try:
        if name.endswith(".py"):
            path = folder / name if (folder / name).is_file() else Path(name)
            found = importlib.util.spec_from_file_location(path.stem, path)
            assert found is not None and found.loader is not None
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
        else:
            module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise ModelInvalid(f"{spec} cannot be imported: {error}") from error
    if not callable(factory := getattr(module, attribute, None)):
        raise ModelInvalid(f"{name} has no function {attribute}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ModelInvalid(f"{spec} is called without arguments, and needs some: {error}") from error
    except ValueError:
        pass  # a builtin without a signature
    return factory
