"""Whether a file is INT8, and its weights too large for this CPU, which then would read other texts.

On x86 without VNNI, ONNX Runtime and oneDNN (OpenVINO) add two products of an activation of 8 bits and a
weight in 16 bits, with saturation (VPMADDUBSW). With weights up to 64 the sum fits: 2 * 255 * 64 = 32,640.
The weights are looked at, whatever the file says of itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError, ModelUnreadable
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.onnx_file import mapped, messages, numbers_of, varints

__all__ = ["LARGEST", "CpuUnfit", "check_weights", "is_quantised", "largest_weight"]

LARGEST = 64  # |weight| that never overflows

# of onnx.proto: numbers of fields, and a type
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_WEIGHT = 7, 1, 5
_NODE_OP_TYPE = 4
_TENSOR_TYPE, _TENSOR_INTEGERS, _TENSOR_RAW = 2, 5, 9
_INT8 = 3

_QUANTISED = (b"quantize", b"qlinear", b"integer")  # in the names of operators on integers


class CpuUnfit(CrnnDeployError, RuntimeError):
    """A model that this CPU would compute wrongly."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(
            f"{path} has INT8 weights of 8 bits, whose products overflow on this CPU ({kind}, without VNNI); "
            "quantise the model again with weights of 7 bits (quantize --weight-bits 7, or reduce_range in "
            "ONNX Runtime), or run it on a CPU with VNNI"
        )


def check_weights(path: Path) -> None:
    """Refuse an ONNX file whose INT8 weights overflow on this CPU. Raises CpuUnfit, ModelUnreadable."""
    if cpu.saturates() and largest_weight(path) > LARGEST:
        raise CpuUnfit(path, cpu.kind())


def largest_weight(path: Path) -> int:
    """The largest |value| of the INT8 tensors of a file's graph; 0 where it has none.

    Those that lie in files beside it are passed over. Raises ModelUnreadable.
    """
    try:
        return max((int(np.abs(one.astype(np.int16)).max(initial=0)) for one in _tensors(path)), default=0)
    except (IndexError, ValueError, OSError) as error:
        raise ModelUnreadable(path, "not an ONNX file, or a truncated one") from error


def is_quantised(path: Path) -> bool:
    """Whether an operator of a file's graph quantises, or computes with integers. Raises ModelUnreadable."""
    try:
        return any(word in name.lower() for name in _operators(path) for word in _QUANTISED)
    except (IndexError, ValueError, OSError) as error:
        raise ModelUnreadable(path, "not an ONNX file, or a truncated one") from error


def _operators(path: Path) -> Iterator[bytes]:
    """The types of a graph's operators. Raises ValueError where the file has no graph."""
    graphs = [value for number, value in messages(mapped(path)) if number == _MODEL_GRAPH]
    if not graphs:
        raise ValueError
    for graph in graphs:
        for number, node in messages(graph):
            if number == _GRAPH_NODE:
                yield from (bytes(value) for field, value in messages(node) if field == _NODE_OP_TYPE)


def _tensors(path: Path) -> Iterator[NDArray[np.int8]]:
    for at, graph in messages(mapped(path)):
        if at != _MODEL_GRAPH:
            continue
        for number, tensor in messages(graph):
            if number == _GRAPH_WEIGHT and numbers_of(tensor).get(_TENSOR_TYPE) == _INT8:
                for field, value in messages(tensor):
                    if field == _TENSOR_RAW:
                        yield np.frombuffer(value, np.int8)
                    elif field == _TENSOR_INTEGERS:  # packed, each sign-extended to 64 bits
                        yield np.array([*varints(value)], np.uint64).astype(np.int8)
