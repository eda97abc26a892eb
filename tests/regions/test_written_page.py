"""PAGE XML with texts in it.

The documents below were held against the schemas pagecontent.xsd of 2010-03-19, 2013-07-15 and 2019-07-15
(github.com/PRImA-Research-Lab/PAGE-XML; the last one is in ocrd_validators 2.67.1 too) with lxml 6, and are
compared byte for byte, so what is compared is valid.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from box_examples import PAGE_2010, PAGE_2013, PAGE_2019
from hypothesis import given
from hypothesis import strategies as st

from crnn_deploy.regions.formats import pages_in
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import Point, Region
from crnn_deploy.regions.written_page import ReadLine, filled_page, new_page

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NEW = """<?xml version="1.0" encoding="UTF-8"?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"\
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"\
 xsi:schemaLocation="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15\
 http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15/pagecontent.xsd">
  <Metadata>
    <Creator>crnn-deploy 0.2.0</Creator>
    <Created>2026-01-02T03:04:05+00:00</Created>
    <LastChange>2026-01-02T03:04:05+00:00</LastChange>
  </Metadata>
  <Page imageFilename='a "&lt;&amp;&#10;.jpg' imageWidth="100" imageHeight="50">
    <TextRegion id="region">
      <Coords points="0,5 100,5 100,50 0,50"/>
      <TextLine id="one">
        <Coords points="10,10 41,10 41,21 10,21"/>
        <Baseline points="10,18 41,19"/>
        <TextEquiv conf="0.9877"><Unicode>a &lt;b&gt; &amp; c\ufffd</Unicode></TextEquiv>
      </TextLine>
      <TextLine id="line_2">
        <Coords points="0,5 20,5 20,25 0,25"/>
      </TextLine>
      <TextLine id="one_1">
        <Coords points="100,50 100,50"/>
      </TextLine>
      <TextLine id="region_1">
        <Coords points="10,30 20,40 20,30 10,40"/>
        <TextEquiv><Unicode></Unicode></TextEquiv>
      </TextLine>
    </TextRegion>
  </Page>
</PcGts>
"""


def box(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def read(path: Path, document: bytes) -> PageBoxes:
    path.write_bytes(document)
    [page] = pages_in(str(path))
    return page


def test_a_new_page_holds_whole_pixels_of_the_page() -> None:
    lines = [
        ReadLine(
            Region(box(10.4, 9.5, 40.5, 21), "one", baseline=((10, 18), (41, 19))), "a <b> & c\x01", 0.98765
        ),
        ReadLine(Region(box(-10, 5, 20, 25), "2"), None),  # cut at the page's edge; no name for xsd:ID
        ReadLine(Region(box(200, 60, 300, 70), "one"), None),  # outside; a name twice
        ReadLine(Region(()), None),
        ReadLine(Region(((float("nan"), 1.0), *box(1, 2, 3, 4))), None),
        ReadLine(Region(((10, 30), (20, 40), (20, 30), (10, 40)), "region"), ""),  # crosses itself
    ]
    page = new_page('a "<&\n.jpg', (100, 50), lines, creator="crnn-deploy 0.2.0", when=WHEN)
    assert page.document.decode() == NEW
    assert page.notes == (
        "characters that XML cannot hold are written as U+FFFD: 1",
        "box 4 is left out, since it has no points",
        "box 5 is left out, since it has a coordinate that is no finite number",
    )


def test_a_page_without_lines_has_no_region(tmp_path: Path) -> None:
    page = new_page("a.jpg", (10, 20), [], creator="crnn-deploy", when=WHEN)
    assert b'<Page imageFilename="a.jpg" imageWidth="10" imageHeight="20">\n  </Page>' in page.document
    again = read(tmp_path / "page", page.document)
    assert (again.image, again.size, again.regions) == ("a.jpg", (10, 20), ())


POINTS = st.tuples(st.integers(0, 90), st.integers(0, 60))
BASELINES = st.lists(POINTS, max_size=4).filter(lambda points: len(points) != 1)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True).filter(lambda name: name != "region")
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


def apart(points: list[tuple[int, int]]) -> bool:
    return all(a != b for a, b in pairwise(points))


LINES = st.lists(
    st.tuples(st.lists(POINTS, min_size=2, max_size=7).filter(apart), NAMES, BASELINES.filter(apart), TEXTS),
    max_size=5,
    unique_by=lambda line: line[1],
)


@given(LINES)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[tuple[list[tuple[int, int]], str, list[tuple[int, int]], str | None]],
) -> None:
    regions = [
        Region(tuple(polygon), name, ordered=False, baseline=tuple(baseline))
        for polygon, name, baseline, _ in found
    ]
    lines = [ReadLine(region, one[3], 0.5) for region, one in zip(regions, found, strict=True)]
    page = new_page("a.jpg", (90, 60), lines, creator="crnn-deploy")
    folder = tmp_path_factory.mktemp("page")
    again = read(folder / "page", page.document)
    assert again.regions == tuple(regions)
    if regions:
        # and filled with the texts that are in it, it stays as it is but for its time
        filled = filled_page(again.document, lines).document
        times = re.compile(rb"<(Created|LastChange)>[^<]*")
        assert times.sub(b"", filled) == times.sub(b"", page.document)


def filled(document: str, texts: list[str | None], tmp_path: Path) -> str:
    page = read(tmp_path / "page", document.encode())
    lines = [ReadLine(region, text, 0.5) for region, text in zip(page.regions, texts, strict=True)]
    again = filled_page(page.document, lines, when=WHEN)
    assert again.notes == ()
    assert read(tmp_path / "page", again.document).regions == page.regions
    return again.document.decode()


def test_a_document_is_filled_and_all_else_is_kept(tmp_path: Path) -> None:
    old = {
        "<pc:LastChange>2024-05-01T10:00:00<": "<pc:LastChange>2026-01-02T03:04:05+00:00<",
        # a title that had no text
        '<pc:Coords points="10,10 400,10 400,60 10,60"/>\n      </pc:TextLine>': (
            '<pc:Coords points="10,10 400,10 400,60 10,60"/>\n        <pc:TextEquiv conf="0.5000">'
            "<pc:Unicode>the &lt;title&gt;</pc:Unicode></pc:TextEquiv>\n      </pc:TextLine>"
        ),
        # before a style
        '890,150 500,140"/>': (
            '890,150 500,140"/>\n        <pc:TextEquiv conf="0.5000"><pc:Unicode>right</pc:Unicode>'
            "</pc:TextEquiv>"
        ),
        # a region's own text is that of its lines
        "<pc:Unicode>old right</pc:Unicode>": "<pc:Unicode>right</pc:Unicode>",
        # words and two texts go, and one comes
        PAGE_2019[
            PAGE_2019.index('\n        <pc:Word id="w1">') : PAGE_2019.index(
                '\n        <pc:TextStyle fontSize="12"'
            )
        ]: ('\n        <pc:TextEquiv conf="0.5000"><pc:Unicode>one</pc:Unicode></pc:TextEquiv>'),
        # a region with regions in it loses its text
        "\n      <pc:TextEquiv><pc:Unicode>old&#10;older</pc:Unicode></pc:TextEquiv>": "",
        # an error takes the old text out, and is no text where there was none (l2)
        "\n          <pc:TextEquiv><pc:Unicode>old inner</pc:Unicode></pc:TextEquiv>": "",
        '<pc:Coords points="10,550 890,550 890,590 10,590"/>\n      </pc:TextLine>': (
            '<pc:Coords points="10,550 890,550 890,590 10,590"/>\n        <pc:TextEquiv conf="0.5000">'
            "<pc:Unicode></pc:Unicode></pc:TextEquiv>\n      </pc:TextLine>"
        ),
    }
    expected = PAGE_2019
    for before, after in old.items():
        assert expected.count(before) == 1, before
        expected = expected.replace(before, after)
    # in reading order: t1, r1, l1, l2, l3, f1
    assert filled(PAGE_2019, ["the <title>", "right", "one", None, None, ""], tmp_path) == expected


def test_the_texts_of_a_region_stand_below_each_other(tmp_path: Path) -> None:
    document = PAGE_2013.replace(
        "</TextLine>\n",
        '</TextLine><TextLine id="m"><Coords points="1,9 9,9 9,19"/></TextLine>'
        "<TextEquiv><PlainText>x</PlainText><Unicode>x</Unicode></TextEquiv>",
    )
    assert "<TextEquiv><Unicode>one\ntwo</Unicode></TextEquiv></TextRegion>" in filled(
        document, ["one", "two"], tmp_path
    )
    # where one of them failed, the region has no text
    assert "</TextLine></TextRegion>" in filled(document, ["one", None], tmp_path)


def test_old_schemas_have_no_confidence_and_two_texts(tmp_path: Path) -> None:
    document = filled(PAGE_2010, ["one\rtwo", "three"], tmp_path)
    plain, unicode = "<PlainText>one&#13;two</PlainText>", "<Unicode>one&#13;two</Unicode>"
    assert f"</Coords>\n\t\t\t<TextEquiv>{plain}{unicode}</TextEquiv></TextRegion>" in document
    assert document.count("TextEquiv") == 4 and "old" not in document and "conf" not in document
    second = "<TextEquiv><PlainText>three</PlainText><Unicode>three</Unicode></TextEquiv>"
    assert f"</Coords>\n\t\t\t{second}</TextRegion></Page>" in document


def test_utf_16_is_written_as_utf_8(tmp_path: Path) -> None:
    document = '<?xml version="1.0" encoding="UTF-16"?>\n' + PAGE_2013.replace('id="r"', 'id="r\u00e9"')
    page = read(tmp_path / "page", document.encode("utf-16"))
    again = filled_page(page.document, [ReadLine(page.regions[0], "\u00e9\x00\ud800")], when=WHEN)
    assert again.document.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<PcGts')
    assert "<Unicode>\u00e9\ufffd\ufffd</Unicode>" in again.document.decode()
    assert again.notes == ("characters that XML cannot hold are written as U+FFFD: 2",)


def test_lines_must_be_those_of_the_document() -> None:
    with pytest.raises(BoxesInvalid, match="has 6 lines; 1 were read"):
        filled_page(PAGE_2019.encode(), [ReadLine(Region(()), "a")])
    with pytest.raises(BoxesInvalid, match="its root is 'alto'"):
        filled_page(b"<alto/>", [])
