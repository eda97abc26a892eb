"""Which precision still reads the text: rungs are tried on the CPU, then as engines on the GPU that is there.

Rungs from the fastest: all in half precision; recurrent layers and head in float32; bfloat16; float32 with
products in TF32; float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from crnn_deploy.errors import VerdictFailed
from crnn_deploy.graph.model import session_of
from crnn_deploy.graph.precision import (
    LARGEST,
    PEAK,
    Half,
    cast,
    from_first_recurrence,
    matching,
    rounded,
    with_tf32_products,
)
from crnn_deploy.runtime.backends.engine_file import Precision
from crnn_deploy.runtime.backends.outputs import frames_of
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.fidelity import Fidelity, Proof

__all__ = ["PrecisionFailed", "Rung", "climb", "table"]


@dataclass(frozen=True)
class Rung:
    """One precision of a model, and what was found of it."""

    precision: Precision
    kept_fp32: tuple[str, ...]  # nodes
    name: str
    rounded: Fidelity | None = None  # on the CPU, of a coarser precision than fp32
    engine: Fidelity | None = None  # on the GPU; None where none can load the engine, or it was not built

    @property
    def passed(self) -> bool:
        return all(found is None or found.passed for found in (self.rounded, self.engine))


class PrecisionFailed(VerdictFailed):
    """A precision changes the text, and no other rung is left or may be tried."""

    def __init__(self, rung: Rung, *, more: bool) -> None:
        failed = next(
            f"{where}: {found.line()}"
            for where, found in (("on the CPU", rung.rounded), ("the engine on the GPU", rung.engine))
            if found is not None and not found.passed
        )
        advice = (
            "leave --no-ladder out, or build with --fp32"
            if more
            else "no other number format is left to try; please report this with the table and the ONNX file"
        )
        super().__init__(f"the {rung.name} engine does not read what the model reads ({failed}); {advice}")


def climb(
    model: onnx.ModelProto,
    proof: Proof,
    precision: Precision,
    *,
    keep_fp32: Sequence[str] = (),
    ladder: bool = True,
    build: Callable[[onnx.ModelProto, Rung], Fidelity | None] = lambda model, rung: None,
) -> tuple[onnx.ModelProto, tuple[Rung, ...]]:
    """The model on the first rung whose checks pass, and all rungs tried, that one last.

    keep_fp32: patterns of nodes that stay float32 on every rung
    ladder: False: the first rung or none
    build: builds the engine of a rung that passed on the CPU; what it does on the GPU, or None without one
    Raises CastImpossible, PrecisionFailed, and what `build` raises.
    """
    tried: list[Rung] = []
    rungs = list(_rungs(model, precision, keep_fp32))
    for kind, keep, name in rungs:
        converted, rung = model, Rung(kind, (), name)
        if kind == "fp16" or kind == "bf16":
            converted = cast(model, kind, keep_fp32=keep)
            kept = {n for pattern in keep for n in matching(converted, pattern)}
            checked = _half_read(converted, proof, kind)
            rung = Rung(kind, tuple(sorted(kept)), name, checked)
        elif kind == "tf32":
            rung = Rung(kind, (), name, _tf32_read(model, proof))
        if rung.passed:
            rung = replace(rung, engine=build(converted, rung))
        tried.append(rung)
        if rung.passed:
            return converted, tuple(tried)
        if not ladder:
            break
    raise PrecisionFailed(tried[-1], more=len(tried) < len(rungs))


def _rungs(
    model: onnx.ModelProto, precision: Precision, keep: Sequence[str]
) -> Iterable[tuple[Precision, Sequence[str], str]]:
    if precision in ("fp16", "bf16"):
        yield precision, tuple(keep), precision
        if late := from_first_recurrence(model):
            yield precision, (*keep, *late), f"{precision}, recurrent layers and head in fp32"
    if precision == "fp16":
        yield "bf16", tuple(keep), "bf16"
    if precision in ("fp16", "bf16", "tf32"):
        yield "tf32", (), "fp32, products in TF32"
    last: Precision = "int8" if precision == "int8" else "fp32"
    yield last, (), last


def table(rungs: Sequence[Rung], gpu: str | None) -> str:
    """The rungs as lines of text, the chosen one last. gpu: name of the one that engines were checked on."""
    lines = []
    for rung in rungs:
        found = [("rounded on the CPU", rung.rounded), (f"on {gpu}", rung.engine)]
        lines += [f"{rung.name}, {where}: {report.line()}" for where, report in found if report is not None]
    chosen = rungs[-1]
    where = (
        f"checked on {gpu}" if chosen.engine else "checked on the CPU" if chosen.rounded else "not checked"
    )
    return "\n".join([*lines, f"chosen: {chosen.name} ({where})"])


def _half_read(converted: onnx.ModelProto, proof: Proof, half: Half) -> Fidelity:
    """The cast model in float32 with every tensor rounded to its type."""
    return _checked(rounded(converted), proof, f"the {half} graph", LARGEST[half])


def _tf32_read(model: onnx.ModelProto, proof: Proof) -> Fidelity:
    """The model with the factors of its products rounded; their range is that of float32."""
    return _checked(with_tf32_products(model), proof, "the TF32 graph", np.inf)


def _checked(graph: onnx.ModelProto, proof: Proof, name: str, largest: float) -> Fidelity:
    """What a graph reads in ONNX Runtime on the CPU, and the `PEAK` where it puts one out."""
    manifest = proof.manifest
    session = session_of(graph)
    [images] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    found: list[Frames] = []
    peak = 0.0
    for batch in proof.batches:
        outputs = dict(zip(names, session.run(None, {images.name: batch}), strict=True))
        peak = float(np.maximum(peak, outputs.pop(PEAK, 0.0)))  # of a number and NaN it is NaN
        found.append(frames_of([*outputs.values()], batch, manifest, Path(name)))
        proof.progress(len(batch))
    return proof.check(found, manifest, peak=peak, largest=largest)
