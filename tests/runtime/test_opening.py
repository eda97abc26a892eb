"""A model in a precision: what is run, what is refused and why, and what is remembered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from crnn_deploy import Recognizer
from crnn_deploy.cli.main import main
from crnn_deploy.errors import BackendMissing
from crnn_deploy.models import DEFAULT, DEFAULT_INT8
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.backend import manifest_of, open_backend
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.choice import choose
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.runtime.opening import Int8Missing, Opening, PrecisionGiven, opening
from crnn_deploy.runtime.openvino_check import OpenVinoRefused, ask_openvino, check_openvino

onnx = pytest.importorskip("onnx")

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
IMAGES = sorted(EXAMPLES.glob("*.png"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRNN_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def with_weights(path: Path, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Path:
    """The default model with other weights."""
    model = onnx.load(DEFAULT)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(values), tensor.name))
    onnx.save(model, path)
    return path


def in_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to eight bits of mantissa, half away from zero."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32).reshape(values.shape)


class PaperBf16:
    """An OpenVINO with products of bfloat16, on a CPU without: ONNX Runtime with weights of another file."""

    opened: Sequence[tuple[str, str]] = ()

    def __init__(self, file: Path, drift: Callable[[int], float]) -> None:
        self._file, self._drift = file, drift

    def __call__(self, path: Path, *, threads: int, floats: str, batch_sizes: str) -> Any:
        self.opened = [*self.opened, (floats, batch_sizes)]
        if floats == "fp32":
            return OrtBackend(path, threads=threads)
        return _Drifting(OrtBackend(self._file, threads=threads), self._drift, batch_sizes)


class _Drifting:
    """A backend in which an image's probabilities hang on how many run together."""

    def __init__(self, backend: OrtBackend, drift: Callable[[int], float], batch_sizes: str) -> None:
        self._backend, self._drift = backend, drift
        self.manifest = replace(backend.manifest, max_batch=1 if batch_sizes == "one" else None)

    def run(self, images: NDArray[np.float32]) -> Frames:
        frames = self._backend.run(images)
        return replace(frames, probabilities=frames.probabilities * np.float32(1 - self._drift(len(images))))

    def close(self) -> None:
        self._backend.close()


@pytest.fixture
def paper_bf16(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PaperBf16]:
    def made(
        change: Callable[[NDArray[np.float32]], NDArray[np.float32]] = in_bf16,
        drift: Callable[[int], float] = lambda size: 0.0,
    ) -> PaperBf16:
        paper = PaperBf16(with_weights(tmp_path / "in-bf16.onnx", change), drift)
        monkeypatch.setattr(cpu, "has_bf16", lambda: True)
        monkeypatch.setattr("crnn_deploy.runtime.backends.openvino.OpenVinoBackend", paper)
        return paper

    return made


@pytest.mark.skipif(cpu.has_bf16(), reason="this CPU has bf16")
def test_bf16_is_refused_in_one_line_where_the_cpu_has_none() -> None:
    for command in (("infer", EXAMPLES), ("benchmark", DEFAULT, "--rounds", 2)):
        refused = run(*command, "--precision", "bf16")
        assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 1
        assert f"bf16 needs a CPU with AVX512_BF16 or AMX; this one ({cpu.kind()})" in refused.stderr
    with pytest.raises(BackendMissing, match="bf16 needs a CPU"):
        Recognizer.load("latin", precision="bf16")


@pytest.mark.skipif(not cpu.has_bf16(), reason="this CPU has no bf16")
def test_the_real_bf16_reads_the_examples_alone_and_together() -> None:
    pytest.importorskip("openvino")
    expected = [text.text for text in Recognizer().read(IMAGES)]
    alone = Recognizer.load("latin", precision="bf16", batch=1).read(IMAGES)
    assert [text.text for text in alone] == expected
    assert Recognizer.load("latin", precision="bf16", batch=8).read(IMAGES) == alone


def test_bf16_is_held_to_the_verdict_once(paper_bf16: Callable[..., PaperBf16]) -> None:
    paper = paper_bf16()
    recognizer = Recognizer.load("latin", precision="bf16")
    assert recognizer.manifest.max_batch is None and list(paper.opened) == [("bf16", "any")] * 2
    texts = [text.text for text in recognizer.read(IMAGES)]
    assert texts == [text.text for text in Recognizer().read(IMAGES)]
    check_openvino(DEFAULT, "bf16")
    assert len(paper.opened) == 2  # the verdict is remembered
    assert run("infer", "--precision", "bf16", EXAMPLES).stdout == run("infer", EXAMPLES).stdout


def test_a_model_that_reads_otherwise_in_bf16_is_refused_with_the_figures(
    paper_bf16: Callable[..., PaperBf16], own_cache: Path
) -> None:
    rng = np.random.default_rng(0)
    paper = paper_bf16(lambda values: values + rng.normal(0, 0.1, values.shape).astype(np.float32))
    for _ in range(2):  # measured, and remembered
        with pytest.raises(OpenVinoRefused, match=r"reads other texts in bf16: FAILED: 32 images.*confident"):
            Recognizer.load("latin", precision="bf16")
    assert len(paper.opened) == 1
    refused = run("infer", "--precision", "bf16", EXAMPLES)
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    choice = choose(DEFAULT)
    assert "reads other texts in bf16" in choice.refused["openvino bf16"]
    assert run("doctor", "--model", "latin").stdout == choice.why() + "\n"


def test_openvino_is_held_to_the_verdict_in_fp32_too(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenVINO 2026.4 reads other texts from INT8 files than ONNX Runtime does."""
    rng = np.random.default_rng(0)
    other = with_weights(
        tmp_path / "other.onnx", lambda values: values + rng.normal(0, 0.1, values.shape).astype(np.float32)
    )
    monkeypatch.setattr(
        "crnn_deploy.runtime.backends.openvino.OpenVinoBackend",
        lambda path, *, threads, floats, batch_sizes: OrtBackend(other, threads=threads),
    )
    for _ in range(2):  # measured, and remembered
        with pytest.raises(OpenVinoRefused, match=r"reads other texts in OpenVINO: FAILED: .*ONNX Runtime$"):
            Recognizer.load("latin", backend="openvino")
    refused = run("infer", "--backend", "openvino", EXAMPLES)
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert "reads other texts in OpenVINO" in choose(DEFAULT).refused["openvino"]


def test_images_run_alone_where_a_batch_changes_a_bit(paper_bf16: Callable[..., PaperBf16]) -> None:
    paper = paper_bf16(drift=lambda size: 1e-6 * size)
    recognizer = Recognizer.load("latin", precision="bf16", batch=8)
    assert recognizer.manifest.max_batch == 1 and list(paper.opened) == [("bf16", "any"), ("bf16", "one")]
    told = run("infer", "--precision", "bf16", EXAMPLES)
    assert told.exit_code == 0 and "runs one image at a time (max_batch)" in told.stderr


def test_a_lone_image_has_company_where_that_alone_changes_a_bit(
    paper_bf16: Callable[..., PaperBf16],
) -> None:
    paper = paper_bf16(drift=lambda size: 1e-6 * (size == 1))
    Recognizer.load("latin", precision="bf16")
    assert list(paper.opened) == [("bf16", "any"), ("bf16", "two or more")]


def test_openvino_runs_a_lone_image_beside_a_copy_of_itself() -> None:
    pytest.importorskip("openvino")
    images = np.random.default_rng(0).standard_normal((9, 1, 32, 100), np.float32)
    with closing(open_backend(DEFAULT, backend="openvino", batch_sizes="two or more")) as paired:
        assert paired.manifest.max_batch == 8
        together = paired.run(images)
        for at, image in enumerate(images):
            lone, beside = paired.run(image[None]), paired.run(images[[at, at]])
            assert lone.indices.shape == (1, together.indices.shape[1])
            assert np.array_equal(lone.probabilities[0], beside.probabilities[0])
            assert np.array_equal(lone.indices[0], together.indices[at])


@pytest.mark.skipif(not cpu.has_bf16(), reason="this CPU has no bf16")
def test_no_image_of_large_lstms_depends_on_its_batch_in_bf16(tmp_path: Path) -> None:
    """OpenVINO multiplies states of 256 units in another way where there is one image."""
    pytest.importorskip("openvino")
    torch = pytest.importorskip("torch")
    from crnn_deploy.export.exporter import export
    from crnn_deploy.export.reference import reference_of
    from crnn_deploy.networks.crnn import CRNN

    torch.manual_seed(0)
    recipe = RECIPES["paper"]
    assert recipe.alphabet is not None
    module = CRNN(32, 1, 37, 256, widths=(8, 16, 32, 32, 64, 64, 64))
    model = tmp_path / "large.onnx"
    export(reference_of(module, recipe, recipe.alphabet, {"recipe": "paper", "family": "crnn"}), model)
    sizes = ask_openvino(model, "bf16").batch_sizes
    assert sizes != "one"
    with closing(open_backend(model, backend="openvino", floats="bf16", batch_sizes=sizes)) as backend:
        for width in (32, 108, 400):
            images = np.random.default_rng(width).standard_normal((8, 1, 32, width), np.float32)
            alone = [backend.run(image[None]) for image in images]
            for size in (2, 3, 5, 8):
                together = backend.run(images[:size])
                for at in range(size):
                    assert np.array_equal(alone[at].probabilities[0], together.probabilities[at])


def test_the_fastest_is_taken_of_those_that_pass(
    paper_bf16: Callable[..., PaperBf16], monkeypatch: pytest.MonkeyPatch
) -> None:
    paper_bf16()
    times = {"onnxruntime": 3.0, "openvino": 2.0, "openvino bf16": 1.0}
    monkeypatch.setattr(
        "crnn_deploy.runtime.choice._times", lambda opened, trial: {way: times[way] for way in opened}
    )
    assert opening(DEFAULT, backend="auto") == Opening(DEFAULT, backend="openvino", floats="bf16")
    assert opening(DEFAULT, backend="auto", precision="fp32") == Opening(DEFAULT, backend="openvino")
    plain = json.loads(run("doctor", "--json", "--model", "latin").stdout)
    assert (plain["backend"], plain["precision"], plain["refused"]) == ("openvino", "bf16", {})


def test_bf16_runs_in_openvino_on_the_cpu_alone() -> None:
    for given in ({"backend": "onnxruntime"}, {"device": "cuda"}):
        with pytest.raises(BackendMissing, match="bf16 is run by OpenVINO on the CPU"):
            opening(DEFAULT, precision="bf16", **given)  # type: ignore[arg-type]


def test_a_precision_that_a_file_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrecisionGiven, match="is an INT8 file"):
        opening(DEFAULT_INT8, precision="fp32")
    with pytest.raises(PrecisionGiven, match="it was built in"):
        opening(tmp_path / "m.engine", precision="int8")
    with pytest.raises(ValueError, match="it must be one of fp32, bf16, int8"):
        opening(DEFAULT, precision="fp64")  # type: ignore[arg-type]


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """A model of one's own and its INT8 file."""
    files = tmp_path / "plates.onnx", tmp_path / "plates.int8.onnx"
    for source, target in zip((DEFAULT, DEFAULT_INT8), files, strict=True):
        shutil.copy(source, target)
    return files


def test_int8_takes_the_file_beside_the_model(own: tuple[Path, Path]) -> None:
    model, quantised = own
    assert opening(DEFAULT, precision="int8").path == DEFAULT_INT8
    assert opening(model, precision="int8").path == quantised == opening(quantised, precision="int8").path
    asked = run("infer", "--model", model, "--precision", "int8", EXAMPLES)
    named = run("infer", "--model", quantised, EXAMPLES)
    assert asked.stdout == named.stdout and f"--precision int8 reads with {quantised}" in asked.stderr
    assert Recognizer.load(model, precision="int8").manifest == manifest_of(quantised)


@pytest.mark.parametrize("saturates", [True, False])
def test_weights_of_8_bits_are_taken_where_they_do_not_overflow(
    own: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    model, quantised = own
    eight = Path(shutil.copy(quantised, model.with_name("plates.int8-w8.onnx")))
    monkeypatch.setattr(cpu, "saturates", lambda: saturates)
    assert opening(model, precision="int8").path == (quantised if saturates else eight)
    quantised.unlink()
    if saturates:
        with pytest.raises(Int8Missing, match=r"int8-w8\.onnx has weights of 8 bits, and this CPU"):
            opening(model, precision="int8")
    else:
        assert opening(model, precision="int8").path == eight


def test_an_int8_file_that_is_missing_or_of_another_model_is_refused(own: tuple[Path, Path]) -> None:
    model, quantised = own
    for name, source in (("alphabet", None), ("source", {"checkpoint_sha256": "0" * 64})):
        manifest = manifest_of(quantised)
        other = (
            replace(manifest, alphabet=manifest.alphabet[::-1])
            if source is None
            else replace(manifest, source=source)
        )
        graph = onnx.load(DEFAULT_INT8)
        for entry in graph.metadata_props:
            if entry.key == "crnn_deploy.manifest":
                entry.value = other.to_json()
        onnx.save(graph, quantised)
        with pytest.raises(Int8Missing, match=r"plates\.int8\.onnx was not made of .*plates\.onnx"):
            opening(model, precision="int8")
        assert name
    quantised.unlink()
    refused = run("infer", "--precision", "int8", "--model", model, EXAMPLES)
    assert refused.exit_code == 2 and "there is no plates.int8.onnx beside it" in refused.stderr


@pytest.mark.parametrize("named", ["plates.onnx", "plates.int8.onnx"])
@pytest.mark.parametrize(
    "command",
    [
        ("infer", "--model", "MODEL", EXAMPLES),
        ("serve", "--model", "MODEL"),
        ("benchmark", "MODEL"),
    ],
    ids=lambda command: command[0],
)
def test_a_float_file_that_is_named_as_an_int8_file_is_refused(
    own: tuple[Path, Path], named: str, command: tuple[str | Path, ...]
) -> None:
    model, quantised = own
    shutil.copy(model, quantised)
    asked = model.with_name(named)
    refused = run(*(asked if word == "MODEL" else word for word in command), "--precision", "int8")
    assert refused.exit_code == 2 and not refused.stdout
    said = f"Error: {quantised} is not quantised; make it with crnn-deploy quantize\n"
    assert refused.stderr.endswith(said) and "note:" not in refused.stderr
    with pytest.raises(PrecisionGiven, match="is not quantised"):
        Recognizer.load(asked, precision="int8")


def test_an_int8_file_of_any_name_is_one(own: tuple[Path, Path], tmp_path: Path) -> None:
    _, quantised = own
    renamed = quantised.rename(tmp_path / "other.onnx")
    assert opening(renamed, precision="int8").path == renamed
    with pytest.raises(PrecisionGiven, match="is an INT8 file"):
        opening(renamed, precision="fp32")


def test_the_int8_file_that_is_read_is_not_written_over(own: tuple[Path, Path]) -> None:
    model, quantised = own
    before = quantised.read_bytes()
    refused = run(
        "infer", "--model", model, "--precision", "int8", "--format", "text", "-o", quantised, EXAMPLES
    )
    assert refused.exit_code == 2 and "is read by this command" in refused.stderr
    assert quantised.read_bytes() == before


def test_benchmark_measures_each_precision(own: tuple[Path, Path]) -> None:
    model, _ = own
    options = ("--rounds", 2, "--widths", 96, "--batches", 1, "--max-images", 2, "--json")
    measured = run("benchmark", model, "--precision", "fp32", "--precision", "int8", *options)
    assert measured.exit_code == 0, measured.output
    cells = json.loads(measured.stdout)["grid"]
    assert [cell["model"] for cell in cells] == [f"{model} (fp32)", f"{model} (int8)"]
