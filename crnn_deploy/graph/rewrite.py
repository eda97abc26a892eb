"""A model file with another manifest: the same graph, written atomically."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from crnn_deploy.errors import ManifestMissing, ModelNotFound, ModelUnreadable
from crnn_deploy.export.exporter import attach_manifest
from crnn_deploy.files import replacing
from crnn_deploy.graph.model import load_onnx, manifest_of
from crnn_deploy.manifest import Manifest

__all__ = ["check_rewritable", "rewrite"]


def check_rewritable(model: Path) -> None:
    """Raises ModelNotFound, ModelUnreadable where `rewrite` would."""
    if not model.is_file():
        raise ModelNotFound(model)
    if model.suffix != ".onnx":
        raise ModelUnreadable(model, "only an .onnx file can be changed; an engine is built anew from it")


def rewrite(model: Path, path: Path, change: Callable[[Manifest], Manifest]) -> Manifest:
    """Write an ONNX file with a changed manifest; `path` may be the file itself.

    Raises ModelNotFound, ModelUnreadable, ManifestMissing, and what `change` raises.
    """
    check_rewritable(model)
    graph = load_onnx(model)
    manifest = manifest_of(graph)
    if manifest is None:
        raise ManifestMissing(model)
    changed = change(manifest)
    attach_manifest(graph, changed)
    with replacing(path) as temporary:
        onnx.save(graph, temporary)
    return changed
