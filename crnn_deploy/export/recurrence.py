"""Recurrent layers as ONNX nodes that keep time dynamic.

The exporter unrolls `nn.LSTM` and freezes its time axis at the traced length. Here each recurrent layer
becomes the ONNX node of its name through `torch.onnx.ops.symbolic`, for every length and batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic_multi_out

from crnn_deploy.errors import CrnnDeployError

__all__ = ["ExportImpossible", "node", "with_onnx_recurrence"]


class ExportImpossible(CrnnDeployError, ValueError):
    """A network that ONNX cannot hold as it is."""


def node(
    kind: str,
    inputs: Sequence[Tensor | None],
    attributes: dict[str, Any],
    dtype: torch.dtype,
    shapes: Sequence[Sequence[Any]],
) -> list[Tensor]:
    """An ONNX node with an output of each shape."""
    return list(
        symbolic_multi_out(kind, inputs, attributes, dtypes=[dtype] * len(shapes), shapes=shapes, version=14)
    )


class _Recurrent(nn.Module):
    """An `nn.LSTM`, `nn.GRU` or `nn.RNN` as one ONNX node per layer.

    Shape: as the layer it replaces, the states included.
    """

    # order of the gates in ONNX (i, o, f, c; z, r, h; one), as indices into PyTorch's (i, f, g, o; r, z, n)
    _GATES: ClassVar = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}

    def __init__(self, layer: nn.RNNBase, name: str) -> None:
        super().__init__()
        if layer.proj_size:
            raise ExportImpossible(
                f"the network's layer {name} is an LSTM with proj_size, which ONNX has no operator for; "
                "train it with a linear layer behind an LSTM in its place"
            )
        self.name = name
        self.kind = layer.mode.partition("_")[0]
        self.batch_first = layer.batch_first
        self.layers = layer.num_layers
        self.hidden = layer.hidden_size
        self.directions = ("", "_reverse") if layer.bidirectional else ("",)
        self.attributes: dict[str, Any] = {"hidden_size": self.hidden}
        self.attributes["direction"] = "bidirectional" if layer.bidirectional else "forward"
        if self.kind == "GRU":
            self.attributes["linear_before_reset"] = 1
        if layer.mode == "RNN_RELU":
            self.attributes["activations"] = ["Relu"] * len(self.directions)
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
            shape = (len(self.directions), 2 * len(gates) * self.hidden)
            bias = [stacked("bias_ih", at), stacked("bias_hh", at)] if layer.bias else [torch.zeros(shape)]
            self.register_buffer(f"bias_{at}", torch.cat(bias, dim=1))
        # copies time and batch from its input, joins the directions
        self.join: Tensor
        self.register_buffer("join", torch.tensor([0, 0, -1]))

    def flatten_parameters(self) -> None:
        """Some networks call this on their recurrent layers; there is nothing to flatten."""

    def forward(self, sequence: Any, state: Any = None) -> tuple[Tensor, Any]:
        if not isinstance(sequence, Tensor):
            raise ExportImpossible(
                f"the network packs the sequences of its layer {self.name} (pack_padded_sequence); the "
                "images of a batch have one width here, so let it give the layer the sequences themselves"
            )
        if self.batch_first:
            sequence = sequence.transpose(0, 1)
        steps, batch = sequence.shape[:2]
        ways = len(self.directions)
        last: list[list[Tensor]] = []  # of each layer: the states after the last step
        for at in range(self.layers):
            inputs = [sequence, *(getattr(self, f"{name}_{at}") for name in ("input", "hidden", "bias"))]
            if state is not None:
                parts = state if self.kind == "LSTM" else (state,)
                begin, end = ways * at, ways * (at + 1)
                inputs += [None, *(part[begin:end].expand(ways, batch, self.hidden) for part in parts)]
            shapes = [(steps, ways, batch, self.hidden), *[(ways, batch, self.hidden)] * self._states]
            output, *states = node(self.kind, inputs, self.attributes, sequence.dtype, shapes)
            last.append(states)
            joined = (steps, batch, ways * self.hidden)
            merged = [output.permute(0, 2, 1, 3), self.join]
            [sequence] = node("Reshape", merged, {}, sequence.dtype, [joined])
        final = tuple(torch.cat(states) for states in zip(*last, strict=True))
        output = sequence.transpose(0, 1) if self.batch_first else sequence
        return output, final if self.kind == "LSTM" else final[0]

    @property
    def _states(self) -> int:
        return 2 if self.kind == "LSTM" else 1


def with_onnx_recurrence(module: nn.Module) -> nn.Module:
    """A copy for the exporter: every recurrent layer becomes its ONNX node. Raises ExportImpossible."""
    module = copy.deepcopy(module)
    if isinstance(module, nn.RNNBase):
        return _replaced(module, "the network")
    for parent_name, parent in list(module.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.RNNBase):
                setattr(parent, name, _replaced(child, f"{parent_name}.{name}".removeprefix(".")))
    return module


def _replaced(layer: nn.RNNBase, name: str) -> nn.Module:
    """The layer as ONNX nodes; one whose class has a `forward` of its own keeps it, around the nodes."""
    node = _Recurrent(layer, name.removeprefix("module."))
    kind = type(layer)
    base = next(c for c in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(layer, c))
    if kind.forward is base.forward:
        return node

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.crnn_deploy_node(*args, **kwargs)

    layer.crnn_deploy_node = node
    # between the class and PyTorch's own, so that super().forward is the node
    layer.__class__ = type(kind.__name__, (kind, type("Node", (base,), {"forward": forward})), {})
    return layer
