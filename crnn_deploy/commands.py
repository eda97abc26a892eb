"""Every command, its stage, the libraries that it needs, and the extras of setup.cfg that bring them.

The command line finds its commands here, and `doctor` what to look for. Imports the standard library alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

__all__ = [
    "COMMANDS",
    "DRIVER",
    "EXTRAS",
    "LIBRARIES",
    "STAGES",
    "Command",
    "Library",
    "Need",
    "Use",
    "extra_for",
    "extras_for",
    "library_of",
]

Need = tuple[str, ...]  # names of libraries, any of which will do; the first is the one to install


class Library(NamedTuple):
    """What is imported, and what brings it."""

    module: str
    requirements: tuple[str, ...]  # its names in setup.cfg
    extras: tuple[str, ...]  # those that bring it; none: it comes with the toolkit


class Use(NamedTuple):
    """A part of what a command does."""

    what: str  # as it stands after the command's name: `with --html`
    needs: tuple[Need, ...]


class Command(NamedTuple):
    """A command of the command line."""

    place: str  # module:name
    stage: str  # of a model's way, one of STAGES
    needs: tuple[Need, ...]  # whatever it does
    ways: tuple[Use, ...] = ()  # of which at least one must be possible
    uses: tuple[Use, ...] = ()  # which it can do without


STAGES = ("Make a model", "Prove it", "Run it", "Look at it")  # as `--help` has them
_MAKE, _PROVE, _RUN_IT, _LOOK = STAGES

EXTRAS = (
    *("cpu", "gpu", "openvino", "tensorrt", "tensorrt-rtx", "pycuda", "cuda", "decode", "kenlm"),
    *("evaluate", "export", "train", "serve", "client", "triton", "ray"),
)

LIBRARIES = {
    "click": Library("click", ("click",), ()),
    "NumPy": Library("numpy", ("numpy",), ()),
    "OpenCV": Library("cv2", ("opencv-python-headless",), ()),
    "ONNX Runtime": Library("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), ("cpu", "gpu")),
    "OpenVINO": Library("openvino", ("openvino",), ("openvino",)),
    "TensorRT": Library("tensorrt", ("tensorrt",), ("tensorrt",)),
    "TensorRT-RTX": Library("tensorrt_rtx", ("tensorrt-rtx",), ("tensorrt-rtx",)),
    "PyCUDA": Library("pycuda.driver", ("pycuda",), ("pycuda",)),
    "cuda-bindings": Library("cuda.bindings.driver", ("cuda-bindings",), ("cuda",)),
    "numba": Library("numba", ("numba",), ("decode",)),
    "KenLM": Library("kenlm", ("kenlm",), ("kenlm",)),
    "RapidFuzz": Library("rapidfuzz", ("rapidfuzz",), ("evaluate", "export", "train")),
    "Jinja2": Library("jinja2", ("Jinja2",), ("evaluate",)),
    "PyTorch": Library("torch", ("torch",), ("export", "train")),
    "ONNX": Library("onnx", ("onnx",), ("export", "train")),
    "onnxscript": Library("onnxscript", ("onnxscript",), ("export", "train")),
    "safetensors": Library("safetensors", ("safetensors",), ("export", "train")),
    "ml_dtypes": Library("ml_dtypes", ("ml_dtypes",), ("export", "train")),
    "fontTools": Library("fontTools", ("fonttools",), ("train",)),
    "Pillow": Library("PIL", ("Pillow",), ("train",)),
    "matplotlib": Library("matplotlib", ("matplotlib",), ("train",)),
    "lmdb": Library("lmdb", ("lmdb",), ("train",)),
    "Pydantic": Library("pydantic", ("pydantic",), ("train", "serve")),
    "PyYAML": Library("yaml", ("PyYAML",), ("train",)),
    "rich": Library("rich", ("rich",), ("train",)),
    "wordfreq": Library("wordfreq", ("wordfreq",), ("train",)),
    "TensorBoard": Library("tensorboard", ("tensorboard",), ("train",)),
    "FastAPI": Library("fastapi", ("fastapi",), ("serve",)),
    "uvicorn": Library("uvicorn", ("uvicorn",), ("serve",)),
    "httptools": Library("httptools", ("httptools",), ("serve",)),
    "uvloop": Library("uvloop", ("uvloop",), ("serve",)),
    "python-multipart": Library("python_multipart", ("python-multipart",), ("serve",)),
    "Prometheus client": Library("prometheus_client", ("prometheus_client",), ("serve",)),
    "HTTPX": Library("httpx", ("httpx",), ("client",)),
    "Triton client": Library("tritonclient.grpc", ("tritonclient",), ("triton",)),
    "Ray": Library("ray", ("ray",), ("ray",)),
    "PyArrow": Library("pyarrow", ("pyarrow",), ("ray",)),
}
DRIVER = "NVIDIA driver"  # named among needs, and no library of Python


def _all(*names: str) -> tuple[Need, ...]:
    return tuple((name,) for name in names)


_BASE = _all("NumPy", "OpenCV")
_RUN = _all("ONNX Runtime")
_TORCH = _all("PyTorch", "safetensors")
_BUILDER: Need = ("TensorRT-RTX", "TensorRT")
_ENGINE = (_BUILDER, ("PyCUDA", "cuda-bindings"), (DRIVER,))
_DRAW = _all("fontTools", "Pillow")

_OF_ONNX = Use("of .onnx files", _RUN)
_OF_ENGINES = Use("of .engine files", _ENGINE)
_OF_CHECKPOINTS = Use("of checkpoints", _TORCH)
_FROM_LMDB = Use("of an LMDB", _all("lmdb"))
_OF_A_STORE = Use("of shards in a store", _all("PyArrow"))
_YAML = Use("with an alphabet in YAML", _all("PyYAML"))
_KENLM = Use("with a binary --lm", _all("KenLM"))
_BEAM = Use("with --decoder beam at full speed", _all("numba"))

COMMANDS = {
    "infer": Command(
        "crnn_deploy.cli.infer:infer",
        _RUN_IT,
        _BASE,
        (
            Use("with --backend onnxruntime, the default", _RUN),
            Use("with --backend openvino", _all("OpenVINO")),
            _OF_ENGINES,
        ),
        (_BEAM, _KENLM),
    ),
    "infer-cluster": Command(
        "crnn_deploy.cli.infer_cluster:infer_cluster",
        _RUN_IT,
        (*_BASE, *_all("Ray", "PyArrow")),
        (
            Use("with --backend onnxruntime, the default", _RUN),
            Use("with --backend openvino", _all("OpenVINO")),
            _OF_ENGINES,
        ),
        (_FROM_LMDB, _BEAM, _KENLM),
    ),
    "serve": Command(
        "crnn_deploy.cli.serve:serve",
        _RUN_IT,
        (
            *_BASE,
            *_all("FastAPI", "uvicorn", "httptools", "uvloop", "python-multipart", "Prometheus client"),
            *_all("Pydantic"),
        ),
        (
            Use("with --backend onnxruntime, the default", _RUN),
            Use("with --backend openvino", _all("OpenVINO")),
            _OF_ENGINES,
        ),
        (Use("with decoder=beam at full speed", _all("numba")),),
    ),
    "export": Command(
        "crnn_deploy.cli.export:export",
        _MAKE,
        (*_BASE, *_RUN, *_TORCH, *_all("ONNX", "onnxscript", "RapidFuzz")),
        uses=(_YAML,),
    ),
    "build-engine": Command(
        "crnn_deploy.cli.build_engine:build_engine",
        _MAKE,
        (*_BASE, *_RUN, *_all("ONNX", "ml_dtypes", "RapidFuzz"), _BUILDER),
        uses=(
            Use("with --checkpoint", _TORCH),
            Use("with a check on the GPU", _ENGINE),
        ),
    ),
    "calibrate": Command(
        "crnn_deploy.cli.calibrate:calibrate",
        _MAKE,
        (*_BASE, *_RUN, *_all("ONNX")),
        uses=(Use("without IMAGES", _DRAW),),
    ),
    "quantize": Command(
        "crnn_deploy.cli.quantize:quantize",
        _MAKE,
        (*_BASE, *_RUN, *_all("ONNX", "RapidFuzz")),
        uses=(
            Use("without DATA", _DRAW),
            _FROM_LMDB,
            Use("with --rest fp16", _all("ml_dtypes")),
            Use("with --html", _all("Jinja2", "matplotlib")),
        ),
    ),
    "verify": Command(
        "crnn_deploy.cli.verify:verify",
        _PROVE,
        (*_BASE, *_all("RapidFuzz")),
        (_OF_ONNX, _OF_CHECKPOINTS, _OF_ENGINES),
        (_FROM_LMDB,),
    ),
    "evaluate": Command(
        "crnn_deploy.cli.evaluate:evaluate",
        _PROVE,
        (*_BASE, *_all("RapidFuzz")),
        (_OF_ONNX, _OF_CHECKPOINTS, _OF_ENGINES),
        (_FROM_LMDB, Use("with --html", _all("Jinja2")), _BEAM, _KENLM),
    ),
    "benchmark": Command(
        "crnn_deploy.cli.benchmark:benchmark",
        _PROVE,
        _BASE,
        (_OF_ONNX, _OF_ENGINES),
        (Use("with operations counted", _all("ONNX")), Use("with --plot", _all("matplotlib"))),
    ),
    "inspect": Command(
        "crnn_deploy.cli.inspect:inspect_command",
        _LOOK,
        _all("NumPy"),
        (
            Use("of .engine files", ()),
            Use("of .onnx files", (*_BASE, *_RUN, *_all("ONNX"))),
            Use("of checkpoints", (*_BASE, *_TORCH)),
        ),
    ),
    "describe": Command(
        "crnn_deploy.cli.describe:describe",
        _MAKE,
        (*_BASE, *_RUN, *_all("ONNX")),
        uses=(_YAML,),
    ),
    "set-decoding": Command(
        "crnn_deploy.cli.set_decoding:set_decoding",
        _MAKE,
        (*_BASE, *_all("ONNX")),
    ),
    "calibrate-confidence": Command(
        "crnn_deploy.cli.calibrate_confidence:calibrate_confidence",
        _MAKE,
        (*_BASE, *_RUN, *_all("ONNX")),
        uses=(_FROM_LMDB, Use("with --html", _all("Jinja2", "matplotlib"))),
    ),
    "triton": Command(
        "crnn_deploy.cli.triton:triton",
        _RUN_IT,
        (*_BASE, *_RUN, *_all("Triton client")),
    ),
    "lm train": Command("crnn_deploy.cli.lm:lm", _MAKE, _all("NumPy")),
    "doctor": Command(
        "crnn_deploy.cli.doctor:doctor",
        _LOOK,
        (),
        uses=(Use("with --model", (*_all("NumPy", "OpenCV"), *_RUN)),),
    ),
    "recipes": Command("crnn_deploy.cli.recipes:recipes", _LOOK, ()),
    "train": Command(
        "crnn_deploy.cli.train:train",
        _MAKE,
        (*_BASE, *_TORCH, *_all("RapidFuzz", "Pydantic", "PyYAML", "rich", "TensorBoard"), *_DRAW),
        uses=(_FROM_LMDB, _OF_A_STORE, Use("with --qat", _all("ONNX"))),
    ),
    "dataset check": Command(
        "crnn_deploy.cli.dataset:dataset",
        _MAKE,
        _BASE,
        uses=(
            _FROM_LMDB,
            _OF_A_STORE,
            Use("with --model", _RUN),
            Use("with --plot", _all("matplotlib")),
        ),
    ),
    "dataset pack": Command(
        "crnn_deploy.cli.dataset:dataset", _MAKE, _BASE, uses=(Use("into an LMDB", _all("lmdb")), _OF_A_STORE)
    ),
    "dataset preview": Command(
        "crnn_deploy.cli.dataset:dataset",
        _MAKE,
        (*_BASE, *_DRAW, *_all("PyTorch", "Pydantic", "PyYAML")),
        uses=(_FROM_LMDB,),
    ),
    "dataset effects": Command(
        "crnn_deploy.cli.dataset:dataset", _MAKE, (*_BASE, *_DRAW, *_all("PyTorch", "Pydantic", "PyYAML"))
    ),
    "dataset fonts": Command("crnn_deploy.cli.dataset:dataset", _MAKE, (*_BASE, *_DRAW)),
    "dataset pack-fonts": Command("crnn_deploy.cli.dataset:dataset", _MAKE, (*_BASE, *_DRAW)),
}


def extras_for(libraries: Collection[str]) -> list[str]:
    """The fewest extras that bring all of these; of two that would do, the one with fewer libraries."""
    sizes = Counter(extra for one in LIBRARIES.values() for extra in one.extras)
    left = {name for name in libraries if name in LIBRARIES and LIBRARIES[name].extras}
    chosen: list[str] = []
    while left:
        best = max(
            EXTRAS,
            key=lambda extra: (sum(extra in LIBRARIES[name].extras for name in left), -sizes[extra]),
        )
        chosen.append(best)
        left = {name for name in left if best not in LIBRARIES[name].extras}
    return sorted(chosen, key=EXTRAS.index)


def extra_for(library: str, command: str) -> str:
    """Of the extras that bring a library, the one that brings most of what a command needs."""
    needed = {
        need[0]
        for name, one in COMMANDS.items()
        if f"{name} ".startswith(f"{command} ")
        for need in one.needs
    }
    return max(
        LIBRARIES[library].extras,
        key=lambda extra: sum(extra in LIBRARIES[name].extras for name in needed),
    )


def library_of(module: str) -> str | None:
    """The name of the library that a module belongs to."""
    top = module.partition(".")[0]
    return next((name for name, one in LIBRARIES.items() if one.module.partition(".")[0] == top), None)
