"""`verify` with labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from crnn_deploy.cli.main import main
from crnn_deploy.models import DEFAULT


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_labels_count_what_is_right(tmp_path: Path) -> None:
    """Labelled with what the model reads, every image is right, so no label went to another image."""
    from crnn_deploy import Recognizer

    paths = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))
    rows = [f"{path}\t{text.text}\n" for path, text in zip(paths, Recognizer().read(paths), strict=True)]
    assert len(set(rows)) == len(paths) > 3
    labels = tmp_path / "labels.tsv"
    labels.write_text("".join(rows), encoding="utf-8")
    result = run("verify", DEFAULT, DEFAULT, "--labels", labels)
    assert result.exit_code == 0, result.output
    assert f"exact: {len(rows)} -> {len(rows)} of {len(rows)}" in result.stdout
    both = run("verify", DEFAULT, DEFAULT, "--labels", labels, "--images", tmp_path)
    assert both.exit_code == 2 and "exclude each other" in both.stderr


def test_each_image_that_cannot_be_read_is_named_and_the_others_are_compared(tmp_path: Path) -> None:
    images = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))[:3]
    for path in images:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "cut.png").write_bytes(images[0].read_bytes()[:-90])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    for more in ([], ["--text"]):
        result = run("verify", DEFAULT, DEFAULT, "--images", tmp_path, *more)
        assert result.exit_code == 1
        lines = result.stderr.splitlines()
        assert lines == [
            f"{tmp_path}/cut.png: truncated PNG",
            f"{tmp_path}/empty.jpg: empty file",
            f"{tmp_path}/text.png: not an image (PNG, JPEG, WebP, BMP, TIFF, GIF, PNM)",
        ]
        assert "3 of 6 images cannot be read and are left out" in result.stdout
    report = json.loads(run("verify", DEFAULT, DEFAULT, "--images", tmp_path, "--json").stdout)
    assert len(report["failures"]) == 3 and report["images"] == 3


def test_labelled_images_keep_their_labels_where_others_fail(tmp_path: Path) -> None:
    from crnn_deploy import Recognizer

    images = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))
    rows = [f"{path}\t{text.text}\n" for path, text in zip(images, Recognizer().read(images), strict=True)]
    labels = tmp_path / "labels.tsv"
    labels.write_text("none.png\tx\n" + "".join(rows[:2]) + "gone.png\ty\n" + "".join(rows[2:]))
    result = run("verify", DEFAULT, DEFAULT, "--labels", labels)
    assert result.exit_code == 1
    assert [line.rpartition("/")[2] for line in result.stderr.splitlines()] == ["none.png", "gone.png"]
    assert f"exact: {len(rows)} -> {len(rows)} of {len(rows)}" in result.stdout


def test_images_in_an_lmdb_are_named_by_their_keys(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    good = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))[0].read_bytes()
    with lmdb.open(str(tmp_path / "d.lmdb"), map_size=2**24) as env, env.begin(write=True) as txn:
        for at, data in enumerate((good, b"broken", good), 1):
            txn.put(f"image-{at:09}".encode(), data)
            txn.put(f"label-{at:09}".encode(), b"Printed")
        txn.put(b"num-samples", b"3")
    result = run("verify", DEFAULT, DEFAULT, "--labels", tmp_path / "d.lmdb")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "image-000000002" in result.stderr and "not an image" in result.stderr
    assert "exact: 2 -> 2 of 2" in result.stdout


def test_where_no_image_can_be_read_nothing_is_compared(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    result = run("verify", DEFAULT, DEFAULT, "--images", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: none of the 2 images can be read, so there is nothing to compare"
    )
