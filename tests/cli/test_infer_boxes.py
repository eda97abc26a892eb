"""`infer --boxes` on real pages with the default model: records, resuming, drawings, PAGE XML, errors."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from drawn_pages import example_page

from crnn_deploy.cli.main import main
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.recognizer import Recognizer

Run = Callable[..., Result]
PAGE, QUADS = example_page()
HEIGHT, WIDTH = PAGE.shape
NAMES = ("one.png", "two.png", "sub/three.png")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `infer` in a folder with three pages, the second of which has its words in another order."""
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    for name in NAMES:
        cv2.imwrite(name, PAGE)
    lines = []
    for name, quads in zip(NAMES, (QUADS, QUADS[::-1], QUADS[:1]), strict=True):
        lines.append(f"{name}\t{json.dumps([{'transcription': '', 'points': quad} for quad in quads])}\n")
    Path("Label.txt").write_text("".join(lines))

    def infer(*args: str) -> Result:
        return CliRunner().invoke(main, ["infer", *args])

    return infer


def texts() -> list[str]:
    """What is read in the boxes of a page."""
    return [text.text for text in Recognizer().read_regions(PAGE, QUADS)]


def rows(tsv: str) -> list[dict[str, str]]:
    header, *lines = tsv.splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_every_box_gives_a_record(run: Run) -> None:
    read = texts()
    expected = [
        *[("one.png", str(at), text) for at, text in enumerate(read)],
        *[("two.png", str(at), text) for at, text in enumerate(read[::-1])],
        ("sub/three.png", "0", read[0]),
    ]
    result = run("--boxes", "Label.txt", "--format", "tsv", *NAMES)
    assert result.exit_code == 0, result.stderr
    found = rows(result.stdout)
    assert [(row["path"], row["box"], row["text"]) for row in found] == expected
    assert json.loads(found[0]["polygon"]) == [list(point) for point in QUADS[0]]
    assert {row["status"] for row in found} == {"ok"}
    plain = run("--boxes", "Label.txt", *NAMES).stdout
    assert [tuple(line.split("\t")) for line in plain.splitlines()] == expected

    made = [
        json.loads(line)
        for line in run("--boxes", "Label.txt", "--format", "jsonl", *NAMES).stdout.splitlines()
    ]
    assert [(one["path"], str(one["box"]), one["text"]) for one in made] == expected
    assert [*made[0]] == ["path", "box", "text", "confidence", "status", "error", "polygon"]
    assert made[1]["polygon"] == [list(point) for point in QUADS[1]]

    table = run("--boxes", "Label.txt", "--format", "csv", *NAMES).stdout_bytes.decode()
    assert [(row["path"], row["box"], row["text"]) for row in csv.DictReader(io.StringIO(table))] == expected


def test_what_infer_writes_is_read_as_boxes(run: Run) -> None:
    for form in ("tsv", "jsonl", "csv"):
        first = run("--boxes", "Label.txt", "-o", f"out.{form}", *NAMES)
        assert first.exit_code == 0, first.stderr
        again = run("--boxes", f"out.{form}", "--format", form, *NAMES)
        assert again.stdout_bytes == Path(f"out.{form}").read_bytes()


def test_a_stopped_run_goes_on_box_by_box(run: Run) -> None:
    run("--boxes", "Label.txt", "--page-xml", "xml", "-o", "out.tsv", *NAMES)
    whole = Path("out.tsv").read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in range(1, len(lines) + 1):
        Path("out.tsv").write_bytes(b"".join(lines[:kept]) + lines[-1][:9] * (kept < len(lines)))
        result = run("--boxes", "Label.txt", "-o", "out.tsv", "--resume", *NAMES)
        assert result.exit_code == 0, result.stderr
        assert Path("out.tsv").read_bytes() == whole
    # the PAGE XML of a page that was not written whole is made anew, and no record is doubled
    before = {path: path.read_text() for path in Path("xml").rglob("*.xml")}
    assert len(before) == 3
    Path("xml/two.png.xml").unlink()
    Path("out.tsv").write_bytes(b"".join(lines[:6]))
    run("--boxes", "Label.txt", "--page-xml", "xml", "-o", "out.tsv", "--resume", *NAMES)
    assert Path("out.tsv").read_bytes() == whole
    assert {path: lines_of(path) for path in before} == {
        path: lines_of(text) for path, text in before.items()
    }

    changed = Path("Label.txt").read_text().replace("15", "16", 1)
    Path("Label.txt").write_text(changed)
    refused = run("--boxes", "Label.txt", "-o", "out.tsv", "--resume", *NAMES)
    assert refused.exit_code == 2 and "boxes Label.txt" in refused.stderr


def lines_of(document: Path | str) -> list[tuple[str, str | None]]:
    """Points and text of each TextLine."""
    root = ElementTree.fromstring(document.read_text() if isinstance(document, Path) else document)
    space = "{http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15}"
    return [
        (line.find(f"{space}Coords").get("points"), line.findtext(f"{space}TextEquiv/{space}Unicode"))  # type: ignore[union-attr, misc]
        for line in root.iter(f"{space}TextLine")
    ]


def test_page_xml_holds_the_texts_and_is_read_again(run: Run) -> None:
    result = run("--boxes", "Label.txt", "--page-xml", "xml", "one.png")
    assert result.exit_code == 0, result.stderr
    points = [" ".join(f"{x},{y}" for x, y in quad) for quad in QUADS]
    assert lines_of(Path("xml/one.png.xml")) == [*zip(points, texts(), strict=True)]
    again = run("--boxes", "xml/one.png.xml", "--format", "tsv", "one.png")
    assert [row["text"] for row in rows(again.stdout)] == texts()
    # another recogniser's texts in the same document are replaced, and what is not about texts stays
    document = Path("xml/one.png.xml").read_text()
    Path("given.xml").write_text(
        document.replace(texts()[0], "?").replace("<Page ", '<!-- kept --><Page custom="a" ')
    )
    filled = run("--boxes", "given.xml", "--page-xml", "filled", "one.png")
    assert filled.exit_code == 0, filled.stderr
    made = Path("filled/one.png.xml").read_text()
    assert lines_of(made) == lines_of(document) and '<!-- kept --><Page custom="a" ' in made
    # a file that is there is not written over
    refused = run("--boxes", "given.xml", "--page-xml", "filled", "one.png")
    assert refused.exit_code == 1 and len(refused.stdout.splitlines()) == 3
    assert "one.png is read and its PAGE XML is not written: " in refused.stderr
    assert "1 page was read and has no file" in refused.stderr
    assert Path("filled/one.png.xml").read_text() == made


def test_pages_are_drawn_with_their_boxes(run: Run) -> None:
    result = run("--boxes", "Label.txt", "--draw", "drawn", *NAMES)
    assert result.exit_code == 0, result.stderr
    drawn = read_image("drawn/sub/three.png.png")
    page, texts = drawn[:, :WIDTH], drawn[:, WIDTH:]
    assert texts.shape == (*PAGE.shape, 3)
    (left, top), (right, _), (_, bottom), _ = QUADS[0]
    for part, white in ((page, PAGE[:, :, None]), (texts, 255)):
        changed = np.argwhere((part != white).any(axis=2))
        edges = np.array([top, left, bottom, right])  # of the box; all else is in it
        assert np.abs(np.concatenate([changed.min(axis=0), changed.max(axis=0)]) - edges).max() <= 1
    inside = texts[int(top) + 3 : int(bottom) - 3, int(left) + 3 : int(right) - 3]
    assert (inside != 255).any() and {*map(int, inside[..., 0].ravel())} != {255}  # the text that was read
    blue, green, red = page[int(top), int(left) + 9].tolist()
    assert green > 1.5 * max(blue, red)  # the text is sure


def test_a_folder_of_files_fits_pages_by_name(run: Run) -> None:
    Path("boxes").mkdir()
    for name, quads in (("gt_one.txt", QUADS), ("three.png.txt", QUADS[:1])):
        lines = [",".join(str(int(value)) for point in quad for value in point) + ",###" for quad in quads]
        Path("boxes", name).write_text("\n".join(lines) + "\n")
    Path("boxes/other.txt").write_text("1,1,9,1,9,9,1,9\n")
    result = run("--boxes", "boxes", "--format", "tsv", *NAMES)
    found = rows(result.stdout)
    assert [(row["path"], row["status"]) for row in found] == [
        *[("one.png", "ok")] * 3,
        ("two.png", "error"),
        ("sub/three.png", "ok"),
    ]
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "two.png: the file of boxes names no such page",
        "1 page is not read, since nothing says where its boxes are",
        "note: boxes has boxes of 1 page that PAGE does not name: other.txt",
    ]


def test_boxes_that_cannot_be_read_have_a_record_that_says_why(run: Run) -> None:
    bad: list[Any] = [
        [],
        [[0, 0], [50, 50], [50, 0], [0, 50]],
        [[5000, 5], [5050, 5], [5050, 25], [5000, 25]],
    ]
    boxes = [{"points": points} for points in [*bad, QUADS[0]]]
    Path("Label.txt").write_text(f"one.png\t{json.dumps(boxes)}\ntwo.png\t[]\nfar.png\t[]\n")
    result = run("--boxes", "Label.txt", "--format", "jsonl", "one.png", "two.png", "gone.png")
    made = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["box"], one["status"], one["text"]) for one in made] == [
        *[(at, "error", "") for at in range(3)],
        (3, "ok", texts()[0]),
        (None, "error", ""),
    ]
    assert made[1]["error"] == "one.png: box 1 crosses itself" and made[1]["polygon"] == bad[1]
    assert made[4]["polygon"] is None
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-4:] == [
        "1 page is not read, since nothing says where its boxes are",
        "3 of 4 boxes failed",
        "note: 1 page has no boxes in Label.txt, and so no records",
        "note: Label.txt has boxes of 1 page that PAGE does not name: far.png",
    ]


def test_the_boxes_of_a_lone_page_need_no_name(run: Run) -> None:
    shape = {"label": "text", "points": [list(QUADS[0][0]), list(QUADS[0][2])], "shape_type": "rectangle"}
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    Path("l.json").write_text(json.dumps({"shapes": [shape], "imagePath": "scan.jpg", **size}))
    result = run("--boxes", "l.json", "one.png")
    assert result.stdout == f"one.png\t0\t{texts()[0]}\n" and result.exit_code == 0
    assert result.stderr == "note: l.json names the page scan.jpg; its boxes are taken for one.png\n"
    assert run("--boxes", "l.json", "one.png", "two.png").exit_code == 1
    Path("l.json").write_text(
        json.dumps({"shapes": [shape], "imagePath": "one.png", "imageHeight": 9, "imageWidth": 9})
    )
    refused = run("--boxes", "l.json", "one.png")
    assert refused.exit_code == 1 and "its boxes were made for a page of 9 x 9 pixels" in refused.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--page-xml", "xml"), "--page-xml needs the boxes of the pages: --boxes FILE"),
        (("--boxes", "none.txt"), "none.txt"),
        (("--boxes", "one.png"), "one.png"),
        (("--boxes", "Label.txt", "-o", "Label.txt"), "Label.txt"),
        (("--boxes", "Label.txt", "--page-xml", "one.png"), "it is there and not a folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(
    run: Run, args: tuple[str, ...], said: str
) -> None:
    before = Path("Label.txt").read_bytes()
    result = run(*args, "one.png")
    assert result.exit_code == 2 and said in result.stderr and result.stdout == ""
    assert len(result.stderr.splitlines()) <= 4 and "Traceback" not in result.stderr
    assert Path("Label.txt").read_bytes() == before


def test_a_box_without_text_is_drawn_as_any_other(run: Run) -> None:
    cv2.imwrite("white.png", np.full((60, 100), 255, np.uint8))
    Path("b.txt").write_text("10,10,60,10,60,40,10,40\n")
    result = run("--boxes", "b.txt", "--draw", "drawn", "white.png")
    assert result.exit_code == 0, result.stderr
    assert read_image("drawn/white.png.png").shape == (60, 200, 3)


def test_a_folder_of_boxes_that_has_changed_is_not_gone_on_with(run: Run) -> None:
    Path("boxes").mkdir()
    line = ",".join(str(int(value)) for point in QUADS[0] for value in point)
    Path("boxes/one.txt").write_text(f"{line}\n")
    run("--boxes", "boxes", "-o", "out.tsv", "one.png")
    assert run("--boxes", "boxes", "-o", "out.tsv", "--resume", "one.png").exit_code == 0
    Path("boxes/one.txt").write_text(f"{line}\n{line}\n")
    refused = run("--boxes", "boxes", "-o", "out.tsv", "--resume", "one.png")
    assert refused.exit_code == 2 and "boxes boxes" in refused.stderr


def test_a_page_xml_that_a_killed_run_wrote_is_kept(run: Run) -> None:
    """Records come first: of a run that was killed between, --resume makes what is missing, and no more."""
    run("--boxes", "Label.txt", "--page-xml", "xml", "-o", "out.tsv", *NAMES)
    whole = Path("out.tsv").read_bytes()
    Path("xml/sub/three.png.xml").unlink()
    kept = Path("xml/one.png.xml").read_bytes()
    result = run("--boxes", "Label.txt", "--page-xml", "xml", "-o", "out.tsv", "--resume", *NAMES)
    assert result.exit_code == 0 and result.stderr == ""
    assert Path("out.tsv").read_bytes() == whole and Path("xml/one.png.xml").read_bytes() == kept
    assert Path("xml/sub/three.png.xml").exists()


def test_a_page_that_is_named_twice_is_read_twice_and_written_once(run: Run) -> None:
    result = run("--boxes", "Label.txt", "--page-xml", "xml", "sub/three.png", "sub/three.png")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2 and len([*Path("xml").rglob("*.xml")]) == 1
