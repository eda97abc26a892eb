"""One step of a training: forward, CTC loss, backward, optimiser, average."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss
from torch.nn.parallel import DistributedDataParallel

from crnn_deploy.training.config import Config
from crnn_deploy.training.copies import is_asynchronous
from crnn_deploy.training.data import TrainingBatch
from crnn_deploy.training.model import Model
from crnn_deploy.training.optimize import Average, optimizer_of

__all__ = ["Learner"]


class Learner:
    """A network on a device, and what changes its weights.

    world: processes that train together
    """

    def __init__(self, config: Config, model: Model, device: torch.device, world: int = 1) -> None:
        self._config, self._device, self._blank = config, device, model.manifest.blank
        # the layout in which convolutions are fastest, on CPUs and GPUs
        model.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in model.module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_hook(_lay_gradient_as_output)
        self.average = Average(model.weights, config.ema) if config.ema else None
        self.optimizer = optimizer_of(model.module, config.optimizer, fused=is_asynchronous(device))
        self.scaler = torch.amp.GradScaler("cuda", enabled=config.precision == "fp16")
        self.norm = torch.zeros(())  # of the last step's gradient, before it was clipped
        self._module: nn.Module = model.module
        if world > 1:
            self._module = DistributedDataParallel(
                model.module, device_ids=[device] if device.type == "cuda" else None
            )

    def learn(self, batch: TrainingBatch, step: int, rate: float) -> Tensor:
        """One step on a batch of the device, the one with this number from 0; its loss.

        On a GPU nothing here waits for it but `ctc_loss` and its gradient, which copy the lengths there.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self._cast():
            logits = self._module(batch.images)
        log_probs = logits.float().log_softmax(2).transpose(0, 1)  # (T, N, classes)
        steps, images = log_probs.shape[:2]
        loss = ctc_loss(
            log_probs,
            batch.labels,
            torch.full((images,), steps),
            batch.lengths,
            blank=self._blank,
            zero_infinity=True,
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self._config.clip is not None:
            self.scaler.unscale_(self.optimizer)
            self.norm = nn.utils.clip_grad_norm_(self._module.parameters(), self._config.clip)
        else:
            gradients = [p.grad for p in self._module.parameters() if p.grad is not None]
            self.norm = nn.utils.get_total_norm(gradients)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(step)
        return loss.detach()

    def _cast(self) -> AbstractContextManager[Any]:
        if self._config.precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self._config.precision == "bf16" else torch.float16
        return torch.autocast(self._device.type, dtype=dtype)


def _lay_gradient_as_output(layer: nn.Module, images: tuple[Tensor, ...], normed: Tensor) -> None:
    """Give the gradient of a norm's output the strides of that output.

    Behind a recurrent layer its one row has another stride. PyTorch then takes a path that is up to fifty
    times as slow on a CPU.
    """
    strides = normed.stride()

    def laid(gradient: Tensor) -> Tensor:
        if gradient.stride() == strides:
            return gradient
        return torch.empty_strided(
            gradient.shape, strides, dtype=gradient.dtype, device=gradient.device
        ).copy_(gradient)

    if normed.requires_grad:
        normed.register_hook(laid)  # type: ignore[no-untyped-call]
