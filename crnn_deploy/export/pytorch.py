"""The PyTorch reference: the module itself, run the slow and certain way."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["ReferenceBackend"]


class ReferenceBackend:
    """A module (N, C, H, W) -> logits (N, T, classes), run in fp32 on the CPU.

    Images run one at a time: PyTorch picks other kernels for other batch sizes, and a reference must not
    depend on the batch.
    """

    def __init__(self, module: nn.Module, manifest: Manifest) -> None:
        self.module = module.eval().float()
        self.manifest = manifest

    def run(self, images: NDArray[np.float32]) -> Frames:
        with torch.inference_mode():
            rows = [self.module(torch.from_numpy(image[None])) for image in images]
        return Frames.from_logits(torch.cat(rows).numpy())

    def close(self) -> None:
        del self.module
