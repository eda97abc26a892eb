"""The folder that `crnn-deploy triton` writes: what stands in it, and when it is not written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format
from paper_gpu import PROFILES, write_engine
from tritonclient.grpc import model_config_pb2 as pb

from crnn_deploy import __version__
from crnn_deploy.cli.main import main
from crnn_deploy.files import OutputUnwritable
from crnn_deploy.manifest import Manifest
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends.engine_file import read_sidecar, sidecar_of
from crnn_deploy.triton.repository import LAYOUTS, Layout, write_repository

MODELS = {
    "ensemble": ["tiny", "tiny_decode", "tiny_network", "tiny_prepare"],
    "bls": ["tiny", "tiny_network"],
    "python": ["tiny"],
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["triton", *map(str, arguments)])


def config_of(model: Path) -> pb.ModelConfig:
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, pb.ModelConfig())


@pytest.fixture
def engine(tiny_onnx: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.engine"
    write_engine(tiny_onnx, path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_repository_has_the_models_of_its_layout(layout: Layout, tiny_onnx: Path, tmp_path: Path) -> None:
    done = run(tiny_onnx, "--layout", layout, "--instances", "3", "-o", tmp_path / "new" / "repository")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "new" / "repository"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == MODELS[layout]
    for name in MODELS[layout]:
        config = config_of(folder / name)
        assert config.name == name
        assert any((folder / name / "1").iterdir()) or config.platform == "ensemble"
        if config.backend == "python":
            assert [(group.count, group.kind) for group in config.instance_group] == [
                (3, pb.ModelInstanceGroup.KIND_CPU)
            ]
    ask = config_of(folder / "tiny")
    assert [
        (one.name, pb.DataType.Name(one.data_type), [*one.dims]) for one in (*ask.input, *ask.output)
    ] == [
        ("image", "TYPE_STRING", [-1]),
        ("text", "TYPE_STRING", [-1]),
        ("confidence", "TYPE_FP64", [-1]),
        ("error", "TYPE_STRING", [-1]),
    ]
    assert ask.max_batch_size == 0
    assert {path.name for path in folder.parent.iterdir()} == {"repository"}


def test_the_network_is_what_the_onnx_file_is(tmp_path: Path) -> None:
    write_repository(DEFAULT, tmp_path / "r", batch=16)
    folder = tmp_path / "r" / "latin_network"
    config = config_of(folder)
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 16)
    session = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"))
    for found, expected in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [one.name for one in found] == [node.name for node in expected]
        assert all(pb.DataType.Name(one.data_type) == "TYPE_FP32" for one in found)
        shapes = [[size if isinstance(size, int) else -1 for size in node.shape[1:]] for node in expected]
        assert [[*one.dims] for one in found] == shapes
        assert not any(getattr(one, "allow_ragged_batch", False) for one in found)
    assert (folder / "1" / "model.onnx").read_bytes() == DEFAULT.read_bytes()


def test_an_ensembles_tensors_fit_its_models(tiny_onnx: Path, tmp_path: Path) -> None:
    """As ensemble_utils.cc of Triton's core compares them: with the batch of a model that has one."""
    write_repository(tiny_onnx, tmp_path / "r", layout="ensemble")
    ensemble = config_of(tmp_path / "r" / "tiny")
    known = {one.name: (one.data_type, [*one.dims]) for one in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        config = config_of(tmp_path / "r" / step.model_name)
        batch = [-1] if config.max_batch_size else []
        assert {*step.input_map} == {one.name for one in config.input}
        for one in config.input:
            kind, dims = known[step.input_map[one.name]]
            own = [*batch, *one.dims]
            assert kind == one.data_type and len(own) == len(dims)
            assert all(a == b or -1 in (a, b) for a, b in zip(own, dims, strict=True)), (one.name, own, dims)
        known |= {step.output_map[one.name]: (one.data_type, [*batch, *one.dims]) for one in config.output}
    assert all(known[one.name] == (one.data_type, [*one.dims]) for one in ensemble.output)


def test_images_run_together_as_the_manifest_allows(tiny_onnx: Path, tmp_path: Path) -> None:
    graph = onnx.load(tiny_onnx)
    [kept] = graph.metadata_props
    kept.value = replace(Manifest.from_json(kept.value), max_batch=1).to_json()
    onnx.save(graph, tmp_path / "one.onnx")
    done = run(tmp_path / "one.onnx", "-o", tmp_path / "r")
    assert "one image runs at a time" in done.output
    config = config_of(tmp_path / "r" / "one_network")
    assert config.max_batch_size == 1 and not config.HasField("dynamic_batching")


def test_an_engine_is_served_with_all_of_its_profiles(engine: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    done = run(engine, "--layout", "ensemble", "--onnx", tiny_onnx, "--batch", "3", "-o", tmp_path / "r")
    assert done.exit_code == 0, done.output
    config = config_of(tmp_path / "r" / "tiny_network")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 3)
    [group] = config.instance_group
    assert [*group.profile] == [str(at) for at in range(len(PROFILES))]
    assert group.kind == pb.ModelInstanceGroup.KIND_GPU
    assert [*config.dynamic_batching.preferred_batch_size] == [2]
    assert (tmp_path / "r" / "tiny_network" / "1" / "model.plan").read_bytes() == engine.read_bytes()
    kept = (tmp_path / "r" / "tiny_decode" / "1" / "manifest.json").read_text(encoding="utf-8")
    assert Manifest.from_json(kept) == read_sidecar(engine).manifest


def test_an_engine_in_one_python_model_keeps_its_sidecar(engine: Path, tmp_path: Path) -> None:
    assert run(engine, "--layout", "python", "-o", tmp_path / "r").exit_code == 0
    there = tmp_path / "r" / "tiny" / "1"
    assert {path.name for path in there.iterdir()} == {"model.py", "tiny.engine", "tiny.engine.json"}


def test_an_engine_needs_the_file_it_was_built_from(engine: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    assert "--onnx FILE" in run(engine, "-o", tmp_path / "r").output
    assert "is not the file that" in run(engine, "--onnx", DEFAULT, "-o", tmp_path / "r").output
    assert "no model file at" in run(engine, "--onnx", tmp_path / "x", "-o", tmp_path / "r").output
    assert "--onnx is for .engine files" in run(tiny_onnx, "--onnx", tiny_onnx, "-o", tmp_path / "r").output
    assert "--device is for .onnx" in run(engine, "--device", "cpu", "-o", tmp_path / "r").output
    sidecar = json.loads(sidecar_of(engine).read_text(encoding="utf-8"))
    sidecar_of(engine).write_text(json.dumps({**sidecar, "builder": "tensorrt-rtx"}), encoding="utf-8")
    assert "Triton does not run" in run(engine, "--onnx", tiny_onnx, "-o", tmp_path / "r").output
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "é", ".x", "x" * 101])
def test_a_name_that_would_not_do_in_a_path_is_refused(name: str, tiny_onnx: Path, tmp_path: Path) -> None:
    done = run(tiny_onnx, "--name", name, "-o", tmp_path / "r")
    assert done.exit_code == 2 and "cannot be the name of a model" in done.output


def test_a_folder_that_is_there_is_kept(tiny_onnx: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine.txt").write_text("mine")
    for options in ((), ("--replace",)):
        done = run(tiny_onnx, *options, "-o", there)
        assert done.exit_code == 2 and "is there already" in done.output
    assert [path.name for path in there.iterdir()] == ["mine.txt"]
    done = run(tiny_onnx, "--replace", "-o", there / "mine.txt")
    assert done.exit_code == 2 and (there / "mine.txt").read_text() == "mine"


def test_a_path_that_cannot_be_written_is_one_line(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / ("x" * 300), tmp_path / "file" / "r", tmp_path / ("x" * 300) / "r"):
        done = run(tiny_onnx, "-o", output)
        assert done.exit_code == 2 and f"cannot write {output}: " in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_repository_of_this_command_is_replaced_as_a_whole(tiny_onnx: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    assert run(tiny_onnx, "-o", folder).exit_code == 0
    assert run(tiny_onnx, "--layout", "python", "-o", folder).exit_code == 2
    assert run(tiny_onnx, "--layout", "python", "--replace", "-o", folder).exit_code == 0
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["tiny"]
    (folder / "mine").mkdir()
    done = run(tiny_onnx, "--replace", "-o", folder)
    assert done.exit_code == 2 and (folder / "mine").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_nothing_stays_of_a_repository_that_could_not_be_written(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tiny_onnx, "-o", tmp_path / "r").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    for output in (tmp_path / "new", tmp_path / "r"):
        with pytest.raises(OutputUnwritable, match="No space left"):
            write_repository(tiny_onnx, output, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()} == before


def test_weights_in_another_file_are_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(tiny_onnx), tmp_path / "big.onnx", save_as_external_data=True)
    done = run(tmp_path / "big.onnx", "-o", tmp_path / "r")
    assert done.exit_code == 2 and "in another file" in done.output


def test_a_readme_says_how_to_start(tiny_onnx: Path, tmp_path: Path) -> None:
    for layout in LAYOUTS:
        write_repository(tiny_onnx, tmp_path / layout, layout=layout)
        text = (tmp_path / layout / "README.md").read_text(encoding="utf-8")
        assert all(f"`{name}`" in text for name in MODELS[layout])
        for needed in (
            "--model-control-mode=none",
            "--http-max-input-size",
            "numpy<2",
            f"crnn_deploy-{__version__}-py3-none-any.whl",
            "/v2/models/tiny/infer",
        ):
            assert needed in text
        assert (".whl[cpu]'" in text) == (layout == "python")
        assert ("the server itself asks the others" in text) == (layout != "python")


def test_the_model_itself_is_not_written_over(tiny_onnx: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder" / "tiny.onnx"
    copy.parent.mkdir()
    shutil.copy(tiny_onnx, copy)
    for output in (copy, copy.parent):
        assert run(copy, "--replace", "-o", output).exit_code == 2
    assert copy.read_bytes() == tiny_onnx.read_bytes()
