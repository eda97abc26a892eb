"""Imports point downwards, and heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "crnn_deploy"

# each room and the rooms that it imports; a room may import only those whose lines stand above its own
ROOMS: dict[str, str] = {
    "errors": "",
    "commands": "",
    "metrics": "",
    "plain_text": "",
    "models": "errors",
    "networks": "errors",
    "files": "errors",
    "stores": "errors files",
    "process": "files",
    "regions": "errors files",
    "decoding_rule": "errors",
    "manifest": "decoding_rule errors files",
    "recipes": "errors files manifest",
    "runtime.decoding": "decoding_rule errors files manifest",
    "runtime.images": "errors files manifest process regions",
    "runtime.backends": "errors files manifest process runtime.decoding",
    "verdict": "errors manifest metrics plain_text runtime.backends runtime.decoding",
    "runtime": (
        "decoding_rule errors files manifest models process regions runtime.backends runtime.decoding "
        "runtime.images verdict"
    ),
    "sent": "errors regions runtime.decoding runtime.images",
    "client": "errors files regions runtime.decoding runtime.images sent",
    "triton": "errors files manifest runtime runtime.backends runtime.decoding",
    "serving": (
        "decoding_rule errors files manifest models process regions runtime runtime.backends "
        "runtime.decoding runtime.images"
    ),
    "doctor": "commands errors runtime.backends",
    "graph": "errors files manifest runtime.backends",
    "datasets": "errors files manifest process recipes runtime.decoding runtime.images stores",
    "cluster": "datasets errors files runtime runtime.backends runtime.images stores",
    "synthesis": "datasets errors files",
    "evaluation": (
        "datasets decoding_rule errors files graph manifest metrics plain_text process runtime "
        "runtime.backends runtime.decoding runtime.images"
    ),
    "parity": (
        "datasets errors graph manifest runtime runtime.backends runtime.decoding runtime.images "
        "synthesis verdict"
    ),
    "export.checkpoints": "errors files networks recipes",
    "export": (
        "errors export.checkpoints files graph manifest networks parity plain_text recipes "
        "runtime.backends runtime.decoding verdict"
    ),
    "export.foreign": "errors export files graph manifest recipes runtime.backends",
    "quantization": (
        "errors evaluation export files graph manifest parity runtime runtime.backends runtime.images "
        "synthesis verdict"
    ),
    "engine": (
        "errors export files graph manifest parity quantization recipes runtime.backends runtime.decoding "
        "verdict"
    ),
    "training": (
        "datasets errors evaluation export export.checkpoints files manifest metrics networks process "
        "quantization recipes runtime runtime.decoding runtime.images synthesis"
    ),
    "inspection": "errors export graph manifest recipes runtime.backends",
    "cli": (
        "cluster commands datasets decoding_rule doctor engine errors evaluation export export.foreign "
        "files graph inspection manifest models parity process quantization recipes runtime "
        "runtime.backends runtime.decoding runtime.images serving stores synthesis training triton "
        "verdict"
    ),
    "": "cli client datasets errors evaluation manifest metrics process regions runtime runtime.decoding",
}

# who may import a library, as prefixes of paths below the package
LIBRARIES = {
    "torch": ("networks/", "export/", "training/", "quantization/qat.py"),
    "safetensors": ("export/",),
    "onnx": ("graph/", "export/", "quantization/", "engine/", "parity/graph_formats.py"),
    "onnxscript": ("export/",),
    "rapidfuzz": ("metrics.py", "evaluation/", "parity/compare.py"),
    "jinja2": ("evaluation/page.py",),
    "lmdb": ("datasets/",),
    "pyarrow": ("stores/", "cluster/", "datasets/"),
    "ray": ("cluster/",),
    "matplotlib": (
        *("datasets/plot.py", "synthesis/fonts.py", "quantization/report.py"),
        *("evaluation/speed_plot.py", "evaluation/confidence_report.py"),
    ),
    "PIL": ("synthesis/", "training/preview.py"),
    "fontTools": ("synthesis/fonts.py", "synthesis/font_pack.py"),
    "wordfreq": ("synthesis/lexicon.py", "synthesis/chinese_words.py"),
    "pydantic": ("training/config.py", "serving/"),
    "fastapi": ("serving/",),
    "starlette": ("serving/",),
    "uvicorn": ("serving/",),
    "python_multipart": ("serving/bodies.py",),
    "prometheus_client": ("serving/metrics.py",),
    "yaml": ("training/config.py", "recipes/alphabets.py", "recipes/tables.py"),
    "rich": ("training/journal.py",),
    "numba": ("runtime/decoding/compiled.py",),
    "kenlm": ("runtime/decoding/kenlm_process.py",),
    "onnxruntime": ("runtime/backends/ort.py", "quantization/int8_lstm.py", "quantization/ranges.py"),
    "openvino": ("runtime/backends/openvino.py",),
    "tensorrt": ("runtime/backends/trt.py",),
    "tensorrt_rtx": ("runtime/backends/trt.py",),
    "pycuda": ("runtime/backends/cuda.py",),
    "cuda": ("runtime/backends/cuda.py",),
    "ml_dtypes": ("graph/", "engine/"),
    "click": ("cli/",),
    "httpx": ("client.py",),
    "tritonclient": ("triton/config.py",),
    "google": ("triton/config.py",),
    "triton_python_backend_utils": ("triton/steps/",),
}

# importing a module of these rooms must not import these libraries, neither itself nor through others
HEAVY = {
    ("torch", "fontTools", "PIL", "matplotlib", "lmdb"): (
        *(
            "recipes",
            "runtime",
            "graph",
            "datasets",
            "evaluation",
            "parity",
            "engine",
            "doctor",
            "inspection",
            "triton",
        ),
        *("quantization.calibrate", "quantization.quantize", "export.foreign"),
    ),
    ("onnx",): (
        "recipes",
        "runtime",
        "datasets",
        "evaluation",
        "parity.verify",
        "doctor",
        "inspection",
        "triton",
    ),
}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
MODULES = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in FILES}


def room(module: str) -> str:
    """`cli` of cli.main, `runtime.images` of runtime.images.pixels, nothing of the package itself."""
    parts = module.split(".")
    nested = ".".join(parts[:2])
    found = nested if nested in ROOMS else parts[0]
    return "" if found in ("__init__", "__main__") else found


def parsed(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> set[str]:
    """Dotted names that a tree imports; of `from crnn_deploy.runtime import records`, that of the module."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"line {node.lineno}: a relative import"
            full = {alias: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {
                name if name.removeprefix("crnn_deploy.") in MODULES else node.module
                for name in full.values()
            }
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


def own(names: set[str]) -> set[str]:
    """Modules of the package among imported names, without its name."""
    return {name.removeprefix("crnn_deploy.") for name in names if name.startswith("crnn_deploy.")}


@functools.cache
def reached(module: str) -> frozenset[str]:
    """Libraries that importing a module of the package brings along."""
    todo, seen, libraries = [module], set(), set()
    while todo:
        if (one := todo.pop()) in seen:
            continue
        seen.add(one)
        names = module_level(parsed(MODULES[one]))
        todo += own(names) & MODULES.keys()
        libraries |= {name.split(".")[0] for name in names if not name.startswith("crnn_deploy")}
    return frozenset(libraries)


def test_rooms_import_what_their_line_says_and_lines_point_downwards() -> None:
    found: dict[str, set[str]] = {name: set() for name in ROOMS}
    for module, name in MODULES.items():
        here = room(module)
        assert here in ROOMS, f"crnn_deploy/{name} is in no room: give it a line in ROOMS"
        found[here] |= {room(other) for other in own(imports(parsed(name)))} - {here}
    order = list(ROOMS)
    lines = {name: set(others.split()) for name, others in ROOMS.items()}
    assert {name: sorted(found[name] - lines[name]) for name in ROOMS if found[name] - lines[name]} == {}
    assert {name: sorted(lines[name] - found[name]) for name in ROOMS if lines[name] - found[name]} == {}
    for name, others in found.items():
        for other in others:
            assert order.index(other) < order.index(name), f"{name} imports {other}, which lies above it"


@pytest.mark.parametrize("name", FILES)
def test_a_library_stays_in_its_rooms(name: str) -> None:
    for imported in imports(parsed(name)):
        rooms = LIBRARIES.get(imported.split(".")[0], ("",))
        assert name.startswith(rooms), f"{name} imports {imported}; only {', '.join(rooms)} may"


@pytest.mark.parametrize(
    ("module", "libraries"),
    [
        (module, libraries)
        for libraries, prefixes in HEAVY.items()
        for module in MODULES
        if module.startswith(prefixes)
        and MODULES[module] not in {n for lib in libraries for n in LIBRARIES[lib]}
    ],
)
def test_what_importing_a_module_does_not_bring(module: str, libraries: tuple[str, ...]) -> None:
    assert not reached(module) & set(libraries)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("cli/")])
def test_a_command_imports_only_click_and_errors_before_it_runs(name: str) -> None:
    foreign = {
        imported
        for imported in module_level(parsed(name))
        if imported.split(".")[0] not in {*sys.stdlib_module_names, "click"}
    }
    # options are held to the same
    rooms = (
        "commands",
        "errors",
        "process",
        "cli.options",
        "cli.outputs",
        "cli.decoding_options",
        "cli.group",
        "cli.rebuild",
        "cli.say",
        "cli.summary",
        "cli.usage_errors",
        "cli.values",
    )
    allowed = {f"crnn_deploy.{room}" for room in rooms}
    assert foreign <= allowed


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "import numpy as np; from crnn_deploy import Recognizer\n"
            "from crnn_deploy.runtime import pipeline, recognizer, records\n"
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
            "    main(['recipes'], standalone_mode=False)\n"
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
        ("import crnn_deploy.client", ("cv2", "click", "httpx", "onnxruntime")),
        ("import crnn_deploy.cli.main", ("numpy", "cv2", "onnxruntime")),
    ],
    ids=[
        "recognizer",
        "ort",
        "datasets",
        "evaluation",
        "recipes",
        "engine",
        "doctor",
        "package",
        "client",
        "cli",
    ],
)
def test_what_a_run_does_not_import(code: str, absent: tuple[str, ...]) -> None:
    check = f"import sys\n{code}\nprint([name for name in {absent!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr
