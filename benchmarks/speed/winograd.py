"""How fast convolutions are by Winograd's method in MNN and ncnn, beside ONNX Runtime's direct ones.

    python -m benchmarks.speed.winograd [--width 108] [--rounds 9] [--json FILE]

Measured are the convolutions of the paper's network (random weights), from the image to the row of features,
with one thread and one image. |delta| is the difference from ONNX Runtime in fp32. MNN and ncnn are told to
compute in fp32 too. The script needs the extras [cpu,export], and `pip install --no-deps MNN ncnn pnnx` in an
environment of its own. A library that is missing is left out.

The script calls MNN's converter directly. It does not import `MNN.tools` or run its command `mnnconvert`:
both call `pip install` for a package that reports their use, in the environment of the first pip on the path.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.common import cpu_in_turn, export_networks, measured, noise, options, write
from crnn_deploy.graph.model import session_of

Run = Callable[[], NDArray[np.float32]]
REPEATS = 8  # runs of a round


def convolutions(model: Path, path: Path) -> None:
    """The network up to the activation of its last convolution."""
    graph = onnx.load(model).graph
    last = [node for node in graph.node if node.op_type == "Conv"][-1]
    [end] = [node.output[0] for node in graph.node if last.output[0] in node.input]
    onnx.utils.extract_model(str(model), str(path), [graph.input[0].name], [end])


def onnx_runtime(path: Path, pixels: NDArray[np.float32]) -> Run:
    session = session_of(onnx.load(path))
    name = session.get_inputs()[0].name
    return lambda: np.asarray(session.run(None, {name: pixels})[0])


def ncnn(path: Path, pixels: NDArray[np.float32]) -> Run:
    """Converted by pnnx, which writes its files beside the model."""
    library: Any = import_module("ncnn")
    pnnx = Path(sys.executable).parent / "pnnx"
    shape = ",".join(map(str, pixels.shape))
    command = [str(pnnx), str(path), f"inputshape=[{shape}]", "fp16=0"]
    subprocess.run(command, check=True, capture_output=True, cwd=path.parent)
    network = library.Net()
    network.opt.num_threads = 1
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    network.load_param(str(path.with_suffix(".ncnn.param")))
    network.load_model(str(path.with_suffix(".ncnn.bin")))

    def run() -> NDArray[np.float32]:
        extractor = network.create_extractor()
        extractor.input("in0", library.Mat(pixels[0]))
        return np.array(extractor.extract("out0")[1])[None]

    return run


def mnn(path: Path, pixels: NDArray[np.float32]) -> Run:
    """Converted by the extension module that MNN's package brings."""
    engine: Any = import_module("MNN")
    converted = path.with_suffix(".mnn")
    flags = ["-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "crnn"]
    import_module("_tools").mnnconvert(["mnnconvert", *flags])
    interpreter = engine.Interpreter(str(converted))
    session = interpreter.createSession({"numThread": 1, "precision": "high", "backend": "CPU"})
    fed = interpreter.getSessionInput(session)
    interpreter.resizeTensor(fed, pixels.shape)
    interpreter.resizeSession(session)
    layout = engine.Tensor_DimensionType_Caffe
    given = engine.Tensor(pixels.shape, engine.Halide_Type_Float, pixels, layout)
    put_out = interpreter.getSessionOutput(session)
    shape = put_out.getShape()

    def run() -> NDArray[np.float32]:
        fed.copyFrom(given)
        interpreter.runSession(session)
        empty = np.zeros(shape, np.float32)
        taken = engine.Tensor(shape, engine.Halide_Type_Float, empty, layout)
        put_out.copyToHostTensor(taken)
        return np.array(taken.getNumpyData(), np.float32).reshape(shape)

    return run


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=9)
    parser.add_argument("--width", type=int, default=108, help="Measure images of this width in pixels.")
    given = parser.parse_args(arguments)
    pixels = noise((1, 1, 32, given.width))
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "convolutions.onnx"
        convolutions(export_networks(["paper"])["paper"], path)
        for library, make in (("ONNX Runtime", onnx_runtime), ("ncnn", ncnn), ("MNN", mnn)):
            try:
                runs[library] = make(path, pixels)
            except ImportError as error:
                print(f"{library} is left out: {error}")
        expected = runs["ONNX Runtime"]()
        tasks = {library: _repeated(run) for library, run in runs.items()}
        spent = cpu_in_turn(tasks, dict.fromkeys(tasks, REPEATS), given.rounds)
    rows: dict[str, Any] = {"input": {"width": given.width, "batch": 1}}
    base = float(np.median(spent["ONNX Runtime"]))
    for library, values in spent.items():
        delta = float(np.abs(runs[library]() - expected).max())
        rows[library] = {
            "max_delta": float(f"{delta:.2g}"),
            "largest": round(float(np.abs(expected).max()), 3),
            "x_onnx_runtime": round(base / float(np.median(values)), 2),
            "cpu_per_image": measured(values, "CPU ms"),
        }
        print(library, rows[library])
    write("winograd", rows, given.json)


def _repeated(run: Run) -> Callable[[], object]:
    return lambda: [run() for _ in range(REPEATS)]


if __name__ == "__main__":
    main()
