"""How other ways to run the LSTMs of an INT8 network on a CPU compare with ONNX Runtime's float LSTMs.

    python -m benchmarks.speed.lstm_kernels [--width 108] [--rounds 9] [--json FILE]

Measured is the recurrent part of the paper's network, from the features to the logits: two bidirectional
LSTMs of 256 units with random weights, one thread, batches of 1 and 8. The whole INT8 network (static scales,
float LSTMs) is measured beside it. Its other part stays as it is, and one column says how many times as
fast the whole network would be. For each way the script also checks whether an image gives the same bits
alone and in a batch, and how far its logits are from the float ones.

- dynamic INT8: ONNX Runtime's kernel, which computes its scales as it runs
- constant INT8: the same kernel, made to find the same scales in every batch (`quantize --lstm int8`)
- static INT8 steps: the product with the input for all time steps at once, then a Scan. Each step of it
  quantises the state with the scale 1/127 (a state lies between -1 and 1) and multiplies bytes
  (MatMulInteger).
- C: weights of 8 bits, states of 16 bits with the scale 1/32767, sums in 32 bits, compiled here by `cc -O3
  -march=native`; NumPy computes the product with the input in float
- OpenVINO and PyTorch (oneDNN), in float, and in bf16 if the CPU has it

The script needs the extras [cpu,export], OpenVINO and a C compiler. What is missing is left out.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import crnn_deploy  # noqa: F401  # before ONNX Runtime, which reports to its maker otherwise

# isort: split
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.common import (
    cpu_in_turn,
    export_networks,
    measured,
    module,
    noise,
    options,
    quantised,
    write,
)
from crnn_deploy.graph.model import session_of
from crnn_deploy.quantization.int8_lstm import lstm_inputs, with_int8_lstm
from crnn_deploy.runtime.backends import cpu

__all__ = ["in_c", "recurrent_part", "with_static_steps"]

Array = NDArray[np.float32]
Run = Callable[[Array], Array]  # features (T, N, inputs) to logits (N, T, classes)
BATCHES = (1, 8)
REPEATS = 4  # runs of a round

_KERNEL = """
#include <math.h>
#include <stdint.h>
#include <string.h>
static inline float power(float x) {  /* e to the x, as Cephes has it */
    x = x < -87.f ? -87.f : x > 87.f ? 87.f : x;
    float n = rintf(x * 1.44269504f), r = x - n * 0.693359375f + n * 2.12194440e-4f, p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f; p = p * r * r + r + 1.f;
    int32_t bits = ((int32_t)n + 127) << 23; float scale; memcpy(&scale, &bits, 4);
    return p * scale;
}
static inline float sigmoid(float x) { return 1.f / (1.f + power(-x)); }
static inline float tangent(float x) { return 1.f - 2.f / (1.f + power(2.f * x)); }
void lstm(const float *gates, const int8_t *weights, const float *scales, int steps, int units, int stride,
          int reverse, float *out) {
    int16_t state[1024] = {0};
    float cell[1024] = {0}, sums[4096];
    for (int at = 0; at < steps; at++) {
        long step = reverse ? steps - 1 - at : at;
        for (int row = 0; row < 4 * units; row++) {
            const int8_t *w = weights + (long)row * units;
            int32_t sum = 0;
            for (int i = 0; i < units; i++) sum += (int32_t)w[i] * (int32_t)state[i];
            sums[row] = gates[step * stride * 4 * units + row] + (float)sum * scales[row];
        }
        for (int i = 0; i < units; i++) {  /* ONNX's order: input, output, forget, cell */
            float in = sigmoid(sums[i]), open = sigmoid(sums[units + i]), keep = sigmoid(sums[2 * units + i]);
            cell[i] = keep * cell[i] + in * tangent(sums[3 * units + i]);
            float value = open * tangent(cell[i]);
            out[step * stride * 2 * units + i] = value;
            state[i] = (int16_t)lrintf(value * 32767.f);
        }
    }
}
"""


def recurrent_part(model: Path, path: Path) -> onnx.ModelProto:
    """What stands behind the convolutions: from the input of the first LSTM to the logits."""
    graph = onnx.load(model).graph
    first = next(node for node in graph.node if node.op_type == "LSTM")
    onnx.utils.extract_model(str(model), str(path), [first.input[0]], [graph.output[0].name])
    return onnx.load(path)


def session(model: onnx.ModelProto) -> Run:
    opened = session_of(model)
    name = opened.get_inputs()[0].name
    return lambda features: np.asarray(opened.run(None, {name: features})[0])


def dynamic(model: onnx.ModelProto, folder: Path) -> Run:
    path = folder / "dynamic.onnx"
    quantize_dynamic(
        model,
        path,
        op_types_to_quantize=["LSTM"],
        per_channel=True,
        reduce_range=cpu.saturates(),
        weight_type=QuantType.QInt8,
    )
    return session(onnx.load(path))


def constant(model: onnx.ModelProto, features: Array) -> onnx.ModelProto:
    """With the ranges that these features give."""
    names = lstm_inputs(model)
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    inner = [name for name in names if name != model.graph.input[0].name]
    probed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    opened = session_of(probed)
    values = dict(zip(inner, opened.run(inner, {opened.get_inputs()[0].name: features}), strict=True))
    ranges = {name: float(np.abs(values.get(name, features)).max()) for name in names}
    return with_int8_lstm(model, model, ranges)


def _int8(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """Weights (rows, columns) as integers with a scale for each row."""
    level = 64 if cpu.saturates() else 127
    scales = np.maximum(np.abs(weights).max(axis=1), 1e-12) / level
    return np.rint(weights / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def with_static_steps(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose bidirectional LSTMs are Scans of integer products, with scales that are constants."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type != "LSTM":
            graph.node.append(node)
            continue
        weights, recurrence, bias = (values[name] for name in node.input[1:4])
        outputs = []
        for way in range(2):
            made, constants = _direction(node, way, weights[way], recurrence[way], bias[way])
            graph.node.extend(made)
            graph.initializer.extend(constants)
            outputs.append(made[-1].output[-1])
        axis = numpy_helper.from_array(np.array([1]), f"{node.output[0]}_axis")
        graph.initializer.append(axis)
        both = [f"{name}_row" for name in outputs]
        graph.node.extend(
            helper.make_node("Unsqueeze", [name, axis.name], [row])
            for name, row in zip(outputs, both, strict=True)
        )
        graph.node.append(helper.make_node("Concat", both, [node.output[0]], axis=1))
    onnx.checker.check_model(result)
    return result


def _direction(
    node: onnx.NodeProto, way: int, weights: Array, recurrence: Array, bias: Array
) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Nodes of one direction; the last one is the Scan, whose last output are the states (T, N, units)."""
    units, name = recurrence.shape[1], f"{node.output[0]}_{way}"
    integers, scales = _int8(recurrence)
    constants = {
        "input": weights.T.copy(),
        "bias": bias[: 4 * units] + bias[4 * units :],
        "integers": integers.T.copy(),
        "scales": scales / np.float32(127),
        "state": np.array(1 / 127, np.float32),
        "zero": np.array(0, np.int8),
        "split": np.full(4, units),
        "units": np.array([units]),
        "batch": np.array([1]),
    }
    inside = [
        helper.make_node("QuantizeLinear", ["h", f"{name}_state", f"{name}_zero"], ["h8"]),
        helper.make_node("MatMulInteger", ["h8", f"{name}_integers"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", f"{name}_scales"], ["scaled"]),
        helper.make_node("Add", ["scaled", "gates"], ["all"]),
        helper.make_node("Split", ["all", f"{name}_split"], ["i", "o", "f", "g"], axis=-1),
        *(helper.make_node("Sigmoid", [gate], [f"{gate}s"]) for gate in "iof"),
        helper.make_node("Tanh", ["g"], ["gs"]),
        helper.make_node("Mul", ["fs", "c"], ["kept"]),
        helper.make_node("Mul", ["is", "gs"], ["new"]),
        helper.make_node("Add", ["kept", "new"], ["c_out"]),
        helper.make_node("Tanh", ["c_out"], ["shown"]),
        helper.make_node("Mul", ["os", "shown"], ["h_out"]),
        helper.make_node("Identity", ["h_out"], ["y"]),
    ]
    kinds = {one: helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in ("h", "c", "gates")}
    ends = [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in ("h_out", "c_out", "y")]
    body = helper.make_graph(inside, "step", [*kinds.values()], ends)
    made = [
        helper.make_node("MatMul", [node.input[0], f"{name}_input"], [f"{name}_product"]),
        helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [f"{name}_gates"]),
        helper.make_node("Shape", [node.input[0]], [f"{name}_images"], start=1, end=2),
        helper.make_node("Concat", [f"{name}_images", f"{name}_units"], [f"{name}_shape"], axis=0),
        helper.make_node("ConstantOfShape", [f"{name}_shape"], [f"{name}_nothing"]),
        helper.make_node(
            "Scan",
            [f"{name}_nothing", f"{name}_nothing", f"{name}_gates"],
            [f"{name}_h", f"{name}_c", f"{name}_y"],
            body=body,
            num_scan_inputs=1,
            scan_input_directions=[way],
            scan_output_directions=[way],
        ),
    ]
    return made, [numpy_helper.from_array(value, f"{name}_{key}") for key, value in constants.items()]


def in_c(model: onnx.ModelProto, folder: Path) -> Run:
    """The LSTMs in C, what lies between and behind them in NumPy. Raises FileNotFoundError without `cc`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler")
    source, library = folder / "lstm.c", folder / "lstm.so"
    source.write_text(_KERNEL, encoding="ascii")
    flags = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")
    subprocess.run([compiler, *flags, "-o", str(library), str(source), "-lm"], check=True)
    kernel = ctypes.CDLL(str(library)).lstm
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = [
        [values[name] for name in node.input[1:4]] for node in model.graph.node if node.op_type == "LSTM"
    ]
    prepared = [
        (weights, [_int8(one) for one in recurrence], bias, recurrence.shape[2])
        for weights, recurrence, bias in layers
    ]
    linear = [one for one in module("paper").modules() if isinstance(one, torch.nn.Linear)]
    dense = [(one.weight.detach().numpy(), one.bias.detach().numpy()) for one in linear]

    def run(features: Array) -> Array:
        for (weights, integers, bias, units), (matrix, offset) in zip(prepared, dense, strict=True):
            steps, images, _ = features.shape
            states = np.empty((steps, images, 2, units), np.float32)
            for way in range(2):
                total = bias[way][: 4 * units] + bias[way][4 * units :]
                gates = features.reshape(steps * images, -1) @ weights[way].T + total
                rows, scales = integers[way]
                scaled = scales / np.float32(32767)
                for image in range(images):
                    kernel(
                        ctypes.c_void_p(gates.ctypes.data + 4 * image * 4 * units),
                        ctypes.c_void_p(rows.ctypes.data),
                        ctypes.c_void_p(scaled.ctypes.data),
                        *(steps, units, images, way),
                        ctypes.c_void_p(states.ctypes.data + 4 * (image * 2 + way) * units),
                    )
            features = states.reshape(steps, images, 2 * units) @ matrix.T + offset
        return features.transpose(1, 0, 2)

    return run


def openvino(path: Path, hint: str) -> Run:
    from crnn_deploy.runtime.backends.openvino import import_openvino

    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = import_openvino().Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda features: np.array(request.infer([features])[0])


def pytorch(kind: torch.dtype) -> Run:
    """The modules behind the convolutions."""
    network = module("paper").rnn.to(kind)

    def run(features: Array) -> Array:
        with torch.inference_mode():
            logits = network(torch.from_numpy(features).to(kind)).float()
        return np.asarray(logits.transpose(0, 1).numpy())

    return run


def _compared(runs: dict[str, Run], whole: Run, features: Array, width: int, rounds: int) -> dict[str, Any]:
    """A row for each way at each number of images."""
    rows: dict[str, Any] = {"input": {"width": width, "time_steps": len(features)}}
    expected = runs["ONNX Runtime, float"](features)
    alike = {way: _bitwise(run, features) for way, run in runs.items()}
    for images in BATCHES:
        pixels = noise((images, 1, 32, width))
        part = np.ascontiguousarray(features[:, :images])
        tasks: dict[str, Callable[[], object]] = {
            "whole": lambda pixels=pixels: [whole(pixels) for _ in range(REPEATS)]  # type: ignore[misc]
        }
        for way, run in runs.items():
            tasks[way] = lambda run=run, part=part: [run(part) for _ in range(REPEATS)]  # type: ignore[misc]
        spent = cpu_in_turn(tasks, dict.fromkeys(tasks, REPEATS * images), rounds)
        medians = {way: float(np.median(values)) for way, values in spent.items()}
        rows[f"the whole INT8 network, batch {images}"] = {
            "cpu_per_image": measured(spent["whole"], "CPU ms")
        }
        for way, run in runs.items():
            replaced = medians["whole"] - medians["ONNX Runtime, float"] + medians[way]
            logits = run(features)
            rows[f"{way}, batch {images}"] = {
                "max_delta": float(f"{np.abs(logits - expected).max():.2g}"),
                "largest": round(float(np.abs(expected).max()), 3),
                "bitwise_alone_and_together": alike[way],
                "whole_faster": round(medians["whole"] / replaced, 3),
                "cpu_per_image": measured(spent[way], "CPU ms"),
            }
            print(f"{way}, batch {images}", rows[f"{way}, batch {images}"], flush=True)
    return rows


def _bitwise(run: Run, features: Array) -> bool:
    """Whether the logits of an image are the same to the bit alone and together."""
    together = run(features)
    alone = [run(np.ascontiguousarray(features[:, at : at + 1]))[0] for at in range(features.shape[1])]
    return bool(np.array_equal(together, np.stack(alone)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=9)
    parser.add_argument("--width", type=int, default=108, help="Measure images of this width in pixels.")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    paper = export_networks(["paper"])["paper"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part = folder / "recurrent.onnx"
        model = recurrent_part(paper, part)
        steps = session_of(onnx.load(paper)).run(None, {"images": noise((1, 1, 32, given.width))})[0].shape[1]
        features = np.maximum(noise((steps, max(BATCHES), 512)), 0)  # as they stand behind a ReLU
        makers: dict[str, Callable[[], Run]] = {
            "ONNX Runtime, float": lambda: session(model),
            "ONNX Runtime, dynamic INT8": lambda: dynamic(model, folder),
            "ONNX Runtime, constant INT8": lambda: session(constant(model, features)),
            "ONNX Runtime, static INT8 steps": lambda: session(with_static_steps(model)),
            "C, INT8 weights": lambda: in_c(model, folder),
            "OpenVINO, float": lambda: openvino(part, "f32"),
            "PyTorch, float": lambda: pytorch(torch.float32),
        }
        if cpu.has_bf16():
            makers["OpenVINO, bf16"] = lambda: openvino(part, "bf16")
            makers["PyTorch, bf16"] = lambda: pytorch(torch.bfloat16)
        runs: dict[str, Run] = {}
        for way, make in makers.items():
            try:
                runs[way] = make()
            except (ImportError, OSError) as error:
                print(f"{way} is left out: {error}")
        whole = session(onnx.load(quantised(paper, folder / "int8.onnx", [noise((2, 1, 32, given.width))])))
        rows = _compared(runs, whole, features, given.width, given.rounds)
    write("lstm_kernels", rows, given.json)


if __name__ == "__main__":
    main()
