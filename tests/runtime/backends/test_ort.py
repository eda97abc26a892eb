"""What the ONNX Runtime backend says when a model or the installation is not fit to run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from crnn_deploy import Recognizer  # noqa: E402
from crnn_deploy.errors import (  # noqa: E402
    AlphabetMismatch,
    BackendMissing,
    ManifestInvalid,
    ManifestMissing,
    ModelClosed,
    ModelNotFound,
    ModelUnreadable,
    RunFailed,
)
from crnn_deploy.manifest import METADATA_KEY, Manifest, StepRule, WidthRule  # noqa: E402
from crnn_deploy.runtime.backends.backend import open_backend  # noqa: E402

MANIFEST = Manifest(
    alphabet=("a", "b"),
    blank=0,
    color="gray",
    height=3,
    width=WidthRule(8, 64, multiple=4),
    mean=(0.5,),
    std=(0.5,),
    interpolation="linear",
    steps=StepRule(1, 0),
)


def save(
    path: Path,
    metadata: str | None,
    shape: Sequence[int | str] = ("batch", 1, 3, "width"),
    kind: TensorProto.DataType = TensorProto.FLOAT,
) -> Path:
    """A network whose logits are the columns of the image, so an image of height 3 has 3 classes."""
    shape_out = [shape[0], shape[3], shape[2]]
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["images", "one"], ["columns"]),
            helper.make_node("Transpose", ["columns"], ["logits"], perm=[0, 2, 1]),
        ],
        "columns",
        [helper.make_tensor_value_info("images", kind, list(shape))],
        [helper.make_tensor_value_info("logits", kind, shape_out)],
        [numpy_helper.from_array(np.array([1]), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        helper.set_model_props(model, {METADATA_KEY: metadata})
    onnx.save(model, path)
    return path


def test_logits_become_frames(tmp_path: Path) -> None:
    backend = open_backend(save(tmp_path / "m.onnx", MANIFEST.to_json()))
    assert backend.manifest == MANIFEST
    images = np.random.default_rng(0).normal(size=(2, 1, 3, 8)).astype(np.float32)
    frames = backend.run(images)
    np.testing.assert_array_equal(frames.logits, images[:, 0].swapaxes(1, 2))
    np.testing.assert_array_equal(frames.indices, images[:, 0].argmax(axis=1))
    backend.close()


def test_a_file_without_a_manifest_names_the_command_that_gives_it_one(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", None)
    with pytest.raises(ManifestMissing, match=f"crnn-deploy describe {path}"):
        open_backend(path)


def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", "{")
    with pytest.raises(ManifestInvalid, match=f"the manifest of {path} is not valid: "):
        open_backend(path)


def test_metadata_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", "MARK")
    path.write_bytes(path.read_bytes().replace(b"MARK", b"\xff\xfe\xff\xfe"))
    with pytest.raises((ModelUnreadable, ManifestInvalid)):
        open_backend(path)


@pytest.mark.parametrize(
    "graph",
    [
        {"shape": ("batch", 3, 3, "width")},
        {"shape": ("batch", 1, 5, "width")},
        {"shape": ("batch", 1, 3, 16)},
        {"kind": TensorProto.DOUBLE},
    ],
    ids=["channels", "height", "width", "type"],
)
def test_an_input_that_the_manifest_contradicts_is_refused(tmp_path: Path, graph: dict[str, Any]) -> None:
    if graph.get("shape", (0, 1))[1] == 3:  # three channels cannot be squeezed away
        path = tmp_path / "m.onnx"
        value = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(graph["shape"]))
        out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, list(graph["shape"]))
        nodes = [helper.make_node("Relu", ["images"], ["logits"])]
        model = helper.make_model(
            helper.make_graph(nodes, "g", [value], [out]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        helper.set_model_props(model, {METADATA_KEY: MANIFEST.to_json()})
        onnx.save(model, path)
    else:
        path = save(tmp_path / "m.onnx", MANIFEST.to_json(), **graph)
    with pytest.raises(ModelUnreadable, match=r"promises one float input \(N, 1, 3, W\)"):
        open_backend(path)


def test_a_width_that_both_fix_is_accepted(tmp_path: Path) -> None:
    fixed = replace(MANIFEST, width=WidthRule(16, 16))
    open_backend(save(tmp_path / "m.onnx", fixed.to_json(), ("batch", 1, 3, 16)))


def test_an_alphabet_that_does_not_fit_the_classes_is_refused(tmp_path: Path) -> None:
    wrong = replace(MANIFEST, alphabet=("a", "b", "c"))
    with pytest.raises(AlphabetMismatch, match="the network puts out 3"):
        open_backend(save(tmp_path / "m.onnx", wrong.to_json()))


def test_outputs_that_the_manifest_contradicts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"\['indices', 'probabilities'\].*\['logits'\]"):
        open_backend(save(tmp_path / "m.onnx", replace(MANIFEST, output="argmax").to_json()))


def test_a_batch_that_the_graph_fixes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match="batches of 1 alone; crnn-deploy describe"):
        open_backend(save(tmp_path / "m.onnx", MANIFEST.to_json(), (1, 1, 3, "width")))


def test_time_steps_that_the_manifest_contradicts_end_the_run(tmp_path: Path) -> None:
    wrong = replace(MANIFEST, steps=StepRule(2, 0))
    backend = open_backend(save(tmp_path / "m.onnx", wrong.to_json()))
    with pytest.raises(RunFailed, match=r"\(2, 4, 3\), the graph gives \(2, 8, 3\)"):
        backend.run(np.zeros((2, 1, 3, 8), np.float32))


def test_classes_that_only_a_run_tells_are_checked(tmp_path: Path) -> None:
    wrong = replace(MANIFEST, alphabet=("a", "b", "c"))
    path = save(tmp_path / "m.onnx", wrong.to_json(), ("batch", 1, "height", "width"))
    with pytest.raises(RunFailed, match=r"\(1, 8, 4\), the graph gives \(1, 8, 3\)"):
        open_backend(path).run(np.zeros((1, 1, 3, 8), np.float32))


def test_what_onnx_runtime_says_while_running_is_one_line(tmp_path: Path) -> None:
    backend = open_backend(save(tmp_path / "m.onnx", MANIFEST.to_json()))
    with pytest.raises(RunFailed, match=r"m\.onnx fails on images of shape \(1, 2, 3, 8\)") as caught:
        backend.run(np.zeros((1, 2, 3, 8), np.float32))
    assert isinstance(caught.value, RuntimeError) and "\n" not in str(caught.value)


def test_a_class_beyond_the_alphabet_ends_the_run(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["images", "axes"], ["probabilities"]),
            helper.make_node("Cast", ["probabilities"], ["indices"], to=TensorProto.INT64),
        ],
        "argmax",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 1, "width"])],
        [
            helper.make_tensor_value_info("indices", TensorProto.INT64, ["batch", "width"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", "width"]),
        ],
        [numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    manifest = replace(MANIFEST, height=1, output="argmax")
    helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    backend = open_backend(tmp_path / "m.onnx")
    assert backend.run(np.full((1, 1, 1, 8), 2, np.float32)).indices.tolist() == [[2] * 8]
    for wrong in (3, -1):
        with pytest.raises(RunFailed, match="class"):
            backend.run(np.full((1, 1, 1, 8), wrong, np.float32))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        open_backend(tmp_path / "none.onnx")
    with pytest.raises(ModelNotFound):
        open_backend(tmp_path)
    (tmp_path / "m.pth").write_bytes(b"x")
    with pytest.raises(ModelUnreadable, match="crnn-deploy export"):
        open_backend(tmp_path / "m.pth")
    (tmp_path / "m.onnx").write_bytes(b"\x3a\x00")  # an empty graph
    with pytest.raises(ModelUnreadable, match="ONNX Runtime cannot load it"):
        open_backend(tmp_path / "m.onnx")


def test_a_closed_backend_says_so(tmp_path: Path) -> None:
    path, image = save(tmp_path / "m.onnx", MANIFEST.to_json()), np.zeros((1, 1, 3, 8), np.float32)
    for name in ("onnxruntime", "openvino") if find_spec("openvino") else ("onnxruntime",):
        backend = open_backend(path, backend=name)
        recognizer = Recognizer(backend)
        backend.run(image)
        recognizer.close()
        with pytest.raises(ModelClosed, match=r"m\.onnx is closed; load it again"):
            backend.run(image)
        with pytest.raises(ModelClosed):
            recognizer.read([np.zeros((9, 9), np.uint8)])
        recognizer.close()


OPEN = """
import sys
from pathlib import Path
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.errors import BackendMissing
try:
    open_backend(Path(sys.argv[1]))
except BackendMissing as error:
    assert isinstance(error, ImportError)
    print(error)
"""

BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def said(code: str, model: Path, *folders: Path) -> str:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*folders, root]))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def install(folder: Path, *names: str) -> None:
    """The ONNX Runtime of this machine in a folder of its own, as if these distributions had brought it."""
    import onnxruntime

    folder.mkdir(exist_ok=True)
    (folder / "onnxruntime").symlink_to(Path(onnxruntime.__file__).parent)
    for name in names:
        info = folder / f"{name.replace('-', '_')}-1.24.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.24.0\n")


def test_two_distributions_of_onnx_runtime_in_one_folder_are_refused(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", MANIFEST.to_json())
    install(tmp_path / "site", "onnxruntime", "onnxruntime-gpu")
    line = said(OPEN, model, tmp_path / "site")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in line
    assert "\n" not in line


def test_two_distributions_of_onnx_runtime_in_two_folders_are_no_conflict(tmp_path: Path) -> None:
    """The later one is not imported: the one for GPUs may lie before that of the machine."""
    model = save(tmp_path / "m.onnx", MANIFEST.to_json())
    install(tmp_path / "site", "onnxruntime-gpu")
    install(tmp_path / "later", "onnxruntime")
    (tmp_path / "empty").mkdir()
    assert said(OPEN, model, tmp_path / "empty", tmp_path / "site", tmp_path / "later") == ""


INFER = """
from crnn_deploy.cli.main import main
try:
    main(["infer", "--model", sys.argv[1], "-"], prog_name="crnn-deploy")
except SystemExit as end:
    assert end.code == 2
"""


@pytest.mark.parametrize("code", [OPEN, "import sys; sys.stderr = sys.stdout" + INFER], ids=["API", "infer"])
def test_no_onnx_runtime_names_the_extra(code: str, tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", MANIFEST.to_json())
    line = said(BLOCK + code, model)
    assert "pip install 'crnn-deploy[cpu]'" in line
    assert "\n" not in line


@pytest.mark.parametrize("version", ["1.20.1", "1.23.2", "0.9"])
def test_an_onnx_runtime_that_follows_any_path_is_refused(version: str, tmp_path: Path) -> None:
    code = f"import onnxruntime; onnxruntime.__version__ = {version!r}" + OPEN
    line = said(code, save(tmp_path / "m.onnx", MANIFEST.to_json()))
    assert f"ONNX Runtime {version} is too old" in line and "pip install --upgrade" in line


def test_the_installation_of_this_machine_is_usable(tmp_path: Path) -> None:
    assert said(OPEN, save(tmp_path / "m.onnx", MANIFEST.to_json())) == ""


# Onto a machine without a GPU: ONNX Runtime runs everything on the CPU and says that CUDA does, but for LEFT.
PRETEND = """
import onnxruntime as ort

LEFT, CUDA, OPENED = (), "CUDAExecutionProvider", []


class Part:
    def __init__(self, part):
        self.nodes = part.get_nodes()
        self.ep_name = part.ep_name if self.nodes[0].op_type in LEFT else CUDA

    def get_nodes(self):
        return self.nodes


class Session(ort.InferenceSession):
    def __init__(self, path, options, providers):
        OPENED.append(providers)
        super().__init__(path, options, providers=["CPUExecutionProvider"])

    def get_providers(self):
        return [CUDA, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self):
        return [Part(part) for part in super().get_provider_graph_assignment_info()]


ort.get_available_providers = lambda: [CUDA, "CPUExecutionProvider"]
ort.preload_dlls = lambda: print("Failed to load libcublasLt.so.13: no such file")
ort.InferenceSession = Session
"""


def on_pretended_cuda(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{PRETEND}\n{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


INFER_ON_CUDA = "from crnn_deploy.cli.main import main; main(['infer', '--device', 'cuda', sys.argv[1]])"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """White paper."""
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 100), 255, np.uint8))
    return tmp_path / "a.png"


def test_on_cuda_nothing_but_texts_is_on_stdout(picture: Path) -> None:
    """ONNX Runtime prints what it does not find of CUDA, though it may find it elsewhere."""
    done = on_pretended_cuda(INFER_ON_CUDA, picture)
    text = Recognizer().read(picture).text
    assert (done.returncode, done.stdout) == (0, f"{picture}\t{text}\n"), done.stderr


@pytest.mark.parametrize("left", ["Conv", "LSTM", "MatMul"])
def test_on_cuda_what_costs_most_may_not_run_on_the_cpu(left: str, picture: Path) -> None:
    done = on_pretended_cuda(f"LEFT = {(left, 'Reshape')!r}\n{INFER_ON_CUDA}", picture)
    assert done.returncode == BackendMissing.exit_code
    [line] = done.stderr.splitlines()
    assert f" {left} of " in line and "to CPUExecutionProvider" in line and "--device cpu" in line
    assert "Reshape" not in line and not done.stdout


def test_on_cuda_arithmetic_on_shapes_may_run_on_the_cpu_and_tf32_is_asked_for() -> None:
    code = (
        "LEFT = ('Reshape', 'Squeeze')\n"
        "from crnn_deploy import Recognizer\nfrom crnn_deploy.models import DEFAULT\n"
        "for tf32 in (False, True): Recognizer.load(DEFAULT, device='cuda', tf32=tf32)\n"
        "print([options['use_tf32'] for [(_, options)] in OPENED])"
    )
    done = on_pretended_cuda(code)
    assert done.stdout.strip() == "['0', '1']", done.stderr


def test_an_onnx_runtime_that_does_not_tell_where_nodes_run(picture: Path) -> None:
    parent = "ort.capi.onnxruntime_inference_collection.Session"
    hide = "; ".join(f"del {owner}.get_provider_graph_assignment_info" for owner in ("Session", parent))
    done = on_pretended_cuda(f"{hide}\n{INFER_ON_CUDA}", picture)
    assert done.returncode == BackendMissing.exit_code
    assert "pip install --upgrade 'crnn-deploy[gpu]'" in done.stderr


def test_a_cuda_provider_that_is_absent_or_falls_back_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    path = save(tmp_path / "model.onnx", MANIFEST.to_json())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendMissing, match=r"has no CUDA provider; run pip uninstall -y onnxruntime, then"):
        open_backend(path, device="cuda")
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("no libcudnn.so.9"))
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(  # what ONNX Runtime does where CUDA does not load: it says so and takes the CPU
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: session(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(
        BackendMissing, match=r"to CPUExecutionProvider.*missing \(no libcudnn.so.9\).*--device cpu"
    ):
        open_backend(path, device="cuda")


def test_a_cuda_that_fails_is_not_the_models_fault(picture: Path) -> None:
    said = "/a/cuda_call.cc:154 std::conditional_t<T> CudaCall(E, char*) CUBLAS failure 1: no memory ; GPU=0"
    code = f"def fail(*_, **__): raise RuntimeError({said!r})\nort.InferenceSession = fail\n{INFER_ON_CUDA}"
    done = on_pretended_cuda(code, picture)
    assert done.returncode == BackendMissing.exit_code
    [line] = done.stderr.splitlines()
    assert "CUDA fails while ONNX Runtime opens" in line and line.endswith(": CUBLAS failure 1: no memory")


def test_tf32_goes_with_cuda(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from crnn_deploy.cli.main import main

    for options in ([], ["--device", "cpu"]):
        done = CliRunner().invoke(main, ["infer", "--allow-tf32", *options, "x.png"])
        assert done.exit_code == 2 and "--allow-tf32 goes with --device cuda" in done.stderr


def test_a_graph_that_grows_beyond_the_memory_is_an_error(tmp_path: Path) -> None:
    """Not the end of the process: a file of some hundred bytes asks for a tensor of 2^50 bytes."""
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["images"], ["shape"]),
            helper.make_node("Mul", ["shape", "many"], ["huge"]),
            helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
            helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["images", "zero"], ["sum"]),
            helper.make_node("Squeeze", ["sum", "one"], ["columns"]),
            helper.make_node("Transpose", ["columns"], ["logits"], perm=[0, 2, 1]),
        ],
        "grows",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 3, "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "width", 3])],
        [numpy_helper.from_array(np.array([1]), "one"), numpy_helper.from_array(np.full(4, 2**11), "many")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: MANIFEST.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    backend = open_backend(tmp_path / "m.onnx")
    with pytest.raises(RunFailed, match=r"a tensor takes \d+\.\d GB, and \d+\.\d GB are left"):
        backend.run(np.zeros((1, 1, 3, 8), np.float32))
