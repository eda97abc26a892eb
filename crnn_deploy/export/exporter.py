"""Checkpoint to ONNX, kept only when its text is proven equal to PyTorch's at sizes never traced."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib import metadata
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from crnn_deploy.errors import VerdictFailed
from crnn_deploy.export.pytorch import ReferenceBackend, one_thread
from crnn_deploy.export.recurrence import ExportImpossible, with_onnx_recurrence
from crnn_deploy.export.tracing import traced
from crnn_deploy.export.widths import accepts_any_width, width_grain
from crnn_deploy.files import replacing
from crnn_deploy.graph.model import attach_manifest
from crnn_deploy.graph.traced import baked_constants, strip_traces
from crnn_deploy.manifest import Manifest, OutputKind
from crnn_deploy.parity.compare import Case, ParityReport, compare
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.verdict.drawn import drawn_images

__all__ = ["SIZES", "Export", "ExportFailed", "export"]

OPSET = 20
_TRACED_BATCH = 7
# of the proof, from the narrowest to the widest; none is the traced one
_BATCHES = (9, 16, 6, 8, 5, 3, 4, 1, 3, 2, 2, 1, 1, 1)
SIZES = len(_BATCHES)
_TRIED = 100  # widths, for one to trace


class ExportFailed(VerdictFailed):
    """The exported graph does not say what PyTorch says; nothing was written."""

    def __init__(self, report: ParityReport, baked: list[str]) -> None:
        self.report = report
        self.baked = baked
        found = f"; sizes of the traced input stand in the graph: {'; '.join(baked[:5])}" if baked else ""
        super().__init__(f"the exported graph differs from PyTorch, so no file was written{found}")


@dataclass(frozen=True)
class Export:
    """A graph that was proven and written."""

    path: Path
    report: ParityReport
    manifest: Manifest
    any_width: bool  # whether the graph's width is dynamic


@one_thread()
def export(
    reference: ReferenceBackend,
    path: Path,
    *,
    output: OutputKind = "logits",
    when_traced: Callable[[], object] = lambda: None,
    progress: Callable[[Case], object] = lambda case: None,
) -> Export:
    """Write the reference as ONNX with its manifest, atomically, and only when the proof holds.

    The graph takes `images` (batch, C, H, width) float32 and gives `logits` or `log_probs`
    (batch, steps, classes) float32, or `indices` (batch, steps) int64 and `probabilities` (batch, steps).
    output: of a network that puts out log-probabilities, logits are these too
    when_traced: called before the proof
    progress: called after each of the `SIZES` batches of the proof
    Raises ExportFailed, ExportImpossible.
    """
    given = reference.manifest.output
    manifest = replace(
        reference.manifest,
        output=given if output == "logits" else output,
        source={**reference.manifest.source, "crnn_deploy": metadata.version("crnn-deploy")},
    )
    any_width = accepts_any_width(reference)
    grain = width_grain(reference) if any_width else 1
    width = _traced_width(manifest, grain) if any_width else manifest.width.minimum
    try:
        model = _trace(reference.module, given, manifest, width, any_width)
    except ExportImpossible:
        if not (any_width and manifest.width.fixed):
            raise
        # the recipe needs no other width
        any_width, width = False, manifest.width.minimum
        model = _trace(reference.module, given, manifest, width, any_width)
    attach_manifest(model, manifest)
    sizes = {"batch": _TRACED_BATCH}
    if any_width:
        sizes["width"] = width
        if not _has_constant_steps(manifest):
            steps = manifest.steps(width)
            sizes |= {"time steps": steps, "batch x time steps": _TRACED_BATCH * steps}
    baked = baked_constants(model, sizes)
    when_traced()
    with replacing(path) as temporary:
        onnx.save(model, temporary)
        candidate = OrtBackend(temporary)
        report = compare(reference, candidate, _proof(manifest, any_width, width, grain), progress=progress)
        candidate.close()
        if not report.passed or baked:
            raise ExportFailed(report, baked)
    return Export(path, report, manifest, any_width)


class _Argmax(nn.Module):
    """Class and probability of each frame's best class, taken inside the graph."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = self.module(images).softmax(dim=2)
        return probabilities.argmax(dim=2), probabilities.amax(dim=2)


class _LogProbs(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        log_probs: Tensor = self.module(images).log_softmax(dim=2)
        return log_probs


def _trace(
    module: nn.Module, given: OutputKind, manifest: Manifest, width: int, any_width: bool
) -> onnx.ModelProto:
    module = with_onnx_recurrence(module)
    names = {"logits": ["logits"], "log-probs": ["log_probs"], "argmax": ["indices", "probabilities"]}
    if manifest.output != given:
        module = (_Argmax if manifest.output == "argmax" else _LogProbs)(module)
    images = torch.zeros(_TRACED_BATCH, manifest.channels, manifest.height, width)
    dynamic: dict[int, object] = {0: Dim.DYNAMIC}
    if any_width:
        dynamic[3] = Dim.DYNAMIC
    with _quiet():
        program = traced(
            module.eval(),
            images,
            dynamic,
            opset_version=OPSET,
            input_names=["images"],
            output_names=names[manifest.output],
        )
    model: onnx.ModelProto = program.model_proto
    strip_traces(model)
    _name_axes(model, any_width)
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_axes(model: onnx.ModelProto, any_width: bool) -> None:
    """Call the free axes batch, width and steps."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param = "batch"
    if any_width:
        dims[3].dim_param = "width"
    for output in model.graph.output:
        axes = output.type.tensor_type.shape.dim
        axes[0].dim_param = "batch"
        if any_width:
            axes[1].dim_param = "steps"
    # intermediate shapes speak of the old names
    del model.graph.value_info[:]


def _traced_width(manifest: Manifest, grain: int) -> int:
    """A width to trace whose sizes are unlikely to be those of a layer: it and its steps are not round."""
    rule, steps = manifest.width, manifest.steps
    if _has_constant_steps(manifest):
        return rule.minimum + grain
    first = max(rule.minimum, -(-150 // grain) * grain)
    tried = range(first, first + _TRIED * grain, grain)
    rough = (w for w in tried if w % 2 and steps(w) % 8 and steps(w) != manifest.classes)
    return next(rough, next((w for w in tried if steps(w) not in (manifest.classes, _TRACED_BATCH)), first))


def _has_constant_steps(manifest: Manifest) -> bool:
    """Whether the network gives as many time steps at every width."""
    rule = manifest.width
    return not rule.fixed and manifest.steps(rule.minimum) == manifest.steps(rule.maximum)


def _proof(manifest: Manifest, any_width: bool, traced: int, grain: int) -> Iterator[NDArray[np.float32]]:
    """Batches at sizes that were not traced."""
    rng = np.random.default_rng(0)
    widths = manifest.width.spread(len(_BATCHES)) if any_width else [manifest.width.minimum] * len(_BATCHES)
    for batch, width in zip(_BATCHES, widths, strict=True):
        width = max(manifest.width.minimum, width // grain * grain)
        yield drawn_images(manifest, batch, width + grain * (any_width and width == traced), rng)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on optional packages and deprecations are not for the person who exports."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
