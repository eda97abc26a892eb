"""A proven ONNX file to a TensorRT engine that says what it is."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from crnn_deploy import driver
from crnn_deploy.backends.ort import OrtBackend
from crnn_deploy.backends.trt import import_tensorrt
from crnn_deploy.engine_file import (
    BuilderName,
    EngineFile,
    Precision,
    Range,
    digest,
    sidecar_of,
    system,
)
from crnn_deploy.errors import BackendMissing, ManifestMissing, RunFailed
from crnn_deploy.manifest import Manifest
from crnn_deploy.stages.export import replacing
from crnn_deploy.stages.inspection import load_onnx, manifest_of
from crnn_deploy.stages.ladder import Rung, climb
from crnn_deploy.stages.plan import Network, Progress, Unsupported
from crnn_deploy.stages.precision import CastImpossible, matching
from crnn_deploy.stages.profiles import ProfileInvalid, covered, profiles_of

__all__ = ["BATCH", "EngineBuild", "Settings", "build_engine"]

BATCH = Range(1, 8, 32)
_RECURRENT = ("LSTM", "GRU", "RNN")
_SEQUENCE_LENS = 4  # which input of a recurrent node
_HALF_LSTM = (10, 14)  # the first TensorRT with a half precision LSTM in a strongly typed network


@dataclass(frozen=True)
class Settings:
    """How to build."""

    precision: Precision = "fp32"
    builder: Literal["auto"] | BuilderName = "auto"  # auto: TensorRT where it is installed, else that for RTX
    widths: Range | None = None  # pixels; None: all of the manifest's rule
    batch: Range = BATCH  # images
    profiles: int | None = None  # None: one for each doubling of the width
    targets: tuple[str, ...] = ()  # GPUs as sm_80
    timing_cache: Path | None = None  # read where it is, and written
    workspace: int | None = None  # MiB
    optimization_level: int | None = None  # TensorRT's, 0-5
    keep_fp32: tuple[str, ...] = ()  # patterns of node names or operators
    ladder: bool = True  # whether a safer precision is taken when the check of a half one fails


@dataclass(frozen=True)
class EngineBuild:
    """What was built and written."""

    path: Path
    engine: EngineFile
    rungs: tuple[Rung, ...]  # precisions that were checked on the CPU, the chosen one last; empty: none was


def build_engine(
    model: Path,
    path: Path,
    settings: Settings,
    *,
    arguments: tuple[str, ...] = (),
    checked: Callable[[int], object] = lambda images: None,
    progress: Progress = lambda share, phase: None,
    stopped: Callable[[], bool] = lambda: False,
) -> EngineBuild:
    """Build a strongly typed engine from an ONNX file with a manifest and write it with its sidecar.

    arguments: of the command line, for the command that builds it again
    checked: called with the number of images of each batch that the check on the CPU has read
    progress: called throughout the build; stopped: asked throughout it
    Raises what opening the model raises; BackendMissing, CastImpossible, ProfileInvalid, Unsupported,
    PrecisionFailed, BuildFailed; KeyboardInterrupt where it was stopped. Nothing is written then.
    """
    if stopped():
        raise KeyboardInterrupt
    source = load_onnx(model)
    manifest = manifest_of(source)
    if manifest is None:
        raise ManifestMissing(model)
    builder, trt = _library(settings.builder)
    _check_settings(settings, builder)
    profiles = profiles_of(manifest, settings.batch, settings.widths, settings.profiles)
    narrowest = profiles[0].width.minimum
    manifest = replace(
        manifest, width=covered(manifest.width, Range(narrowest, narrowest, profiles[-1].width.maximum))
    )
    _check_graph(source, settings.precision)
    _check_recurrence(source, settings, builder, trt.__version__)
    _check_narrowest(model, manifest)
    typed, rungs = _typed(source, manifest, settings, checked)
    chosen: Precision = rungs[-1].half or "fp32" if rungs else settings.precision
    kept = rungs[-1].kept_fp32 if rungs else ()
    cache = settings.timing_cache
    start = time.perf_counter()
    network = Network(trt, typed)
    plan, cache_after = network.build(
        profiles,
        targets=settings.targets,
        workspace=settings.workspace,
        optimization_level=settings.optimization_level,
        timing_cache=None if cache is None else cache.read_bytes() if cache.exists() else b"",
        progress=progress,
        stopped=stopped,
    )
    seconds = time.perf_counter() - start
    found = driver.probe()
    gpu = found.gpus[0] if found.gpus else None
    engine = EngineFile(
        manifest=manifest,
        engine_sha256=digest(plan),
        engine_bytes=len(plan),
        onnx_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        builder=builder,
        builder_version=trt.__version__,
        system=system(),
        cuda=found.cuda,
        driver=found.version,
        gpu=None if gpu is None else gpu.name,
        compute_capability=None if gpu is None else gpu.compute_capability,
        targets=settings.targets,
        precision=chosen,
        kept_fp32=kept,
        layers=network.layers(),
        layers_from="network",
        profiles=profiles,
        build_seconds=round(seconds, 2),
        crnn_deploy=metadata.version("crnn-deploy"),
        arguments=arguments or (str(model), f"--{settings.precision}", "-o", str(path)),
    )
    _write(path, plan, engine)
    if cache is not None:
        with replacing(cache) as temporary:
            temporary.write_bytes(cache_after)
    return EngineBuild(path, engine, rungs)


def _library(wanted: Literal["auto"] | BuilderName) -> tuple[BuilderName, Any]:
    if wanted != "auto":
        return wanted, import_tensorrt(wanted)
    names: tuple[BuilderName, ...] = ("tensorrt", "tensorrt-rtx")
    for name in names:
        try:
            return name, import_tensorrt(name)
        except BackendMissing:
            continue
    raise BackendMissing(
        "no TensorRT is installed; run pip install 'crnn-deploy[tensorrt]', or 'crnn-deploy[tensorrt-rtx]', "
        "which builds without a GPU"
    )


def _check_settings(settings: Settings, builder: BuilderName) -> None:
    if settings.timing_cache is not None and builder == "tensorrt-rtx":
        raise Unsupported("TensorRT for RTX times nothing while it builds; leave --timing-cache out")
    if settings.keep_fp32 and settings.precision not in ("fp16", "bf16"):
        raise Unsupported("--keep-fp32 goes with --fp16 or --bf16")


def _check_graph(model: onnx.ModelProto, precision: Precision) -> None:
    """What TensorRT would build wrongly or not at all. Raises Unsupported, CastImpossible."""
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if precision == "int8" and not quantised:
        raise CastImpossible("--int8 needs a quantised model, with QuantizeLinear and DequantizeLinear nodes")
    if precision != "int8" and quantised:
        raise CastImpossible("the model is quantised already; build it with --int8")
    for node in model.graph.node:
        if node.op_type not in _RECURRENT:
            continue
        if any(attribute.name == "layout" and attribute.i == 1 for attribute in node.attribute):
            raise Unsupported(
                f"{node.name} ({node.op_type}) has layout=1, which TensorRT parses silently wrong; "
                "export it with layout=0, time before batch"
            )


def _check_recurrence(model: onnx.ModelProto, settings: Settings, builder: BuilderName, version: str) -> None:
    """Recurrent layers in half precision. Raises Unsupported."""
    if settings.precision not in ("fp16", "bf16"):
        return
    kept = {name for pattern in settings.keep_fp32 for name in matching(model, pattern)}
    for node in model.graph.node:
        if node.op_type not in _RECURRENT or node.name in kept:
            continue
        if len(node.input) > _SEQUENCE_LENS and node.input[_SEQUENCE_LENS]:
            raise Unsupported(
                f"{node.name} ({node.op_type}) has sequence_lens, which TensorRT takes in fp32 alone; "
                f"add --keep-fp32 {node.op_type}"
            )
        if builder == "tensorrt" and tuple(map(int, version.split(".")[:2])) < _HALF_LSTM:
            raise Unsupported(
                f"TensorRT {version} builds no half precision {node.op_type} in a strongly typed network; "
                f"upgrade to 10.14, or add --keep-fp32 {node.op_type}"
            )


def _check_narrowest(model: Path, manifest: Manifest) -> None:
    """Run the smallest width: the builder takes one at which nothing is left after pooling."""
    backend = OrtBackend(model)
    width = manifest.width.minimum
    try:
        backend.run(np.zeros((1, manifest.channels, manifest.height, width), np.float32))
    except RunFailed as error:
        raise ProfileInvalid(f"nothing is left at width {width}, the smallest asked for: {error}") from error
    finally:
        backend.close()


def _typed(
    source: onnx.ModelProto, manifest: Manifest, settings: Settings, checked: Callable[[int], object]
) -> tuple[onnx.ModelProto, tuple[Rung, ...]]:
    if settings.precision not in ("fp16", "bf16"):
        return source, ()
    return climb(
        source,
        manifest,
        settings.precision,
        keep_fp32=settings.keep_fp32,
        ladder=settings.ladder,
        progress=checked,
    )


def _write(path: Path, plan: bytes, engine: EngineFile) -> None:
    """Both files are whole before either takes its place."""
    with replacing(sidecar_of(path)) as sidecar, replacing(path) as temporary:
        temporary.write_bytes(plan)
        sidecar.write_text(engine.to_json(), encoding="utf-8")
