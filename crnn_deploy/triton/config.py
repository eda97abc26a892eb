"""The config.pbtxt of each model of a repository, written by Triton's own protocol buffers.

Triton's dynamic batcher joins requests "only if each input has the same shape across the requests" unless
`allow_ragged_batch` is set (NVIDIA's user guide, Ragged Batching). Nothing here sets it, so a network gets
batches of one width, as everywhere in this toolkit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb  # before protobuf, which it brings

# isort: split
from google.protobuf import text_format

from crnn_deploy.triton.network import ServedNetwork, Tensor

__all__ = ["IMAGE", "RESULTS", "ensemble_model", "network_model", "python_model", "text_of"]

IMAGE = Tensor("image", "TYPE_STRING", (-1,))
RESULTS = (
    Tensor("text", "TYPE_STRING", (-1,)),
    Tensor("confidence", "TYPE_FP64", (-1,)),
    Tensor("error", "TYPE_STRING", (-1,)),
)
_DELAY = 500  # microseconds that an image waits for others of its width, where the network is idle


def text_of(config: Any) -> str:
    """A configuration as the text of a config.pbtxt."""
    text: str = text_format.MessageToString(config)
    return text


def _model(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], **settings: Any) -> Any:
    return pb.ModelConfig(
        name=name,
        input=[pb.ModelInput(name=one.name, data_type=one.kind, dims=one.dims) for one in inputs],
        output=[pb.ModelOutput(name=one.name, data_type=one.kind, dims=one.dims) for one in outputs],
        **settings,
    )


def python_model(
    name: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    parameters: Mapping[str, str],
    instances: int,
) -> Any:
    """A model of the Python backend, in so many processes, that takes one request at a time.

    It has no dynamic batcher, and so no bound of its own on what waits: with one, release 24.10 leaves
    requests to a model of max_batch_size 0 waiting for up to half a second.
    """
    return _model(
        name,
        inputs,
        outputs,
        backend="python",
        max_batch_size=0,
        instance_group=[pb.ModelInstanceGroup(kind="KIND_CPU", count=instances)],
        parameters={key: pb.ModelParameter(string_value=value) for key, value in parameters.items()},
    )


def network_model(name: str, network: ServedNetwork, device: str) -> Any:
    """The network, run by Triton's ONNX Runtime or TensorRT backend.

    An instance holds all profiles of an engine, of which the backend takes the one that fits the input best
    (triton-inference-server/tensorrt_backend, GetMostOptimizedProfile); an instance with one profile alone
    would be given inputs that it does not take.
    """
    group = pb.ModelInstanceGroup(
        kind="KIND_GPU" if network.profiles or device == "cuda" else "KIND_CPU",
        count=1,
        profile=[str(at) for at in range(len(network.profiles))],
    )
    config = _model(
        name,
        [network.input],
        network.outputs,
        backend=network.backend,
        max_batch_size=network.max_batch,
        instance_group=[group],
    )
    if network.max_batch > 1:
        tuned = {min(one.batch.optimum, network.max_batch) for one in network.profiles}
        config.dynamic_batching.preferred_batch_size.extend(sorted(tuned - {1}))
        config.dynamic_batching.max_queue_delay_microseconds = _DELAY
    return config


def ensemble_model(name: str, steps: Sequence[tuple[Any, Mapping[str, str], Mapping[str, str]]]) -> Any:
    """Models one after the other: of each its configuration and its tensors' names within the ensemble."""
    config = _model(name, [IMAGE], RESULTS, platform="ensemble", max_batch_size=0)
    for model, inputs, outputs in steps:
        config.ensemble_scheduling.step.add(
            model_name=model.name, model_version=-1, input_map=inputs, output_map=outputs
        )
    return config
