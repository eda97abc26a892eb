"""An ONNX file opened once: what is read of it, and what is said where it is none."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from crnn_deploy.errors import ManifestMissing, ModelNotFound, ModelUnreadable
from crnn_deploy.graph.model import attach_manifest, backend_of, manifest_of, open_model, rewrite
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends.ort import OrtBackend

ROOT = Path(__file__).parents[2]


def test_a_model_is_its_file() -> None:
    model = open_model(DEFAULT)
    assert model.sha256 == hashlib.sha256(DEFAULT.read_bytes()).hexdigest()
    assert model.graph == onnx.load(DEFAULT)
    assert model.manifest == OrtBackend(DEFAULT).manifest
    images = np.random.default_rng(0).random((3, 1, model.manifest.height, 120), np.float32)
    found, expected = model.backend().run(images).logits, OrtBackend(DEFAULT).run(images).logits
    assert found is not None and expected is not None and np.array_equal(found, expected)
    assert model.backend() is model.backend()


def test_a_model_is_read_before_its_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(DEFAULT.read_bytes())
    model = open_model(path)
    path.unlink()
    assert model.backend().manifest == model.manifest


def test_tensors_outside_the_file_belong_to_the_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(onnx.load(DEFAULT), path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    images = np.zeros((1, 1, open_model(path).manifest.height, 64), np.float32)
    found, expected = open_model(path).backend().run(images).logits, OrtBackend(path).run(images).logits
    assert found is not None and expected is not None and np.array_equal(found, expected)


def test_tensors_outside_the_file_that_stay_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx does not read sparse ones in; ONNX Runtime would take a file of the current folder for them."""
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    indices = onnx.numpy_helper.from_array(np.arange(4, dtype=np.int64), "at")
    sparse = onnx.helper.make_sparse_tensor(tensor, indices, [4])
    onnx.external_data_helper.set_external_data(sparse.values, "w.bin", offset=0, length=16)
    sparse.values.ClearField("raw_data")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        ends[:1],
        ends[1:],
        sparse_initializer=[sparse],
    )
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "w.bin").write_bytes(bytes(16))
    onnx.save(onnx.helper.make_model(graph), folder / "m.onnx")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnreadable, match="sparse tensors lie in other files"):
        open_model(folder / "m.onnx")


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"none\.onnx"):
        open_model(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07 not a model")
    with pytest.raises(ModelUnreadable, match=r"broken\.onnx"):
        open_model(broken)
    graph = onnx.load(DEFAULT)
    del graph.metadata_props[:]
    bare = tmp_path / "bare.onnx"
    onnx.save(graph, bare)
    for opened in (lambda: open_model(bare), lambda: OrtBackend(bare), lambda: backend_of(graph, bare)):
        with pytest.raises(ManifestMissing, match=r"bare\.onnx has no crnn-deploy manifest"):
            opened()


def test_a_rewritten_file_differs_in_its_manifest_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    written = rewrite(DEFAULT, path, lambda manifest: manifest)
    assert manifest_of(onnx.load(path)) == written == open_model(DEFAULT).manifest
    graph, other = onnx.load(path), onnx.load(DEFAULT)
    for one in (graph, other):
        del one.metadata_props[:]
    assert graph == other
    attach_manifest(graph, written)
    attach_manifest(graph, written)
    assert manifest_of(graph) == written and len(graph.metadata_props) == 1


_COUNTED = """
import sys
opened, name = [], sys.argv[1]
sys.addaudithook(lambda event, told: event == "open" and told[0] == name and opened.append(told))
from crnn_deploy.cli.main import main
try:
    main(sys.argv[2:], prog_name="crnn-deploy")
except SystemExit as end:
    print(end.code, len(opened))
"""


@pytest.mark.parametrize(
    ("command", "expected"), [("calibrate", 2), ("quantize", 1), ("build-engine", 0), ("set-decoding", 0)]
)
def test_a_command_reads_its_model_once(command: str, expected: int, tmp_path: Path) -> None:
    """The file is opened twice: what it refers to is looked at before it is parsed.

    `quantize` lets OpenVINO open it once more, where that is installed, as it runs a file and no graph.
    """
    path = tmp_path / "m.onnx"
    path.write_bytes(DEFAULT.read_bytes())
    images, scales = str(ROOT / "examples" / "images"), str(ROOT / "calibration" / "latin.scales.json")
    output = str(tmp_path / "o.engine")
    arguments = {
        "calibrate": [images, "-o", str(tmp_path / "s.json")],  # too few images, which is said afterwards
        "quantize": [images, "--scales", scales, "-o", str(tmp_path / "q.onnx")],  # too few as well
        "build-engine": [
            "--builder",
            "tensorrt-rtx",
            "--target",
            "sm_89",
            "--width-range",
            "80,160,160",
            "-o",
            output,
        ],
        "set-decoding": ["--decoder", "beam", "-o", str(tmp_path / "d.onnx")],
    }[command]
    if command == "build-engine":
        pytest.importorskip("tensorrt_rtx")
    done = subprocess.run(
        [sys.executable, "-c", _COUNTED, str(path), command, str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    code, reads = map(int, done.stdout.splitlines()[-1].split())
    assert code == expected, done.stdout + done.stderr
    assert reads == 2 + 3 * (command == "quantize" and find_spec("openvino") is not None)
