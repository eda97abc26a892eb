"""An ONNX file with a manifest, opened once; and the manifest in and out of a graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from crnn_deploy.errors import ModelNotFound, ModelUnreadable, first_line
from crnn_deploy.files import replacing
from crnn_deploy.graph.ends import sort_nodes, with_log_softmax
from crnn_deploy.manifest import METADATA_KEY, Manifest
from crnn_deploy.runtime.backends.onnx_file import check_self_contained, has_locations
from crnn_deploy.runtime.backends.ort import OrtBackend, open_session

__all__ = [
    "OnnxModel",
    "attach_manifest",
    "backend_of",
    "check_rewritable",
    "load_onnx",
    "manifest_of",
    "open_model",
    "rewrite",
    "session_of",
]


# what ONNX asks for and ONNX Runtime does without; some converters leave it out
_FORGIVEN = ("topologically sorted", "Field 'shape' of 'type' is required")
_GRAPH = Path("<graph>")  # what errors call a graph that is in memory alone


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file that says how it is fed, opened once and passed along."""

    path: Path
    graph: onnx.ModelProto  # with the tensors that the file keeps outside of it
    manifest: Manifest
    sha256: str  # of the file

    def backend(self) -> OrtBackend:
        """The model in ONNX Runtime on the CPU, opened when it is first asked for.

        Raises BackendMissing, ModelUnreadable, AlphabetMismatch.
        """
        return self._backend

    @cached_property
    def _backend(self) -> OrtBackend:
        return backend_of(self.graph, self.path)


def open_model(path: Path) -> OnnxModel:
    """Read an ONNX file that `export` or `describe` wrote.

    Raises ModelNotFound, ModelUnreadable, ManifestMissing, ManifestInvalid.
    """
    graph, sha256 = _read(path)
    manifest = manifest_of(graph, path)
    # earlier versions called the probabilities of a network that ends in softmax logits
    if manifest.output == "logits" and with_log_softmax(graph.graph, graph.graph.output[0].name, (2, -1)):
        manifest = replace(manifest, output="log-probs")
        attach_manifest(graph, manifest)
    return OnnxModel(path, graph, manifest, sha256)


def load_onnx(path: Path) -> onnx.ModelProto:
    """The graph of an ONNX file, with a manifest or without, which refers to nothing it should not.

    Raises ModelNotFound, ModelUnreadable.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[onnx.ModelProto, str]:
    """A checked graph and the digest of its file."""
    if not path.is_file():
        raise ModelNotFound(path, "an .onnx file")
    outside = check_self_contained(path)
    try:
        content = path.read_bytes()
        graph = onnx.load_model_from_string(content)
        try:
            onnx.checker.check_model(str(path) if outside else content)
            usual = True
        except onnx.checker.ValidationError as error:
            if not any(part in str(error) for part in _FORGIVEN):
                raise
            usual = False
        if outside:
            onnx.load_external_data_for_model(graph, str(path.parent))
            if has_locations(graph.SerializeToString()):  # ONNX Runtime would look in the current folder
                raise ModelUnreadable(path, "its sparse tensors lie in other files; keep them in the model")
        if not usual:
            sort_nodes(graph.graph)
            _check_without_shapes(graph)
    except ModelUnreadable:
        raise
    except Exception as error:  # onnx raises protobuf's, its checker's and the file system's errors
        if "ir_version" in str(error) and "higher" in str(error):
            newer = (
                "it was written by a newer ONNX; pip install --upgrade onnx onnxruntime, or export it again"
            )
            raise ModelUnreadable(path, f"{newer} for an older version ({first_line(error)})") from error
        raise ModelUnreadable(path, f"not a valid ONNX file: {first_line(error)}") from error
    return graph, hashlib.sha256(content).hexdigest()


def _check_without_shapes(graph: onnx.ModelProto) -> None:
    """ONNX's check of a graph whose inputs and outputs may lack shapes."""
    types = [value.type.tensor_type for value in (*graph.graph.input, *graph.graph.output)]
    bare = [kind for kind in types if not kind.HasField("shape")]
    for kind in bare:
        kind.shape.SetInParent()
    onnx.checker.check_model(graph)
    for kind in bare:
        kind.ClearField("shape")


def manifest_of(graph: onnx.ModelProto, name: Path = _GRAPH) -> Manifest:
    """The manifest in a graph's metadata; errors call the graph `name`.

    Raises ManifestMissing, ManifestInvalid.
    """
    return Manifest.in_metadata({entry.key: entry.value for entry in graph.metadata_props}, name)


def attach_manifest(graph: onnx.ModelProto, manifest: Manifest) -> None:
    """Put the manifest into a graph's metadata, in place of an older one."""
    others = {entry.key: entry.value for entry in graph.metadata_props if entry.key != METADATA_KEY}
    onnx.helper.set_model_props(graph, {**others, METADATA_KEY: manifest.to_json()})


def session_of(graph: onnx.ModelProto, name: Path = _GRAPH) -> Any:
    """An ONNX Runtime session of a graph in memory; errors call it `name`. Raises ModelUnreadable."""
    return open_session(name, content=graph.SerializeToString(), threads=1)


def backend_of(graph: onnx.ModelProto, name: Path = _GRAPH) -> OrtBackend:
    """A backend of a graph with a manifest; errors call it `name`. Raises what OrtBackend raises."""
    return OrtBackend(name, content=graph.SerializeToString())


def check_rewritable(path: Path) -> None:
    """Raises ModelNotFound, ModelUnreadable where `rewrite` would."""
    if not path.is_file():
        raise ModelNotFound(path, "an .onnx file")
    if path.suffix != ".onnx":
        raise ModelUnreadable(path, "only an .onnx file can be changed; an engine is built anew from it")


def rewrite(path: Path, output: Path, change: Callable[[Manifest], Manifest]) -> Manifest:
    """Write an ONNX file with a changed manifest, atomically; `output` may be the file itself.

    Raises ModelNotFound, ModelUnreadable, ManifestMissing, and what `change` raises.
    """
    check_rewritable(path)
    model = open_model(path)
    changed = change(model.manifest)
    attach_manifest(model.graph, changed)
    with replacing(output) as temporary:
        onnx.save(model.graph, temporary)
    return changed
