"""Small files of each format, as its tools write them."""

from __future__ import annotations

import json

__all__ = ["ALTO_3", "ALTO_4", "COCO", "EXAMPLES", "LABELME", "PADDLE", "PAGE_2010", "PAGE_2013", "PAGE_2019"]

ICDAR_2015 = (
    "\ufeff377,117,463,117,465,130,378,130,Genaxis Theatre\r\n493,115,519,115,519,131,493,131,12,5\r\n"
    "374,155,409,155,409,170,374,170,###\r\n492,151,551,151,551,170,492,170,\r\n"
)
PADDLE = (
    'ch4_test_images/img_61.jpg\t[{"transcription": "MASA", "points": [[310, 104], [416, 141], [418, 216], '
    '[312, 179]], "difficult": false}, {"transcription": "###", "points": [[1, 2], [9, 2], [9, 5], '
    "[5, 6], [1, 5]]}]"
    "\nimg_1.jpg\t[[[30.0, 1.0], [80.0, 1.0], [80.0, 9.0], [30.0, 9.0]]]\n\nimg_2.jpg\t[]\n"
)
COCO = json.dumps(
    {
        "info": {},
        "images": [
            {"id": 7, "file_name": "train/a.jpg", "width": 100, "height": 50},
            {"id": 3, "file_name": "b.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "bbox": [1, 2, 30, 4.5], "category_id": 1},
            {
                "id": 2,
                "image_id": 7,
                "segmentation": [[0, 0, 2, 0, 2, 2], [10, 10, 40, 12, 39, 20, 9, 18]],
                "bbox": [0, 0, 40, 20],
            },
            {"id": 5, "image_id": 3, "segmentation": [], "bbox": [5, 6, 7, 8]},
            {"id": 9, "image_id": 3, "segmentation": [1, 1, 5, 1, 5, 4]},
            {"id": 10, "image_id": 3},
        ],
        "categories": [{"id": 1, "name": "text"}],
    }
)
LABELME = json.dumps(
    {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": "title",
                "points": [[10.5, 20], [90, 22], [89, 40], [10, 38]],
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            },
            {"label": "line", "points": [[90, 80], [10, 60]], "shape_type": "rectangle"},
        ],
        "imagePath": "..\\scans\\a.jpg",
        "imageData": "bm90IGFuIGltYWdl",
        "imageHeight": 200,
        "imageWidth": 100,
    },
    indent=2,
)
PAGE_2019 = """<?xml version="1.0" encoding="UTF-8"?>
<pc:PcGts xmlns:pc="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">
  <pc:Metadata>
    <pc:Creator>somebody</pc:Creator>
    <pc:Created>2024-05-01T10:00:00</pc:Created>
    <pc:LastChange>2024-05-01T10:00:00</pc:LastChange>
  </pc:Metadata>
  <!-- a comment that stays -->
  <pc:Page imageFilename="scans/0001.tif" imageWidth="900" imageHeight="600">
    <pc:ReadingOrder>
      <pc:OrderedGroup id="o">
        <pc:RegionRefIndexed index="2" regionRef="left"/>
        <pc:OrderedGroupIndexed id="oo" index="0">
          <pc:RegionRefIndexed index="1" regionRef="right"/>
          <pc:RegionRefIndexed index="0" regionRef="title"/>
        </pc:OrderedGroupIndexed>
      </pc:OrderedGroup>
    </pc:ReadingOrder>
    <pc:TextRegion id="left" custom="readingOrder {index:2;}">
      <pc:Coords points="10,100 400,100 400,500 10,500"/>
      <pc:TextRegion id="inner">
        <pc:Coords points="10,300 400,300 400,400 10,400"/>
        <pc:TextLine id="l3">
          <pc:Coords points="10,300 400,300 400,340 10,340"/>
          <pc:TextEquiv><pc:Unicode>old inner</pc:Unicode></pc:TextEquiv>
        </pc:TextLine>
      </pc:TextRegion>
      <pc:TextLine id="l1">
        <pc:Coords points="10,100 400,100 400,140 10,140"/>
        <pc:Baseline points="10,135 400,136"/>
        <pc:Word id="w1">
          <pc:Coords points="10,100 90,100 90,140 10,140"/>
          <pc:TextEquiv conf="0.5"><pc:Unicode>old</pc:Unicode></pc:TextEquiv>
        </pc:Word>
        <pc:TextEquiv index="0" conf="0.5"><pc:Unicode>old</pc:Unicode></pc:TextEquiv>
        <pc:TextEquiv index="1"><pc:Unicode>older</pc:Unicode></pc:TextEquiv>
        <pc:TextStyle fontSize="12"/>
      </pc:TextLine>
      <pc:TextLine id="l2">
        <pc:Coords points="10,150 400,150 400,190 10,190"/>
      </pc:TextLine>
      <pc:TextEquiv><pc:Unicode>old&#10;older</pc:Unicode></pc:TextEquiv>
    </pc:TextRegion>
    <pc:ImageRegion id="picture"><pc:Coords points="500,10 890,10 890,90 500,90"/></pc:ImageRegion>
    <pc:TextRegion id="right">
      <pc:Coords points="500,100 890,100 890,500 500,500"/>
      <pc:TextLine id="r1">
        <pc:Coords points="500,100 890,110 890,150 500,140"/>
        <pc:TextStyle fontSize="9"/>
      </pc:TextLine>
      <pc:TextEquiv><pc:Unicode>old right</pc:Unicode></pc:TextEquiv>
    </pc:TextRegion>
    <pc:TextRegion id="title">
      <pc:Coords points="10,10 400,10 400,60 10,60"/>
      <pc:TextLine id="t1" production="printed">
        <pc:Coords points="10,10 400,10 400,60 10,60"/>
      </pc:TextLine>
    </pc:TextRegion>
    <pc:TextRegion id="footer">
      <pc:Coords points="10,550 890,550 890,590 10,590"/>
      <pc:TextLine id="f1">
        <pc:Coords points="10,550 890,550 890,590 10,590"/>
      </pc:TextLine>
    </pc:TextRegion>
  </pc:Page>
</pc:PcGts>
"""
PAGE_2013 = """<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2013-07-15">
<Metadata><Creator/><Created>2024-05-01T10:00:00</Created><LastChange>2024-05-01T10:00:00</LastChange></Metadata>
<Page imageFilename="a.png" imageWidth="90" imageHeight="60">
<TextRegion id="r"><Coords points="1,1 80,1 80,20 1,20"/>
<TextLine id="l"><Coords points="1,1 80,1 80,20 1,20"/><Baseline points="1,18 80,18"/></TextLine>
</TextRegion><TextRegion id="s"><Coords points="1,30 80,30 80,50 1,50"/></TextRegion></Page></PcGts>
"""
PAGE_2010 = """<?xml version="1.0" encoding="UTF-8"?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2010-03-19">
\t<Metadata>
\t\t<Creator></Creator>
\t\t<Created>2010-02-02T12:28:49</Created>
\t\t<LastChange>2010-02-02T12:28:49</LastChange></Metadata>
\t<Page imageFilename="00000158.tif" imageWidth="2342" imageHeight="3159">
\t\t<TextRegion id="r0" type="heading">
\t\t\t<Coords>
\t\t\t\t<Point x="25" y="30"/>
\t\t\t\t<Point x="235" y="30"/>
\t\t\t\t<Point x="235" y="55"/>
\t\t\t\t<Point x="25" y="55"/></Coords>
\t\t\t<TextEquiv>
\t\t\t\t<PlainText>old</PlainText>
\t\t\t\t<Unicode>old</Unicode></TextEquiv></TextRegion>
\t\t<TextRegion id="r1">
\t\t\t<Coords>
\t\t\t\t<Point x="5" y="60"/>
\t\t\t\t<Point x="235" y="60"/>
\t\t\t\t<Point x="100" y="90"/></Coords></TextRegion></Page></PcGts>
"""
ALTO_3 = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v3#">
  <Description>
    <MeasurementUnit>mm10</MeasurementUnit>
    <sourceImageInformation><fileName>scan_7.tif</fileName></sourceImageInformation>
  </Description>
  <Layout>
    <Page ID="p" PHYSICAL_IMG_NR="1" WIDTH="2100" HEIGHT="2970">
      <PrintSpace HPOS="0" VPOS="0" WIDTH="2100" HEIGHT="2970">
        <ComposedBlock ID="c" HPOS="100" VPOS="100" WIDTH="900" HEIGHT="200">
          <TextBlock ID="b" HPOS="100" VPOS="100" WIDTH="900" HEIGHT="200">
            <TextLine ID="l1" BASELINE="145" HPOS="100" VPOS="100" WIDTH="900" HEIGHT="50">
              <String ID="s1" CONTENT="one" WC="0.9" HPOS="100" VPOS="100" WIDTH="300" HEIGHT="50"/>
              <SP ID="sp" WIDTH="100" HPOS="400" VPOS="100"/>
              <String ID="s2" CONTENT="two" WC="0.9" HPOS="500" VPOS="100" WIDTH="500" HEIGHT="50">
                <Shape><Polygon POINTS="0,0 1,0 1,1"/></Shape>
              </String>
            </TextLine>
          </TextBlock>
          <TextBlock ID="b2" HPOS="100" VPOS="400" WIDTH="900" HEIGHT="200">
          <TextLine ID="l2" HPOS="100.5" VPOS="400" WIDTH="900" HEIGHT="50">
            <String ID="s3" CONTENT="three" WC="0.9" HPOS="100" VPOS="400" WIDTH="300" HEIGHT="50"/>
          </TextLine>
          </TextBlock>
        </ComposedBlock>
      </PrintSpace>
    </Page>
  </Layout>
</alto>
"""
ALTO_4 = """<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#">
<Description><MeasurementUnit>pixel</MeasurementUnit>
<sourceImageInformation><fileName>pages/a.jpg</fileName></sourceImageInformation></Description>
<Layout><Page WIDTH="800" HEIGHT="600" PHYSICAL_IMG_NR="0" ID="page_0"><PrintSpace><TextBlock ID="b">
<Shape><Polygon POINTS="0 0 800 0 800 600 0 600"/></Shape>
<TextLine ID="x1" BASELINE="10 50 300 55" HPOS="10" VPOS="20" WIDTH="290" HEIGHT="45">
<Shape><Polygon POINTS="10 20 300 25 300 65 10 60"/></Shape><String CONTENT=""/></TextLine>
<TextLine ID="x2" BASELINE="10,150 300,155"><Shape>
<Polygon POINTS="10,120 300,125 300,165 10,160"/></Shape></TextLine>
<TextLine ID="x3"/>
</TextBlock></PrintSpace></Page></Layout></alto>
"""
TSV = (
    "path\tpolygon\tid\nb/a.jpg\t[[1, 2], [9, 2], [9, 5], [1, 5]]\tone\nc.jpg\t1,2 9,2 9,5 1,5\ttwo\n"
    "b/a.jpg\t[1, 12, 9, 12, 9, 15]\tthree\n"
)

EXAMPLES: dict[str, bytes] = {
    "icdar 2015": ICDAR_2015.encode(),
    "icdar 2013": b'38, 43, 920, 215, "Tiredness"\n275, 264, 665, 450, "kills"\n',
    "polygons": b"1,2,9,2,9,5,5,6,1,5,####ab\n1,2,9,2,9,5,5,6,3,3,1,5,####c,d\n1,2,9,2,9,5,###\n",
    "paddle": PADDLE.encode(),
    "paddle 3": b'{"input_path": "a.png", "dt_polys": [[[1, 2], [9, 2], [9, 5], [1, 5]]]}',
    "coco": COCO.encode(),
    "labelme": LABELME.encode(),
    "page 2019": PAGE_2019.encode(),
    "page 2013": PAGE_2013.encode("utf-16"),
    "page 2010": PAGE_2010.encode(),
    "alto 3": ALTO_3.encode(),
    "alto 4": ALTO_4.encode(),
    "tsv": TSV.encode(),
    "csv": b'path,text,box,polygon\r\na.jpg,"x, y",0,"[[1,2],[9,2],[9,5],[1,5]]"\r\n',
    "rows": (
        b'{"path": "a.jpg", "box": 0, "polygon": [[1, 2], [9, 2], [9, 5]]}\n'
        b'{"path": "b.jpg", "polygon": null}\n'
    ),
}
