"""Files of boxes, as their tools write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from box_examples import ALTO_3, ALTO_4, COCO, EXAMPLES, LABELME, PADDLE, PAGE_2010, PAGE_2013, PAGE_2019

from crnn_deploy.regions.formats import pages_in
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import Point

Points = tuple[Point, ...]


Read = Callable[[bytes | str], list[PageBoxes]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def reader(data: bytes | str) -> list[PageBoxes]:
        path = tmp_path / "boxes"  # no suffix tells the format
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return pages_in(str(path))

    return reader


def one(pages: list[PageBoxes]) -> PageBoxes:
    [page] = pages
    return page


def corners(left: float, top: float, right: float, bottom: float) -> Points:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def test_icdar_2015_has_eight_numbers_whatever_the_text_begins_with(read: Read) -> None:
    page = one(read(EXAMPLES["icdar 2015"]))
    assert page.image == "" and page.size is None
    assert [region.polygon for region in page.regions] == [
        ((377, 117), (463, 117), (465, 130), (378, 130)),
        corners(493, 115, 519, 131),
        corners(374, 155, 409, 170),
        corners(492, 151, 551, 170),
    ]
    assert all(region.ordered and region.name == "" for region in page.regions)


QUAD, FIVE = "1,2,9,2,9,5,1,5", "1,2,9,2,9,5,5,6,1,5"


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        *(([QUAD], [4]), ([f"{QUAD},"], [4]), ([f"{QUAD},5"], [4]), ([f"{QUAD},a", f"{QUAD},12,5"], [4, 4])),
        *(([f"{QUAD},a", f"{QUAD},1,000,000"], [4, 4]), ([f"{QUAD},3,4-dihydro"], [4])),
        *(([f"{QUAD},Latin,12", f'{QUAD},"12,5,a"'], [4, 4]), ([QUAD, FIVE], [4, 5])),
        *(
            ([f"{FIVE},a", f"{QUAD},b", f"{FIVE},9,5,c"], [5, 4, 6]),
            ([f"{FIVE},7,7,a", f"{FIVE},7,7,b,5"], [6, 6]),
        ),
        *(([f"{FIVE},9,4,8,3"], [7]), ([f"{FIVE},9,4,a", "1,2,9,2,9,5,a"], [6, 3])),
        # texts that are numbers among those of polygons
        ([f"{FIVE},9,4,word", f"{FIVE},1984"], [6, 5]),
        # a fixed number of points, and a text that begins with one
        ([f"{FIVE},9,4,a", f"{FIVE},9,4,12,5"], [6, 6]),
        (["1,2,9,5"], [4]),
        *((["1,2,9,5,a", "1,2,9,5,12,5"], [4, 4]), (["1 2 9 5"], [4]), (['1 2 9 5 "a b"'], [4])),
        *(([QUAD.replace(",", " ")], [4]), (["1.5, 2, 9.25, 5.0"], [4]), (["-1,-2,9,5"], [4])),
    ],
)
def test_where_the_points_end_is_settled_for_the_whole_file(
    read: Read, lines: list[str], counts: list[int]
) -> None:
    assert [len(region.polygon) for region in one(read("\n".join(lines))).regions] == counts


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"{FIVE},a", f"{FIVE},b"], "line 1: may be 4 points and a text or "),
        ([FIVE], "line 1: may be 4 points and a text or points alone; put a text in quotes, as "),
        (
            [f"{FIVE},a", f"{QUAD},b"],
            "line 1: may be 4 points and a text or points and a text that is no number",
        ),
        (["1,2,9,2,9,5"], "line 1: may be a box of 4 numbers and a text or points alone"),
        ([f"{QUAD},1,2,3"], "line 1: may be 4 points and a text or points and a number"),
        ([QUAD, "1,2,9,5"], "line 2: begins with 4 numbers"),
        # MSRA-TD500 (index, difficulty, box, angle) and YOLO
        (["0 1 10 20 30 40 0.1"], "line 1: begins with 7 numbers"),
        (["0 0.5 0.5 0.1 0.1"], "line 1: begins with 5 numbers"),
        (
            ["10,20,5,7"],
            "line 1: left 10, top 20, right 5, bottom 7 are no box",
        ),
        ([QUAD, "1,2,a"], "line 2: '1,2,a' does not begin with four numbers"),
        ([f"{QUAD[:-1]}{'9' * 50}"], "is no finite number"),
    ],
)
def test_lines_that_may_be_read_in_two_ways_are_refused(read: Read, lines: list[str], said: str) -> None:
    with pytest.raises(BoxesInvalid) as error:
        read("\n".join(lines))
    assert said in str(error.value)


def test_ctw1500_has_a_box_and_offsets(read: Read) -> None:
    # what github.com/Yuliang-Liu/Curve-Text-Detector says of its labels: 4 numbers of a box, 14 points from
    # its top left
    offsets = [(0, 5), (20, 0), *((20 + 5 * n, 1) for n in range(1, 5)), (80, 3)]
    offsets += [(x, 30 - y) for x, y in reversed(offsets)]
    flat = [100, 200, 180, 230, *(each for point in offsets for each in point)]
    line = ",".join(map(str, flat))
    polygon = one(read(line)).regions[0].polygon
    assert polygon == tuple((100 + x, 200 + y) for x, y in offsets)
    # a polygon of 16 points is one
    points = [(100 + x, 200 + y) for x, y in [(0, 0), (80, 30), *offsets]]
    line = ",".join(str(each) for point in points for each in point)
    assert one(read(line)).regions[0].polygon == tuple(points)
    flat[2] += 9
    with pytest.raises(BoxesInvalid, match="may be 16 points, or a box and 14 points as offsets"):
        read(",".join(map(str, flat)))


def test_polygons_promise_no_order(read: Read) -> None:
    # lines of CTW1500's test set, as mmocr 1.0.1 has them in its tests: they begin at the bottom left
    lines = (
        "51,137,58,137,66,137,74,137,82,137,90,137,98,137,98,119,90,119,82,119,74,119,66,119,58,119,50,119,"
        "####E-313\n41,155,49,155,57,155,65,155,73,155,81,155,89,155,87,136,79,136,71,136,64,136,56,136,48,136,"
        "41,137,#######\n"
    )
    page = one(read(lines))
    assert [len(region.polygon) for region in page.regions] == [14, 14]
    assert page.regions[0].polygon[:2] == ((51, 137), (58, 137))
    assert not any(region.ordered for region in page.regions)


def test_lines_of_sroie_have_texts_with_commas(read: Read) -> None:
    # as mmocr 1.0.1 has them in its tests
    lines = (
        "114,54,326,54,326,92,114,92,TAN CHAY YEE\n60,119,300,119,300,136,60,136,###\n"
        "83,163,277,163,277,183,83,183,NO 2 & 4, JALAN BAYU 4,\n"
    )
    page = one(read(lines))
    assert [region.polygon for region in page.regions] == [
        corners(114, 54, 326, 92),
        corners(60, 119, 300, 136),
        corners(83, 163, 277, 183),
    ]
    assert all(region.ordered for region in page.regions)


def test_a_file_without_a_line_has_no_boxes(read: Read) -> None:
    assert read(b"") == read(b"\n \r\n") == [PageBoxes("", ())]


def test_paddle_has_a_page_on_each_line(read: Read) -> None:
    first, second, third = read(PADDLE)
    assert (first.image, second.image, third.image) == (
        "ch4_test_images/img_61.jpg",
        "img_1.jpg",
        "img_2.jpg",
    )
    assert first.regions[0].polygon == ((310, 104), (416, 141), (418, 216), (312, 179))
    assert len(first.regions[1].polygon) == 5
    assert [region.ordered for region in first.regions] == [True, False]
    assert [region.polygon for region in second.regions] == [corners(30, 1, 80, 9)]
    assert third.regions == ()


def test_results_of_paddle_3_name_their_page(read: Read) -> None:
    page = one(read(EXAMPLES["paddle 3"]))
    assert page.image == "a.png" and page.regions[0].polygon == corners(1, 2, 9, 5)


def test_coco_has_the_largest_polygon_else_the_box(read: Read) -> None:
    first, second = read(COCO)
    assert (first.image, first.size) == ("train/a.jpg", (100, 50))
    assert (second.image, second.size) == ("b.jpg", None)
    [region] = first.regions
    assert region.polygon == ((10, 10), (40, 12), (39, 20), (9, 18))
    assert (region.name, region.ordered) == ("2", False)
    assert [(r.name, r.polygon, r.ordered) for r in second.regions] == [
        ("1", corners(1, 2, 31, 6.5), True),
        ("5", corners(5, 6, 12, 14), True),
        ("9", ((1, 1), (5, 1), (5, 4)), False),
        ("10", (), False),
    ]


def test_labelme_rectangles_are_two_corners_in_any_order(read: Read) -> None:
    page = one(read(LABELME))
    assert (page.image, page.size) == ("..\\scans\\a.jpg", (100, 200))
    assert [(r.name, r.polygon, r.ordered) for r in page.regions] == [
        ("title", ((10.5, 20), (90, 22), (89, 40), (10, 38)), False),
        ("line", corners(10, 60, 90, 80), True),
    ]


# what ocrd_models 2.67.1 reads from PAGE_2019: [(line.id, line.get_Coords().points) for line in
# parse(file).get_Page().get_AllTextLines(region_order="reading-order")]
OF_OCRD = [
    ("t1", "10,10 400,10 400,60 10,60"),
    ("r1", "500,100 890,110 890,150 500,140"),
    ("l1", "10,100 400,100 400,140 10,140"),
    ("l2", "10,150 400,150 400,190 10,190"),
    ("l3", "10,300 400,300 400,340 10,340"),
    ("f1", "10,550 890,550 890,590 10,590"),
]


def test_lines_of_page_xml_come_in_reading_order(read: Read) -> None:
    page = one(read(PAGE_2019))
    assert (page.image, page.size, page.unit) == ("scans/0001.tif", (900, 600), "pixel")
    shown = [" ".join(f"{x:g},{y:g}" for x, y in region.polygon) for region in page.regions]
    assert list(zip([region.name for region in page.regions], shown, strict=True)) == OF_OCRD
    assert not any(region.ordered for region in page.regions)
    assert page.regions[2].baseline == ((10, 135), (400, 136)) and page.regions[0].baseline == ()
    assert page.note == "" and page.document == PAGE_2019.encode()


def test_without_a_reading_order_the_document_has_one(read: Read) -> None:
    start, end = PAGE_2019.index("<pc:ReadingOrder>"), PAGE_2019.index("</pc:ReadingOrder>")
    without = PAGE_2019[:start] + PAGE_2019[end + len("</pc:ReadingOrder>") :]
    # what ocrd_models reads in region_order="document"
    assert [r.name for r in one(read(without)).regions] == ["l1", "l2", "l3", "r1", "t1", "f1"]


def test_a_page_without_lines_is_read_by_its_regions(read: Read) -> None:
    page = one(read(PAGE_2010))
    assert [(r.name, r.polygon) for r in page.regions] == [
        ("r0", corners(25, 30, 235, 55)),
        ("r1", ((5, 60), (235, 60), (100, 90))),
    ]
    assert page.note == "it has no TextLine; each of its 2 TextRegions is read as one line"


def test_regions_without_lines_beside_lines_are_not_read(read: Read) -> None:
    page = one(read(PAGE_2013.encode("utf-16")))
    assert [r.name for r in page.regions] == ["l"]
    assert page.note == "TextRegions without a TextLine are not read beside those with one: 1"


def test_alto_in_physical_units_is_scaled(read: Read) -> None:
    page = one(read(ALTO_3))
    assert (page.image, page.size, page.unit) == ("scan_7.tif", (2100, 2970), "mm10")
    # those of alto-xml 0.0.5, which does not read the Shape of a String: [(line.id, line.hpos, line.vpos,
    # line.width, line.height) for line in alto.parse_file(file).extract_text_lines()]
    boxes = [("l1", 100, 100, 900, 50), ("l2", 100.5, 400, 900, 50)]
    assert [(r.name, r.polygon, r.ordered) for r in page.regions] == [
        (name, corners(x, y, x + width, y + height), True) for name, x, y, width, height in boxes
    ]
    assert page.regions[0].baseline == ((100, 145), (1000, 145))
    assert page.in_pixels(1050, 1485)[0].polygon == corners(50, 50, 500, 75)
    unnamed = ALTO_3.replace("<MeasurementUnit>mm10</MeasurementUnit>", "")
    assert one(read(unnamed)).unit == "mm10"


def test_alto_4_has_polygons_and_baselines(read: Read) -> None:
    page = one(read(ALTO_4))
    assert (page.image, page.size, page.unit) == ("pages/a.jpg", (800, 600), "pixel")
    assert [(r.name, r.polygon, r.baseline, r.ordered) for r in page.regions] == [
        ("x1", ((10, 20), (300, 25), (300, 65), (10, 60)), ((10, 50), (300, 55)), False),
        ("x2", ((10, 120), (300, 125), (300, 165), (10, 160)), ((10, 150), (300, 155)), False),
        ("x3", (), (), False),
    ]


def test_rows_of_a_page_need_not_stand_together(read: Read) -> None:
    first, second = read(EXAMPLES["tsv"])
    assert first.image == "b/a.jpg"
    assert [(r.name, r.polygon) for r in first.regions] == [
        ("one", corners(1, 2, 9, 5)),
        ("three", ((1, 12), (9, 12), (9, 15))),
    ]
    assert second.image == "c.jpg" and second.regions[0].polygon == corners(1, 2, 9, 5)


@pytest.mark.parametrize(
    "table",
    [
        "image\tx1\ty1\tx2\ty2\tx3\ty3\tx4\ty4\na.jpg\t1\t2\t9\t2\t9\t5\t1\t5\n",
        "page\tleft\ttop\twidth\theight\na.jpg\t1\t2\t8\t3\n",
        "Image\tleft\ttop\tright\tbottom\na.jpg\t1\t2\t9\t5\n",
        "path\tpoints\r\na.jpg\t1,2 9,2 9,5 1,5\r\n",
    ],
)
def test_columns_of_a_tsv(read: Read, table: str) -> None:
    page = one(read(table))
    assert page.image == "a.jpg" and [r.polygon for r in page.regions] == [corners(1, 2, 9, 5)]
    assert page.regions[0].ordered


def test_lines_of_tesseract_are_those_of_level_4(read: Read) -> None:
    columns = (
        "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n"
    )
    rows = [
        *("1\t1\t0\t0\t0\t0\t0\t0\t900\t600\t-1\t", "4\t1\t1\t1\t1\t0\t10\t20\t300\t40\t-1\t"),
        *("5\t1\t1\t1\t1\t1\t10\t20\t90\t40\t96\tone", "4\t1\t1\t1\t2\t0\t10\t80\t300\t40\t-1\t"),
    ]
    page = one(read(columns + "\n".join(rows)))
    assert page.image == ""
    assert [r.polygon for r in page.regions] == [corners(10, 20, 310, 60), corners(10, 80, 310, 120)]


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_what_infer_writes_is_read_again(read: Read, kind: str) -> None:
    path, polygon = 'a\tb\\n, "c".jpg', json.dumps(corners(1, 2, 9, 5))
    cell = path.replace("\\", "\\\\").replace("\t", "\\t")
    quoted = path.replace('"', '""')
    written = {
        "tsv": f"path\ttext\tbox\tpolygon\n{cell}\tx\t0\t{polygon}\n",
        "csv": f'path,text,box,polygon\r\n"{quoted}","x\ny",0,"{polygon}"\r\n',
        "jsonl": json.dumps({"path": path, "text": "x", "box": 0, "polygon": corners(1, 2, 9, 5)}) + "\n",
    }[kind]
    page = one(read(written))
    assert page.image == path
    assert [(r.name, r.polygon) for r in page.regions] == [("0", corners(1, 2, 9, 5))]


def test_rows_of_json_may_have_no_polygon(read: Read) -> None:
    first, second = read(EXAMPLES["rows"])
    assert len(first.regions[0].polygon) == 3 and second.regions[0].polygon == ()
