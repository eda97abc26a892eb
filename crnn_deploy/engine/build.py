"""A proven ONNX file to a TensorRT engine that says what it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from crnn_deploy.engine.ladder import Rung, climb
from crnn_deploy.engine.network import Network, Progress, Unsupported
from crnn_deploy.engine.profiles import ProfileInvalid, covered, profiles_of
from crnn_deploy.errors import BackendMissing, RunFailed
from crnn_deploy.files import replacing
from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.graph.model import OnnxModel, open_model
from crnn_deploy.graph.precision import RECURRENT, CastImpossible, matching
from crnn_deploy.manifest import Manifest
from crnn_deploy.parity.proof_images import proof_images
from crnn_deploy.quantization.qdq import drop_idle_pairs
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.backends.cuda import open_cuda
from crnn_deploy.runtime.backends.engine_file import (
    CURRENT,
    BuilderName,
    EngineFile,
    EngineStale,
    Precision,
    Range,
    digest,
    fitness,
    sidecar_of,
    system,
)
from crnn_deploy.runtime.backends.trt import TrtBackend, import_tensorrt
from crnn_deploy.verdict.fidelity import Fidelity, Proof

__all__ = ["BATCH", "BuildSettings", "EngineBuild", "build_engine"]

BATCH = Range(1, 8, 32)
_SEQUENCE_LENS = 4  # which input of a recurrent node
_HALF_LSTM = (10, 14)  # the first TensorRT with a half precision LSTM in a strongly typed network


@dataclass(frozen=True)
class BuildSettings:
    """How to build."""

    precision: Precision = "fp32"
    builder: Literal["auto"] | BuilderName = "auto"  # auto: TensorRT where it is installed, else that for RTX
    widths: Range | None = None  # pixels; None: all of the manifest's rule
    batch: Range = BATCH  # images
    profiles: int | None = None  # None: one for each doubling of the width
    targets: tuple[str, ...] = ()  # GPUs as sm_80, or current
    timing_cache: Path | None = None  # read where it is, and written
    workspace: int | None = None  # MiB
    optimization_level: int | None = None  # TensorRT's, 0-5
    keep_fp32: tuple[str, ...] = ()  # patterns of node names or operators
    ladder: bool = True  # whether a safer precision is taken when the check of one fails
    argmax: bool = False  # whether the engine puts out index and probability of each frame's best class
    images: str | None = None  # folder, file or glob: read by the checks beside drawn ones
    checkpoint: Path | None = None  # in PyTorch, what the checks compare with; None: the model itself
    source: CheckpointSettings = field(default_factory=CheckpointSettings)  # how it is opened


@dataclass(frozen=True)
class EngineBuild:
    """What was built and written."""

    path: Path
    engine: EngineFile
    rungs: tuple[Rung, ...]  # precisions that were tried, the chosen one last
    gpu: str | None  # name of the one on which engines were checked
    unchecked: (
        str | None
    )  # why the engine was not checked on the GPU that is here; None where it was, or none is


def build_engine(
    model: Path,
    path: Path,
    settings: BuildSettings,
    *,
    arguments: tuple[str, ...] = (),
    checked: Callable[[int], object] = lambda images: None,
    progress: Progress = lambda share, phase: None,
    stopped: Callable[[], bool] = lambda: False,
) -> EngineBuild:
    """Build a strongly typed engine from an ONNX file with a manifest and write it with its sidecar.

    Where a GPU is that loads the engine, it must read there as the model does, or the next rung is built.

    arguments: of the command line, for the command that builds it again
    checked: called with the number of images of each batch that a check has read
    progress: called throughout the build; stopped: asked throughout it
    Raises what opening the model, the checkpoint and the images raises; BackendMissing, CastImpossible,
    ProfileInvalid, Unsupported, PrecisionFailed, BuildFailed, RunFailed; KeyboardInterrupt where it was
    stopped. Nothing is written then.
    """
    if stopped():
        raise KeyboardInterrupt
    source = open_model(model)
    manifest = source.manifest
    builder, trt = _library(settings.builder)
    found = driver.probe()
    _check_settings(settings, builder, found)
    profiles = profiles_of(manifest, settings.batch, settings.widths, settings.profiles)
    narrowest = profiles[0].width.minimum
    manifest = replace(
        manifest, width=covered(manifest.width, Range(narrowest, narrowest, profiles[-1].width.maximum))
    )
    _check_graph(source.graph, settings.precision)
    _check_recurrence(source.graph, settings, builder, trt.__version__)
    _check_narrowest(source.backend(), manifest)
    gpu = found.gpus[0] if found.gpus else None
    bare = EngineFile(
        manifest=replace(manifest, output="argmax") if settings.argmax else manifest,
        engine_sha256="",
        engine_bytes=0,
        onnx_sha256=source.sha256,
        builder=builder,
        builder_version=trt.__version__,
        system=system(),
        cuda=found.cuda,
        driver=found.version,
        gpu=None if gpu is None else gpu.name,
        compute_capability=None if gpu is None else gpu.compute_capability,
        targets=settings.targets,
        precision=settings.precision,
        kept_fp32=(),
        layers=(),
        layers_from="network",
        profiles=profiles,
        verified=None,
        build_seconds=0.0,
        crnn_deploy=metadata.version("crnn-deploy"),
        arguments=arguments or (str(model), f"--{settings.precision}", "-o", str(path)),
    )
    proof = _proof(source, manifest, settings, checked)
    here = gpu.name if gpu is not None and fitness(bare, gpu).allowed else None
    building = _Building(trt, bare, settings, path, proof, here, progress, stopped)
    _, rungs = climb(
        source.graph,
        proof,
        settings.precision,
        keep_fp32=settings.keep_fp32,
        ladder=settings.ladder,
        build=building.build,
    )
    _write(path, building.plan, building.engine)
    if settings.timing_cache is not None:
        with replacing(settings.timing_cache) as temporary:
            temporary.write_bytes(building.timing_cache)
    return EngineBuild(path, building.engine, rungs, here, building.unchecked)


class _Building:
    """Builds the engine of one rung after another; the last one stands.

    gpu: name of the one that runs the engines here
    """

    def __init__(
        self,
        trt: Any,
        bare: EngineFile,
        settings: BuildSettings,
        path: Path,
        proof: Proof,
        gpu: str | None,
        progress: Progress,
        stopped: Callable[[], bool],
    ) -> None:
        self._trt, self._settings, self._path, self._proof, self._gpu = trt, settings, path, proof, gpu
        self._progress, self._stopped = progress, stopped
        self.plan, self.engine = b"", bare
        self.unchecked: str | None = None
        cache = settings.timing_cache
        self.timing_cache = cache.read_bytes() if cache is not None and cache.exists() else b""

    def build(self, model: onnx.ModelProto, rung: Rung) -> Fidelity | None:
        """Build a rung's model, and where a GPU is here see what the engine reads."""
        settings = self._settings
        start = time.perf_counter()
        model = drop_idle_pairs(model) if rung.precision == "int8" else model
        network = Network(self._trt, with_argmax(model) if settings.argmax else model)
        self.plan, self.timing_cache = network.build(
            self.engine.profiles,
            targets=settings.targets,
            tf32=rung.precision == "tf32",
            workspace=settings.workspace,
            optimization_level=settings.optimization_level,
            timing_cache=None if settings.timing_cache is None else self.timing_cache,
            progress=self._progress,
            stopped=self._stopped,
        )
        self.engine = replace(
            self.engine,
            engine_sha256=digest(self.plan),
            engine_bytes=len(self.plan),
            precision=rung.precision,
            kept_fp32=rung.kept_fp32,
            layers=network.layers(),
            layers_from="network",
            verified=None,
            build_seconds=round(time.perf_counter() - start, 2),
        )
        return None if self._gpu is None else self._verify()

    def _verify(self) -> Fidelity | None:
        """None where TensorRT for RTX finds the plan invalid on this GPU, and `unchecked` says so."""
        try:
            backend = TrtBackend(self._trt, self.plan, self.engine, self._path, open_cuda())
        except EngineStale as error:
            self.unchecked = str(error)
            return None
        try:
            layers = backend.layers()
            found = self._proof.check(self._proof.run(backend), backend.manifest)
        finally:
            backend.close()
        against = "the ONNX file" if self._settings.checkpoint is None else "PyTorch"
        validity = "" if backend.validity is None else f", where TensorRT for RTX calls it {backend.validity}"
        self.engine = replace(
            self.engine,
            layers=layers or self.engine.layers,
            layers_from="engine" if layers else "network",
            verified=f"{found.line()}; against {against}, on {self._gpu}{validity}",
        )
        return found


def _proof(
    model: OnnxModel, manifest: Manifest, settings: BuildSettings, checked: Callable[[int], object]
) -> Proof:
    images: list[NDArray[np.float32]] = []
    if settings.images is not None:
        found = proof_images(manifest, settings.images, None, 0)
        images = [batch.images for batch in found.batches]
    reference: Backend = model.backend()
    if settings.checkpoint is not None:
        from crnn_deploy.export.reference import open_checkpoint  # PyTorch, which nothing else here needs

        reference = open_checkpoint(settings.checkpoint, settings.source, manifest)
    return Proof(reference, manifest, images=images, progress=checked)


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


def _check_settings(settings: BuildSettings, builder: BuilderName, found: driver.Driver) -> None:
    if CURRENT in settings.targets and len(settings.targets) > 1:
        raise Unsupported(f"--target {CURRENT} is the GPU here; it goes with no other target")
    if CURRENT in settings.targets and found.problem is not None:
        raise Unsupported(f"--target {CURRENT} needs a GPU here: {found.problem}; name the GPU, as sm_89")
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
        if node.op_type not in RECURRENT:
            continue
        if any(attribute.name == "layout" and attribute.i == 1 for attribute in node.attribute):
            raise Unsupported(
                f"{node.name} ({node.op_type}) has layout=1, which TensorRT parses silently wrong; "
                "export it with layout=0, time before batch"
            )


def _check_recurrence(
    model: onnx.ModelProto, settings: BuildSettings, builder: BuilderName, version: str
) -> None:
    """Recurrent layers in half precision. Raises Unsupported."""
    if settings.precision not in ("fp16", "bf16"):
        return
    kept = {name for pattern in settings.keep_fp32 for name in matching(model, pattern)}
    for node in model.graph.node:
        if node.op_type not in RECURRENT or node.name in kept:
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


def _check_narrowest(backend: Backend, manifest: Manifest) -> None:
    """Run the smallest width: the builder takes one at which nothing is left after pooling."""
    width = manifest.width.minimum
    try:
        backend.run(np.zeros((1, manifest.channels, manifest.height, width), np.float32))
    except RunFailed as error:
        raise ProfileInvalid(
            f"nothing is left after pooling at width {width}, the smallest of the engine; give a larger "
            f"--width-range: {error}"
        ) from error


def _write(path: Path, plan: bytes, engine: EngineFile) -> None:
    """Both files are whole before either takes its place."""
    with replacing(sidecar_of(path)) as sidecar, replacing(path) as temporary:
        temporary.write_bytes(plan)
        sidecar.write_text(engine.to_json(), encoding="utf-8")
