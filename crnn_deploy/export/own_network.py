"""A network of the user's own: the module that their code makes, with the checkpoint's weights in it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.export.checkpoints.checkpoint import Checkpoint
from crnn_deploy.export.checkpoints.weights import load_state
from crnn_deploy.export.witness import cause

__all__ = ["own_module"]

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_COMPILED = "_orig_mod"  # where torch.compile keeps the module that it was given


def own_module(spec: str, checkpoint: Checkpoint, folder: Path) -> nn.Module:
    """The module that `spec` names, with the checkpoint's weights.

    spec: `package.module:name` or `file.py:name` of a function or class that is called without arguments,
        or of a module. While it runs, its file's folder and the current one are searched for imports.
    folder: where a relative file is looked for, before the current folder
    Raises ModelInvalid, CheckpointUnreadable.
    """
    name, _, attribute = spec.rpartition(":")
    if not name or not attribute:
        raise ModelInvalid(f"--factory is package.module:name or file.py:name, not {spec!r}")
    path = None
    if name.endswith(".py"):
        path = folder / name if (folder / name).is_file() else Path(name)
    with _found_beside(path):
        module = _made(spec, attribute, _imported(spec, name, path))
    module = _unwrapped(module, spec).float()  # before the weights, which half precision would round
    load_state(module, checkpoint.fitting(module.state_dict().keys()), checkpoint.path)
    return module


@contextmanager
def _found_beside(path: Path | None) -> Iterator[None]:
    """Within it, modules of the current folder and of the file's own are found, and of no other afterwards.

    What was imported from the file's folder is forgotten too: another network's may have the same names.
    """
    folders = [""] if path is None else [str(path.resolve().parent), ""]
    before = dict(sys.modules)
    sys.path[:0] = folders
    try:
        yield
    finally:
        for folder in folders:
            with suppress(ValueError):
                sys.path.remove(folder)
        for name in sys.modules.keys() - before.keys() if path is not None else ():
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(folders[0]):
                del sys.modules[name]


def _imported(spec: str, name: str, path: Path | None) -> ModuleType:
    try:
        if path is None:
            return importlib.import_module(name)
        found = importlib.util.spec_from_file_location(path.stem, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        # dataclasses and TorchScript look a class's module up by its name
        sys.modules.setdefault(path.stem, module)
        found.loader.exec_module(module)
    except SystemExit as error:
        raise ModelInvalid(
            f"{spec} ends the process while it is imported; keep what a script does under "
            'if __name__ == "__main__":'
        ) from error
    except Exception as error:  # the user's code may raise anything
        raise ModelInvalid(f"{spec} cannot be imported: {cause(error)}") from error
    return module


def _made(spec: str, attribute: str, code: ModuleType) -> nn.Module:
    factory = getattr(code, attribute, None)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise ModelInvalid(f"{spec.rpartition(':')[0]} has no function {attribute}{_offered(code)}")
    if needed := _needed(factory):
        raise ModelInvalid(
            f"{spec} needs {needed}, and is called without arguments; write a function that gives them: "
            f"def build(): return {attribute}({', '.join(f'{name}=...' for name in needed.split(', '))})"
        )
    try:
        module = factory()
    except Exception as error:  # the user's code may raise anything
        raise ModelInvalid(f"{spec} fails: {cause(error)}") from error
    if not isinstance(module, nn.Module):
        kind = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
        raise ModelInvalid(f"{spec} returned {kind}, not a torch.nn.Module")
    return module


def _offered(code: ModuleType) -> str:
    names = [
        name
        for name, value in vars(code).items()
        if (inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == code.__name__)
        or (inspect.isfunction(value) and value.__module__ == code.__name__ and not name.startswith("_"))
    ]
    return f"; it has {', '.join(names[:6])}" if names else ""


def _needed(function: Callable[..., Any], given: int = 0) -> str:
    """The names of the arguments without a default, after the first few that are given."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # a builtin without a signature
        return ""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters[given:] if p.default is p.empty and p.kind not in kinds]
    return ", ".join(needed)


def _unwrapped(module: nn.Module, spec: str) -> nn.Module:
    """The network itself, without what spreads it over GPUs or compiles it. Raises ModelInvalid."""
    while isinstance(module, _WRAPPERS) or hasattr(module, _COMPILED):
        inner = module.module if isinstance(module, _WRAPPERS) else getattr(module, _COMPILED)
        assert isinstance(inner, nn.Module)
        module = inner
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            where = f"its {name}" if name else "it"
            raise ModelInvalid(
                f"{spec}: {where} is a TorchScript module, which cannot be exported; let the factory return "
                "the nn.Module itself, without torch.jit.script or torch.jit.trace"
            )
    if needed := _needed(module.forward, given=1):
        first = needed.split(", ")[0]
        raise ModelInvalid(
            f"{spec}: forward needs {needed} besides the images; what only training needs takes a default, "
            f"as in forward(self, images, {first}=None)"
        )
    return module
