"""Imports point downwards, and heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "crnn_deploy"

# from the bottom up; a module may import its own layer and those below it
LAYERS = (
    {"errors", "models", "driver", "installed", "strict_json", "budget", "fork"},
    {"files"},
    {"cache"},
    {"process"},
    {"decoding_rule"},
    {"manifest", "sources"},
    {"engine_file", "build_arguments", "doctor"},
    {"run_record"},
    {"recipes", "alphabets", "vocabularies"},
    {"image_header", "ctc", "batching", "metrics"},
    {"image", "cuda"},
    {"decoding", "long_lines"},
    {"backends"},
    {"engines"},
    {"recognizer"},
    {"pipeline", "records"},
    {"output_file"},
    {"drawing"},
    {"datasets"},
    {"synthesis"},
    {"networks"},
    {"stages"},
    {"training"},
    {"cli"},
    {"__init__", "__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# who may import a library, as prefixes of paths below the package
ROOMS = {
    "torch": ("stages/", "networks/", "training/", "backends/reference.py"),
    "safetensors": ("stages/",),
    "onnx": ("stages/",),
    "onnxscript": ("stages/",),
    "rapidfuzz": ("metrics.py", "stages/"),
    "jinja2": ("stages/page.py",),
    "lmdb": ("datasets/",),
    "matplotlib": (
        *("datasets/", "synthesis/fonts.py"),
        *("stages/benchmark_plot.py", "stages/confidence_report.py", "stages/quantization_report.py"),
    ),
    "PIL": ("synthesis/", "training/preview.py"),
    "fontTools": ("synthesis/fonts.py", "synthesis/font_pack.py"),
    "pydantic": ("training/config.py",),
    "yaml": ("training/config.py",),
    "rich": ("training/journal.py",),
    "numba": ("decoding/compiled.py",),
    "kenlm": ("decoding/kenlm_process.py",),
    "onnxruntime": ("backends/ort.py", "stages/dynamic_lstm.py", "stages/ranges.py"),
    "openvino": ("backends/openvino.py",),
    "tensorrt": ("backends/trt.py",),
    "tensorrt_rtx": ("backends/trt.py",),
    "pycuda": ("cuda.py",),
    "cuda": ("cuda.py",),
    "ml_dtypes": ("stages/",),
    "click": ("cli/",),
    "crnn_deploy.networks": ("networks/", "stages/", "training/"),
    "crnn_deploy.stages": ("stages/", "training/", "cli/"),
}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """`ctc` of crnn_deploy.runtime.decoding.ctc, `cli` of crnn_deploy.cli.main, `__init__` of crnn_deploy itself."""
    return [*module.split("."), "__init__"][1]


def imports(tree: ast.AST) -> set[str]:
    """Dotted names that a tree imports; of `from crnn_deploy import ctc`, crnn_deploy.runtime.decoding.ctc."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"line {node.lineno}: a relative import"
            if node.module == "crnn_deploy":
                names |= {f"crnn_deploy.{alias.name}" for alias in node.names}
            else:
                names.add(node.module)
    return names


def module_level(tree: ast.Module) -> set[str]:
    """Names imported when the module is: outside functions, classes and `if TYPE_CHECKING`."""
    statements = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return imports(ast.Module(statements, []))


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downwards(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    here = name.split("/")[0].removesuffix(".py")
    assert here in LEVEL, f"crnn_deploy/{here} has no layer: give it one in LAYERS"
    for imported in imports(tree):
        if imported.split(".")[0] == "crnn_deploy" and here != "__init__":
            assert LEVEL[room(imported)] <= LEVEL[here], f"{name} imports {imported}, which lies above it"
        for library, rooms in ROOMS.items():
            if imported == library or imported.startswith(f"{library}."):
                assert name.startswith(rooms), f"{name} imports {imported}; only {', '.join(rooms)} may"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("cli/")])
def test_a_command_imports_only_click_and_errors_before_it_runs(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    foreign = {
        imported
        for imported in module_level(tree)
        if imported.split(".")[0] not in {*sys.stdlib_module_names, "click"}
    }
    # options are held to the same
    rooms = (
        "errors",
        "process",
        "cli.options",
        "cli.outputs",
        "cli.decoding_options",
        "cli.rebuild",
        "cli.say",
    )
    allowed = {f"crnn_deploy.{room}" for room in rooms}
    assert foreign <= allowed


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "import numpy as np; from crnn_deploy import Recognizer, pipeline, recognizer, records, sources\n"
            "from crnn_deploy.runtime.decoding.ctc import Frames; from crnn_deploy.manifest import *\n"
            "class Blank:\n"
            "    manifest = Manifest(('a',), 0, 'gray', 32, WidthRule(8, 8), (0.5,), (0.5,), 'linear',"
            " StepRule(4, 0))\n"
            "    def run(self, x): return Frames.from_logits(np.zeros((len(x), 2, 2), np.float32))\n"
            "    def close(self): pass\n"
            "reader = Recognizer(Blank())\n"
            "assert [t.text for t in reader.read([np.zeros((9, 9), np.uint8)])] == ['']",
            ("torch", "onnx", "onnxscript", "PIL", "numba", "kenlm"),
        ),
        (
            "from crnn_deploy.runtime.backends.ort import open_session; from pathlib import Path\n"
            "try: open_session(Path('absent.onnx'), threads=1)\n"
            "except Exception: pass\n"
            "assert 'onnxruntime' in sys.modules",
            ("torch", "onnx", "onnxscript"),
        ),
        (
            "from crnn_deploy.datasets import check, labels, lmdb_file, open_dataset, pack",
            ("lmdb", "matplotlib", "torch", "onnx", "PIL"),
        ),
        ("import crnn_deploy.evaluation.report", ("torch", "onnx", "onnxruntime")),
        (
            "import contextlib, io; from crnn_deploy.cli.main import main\n"
            "with contextlib.redirect_stdout(io.StringIO()) as shown:\n"
            "    main(['export', '--list-recipes'], standalone_mode=False)\n"
            "assert 'crnn.pytorch' in shown.getvalue()",
            ("torch", "onnx", "onnxruntime"),
        ),
        (
            "from crnn_deploy.runtime.backends.trt import open_engine; from pathlib import Path\n"
            "try: open_engine(Path('absent.engine'))\n"
            "except FileNotFoundError: pass",
            ("torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx"),
        ),
        ("import crnn_deploy.doctor", ("numpy", "cv2", "click", "torch", "onnxruntime")),
        ("import crnn_deploy", ("numpy", "cv2", "click")),
        ("import crnn_deploy.cli.main", ("numpy", "cv2", "onnxruntime")),
    ],
    ids=["recognizer", "ort", "datasets", "evaluation", "recipes", "engine", "doctor", "package", "cli"],
)
def test_what_a_run_does_not_import(code: str, absent: tuple[str, ...]) -> None:
    check = f"import sys\n{code}\nprint([name for name in {absent!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr
