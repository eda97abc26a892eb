"""What a repository's models answer, on a server of paper: texts and confidences of `infer`, bit by bit."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from answers import Answer, answers_of, long_line, read_here
from paper_triton import PaperTriton, Refused, paper_triton

from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.graph.model import attach_manifest, manifest_of
from crnn_deploy.manifest import Contrast
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.triton.repository import LAYOUTS, Layout, write_repository


@pytest.fixture(scope="module")
def models(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small network, and with another output, a second reading, and images one at a time."""
    folder = tmp_path_factory.mktemp("models")
    files = {name: folder / f"{name}.onnx" for name in ("logits", "argmax", "twice", "single")}
    graph = onnx.load(tiny_onnx)
    onnx.save(graph, files["logits"])
    onnx.save(with_argmax(graph), files["argmax"])
    manifest = manifest_of(graph)
    attach_manifest(graph, replace(manifest, contrast=Contrast(below=1.0, target=0.5)))
    onnx.save(graph, files["twice"])
    attach_manifest(graph, replace(manifest, max_batch=1))
    onnx.save(graph, files["single"])
    return files


@pytest.fixture(scope="module")
def images(tiny_images: Path) -> list[bytes]:
    """Of eight widths, one wider than the network takes, and three that cannot be read."""
    whole = [path.read_bytes() for path in sorted(tiny_images.glob("*.png"))]
    return [*whole, long_line(whole[0], 9000), b"no image", b"", whole[1][:40]]


def ask(server: PaperTriton, name: str, images: list[bytes]) -> list[Answer]:
    return answers_of(server.infer(name, {"image": images}))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["logits", "argmax", "twice", "single"])
def test_every_image_reads_as_with_infer(
    layout: Layout, name: str, models: dict[str, Path], images: list[bytes], tmp_path: Path
) -> None:
    expected = read_here(models[name], images)
    assert sum(bool(error) for _, _, error in expected) == 3
    write_repository(models[name], tmp_path / "repository", layout=layout, batch=4)
    with paper_triton(tmp_path / "repository") as server:
        assert [ask(server, name, [image])[0] for image in images] == expected
        assert ask(server, name, images) == expected
        assert ask(server, name, images[::-1]) == expected[::-1]
        waiting = [server.send(name, {"image": [image]}) for image in images]
        assert [answers_of(server.wait(name, one))[0] for one in waiting] == expected


@pytest.mark.parametrize("layout", ["ensemble", "bls"])
def test_the_network_runs_images_of_one_width_and_never_padded_ones(
    layout: Layout, models: dict[str, Path], images: list[bytes], tmp_path: Path
) -> None:
    recognizer = Recognizer.load(models["logits"])
    some = images[:-4]  # those that are neither cut nor broken
    widths = sorted(recognizer.prepare(image).columns for image in some)
    write_repository(models["logits"], tmp_path / "repository", layout=layout, batch=4)
    with paper_triton(tmp_path / "repository") as server:
        ask(server, "logits", some)
        ran = sorted(server.widths)
    if layout == "ensemble":  # the smallest input that there is, in place of several images
        ran.remove((recognizer.manifest.width.minimum, 1))
    assert sorted(width for width, count in ran for _ in range(count)) == widths
    assert max(count for _, count in ran) > 1


@pytest.mark.parametrize("layout", ["bls", "python"])
def test_images_of_requests_that_wait_run_together(
    layout: Layout, models: dict[str, Path], images: list[bytes], tmp_path: Path
) -> None:
    expected = dict(zip(images, read_here(models["logits"], images), strict=True))
    order = random.Random(1).choices(images, k=60)
    write_repository(models["logits"], tmp_path / "repository", layout=layout, batch=4)
    with paper_triton(tmp_path / "repository") as server:
        waiting = [server.send("logits", {"image": [image]}) for image in order]
        got = [answers_of(server.wait("logits", one))[0] for one in waiting]
        assert got == [expected[image] for image in order]
        assert layout == "python" or max(count for _, count in server.widths) > 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_request_that_is_not_taken_says_why(
    layout: Layout, models: dict[str, Path], images: list[bytes], tmp_path: Path
) -> None:
    write_repository(models["logits"], tmp_path / "repository", layout=layout)
    with paper_triton(tmp_path / "repository") as server:
        with pytest.raises(Refused, match="holds 1 to 256 images; this one holds 0"):
            ask(server, "logits", [])
        with pytest.raises(Refused, match="this one holds 257"):
            ask(server, "logits", images[:1] * 257)
        with pytest.raises(Refused, match=r"parameter decoder is not taken.*set-decoding"):
            server.infer("logits", {"image": images[:1]}, {"decoder": "beam"})
        others = {"sequence_id": 7, "traceparent": "x"}
        assert answers_of(server.infer("logits", {"image": images[:1]}, others)) == ask(
            server, "logits", images[:1]
        )


def test_an_image_may_come_in_base64(models: dict[str, Path], images: list[bytes], tmp_path: Path) -> None:
    write_repository(models["logits"], tmp_path / "repository", layout="python")
    with paper_triton(tmp_path / "repository") as server:
        encoded = [base64.b64encode(image) for image in images[:3]]
        assert ask(server, "logits", encoded) == ask(server, "logits", images[:3])
        [(_, _, error)] = ask(server, "logits", [b"AAAA"])
        assert "not an image" in error
