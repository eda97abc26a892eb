"""A Triton server of paper: the module that its Python backend gives to models, and requests to a repository.

It follows triton-inference-server/python_backend and core as far as the repository uses them: models are
loaded from their config.pbtxt and model.py, tensors are held to dtypes and dims, an ensemble's steps are run
one after the other, and what is answered comes through response senders. ONNX Runtime runs the network, as
the onnxruntime backend does.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

__all__ = ["PaperTriton", "Refused", "paper_triton"]

_DTYPES = {
    **{"TYPE_FP32": np.float32, "TYPE_FP64": np.float64, "TYPE_STRING": np.object_},
    **{"TYPE_INT32": np.int32, "TYPE_INT64": np.int64, "TYPE_BOOL": np.bool_},
}
_FINAL = 1


class Refused(Exception):
    """An error that a model answers with."""


class PaperTensor:
    def __init__(self, name: str, array: np.ndarray[Any, Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self._array


class PaperError(Exception):
    INTERNAL, INVALID_ARG = 1, 2

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self.code = code

    def message(self) -> str:
        return str(self)


class PaperResponse:
    def __init__(self, output_tensors: Sequence[PaperTensor] = (), error: PaperError | None = None) -> None:
        self._tensors, self._error = output_tensors, error

    def output_tensors(self) -> Sequence[PaperTensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> PaperError | None:
        return self._error


class PaperRequest:
    """One that a model gets; it is answered once."""

    def __init__(self, inputs: Mapping[str, np.ndarray[Any, Any]], parameters: Mapping[str, Any]) -> None:
        self.inputs = {name: PaperTensor(name, array) for name, array in inputs.items()}
        self._parameters = json.dumps(dict(parameters)) if parameters else ""
        self.answers: SimpleQueue[PaperResponse] = SimpleQueue()

    def parameters(self) -> str:
        return self._parameters

    def get_response_sender(self) -> Any:
        return self

    def send(self, response: PaperResponse, flags: int = 0) -> None:
        assert flags == _FINAL
        self.answers.put(response)


class PaperTriton:
    """The models of a repository, loaded.

    widths: of every batch that the network ran, and how many images it held
    """

    def __init__(self, repository: Path) -> None:
        self.widths: list[tuple[int, int]] = []
        self.configs: dict[str, Any] = {}
        self._models: dict[str, Any] = {}
        self._folder = repository
        for folder in sorted(path for path in repository.iterdir() if path.is_dir()):
            text = (folder / "config.pbtxt").read_text(encoding="utf-8")
            config = text_format.Parse(text, pb.ModelConfig())
            assert config.name == folder.name
            self.configs[folder.name] = config

    def load(self) -> None:
        for name, config in self.configs.items():
            folder = self._folder / name / "1"
            if config.backend == "python":
                self._models[name] = _program(folder / "model.py")
                self._models[name].initialize(
                    {
                        "model_config": json.dumps(
                            json_format.MessageToDict(config, preserving_proto_field_name=True)
                        ),
                        "model_repository": str(folder.parent),
                        "model_version": "1",
                    }
                )
            elif config.backend == "onnxruntime":
                session = onnxruntime.InferenceSession(
                    str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
                )
                self._models[name] = session

    def close(self) -> None:
        for model in self._models.values():
            if hasattr(model, "finalize"):
                model.finalize()

    def infer(self, name: str, inputs: Mapping[str, Any], parameters: Mapping[str, Any] = {}) -> Any:
        """Outputs of a request, by name. Raises Refused."""
        return self.wait(name, self.send(name, inputs, parameters))

    def send(self, name: str, inputs: Mapping[str, Any], parameters: Mapping[str, Any] = {}) -> Any:
        """A request that is answered later."""
        config = self.configs[name]
        arrays = {key: _as_array(value) for key, value in inputs.items()}
        _check(arrays, config.input, config.max_batch_size > 0)
        if config.platform == "ensemble":
            return self._ensemble(config, arrays, parameters)
        if config.backend == "onnxruntime":
            [images] = arrays.values()
            self.widths.append((images.shape[3], len(images)))
            assert len(images) <= config.max_batch_size
            names = [output.name for output in config.output]
            return dict(zip(names, self._models[name].run(names, arrays), strict=True))
        request = PaperRequest(arrays, parameters)
        returned = self._models[name].execute([request])
        if returned is not None:
            [response] = returned
            request.answers.put(response)
        return request

    def wait(self, name: str, sent: Any) -> Any:
        config = self.configs[name]
        if isinstance(sent, PaperRequest):
            response = sent.answers.get(timeout=60)
            assert sent.answers.empty()
            if (error := response.error()) is not None:
                raise Refused(str(error))
            sent = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        _check(sent, config.output, config.max_batch_size > 0)
        return sent

    def _ensemble(self, config: Any, arrays: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        known = dict(arrays)
        for step in config.ensemble_scheduling.step:
            given = {name: known[tensor] for name, tensor in step.input_map.items()}
            said = self.infer(step.model_name, given, parameters)
            known.update({tensor: said[name] for name, tensor in step.output_map.items()})
        return {output.name: known[output.name] for output in config.output}


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    return value if isinstance(value, np.ndarray) else np.array(value, np.object_)


def _check(arrays: Mapping[str, Any], tensors: Any, batched: bool) -> None:
    """Hold tensors to what a configuration says of them, as the server does."""
    assert sorted(arrays) == sorted(tensor.name for tensor in tensors)
    for tensor in tensors:
        array = arrays[tensor.name]
        assert array.dtype == _DTYPES[pb.DataType.Name(tensor.data_type)], tensor.name
        shape = array.shape[1:] if batched else array.shape
        assert len(shape) == len(tensor.dims), (tensor.name, array.shape)
        assert all(want in (-1, size) for want, size in zip(tensor.dims, shape, strict=True)), tensor.name


def _program(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"paper_{file.parents[1].name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TritonPythonModel()


@contextmanager
def paper_triton(repository: Path) -> Generator[PaperTriton, None, None]:
    """A server on a repository, with the module that its models import."""
    server = PaperTriton(repository)

    class InferenceRequest:
        """One that a model sends to another."""

        def __init__(
            self,
            model_name: str,
            requested_output_names: Sequence[str],
            inputs: Sequence[PaperTensor],
            preferred_memory: object,
        ) -> None:
            self._name, self._inputs = model_name, {one.name(): one.as_numpy() for one in inputs}

        def exec(self) -> PaperResponse:
            said = server.infer(self._name, self._inputs)
            # in another order than asked for, as nothing promises one
            return PaperResponse([PaperTensor(name, said[name]) for name in sorted(said, reverse=True)])

    module = ModuleType("triton_python_backend_utils")
    module.__dict__.update(
        Tensor=PaperTensor,
        InferenceResponse=PaperResponse,
        InferenceRequest=InferenceRequest,
        TritonError=PaperError,
        Logger=SimpleNamespace(log_warn=print, log_error=print),
        PreferredMemory=lambda memory, device: None,
        TRITONSERVER_MEMORY_CPU=0,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=_FINAL,
        get_input_tensor_by_name=lambda request, name: request.inputs.get(name),
    )
    sys.modules[module.__name__] = module
    try:
        server.load()
        yield server
    finally:
        server.close()
        del sys.modules[module.__name__]
        for name in [name for name in sys.modules if name.startswith("crnn_deploy.triton.steps")]:
            del sys.modules[name]
