"""Plans on PyTorch's memory: TensorRT reads and writes tensors where they are, on PyTorch's stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from benchmarks.gpu.device import Device
from benchmarks.gpu.work import Work
from crnn_deploy.engine.network import Network
from crnn_deploy.runtime.backends.engine_file import Profile
from crnn_deploy.runtime.backends.trt import Contexts, Kernels, logger

__all__ = ["TorchEngine", "plan_of"]


def plan_of(work: Work, trt: Any, model: onnx.ModelProto, profile: Profile) -> bytes:
    """A plan with one profile. Raises what `Network.build` raises; KeyboardInterrupt once it is late."""
    plan, _ = Network(trt, model).build([profile], targets=work.targets(), stopped=work.late)
    return plan


class TorchEngine:
    """A plan as a function of tensors on the GPU. Of one thread.

    profile: the one of the plan that is used
    kernels: of TensorRT for RTX; eager ones do not change while they are measured
    Raises RuntimeError where TensorRT does not load it, in a call where it does not take the shape.
    """

    def __init__(
        self, trt: Any, plan: bytes, gpu: Device, profile: int = 0, kernels: Kernels = "eager"
    ) -> None:
        self._trt, self._gpu = trt, gpu
        logger(trt).errors.clear()
        self._runtime = trt.Runtime(logger(trt))  # must outlive its engine
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RuntimeError(f"TensorRT does not load the plan: {self._reason()}")
        names = [self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)]
        [self._input] = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._types = {
            name: torch.from_numpy(np.empty(0, trt.nptype(self._engine.get_tensor_dtype(name)))).dtype
            for name in names
            if name != self._input
        }
        self._contexts = Contexts(trt, self._engine, kernels)
        self._context = self._contexts.make()
        if self._context is None:
            raise RuntimeError(f"TensorRT makes no execution context: {self._reason()}")
        self._context.set_optimization_profile_async(profile, gpu.handle)
        gpu.synchronize()
        self._capturable = True  # as far as TensorRT for RTX was asked

    def __call__(self, images: Tensor) -> list[Tensor]:
        """The outputs of contiguous float32 images (N, C, H, W), which must stay until the stream is done."""
        context = self._context
        if not context.set_input_shape(self._input, tuple(images.shape)):
            raise RuntimeError(f"the profile does not take {tuple(images.shape)}")
        context.set_tensor_address(self._input, images.data_ptr())
        outputs = []
        for name, kind in self._types.items():
            shape = tuple(context.get_tensor_shape(name))
            outputs.append(torch.empty(shape, dtype=kind, device=self._gpu.device))
            context.set_tensor_address(name, outputs[-1].data_ptr())
        recording = self._gpu.recording()
        if recording and not self._capturable:
            raise RuntimeError("TensorRT for RTX says that this stream cannot be recorded")
        if not context.execute_async_v3(self._gpu.handle):
            raise RuntimeError(f"TensorRT does not run: {self._reason()}")
        if not recording and hasattr(context, "is_stream_capturable"):
            self._capturable = bool(context.is_stream_capturable(self._gpu.handle))
        return outputs

    def _reason(self) -> str:
        return " ".join(logger(self._trt).errors[-1:]) or "it gives no reason"
