"""benchmarks/gpu/training.py on a GPU of paper: every figure is there, and the sentence follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib import get_data_path
from paper_gpu import PaperCuda
from paper_torch import PaperGpu
from test_gpu_check import errors

import benchmarks.gpu.training
from benchmarks.gpu.training import training
from benchmarks.gpu.work import Work
from crnn_deploy.synthesis import fonts
from crnn_deploy.synthesis.font_pack import FontPackMissing, write_font_pack
from crnn_deploy.training import sources
from crnn_deploy.training.config import read_config

MATPLOTLIB = Path(get_data_path()) / "fonts" / "ttf"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(benchmarks.gpu.training, "WORKERS", (1, 2))
    monkeypatch.setattr(benchmarks.gpu.training, "BATCHES", (2, 4))
    monkeypatch.setattr(benchmarks.gpu.training, "IMAGES", 8)
    monkeypatch.setattr(benchmarks.gpu.training, "_FINE", 64)
    monkeypatch.setattr(benchmarks.gpu.training, "SECONDS", 0.5)
    monkeypatch.setattr(benchmarks.gpu.training, "ROUNDS", 1)
    whole, tiny = read_config, ("network.scale=0.2", "network.hidden=4")
    monkeypatch.setattr(
        benchmarks.gpu.training, "read_config", lambda path, changes: whole(path, (*changes, *tiny))
    )
    monkeypatch.delenv("CRNN_DEPLOY_FONT_PACK", raising=False)


def test_every_figure_with_the_fonts_of_a_pack(tmp_path: Path) -> None:
    write_font_pack(tmp_path / "fonts.tar.xz", folders=[MATPLOTLIB], word_lists=[])
    work = Work(tmp_path)
    training(work, PaperGpu(PaperCuda()))
    found = work.results
    assert errors(found) == []
    assert found["fonts"].endswith("faces of the pack fonts.tar.xz")
    assert set(found["drawn"]) == {"1 processes", "2 processes"}
    assert set(found["steps"]) == {"batch 2", "batch 4"}
    cells = {(name, batch): row for batch, rows in found["steps"].items() for name, row in rows.items()}
    assert {name for name, _ in cells} == {"fp32, TF32", "bf16"} and len(cells) == 4
    for (_, batch), row in cells.items():
        size = int(batch.removeprefix("batch "))
        assert row["images_per_second"] == pytest.approx(size * row["steps_per_second"])
        assert row["steps_per_second"] == pytest.approx(1e3 / row["ms"])
    whole = found["whole training"]
    best = max(cells, key=lambda cell: cells[cell]["images_per_second"])
    assert (whole["precision"], f"batch {whole['batch']}") == best and whole["processes"] == 2
    assert 0 < whole["images_per_second"] == pytest.approx(whole["batch"] * whole["batches_per_second"])
    assert whole["seconds to the first batch"] > 0
    drawn = max(row["images_per_second"] for row in found["drawn"].values())
    slower = "drawing" if drawn < cells[best]["images_per_second"] else "the network's step"
    assert found["limit"].startswith(f"{slower} limits: ") and f"{drawn:,.0f} images" in found["limit"]


def test_without_a_pack_the_fonts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what fails, or for which there is no more time, is a line."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    work = Work(tmp_path)
    monkeypatch.setattr(benchmarks.gpu.training, "_drawn", broken)
    monkeypatch.setattr(benchmarks.gpu.training, "_steps", broken)
    monkeypatch.setattr(benchmarks.gpu.training, "_fonts", broken)
    training(work, PaperGpu(PaperCuda()))
    assert len(errors(work.results)) == 5 and "limit" not in work.results

    monkeypatch.setenv("CRNN_DEPLOY_FONT_PACK", str(tmp_path / "named.tar.xz"))
    with pytest.raises(FontPackMissing, match="no font pack at"):
        training(Work(tmp_path), PaperGpu(PaperCuda()))


def test_matplotlibs_fonts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = fonts.scan(folders=[MATPLOTLIB])
    monkeypatch.setattr(sources, "_scanned", lambda tier, folders: faces)
    assert benchmarks.gpu.training._fonts(None, None).endswith("so other images are drawn")
