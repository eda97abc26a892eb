"""Files of boxes by strangers: each gives boxes or one line that says what is wrong."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import pytest
from box_examples import COCO, EXAMPLES, PAGE_2013, PAGE_2019

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.regions.boxes_file import Boxes
from crnn_deploy.regions.formats import pages_in
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import problem
from crnn_deploy.regions.written_page import ReadLine, filled_page, new_page

LABELS = '{"shapes": [{"points": %s}]}'
DOCTYPE = '<!DOCTYPE PcGts [<!ENTITY a "b"><!ENTITY c "&a;&a;">]>'


def refusal(path: Path, data: bytes | str) -> str:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(BoxesInvalid) as error:
        pages_in(str(path))
    said = str(error.value)
    assert said.startswith(f"{path}: ") and "\n" not in said and len(said) < len(str(path)) + 400
    return said.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            "hello\n",
            "has no form of boxes that is known: it begins with 'hello'; known are ICDAR text lines, ",
        ),
        ("[1, 2]", "it is a list of JSON"),
        ('{"a": 1}', "its keys are a"),
        ("<html><body/></html>", "its root is 'html', neither PcGts (PAGE) nor alto"),
        ("<!-- " * 3000, "line 1: is not XML: not well-formed (invalid token)"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]', "is COCO's list of results, which names no files"),
        ("x: [[206 251 386]], y: [[633 811 931]], ornt: [u'c']", "has x: [[...]], y: [[...]] of Total-Text"),
        (b"\xff\xfe\x00", "begins as UTF-16 and is not; save it as UTF-8"),
        (b"1,2,9,5\n1,2,9,5,caf\xe9\n", "line 2 is not UTF-8; convert the file: iconv -f CP1252 -t UTF-8"),
        ("1,2,9,5\0", "holds NUL characters"),
        ("1,2,9,5".encode("utf-32"), "is UTF-32; convert it"),
        # numbers
        (LABELS % "[[1, 2], [3, 1e999]]", "shape 1: inf is no finite number"),
        (LABELS % "[[1, 2], [3, NaN]]", "is not JSON: NaN is no number in JSON"),
        (LABELS % f"[[1, 2], [3, {'9' * 5000}]]", "is not JSON: it has a number of 5,000 digits"),
        (LABELS % '[[1, 2], [3, "x"]]', "shape 1: 'x' is no finite number"),
        (LABELS % "[[1, 2], [3, true]]", "shape 1: True is no finite number"),
        (LABELS % "[[1, 2], [3]]", "shape 1: a point is a list of two numbers, [x, y]"),
        (LABELS % "[1, 2, 3]", "shape 1: 3 numbers make no points; each has an x and a y"),
        (LABELS % "{}", "shape 1: its points are no list"),
        (LABELS % json.dumps([[1, 2]] * 10_001), "shape 1: has more than 10,000 points"),
        ('{"shapes": [{"points": [[1, 2]], "shape_type": "circle"}]}', "shape 1: is a circle; polygons and"),
        ('{"shapes": {}}', "shapes is no list of objects"),
        ("1,2,9,5\n" * 100_001, "has more than 100,000 boxes on a page"),
        # nesting
        ("[" * 100_000, "is not JSON: it is nested too deeply"),
        ('{"shapes":' * 100_000, "is not JSON: it is nested too deeply"),
        ("a.jpg\t" + "[" * 100_000, "line 1: is not JSON: it is nested too deeply"),
        ("<PcGts>" + "<a>" * 100_000, "line 1: its elements are nested deeper than 100"),
        ("<PcGts><Page><TextLine><Word>" + "<Word>" * 200, "its elements are nested deeper than 100"),
        # tables
        ("path\tpolygon\na.jpg\n", "line 2: has 1 columns; the header has 2"),
        ("path\tpolygon\na.jpg\t[[1, 2]\n", "line 2: is not JSON:"),
        ('path,polygon\na.jpg,"[[1, 2]\n', "is not CSV: unexpected end of data"),
        ("path,polygon\na.jpg\n", "line 2: has 1 columns; the header has 2"),
        ("path\tpolygon\tpath\na\t1 2\tb\n", "its header has 'path' twice"),
        ('{"path": "a", "polygon": []}\n[]\n', "line 2: is no object with a path and a polygon"),
        ('{"path": 7, "polygon": []}\n', "line 1: has no path"),
        # PaddleOCR and COCO
        ("a.jpg\t[]\nb.jpg []\n", "line 2: is not an image's path, a tab and a list of boxes"),
        ("a.jpg\t[{}]\n", "line 1, box 1: its points are no list"),
        (
            COCO.replace('"segmentation": []', '"segmentation": {"counts": "x", "size": [1, 1]}'),
            "is a mask (RLE)",
        ),
        (COCO.replace('"image_id": 7', '"image_id": 8'), "annotation 2: its image_id is the id of no image"),
        (COCO.replace('"id": 7', '"id": 3'), "image 2: its id 3 is that of another image"),
        (COCO.replace('"id": 7', '"id": []'), "image 1: its id [] is neither a whole number nor a text"),
        (COCO.replace('"file_name": "b.jpg"', '"name": 1'), "image 2: has no file_name"),
        (
            COCO.replace("[1, 2, 30, 4.5]", "[1, 2]"),
            "annotation 1: its bbox is no list of x, y, width and height",
        ),
        (
            COCO.replace("[1, 2, 30, 4.5]", "[1, 2, -3, 4]"),
            "annotation 1: left 1, top 2, right -2, bottom 6 are no",
        ),
        (
            "page\tleft\ttop\tright\tbottom\na\t9\t1\t5\t2\n",
            "line 2: left 9, top 1, right 5, bottom 2 are no box",
        ),
        # XML
        (DOCTYPE + PAGE_2013, "line 1: it has a DOCTYPE, which may define entities; take it out"),
        ('<!DOCTYPE alto SYSTEM "file:///etc/passwd"><alto/>', "it has a DOCTYPE, which may define entities"),
        (PAGE_2013.replace("</Page>", ""), "line 6: is not XML: mismatched tag"),
        (PAGE_2013.replace('80,20 1,20"/><B', '80,20 1"/><B'), "line 5: Coords: 7 numbers make no points"),
        (PAGE_2013.replace('80,20 1,20"/><B', '80,20 1,x"/><B'), "'x' is no finite number"),
        (
            PAGE_2013.replace('imageWidth="90"', 'imageWidth="wide"'),
            "line 3: imageWidth: 'wide' is no finite",
        ),
        (PAGE_2019.replace('index="2"', 'index="last"'), "line 12: index: 'last' is no finite number"),
        ("<PcGts/>", "its PcGts holds no Page"),
        ("<PcGts><Page>&a;</Page></PcGts>", "line 1: is not XML: undefined entity"),
        (
            '<?xml version="1.0" encoding="ISO-8859-1"?><alto>\u00e9</alto>',
            "says that it is ISO-8859-1 and is read as",
        ),
        ("<alto/>", "has 0 pages; write a file for each page"),
        ("<alto><Page/></alto>", "is in mm10, and its Page has no WIDTH and HEIGHT to scale by"),
        (
            "<alto><MeasurementUnit>mm</MeasurementUnit><Page/></alto>",
            "its MeasurementUnit is 'mm'; pixel, mm10,",
        ),
        ('<alto><Page WIDTH="0" HEIGHT="5"/></alto>', "is in mm10, and its Page has no WIDTH and HEIGHT"),
    ],
    ids=range(59),
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, data: bytes | str, said: str) -> None:
    assert said in refusal(tmp_path / "boxes", data)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "boxes"
    with path.open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(BoxesInvalid, match=r"has more than the limit of 268,435,456 bytes"):
        pages_in(str(path))


def test_many_elements_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn_deploy.regions.markup._MOST_ELEMENTS", 1000)  # a million takes 7 seconds
    said = refusal(tmp_path / "boxes", "<PcGts><Page>" + "<a/>" * 1_001)
    assert "it has more than 1,000 elements" in said


def test_what_is_inside_words_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "boxes"
    glyphs = '<Glyph id="g"><Coords points="1,1 2,2 3,1"/></Glyph>' * 100_000
    path.write_text(PAGE_2013.replace("</TextLine>", f'<Word id="w">{glyphs}</Word></TextLine>'))
    tracemalloc.start()
    try:
        [page] = pages_in(str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(page.regions) == 1
    assert peak < 4 * len(glyphs)  # the file, its text and the document


@pytest.mark.parametrize(
    "text", ["9" * 2_000_000, "1,2,3," + "9" * 2_000_000 + "x", "<" + "!---->" * 200_000]
)
def test_long_lines_are_told_at_once(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path / "boxes", text)  # a pattern that tries again at each place would take hours


TOKENS = (
    *(
        b"\t",
        b"\n",
        b"\r",
        b'"',
        b",",
        b"[",
        b"]",
        b"{",
        b"}",
        b"<",
        b">",
        b"/>",
        b"-",
        b".",
        b"\\",
        b":",
        b" ",
    ),
    *(
        b"1e999",
        b"NaN",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"0",
        b"-1",
        b"99999999",
        b"\xff",
        b"\x00",
        b"\xc3\xa9",
    ),
    *(
        b"points",
        b"polygon",
        b"path",
        b"id",
        b"<TextLine>",
        b"</TextLine>",
        b"<TextRegion>",
        b"</TextRegion>",
    ),
    *(
        b"<Word/>",
        b"<TextEquiv/>",
        b"<Coords/>",
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"]]>",
        b"<?x?>",
        b"&#1;",
        b"&lt;",
    ),
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(data) + 1)
        length = chance.choice((0, 1, 1, 5, 40))
        what = chance.choice((chance.choice(TOKENS), chance.randbytes(2), data[at - 30 : at], b""))
        data = data[:at] + what + data[at + length :]
    return data


def use(page: PageBoxes) -> None:
    """What is done with each page that was read."""
    for region in page.in_pixels(70, 50):
        found = problem(region.polygon, (70, 50))
        assert found is None or "\n" not in found
    lines = [ReadLine(region, f"text {at}") for at, region in enumerate(page.regions)]
    new_page(page.image, (70, 50), lines, creator="crnn-deploy")
    if page.document:
        filled_page(page.document, lines)


@pytest.mark.parametrize("name", EXAMPLES)
def test_damaged_files_give_boxes_or_one_line(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    path = tmp_path / "boxes"
    read = refused = 0
    for _ in range(250):
        path.write_bytes(mutated(EXAMPLES[name], chance))
        try:
            for page in pages_in(str(path)):
                use(page)
            Boxes(path).of("a.jpg")
            read += 1
        except CrnnDeployError as error:
            assert "\n" not in str(error)
            refused += 1
    assert read > 12 and refused > 12, (read, refused)
