"""What several tests need: one small network, exported and calibrated once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import crnn_deploy  # noqa: F401  # before ONNX Runtime, which reports to its maker otherwise

# isort: split
import hypothesis
import pytest
from noise_images import write_images
from paper_gpu import PaperCuda, PaperTrt
from served import Served

from crnn_deploy.runtime.backends import driver, trt
from crnn_deploy.runtime.backends.driver import Driver, Gpu

if TYPE_CHECKING:
    from crnn_deploy.synthesis.fonts import Face


# a machine that does other work at the same time is no fault
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is kept in the user's own cache; commands that tests start inherit it."""
    os.environ["CRNN_DEPLOY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CRNN of eleven classes as ONNX, its width in proportion to the image."""
    import torch

    from crnn_deploy.export.exporter import export
    from crnn_deploy.export.reference import reference_of
    from crnn_deploy.networks.crnn import CRNN
    from crnn_deploy.recipes.recipe import RECIPES

    torch.manual_seed(0)
    module = CRNN(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8))
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    source = {"recipe": "paper", "family": "crnn"}
    export(reference_of(module, RECIPES["paper"], tuple("0123456789"), source), path)
    return path


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise in eight widths, one image of it twice."""
    folder = write_images(tmp_path_factory.mktemp("images") / "crops")
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    return folder


@pytest.fixture(scope="session")
def tiny_scales(tiny_onnx: Path, tiny_images: Path) -> Path:
    """What `calibrate` makes of the small network and these images."""
    from click.testing import CliRunner

    from crnn_deploy.cli.main import main

    path = tiny_images.parent / "scales.json"
    result = CliRunner().invoke(main, ["calibrate", str(tiny_onnx), str(tiny_images), "-o", str(path)])
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> PaperCuda:
    """A GPU of paper, found in the place of a real one."""
    paper = PaperCuda()
    library = PaperTrt(paper)
    monkeypatch.setattr(driver, "probe", lambda: Driver("13.0", None, (Gpu("Paper", "9.0", 2**34),)))
    monkeypatch.setattr(trt, "import_tensorrt", lambda builder: library)
    monkeypatch.setattr(trt, "open_cuda", lambda: paper)
    paper.library = library
    return paper


@pytest.fixture(scope="session")
def faces() -> list[Face]:
    """The fonts inside matplotlib, which every machine with the tests has."""
    from matplotlib import get_data_path

    from crnn_deploy.synthesis.fonts import scan

    return scan(folders=[Path(get_data_path()) / "fonts"])


@pytest.fixture(scope="session")
def sans(faces: list[Face]) -> Face:
    [face] = [face for face in faces if face.path.name == "DejaVuSans.ttf"]
    return face


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    """The default model with two workers; tests leave it as it is."""
    pytest.importorskip("fastapi")
    served = Served("--workers", "2")
    yield served
    assert served.stop() == 0, served.lines


@pytest.fixture
def serving() -> Iterator[Callable[..., Served]]:
    """Starts servers with options of their own, and stops them."""
    pytest.importorskip("fastapi")
    started: list[Served] = []

    def start(*options: str | Path) -> Served:
        started.append(Served(*options))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.stop()


_TREE = (
    *("b.png", "a.JPG", "c.txt", ".hidden.png", "z.tiff", "a-b.png", "a/1.png", "a/0.png", "a/x/deep.webp"),
    *("a/.git/no.png", "B/one.png", "b/two.png", "b/[3].png", "b/note", "ü/ä.png"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def tree(here: Path) -> Path:
    for name in _TREE:
        path = here / "crops" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return here
