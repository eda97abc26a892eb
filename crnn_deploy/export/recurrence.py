"""Recurrent layers as ONNX nodes that keep time dynamic.

The exporter unrolls `nn.LSTM` and freezes its time axis at the traced length. Here each recurrent layer
becomes the ONNX node of its name through `torch.onnx.ops.symbolic`, for every length and batch.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic

from crnn_deploy.errors import CrnnDeployError

__all__ = ["ExportImpossible", "with_onnx_recurrence"]


class ExportImpossible(CrnnDeployError, ValueError):
    """A network that ONNX cannot hold as it is."""


class _Recurrent(nn.Module):
    """An `nn.LSTM` or `nn.GRU` as one ONNX node per layer.

    Shape: as the layer it replaces; the final states are not given.
    """

    # order of the gates in ONNX (i, o, f, c and z, r, h), as indices into PyTorch's (i, f, g, o and r, z, n)
    _GATES: ClassVar = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        if not layer.bias or layer.proj_size:
            raise ExportImpossible(
                f"{layer}: recurrent layers without bias or with projections are not supported"
            )
        self.kind = "LSTM" if isinstance(layer, nn.LSTM) else "GRU"
        self.batch_first = layer.batch_first
        self.layers = layer.num_layers
        self.hidden = layer.hidden_size
        self.directions = ("", "_reverse") if layer.bidirectional else ("",)
        gates = self._GATES[self.kind]

        def stacked(name: str, at: int) -> Tensor:
            rows = []
            for suffix in self.directions:
                parts = getattr(layer, f"{name}_l{at}{suffix}").detach().chunk(len(gates))
                rows.append(torch.cat([parts[gate] for gate in gates]))
            return torch.stack(rows)

        for at in range(self.layers):
            self.register_buffer(f"input_{at}", stacked("weight_ih", at))
            self.register_buffer(f"hidden_{at}", stacked("weight_hh", at))
            self.register_buffer(
                f"bias_{at}", torch.cat([stacked("bias_ih", at), stacked("bias_hh", at)], dim=1)
            )
        # copies time and batch from its input, joins the directions
        self.join: Tensor
        self.register_buffer("join", torch.tensor([0, 0, -1]))

    def flatten_parameters(self) -> None:
        """Some networks call this on their recurrent layers; there is nothing to flatten."""

    def forward(self, sequence: Tensor, state: None = None) -> tuple[Tensor, None]:
        if state is not None:
            raise ExportImpossible("a recurrent layer with an initial state is not supported")
        if self.batch_first:
            sequence = sequence.transpose(0, 1)
        steps, batch = sequence.shape[:2]
        attributes: dict[str, Any] = {"hidden_size": self.hidden}
        attributes["direction"] = "bidirectional" if len(self.directions) == 2 else "forward"
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1
        for at in range(self.layers):
            weights = (getattr(self, f"{name}_{at}") for name in ("input", "hidden", "bias"))
            output = symbolic(
                self.kind,
                (sequence, *weights),
                attributes,
                dtype=sequence.dtype,
                shape=(steps, len(self.directions), batch, self.hidden),
                version=14,
            )
            sequence = symbolic(
                "Reshape",
                (output.permute(0, 2, 1, 3), self.join),
                dtype=sequence.dtype,
                shape=(steps, batch, len(self.directions) * self.hidden),
                version=14,
            )
        return sequence.transpose(0, 1) if self.batch_first else sequence, None


def with_onnx_recurrence(module: nn.Module) -> nn.Module:
    """A copy for the exporter: every LSTM and GRU replaced by its ONNX node. Raises ExportImpossible."""
    module = copy.deepcopy(module)
    if isinstance(module, nn.LSTM | nn.GRU):
        return _Recurrent(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LSTM | nn.GRU):
                setattr(parent, name, _Recurrent(child))
            elif isinstance(child, nn.RNNBase):
                raise ExportImpossible(f"{type(child).__name__} is not supported; LSTM and GRU are")
    return module
