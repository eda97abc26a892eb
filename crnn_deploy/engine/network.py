"""TensorRT itself: an ONNX model becomes a strongly typed network, and that a plan.

One path for TensorRT 10, 11 and TensorRT for RTX: every precision stands in the model's types, and every enum
is taken by its name, since the values differ between versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.backends.engine_file import CURRENT, EngineLayer, Precision, Profile
from crnn_deploy.runtime.backends.trt import logger

__all__ = ["BuildFailed", "Network", "Progress", "Unsupported"]

Progress = Callable[[float, str], object]  # share of the build that is done, 0-1, and what is being done

_MIB = 2**20
# kinds of layers that compute: how moves, casts and shapes are typed says nothing of an engine's precision
_COMPUTES = {
    *("ACTIVATION", "CONVOLUTION", "CUMULATIVE", "DECONVOLUTION", "EINSUM", "ELEMENTWISE", "LRN"),
    *("MATRIX_MULTIPLY", "NORMALIZATION", "PARAMETRIC_RELU", "POOLING", "REDUCE", "SCALE", "SOFTMAX"),
    *("TOPK", "UNARY"),
}


class Unsupported(CrnnDeployError, ValueError):
    """A model or a setting that this TensorRT does not take."""


class BuildFailed(CrnnDeployError, RuntimeError):
    """TensorRT parsed the model and could not build it."""

    exit_code = 1


class Network:
    """A parsed, strongly typed network. Keeps all that must live as long as its parser.

    trt: the module `tensorrt` or `tensorrt_rtx`
    model: float types as they shall run; input `images` (batch, C, H, width)
    Raises Unsupported, with the nodes that the parser does not take.
    """

    def __init__(self, trt: Any, model: onnx.ModelProto) -> None:
        self._trt = trt
        self._log = logger(trt)
        self._log.errors.clear()
        builder = trt.Builder(self._log)
        data = model.SerializeToString()
        # asking leaves layers behind, so it is asked of a network of its own
        if refused := self._refused(builder, model, data):
            raise Unsupported(refused)
        network = builder.create_network(_strongly_typed(trt))
        # attributes go in this order: a parser must not outlive its network, nor that its builder
        self._parser = trt.OnnxParser(network, self._log)
        self._network = network
        self._builder = builder
        if not self._parser.parse(data):
            raise Unsupported(f"TensorRT does not parse the model: {self._parser_errors(self._parser)}")
        self._input = model.graph.input[0]

    def _refused(self, builder: Any, model: onnx.ModelProto, data: bytes) -> str | None:
        """The nodes that the parser does not take, and why."""
        network = builder.create_network(_strongly_typed(self._trt))
        parser = self._trt.OnnxParser(network, self._log)
        refused = None
        if not parser.supports_model_v2(data):
            errors = [parser.get_error(at) for at in range(parser.num_errors)]
            nodes = [(error.node_name(), error.node_operator()) for error in errors if error.node_name()]
            nodes = nodes or [
                (model.graph.node[at].name, model.graph.node[at].op_type)
                for part in range(parser.num_subgraphs)
                if not parser.is_subgraph_supported(part)
                for at in parser.get_subgraph_nodes(part)
            ]
            named = ", ".join(f"{name} ({operator})" for name, operator in nodes[:5])
            more = f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
            refused = f"TensorRT does not take these nodes: {named}{more}; {self._parser_errors(parser)}"
        del parser  # before its network
        return refused

    @staticmethod
    def _parser_errors(parser: Any) -> str:
        errors = [parser.get_error(at) for at in range(parser.num_errors)]
        return (
            "; ".join(f"{error.node_name()}: {error.desc()}" for error in errors[:3]) or "no reason is given"
        )

    def layers(self) -> tuple[EngineLayer, ...]:
        """The layers that compute, by the types of their tensors; int8 where all inputs are dequantised.

        A layer between dequantised inputs has float types; TensorRT makes it one int8 layer with them.
        """
        network = self._network
        kinds: dict[str, str] = {}
        found = []
        for at in range(network.num_layers):
            layer = network.get_layer(at)
            kind = layer.type.name
            outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
            kinds.update((tensor.name, kind) for tensor in outputs if tensor is not None)
            if kind not in _COMPUTES:
                continue
            precision = self._float_types.get(outputs[0].dtype)
            if precision is None:  # arithmetic on shapes
                continue
            inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
            if inputs and all(
                tensor is not None and kinds.get(tensor.name) == "DEQUANTIZE" for tensor in inputs
            ):
                precision = "int8"
            found.append(EngineLayer(layer.name, kind, precision))
        return tuple(found)

    @property
    def _float_types(self) -> dict[Any, Precision]:
        trt = self._trt
        return {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16"}

    def build(
        self,
        profiles: Sequence[Profile],
        *,
        targets: Sequence[str] = (),
        tf32: bool = False,
        workspace: int | None = None,
        optimization_level: int | None = None,
        timing_cache: bytes | None = None,
        progress: Progress = lambda share, phase: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> tuple[bytes, bytes]:
        """The plan, and the timing cache after it (empty where none was given).

        targets: GPUs as sm_80, or the one here as current; of TensorRT for RTX alone
        tf32: whether products of fp32 tensors may round their factors to TF32
        workspace: MiB that a layer may use for itself
        stopped: asked throughout; once true, the build ends soon
        Raises Unsupported, BuildFailed, KeyboardInterrupt where it was stopped.
        """
        trt, builder = self._trt, self._builder
        config = builder.create_builder_config()
        if workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace * _MIB)
        if optimization_level is not None:
            config.builder_optimization_level = optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the inspector
        if not tf32:  # TensorRT allows it unless told
            config.clear_flag(trt.BuilderFlag.TF32)
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # or no CUDA graph of it can be recorded
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        cache = None if timing_cache is None else config.create_timing_cache(timing_cache)
        if cache is not None:
            config.set_timing_cache(cache, False)
        if targets:
            self._set_targets(config, targets)
        dims = self._input.type.tensor_type.shape.dim
        for one in profiles:
            profile = builder.create_optimization_profile()
            shapes = [
                (batch, dims[1].dim_value, dims[2].dim_value, width)
                for batch, width in (
                    (one.batch.minimum, one.width.minimum),
                    (one.batch.optimum, one.width.optimum),
                    (one.batch.maximum, one.width.maximum),
                )
            ]
            profile.set_shape(self._input.name, *shapes)
            if config.add_optimization_profile(profile) < 0:
                raise BuildFailed(f"TensorRT refuses the profile {one}")
        config.progress_monitor = _monitor(trt, progress, stopped)
        plan = builder.build_serialized_network(self._network, config)
        if stopped():
            raise KeyboardInterrupt
        if plan is None:
            reason = " ".join(self._log.errors[-1:]) or "it gives no reason"
            raise BuildFailed(f"TensorRT builds no engine: {reason}")
        progress(1.0, "done")
        return bytes(plan), b"" if cache is None else bytes(cache.serialize())

    def _set_targets(self, config: Any, targets: Sequence[str]) -> None:
        trt = self._trt
        if not hasattr(trt, "ComputeCapability"):
            raise Unsupported("TensorRT builds for the GPU that is there; --target needs tensorrt-rtx")
        names = [target.replace("_", "").upper() for target in targets]
        known = [name for name in trt.ComputeCapability.__members__ if name != "NONE"]
        for target, name in zip(targets, names, strict=True):
            if name not in known:
                shown = ", ".join(
                    f"sm_{k.removeprefix('SM')}" if k.startswith("SM") else CURRENT for k in known
                )
                raise Unsupported(f"this TensorRT has no target {target!r}; it has {shown}")
        config.num_compute_capabilities = len(names)
        for at, name in enumerate(names):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), at)


def _strongly_typed(trt: Any) -> int:
    """The flag's bit moved between TensorRT 10 and 11; its name did not."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _monitor(trt: Any, progress: Progress, stopped: Callable[[], bool]) -> Any:
    """TensorRT's nested phases as one share from 0 to 1."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = (parent_phase, num_steps, 0)

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                parent, steps, _ = self.phases[phase_name]
                self.phases[phase_name] = (parent, steps, step + 1)
                progress(self._share(phase_name), phase_name)
            return not stopped()

        def _share(self, phase: str) -> float:
            """Of the whole build, from the innermost phase outwards."""
            inner = 0.0
            name: str | None = phase
            while name in self.phases:
                name, steps, done = self.phases[name]
                inner = min(1.0, (done + inner) / max(1, steps))
            return inner

    return Monitor()
