"""How fast the same words are read by this toolkit and by what people would use instead.

    python -m benchmarks.speed.peers [--words 256] [--rounds 5] [--json FILE]

Only recognition is measured. Words with a mean width of 108 px lie decoded in memory. Each program prepares
them as it needs them, and gives class scores. There are 37 classes, and weights are random, except that
rapidocr_onnxruntime brings its own. Programs that are not installed are named and left out. Rows of `docTR`
are its networks, exported by this toolkit. In docTR's own way, every word is fitted into 128 x 32.

The script needs the extras [cpu,export,openvino]. rapidocr_onnxruntime asks for other versions, so install it
in an environment of its own:

    pip install --no-deps rapidocr_onnxruntime==1.4.4 pyclipper shapely six tqdm PyYAML
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import (
    Network,
    cpu_in_turn,
    export_networks,
    measured,
    module,
    options,
    prepared_words,
    quantised,
    stacks,
    write,
)
from crnn_deploy.errors import BackendMissing
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.graph.flops import flops
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.backends.openvino import import_openvino, signal_stack_kept
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.images.pixels import decode_image
from crnn_deploy.runtime.images.prepare import prepare

Words = Sequence[NDArray[np.float32]]
Task = Callable[[], object]
PADDED = 32  # images of a batch in scripts that pad
NETWORKS: tuple[Network, ...] = ("paper", "compact", "docTR vgg16", "docTR mobilenet small")


def padded(words: Words) -> list[NDArray[np.float32]]:
    """Batches in the order of the input, each as wide as its widest word: what usual scripts do."""
    made = []
    for at in range(0, len(words), PADDED):
        some = words[at : at + PADDED]
        batch = np.zeros((len(some), *some[0].shape[:2], max(word.shape[2] for word in some)), np.float32)
        for row, word in zip(batch, some, strict=True):
            row[:, :, : word.shape[2]] = word
        made.append(batch)
    return made


def torch_tasks(words: Words, compiled: bool) -> dict[str, Task]:
    """PyTorch eager at batch 1 and padded, and torch.compile."""
    torch.set_num_threads(1)
    network = module("paper")
    single, batched = [word[None] for word in words], padded(words)

    def run(forward: Any, batches: Sequence[NDArray[np.float32]]) -> None:
        with torch.inference_mode():
            for batch in batches:
                forward(torch.from_numpy(batch))

    tasks: dict[str, Task] = {
        "paper: PyTorch eager, batch 1": lambda: run(network, single),
        f"paper: PyTorch eager, padded batches of {PADDED}": lambda: run(network, batched),
    }
    if compiled:
        fast = torch.compile(network, dynamic=True)
        tasks["paper: torch.compile (dynamic), batch 1"] = lambda: run(fast, single)
    return tasks


def each(run: Callable[[NDArray[np.float32]], object], batches: Sequence[NDArray[np.float32]]) -> Task:
    return lambda: [run(batch) for batch in batches]


def opencv_task(model: Path, words: Words) -> Task:
    """cv2.dnn reads the ONNX file; batch 1."""
    network = cv2.dnn.readNetFromONNX(str(model))
    cv2.setNumThreads(1)

    def run() -> None:
        for word in words:
            network.setInput(word[None])
            network.forward()

    return run


def rapidocr_task(crops: Sequence[NDArray[np.uint8]]) -> Task:
    """The recogniser of rapidocr_onnxruntime 1.4.4: PP-OCRv4, its own batches of 6, sorted by width."""
    package = import_module("rapidocr_onnxruntime")
    recogniser = package.RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1).text_rec
    return lambda: recogniser(list(crops))


def bf16(model: Path) -> Callable[[NDArray[np.float32]], object]:
    """OpenVINO asked for bf16; a CPU without its instructions computes in fp32 all the same."""
    openvino = import_openvino()
    core = openvino.Core()
    print("OpenVINO says that this CPU does", core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    with signal_stack_kept():
        request = core.compile_model(str(model), "CPU", hints).create_infer_request()
    return lambda batch: request.infer([batch])


def toolkit_tasks(models: dict[str, Path], words: dict[str, Words]) -> dict[str, Task]:
    """What `infer` runs: width buckets in batches of at most 8."""
    tasks: dict[str, Task] = {}
    for name, path in models.items():
        network = name.partition(",")[0]
        backend = OrtBackend(path)
        size = backend.manifest.max_batch or 8
        key = f"{network}: crnn-deploy, ONNX Runtime{name.removeprefix(network)}"
        tasks[key] = each(backend.run, stacks(words[network], size))
    try:
        for network in [name for name in ("paper", "compact") if name in models]:
            native = open_backend(models[network], backend="openvino")
            tasks[f"{network}: crnn-deploy, OpenVINO"] = each(native.run, stacks(words[network]))
        if "paper" in models:
            tasks["paper: OpenVINO asked for bf16"] = each(bf16(models["paper"]), stacks(words["paper"]))
    except BackendMissing as error:
        print(error)
    return tasks


def doctr_way(path: Path, crops: Sequence[NDArray[np.uint8]]) -> Task:
    """docTR's own preprocessing, batches of 32."""
    backend = OrtBackend(path)
    fitted = replace(backend.manifest, width=RECIPES["doctr-vgg16"].width)
    stack = np.stack([prepare(crop, fitted) for crop in crops])
    return each(backend.run, [stack[at : at + PADDED] for at in range(0, len(stack), PADDED)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--words", type=int, default=256, help="Read this many words.")
    parser.add_argument("--no-compile", action="store_true", help="Leave torch.compile out, which needs g++.")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="Measure these networks.")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {str(network): path for network, path in export_networks(given.networks).items()}
        words: dict[str, Words] = {
            name: prepared_words(given.words, OrtBackend(path).manifest) for name, path in models.items()
        }
        crops = [decode_image(data, "<word>") for data in draw_images("words", given.words, 1)]
        for network in [name for name in models if not name.startswith("docTR")]:
            made = folder / f"{network}.int8.onnx"
            some = stacks(words[network])[:8]
            models[f"{network}, int8"] = quantised(models[network], made, some)
            whole = folder / f"{network}.int8-lstm.onnx"
            models[f"{network}, int8 with int8 LSTM"] = quantised(models[network], whole, some, lstm=True)
        tasks: dict[str, Task] = {}
        if "paper" in models:
            tasks |= torch_tasks(words["paper"], not given.no_compile)
            ort = OrtBackend(models["paper"])
            single = [word[None] for word in words["paper"]]
            tasks["paper: ONNX Runtime, batch 1"] = each(ort.run, single)
            tasks[f"paper: ONNX Runtime, padded batches of {PADDED}"] = each(ort.run, padded(words["paper"]))
            tasks["paper: cv2.dnn, batch 1"] = opencv_task(models["paper"], words["paper"])
        tasks |= toolkit_tasks(models, words)
        for network in [name for name in models if name.startswith("docTR")]:
            tasks[f"{network}: ONNX Runtime, docTR's way, batches of 32"] = doctr_way(models[network], crops)
        try:
            tasks["PP-OCRv4: rapidocr_onnxruntime"] = rapidocr_task(crops)
        except ImportError as error:
            print(f"rapidocr_onnxruntime is left out: {error}")
        spent = cpu_in_turn(tasks, dict.fromkeys(tasks, given.words), given.rounds)
        widths = [word.shape[2] for word in next(iter(words.values()))]
        rows: dict[str, Any] = {
            "words": {"count": given.words, "mean_width": round(float(np.mean(widths)), 1)}
        }
        for network, path in models.items():
            if "," not in network:
                counted = flops(load_onnx(path), OrtBackend(path).manifest, sorted(set(widths)))
                work = float(np.mean([counted[width] for width in widths]))
                rows[f"{network}: operations"] = {"gflop_per_image": round(work / 1e9, 4)}
    base = float(np.median(spent["paper: PyTorch eager, batch 1"])) if "paper" in models else float("nan")
    for task, values in spent.items():
        median = float(np.median(values))
        row: dict[str, Any] = {"images_per_cpu_second": round(1e3 / median, 1)}
        if task.startswith("paper:"):
            row["x_pytorch_eager"] = round(base / median, 2)
        rows[task] = row | {"cpu_per_image": measured(values, "CPU ms")}
        print(f"{row['images_per_cpu_second']:8.1f} images/CPU-s {row.get('x_pytorch_eager', ''):>6}  {task}")
    write("peers", rows, given.json)


if __name__ == "__main__":
    main()
