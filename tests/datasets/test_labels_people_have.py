"""Label files as other tools write them: read, or refused with what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lmdb
import pytest
from click.testing import CliRunner

from crnn_deploy.cli.main import main
from crnn_deploy.datasets import DatasetInvalid, RecordInvalid, open_dataset

Rows = list[tuple[str, str]]


def written(folder: Path, name: str, text: str | bytes, encoding: str = "utf-8") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return str(path)


def rows(path: str, folder: Path) -> Rows:
    dataset = open_dataset(path)
    samples = [dataset[at] for at in range(len(dataset))]
    return [(os.path.relpath(str(one.image), folder), one.text) for one in samples]


MMOCR = {"metainfo": {"dataset_type": "TextRecogDataset", "task_name": "textrecog"}}


def mmocr_item(row: tuple[str, str]) -> dict[str, Any]:
    return {"img_path": row[0], "instances": [{"text": row[1]}]}


TWO = [("a.png", "one, two"), ("sub/b.png", 'say "x"')]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # mmocr 0.x, Hugging Face's metadata.jsonl, a list of objects
        ("train.txt", "\n".join(json.dumps({"filename": n, "text": t}) for n, t in TWO)),
        ("m.jsonl", "\r\n\r\n".join(json.dumps({"file_name": n, "text": t}) for n, t in TWO)),
        ("l.json", json.dumps([{"image": n, "label": t, "id": 1} for n, t in TWO])),
        ("l.json", "".join(json.dumps({"path": n, "gt": t}) + "\n" for n, t in TWO)),
        ("l.txt", json.dumps([{"path": n, "text": t} for n, t in TWO], indent=1)),
        # mmocr 1.x
        ("t.json", json.dumps({**MMOCR, "data_list": [*map(mmocr_item, TWO)]})),
        # ICDAR's Robust Reading, with and without space, escaped or not; MLT's script
        ("gt.txt", 'a.png, "one, two"\r\nsub/b.png, "say \\"x\\""\r\n'),
        ("gt.txt", 'a.png,"one, two"\nsub/b.png , "say "x""\n'),
        ("gt.txt", 'a.png,Latin,one, two\nsub/b.png,Symbols,say "x"\n'),
        # tables: Excel's in German, with its line before the table, tabs in .csv, a header in .txt
        ("e.csv", 'filename;text\r\na.png;one, two\r\nsub/b.png;"say ""x"""\r\n'),
        ("e.csv", 'sep=;\r\na.png;one, two\r\nsub/b.png;"say ""x"""\r\n'),
        ("e.csv", 'a.png;one, two\nsub/b.png;"say ""x"""\n'),
        ("e.csv", 'filename\ttext\na.png\tone, two\nsub/b.png\t"say ""x"""\n'),
        ("e.csv", 'FILENAME,IDENTITY\na.png,"one, two"\nsub/b.png,"say ""x"""\n'),
        ("e.txt", 'image,text\na.png,"one, two"\nsub/b.png,"say ""x"""\n'),
        ("e.txt", 'a.png,"one, two"\nsub/b.png,"say ""x"""\n'),
        ("e.txt", 'text,Filename\n"one, two",a.png\n"say ""x""",sub/b.png\n'),
        ("e.csv", 'filename;text\r\na.png;one, two\r\n;\r\nsub/b.png;"say ""x"""\r\n;\r\n'),
        # JSON that is called .txt
        ("t.txt", json.dumps({**MMOCR, "data_list": [*map(mmocr_item, TWO)]})),
        ("t.txt", json.dumps({**MMOCR, "data_list": [*map(mmocr_item, TWO)]}, indent=1)),
        # ICDAR's without quotes, and called .csv
        ("gt.txt", 'a.png, one, two\nsub/b.png, say "x"\n'),
        ("gt.csv", 'a.png, "one, two"\nsub/b.png, "say \\"x\\""\n'),
        # EasyOCR's trainer splits at the first comma alone
        ("labels.csv", 'filename,words\na.png,one, two\nsub/b.png,say "x"\n'),
        # PaddleOCR, and Windows
        ("rec_gt.txt", 'a.png\tone, two\nsub/b.png\tsay "x"\n'),
        ("w.txt", 'a.png\tone, two\r\nsub\\b.png\tsay "x"\r\n'),
        ("w.csv", 'filename,text\na.png,"one, two"\nsub\\b.png,"say ""x"""\n'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_labels_as_others_write_it(name: str, text: str, encoding: str, tmp_path: Path) -> None:
    assert rows(written(tmp_path, name, text, encoding), tmp_path) == TWO


def test_several_images_of_one_text(tmp_path: Path) -> None:
    text = '["a.png", "b.png"]\tone\n[c].png\ttwo\n'
    path = written(tmp_path, "train.txt", text)
    assert rows(path, tmp_path) == [("a.png", "one"), ("b.png", "one"), ("[c].png", "two")]


@pytest.mark.parametrize("index", ["", " 45484"])
def test_mjsynth_says_its_texts_in_the_names(index: str, tmp_path: Path) -> None:
    lines = [f"./2425/1/115_Lube_45484.jpg{index}", f"./1/2/3_It's_45484.jpg{index}"]
    assert rows(written(tmp_path, "annotation_train.txt", "\n".join(lines)), tmp_path) == [
        ("2425/1/115_Lube_45484.jpg", "Lube"),
        ("1/2/3_It's_45484.jpg", "It's"),
    ]


def test_a_backslash_that_is_one_stays(tmp_path: Path) -> None:
    path = written(tmp_path, "l.txt", "a\\b.png x\n")
    (tmp_path / "a\\b.png").touch()
    assert rows(path, tmp_path) == [("a\\b.png", "x")]


def test_texts_beside_images_as_of_tesstrain_and_calamari(tmp_path: Path) -> None:
    for name in ("a.png", "b.bin.png", "c.nrm.png", "c.png", "d.tif", "untold.png"):
        (tmp_path / name).touch()
    for name, text in (("a", "one\n"), ("b", "two\r\n"), ("c", " three "), ("d", "\ufeffé"), ("gone", "x")):
        written(tmp_path, f"{name}.gt.txt", text)
    written(tmp_path, "two.gt.txt", "one\ntwo\n")
    said: list[str] = []
    dataset = open_dataset(str(tmp_path), told=said.append)
    found = {os.path.basename(str(dataset[at].image)): dataset[at].text for at in range(len(dataset) - 1)}
    assert found == {
        **{"a.png": "one", "b.bin.png": "two", "c.png": " three ", "d.tif": "é", "gone.png": "x"}
    }
    assert [line for line in said if "1 image is passed over, since no text lies beside" in line]
    with pytest.raises(RecordInvalid, match=r"two\.gt\.txt holds 2 lines; the text of an image is one"):
        dataset[5]
    with pytest.raises(RecordInvalid, match=r"gone\.png is missing"):
        dataset.glance(4)
    assert dataset.glance(0) == "one"


def test_pairs_of_txt_and_image_are_told_from_a_file_of_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    written(tmp_path, "a.txt", "one two")
    said: list[str] = []
    assert open_dataset(str(tmp_path), told=said.append)[0].text == "one two"
    assert len(said) == 1 and "read as kind beside" in said[0]
    written(tmp_path, "a.txt", "a.png label")
    assert open_dataset(str(tmp_path))[0].text == "label"
    (tmp_path / "b.jpg").touch()
    written(tmp_path, "b.txt", "two")
    assert [open_dataset(str(tmp_path))[at].text for at in range(2)] == ["a.png label", "two"]
    written(tmp_path, "labels.txt", "a.png other")
    assert open_dataset(str(tmp_path))[0].text == "other"
    assert open_dataset(str(tmp_path), kind="beside")[1].text == "two"


def lmdb_of(path: Path, values: dict[str, str]) -> str:
    with lmdb.open(str(path), map_size=2**22) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value.encode())
    return str(path)


@pytest.mark.parametrize("form", ["{:09d}", "{:07d}", "{:08d}", "{:010d}", "{:d}"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("mark", ["-", "_", ""])
@pytest.mark.parametrize("count", ["num-samples", "num_samples", "nSamples"])
def test_keys_of_another_width_or_count(form: str, first: int, mark: str, count: str, tmp_path: Path) -> None:
    values = {count: "12\n"}
    for at in range(12):
        number = form.format(at + first)
        values |= {f"image{mark}{number}": f"i{at}", f"label{mark}{number}": f"t{at}"}
    dataset = open_dataset(lmdb_of(tmp_path / "x.lmdb", values))
    expected = [(f"i{at}".encode(), f"t{at}") for at in range(12)]
    assert [(dataset[at].image, dataset[at].text) for at in range(12)] == expected
    assert dataset[3].name.endswith(f"image{mark}{form.format(3 + first)}")


def test_a_sample_0_beside_those_from_1_is_not_read_and_told(tmp_path: Path) -> None:
    values = {f"{name}-{at:09d}": f"{name}{at}" for name in ("image", "label") for at in range(3)}
    path = lmdb_of(tmp_path / "x.lmdb", {**values, "num-samples": "2"})
    said: list[str] = []
    dataset = open_dataset(path, told=said.append)
    assert [dataset[at].text for at in range(2)] == ["label1", "label2"]
    assert said == [f"{path}: num-samples says 2, but image-000000000 is there too and is not read"]
    dataset = open_dataset(lmdb_of(tmp_path / "y.lmdb", {**values, "num-samples": "3"}))
    assert [dataset[at].text for at in range(3)] == ["label0", "label1", "label2"]


@pytest.mark.parametrize("count", ["2\n", " 2", "2.0", "2.", "2.000", "2\0", '"2"', "'2'", "02", "2.0\r\n"])
def test_a_count_in_other_forms(count: str, tmp_path: Path) -> None:
    values = {f"{name}-{at:09d}": "x" for name in ("image", "label") for at in (1, 2)}
    assert len(open_dataset(lmdb_of(tmp_path / "x.lmdb", {**values, "num-samples": count}))) == 2


@pytest.mark.parametrize("count", ["2.5", "+2", "2,0", "\x02\0\0\0", "2L", "", "0.0", "'2", "²"])
def test_a_count_that_is_none_says_what_to_write(count: str, tmp_path: Path) -> None:
    values = {f"{name}-{at:09d}": "x" for name in ("image", "label") for at in (1, 2)}
    with pytest.raises(DatasetInvalid, match="write the number of samples in digits"):
        open_dataset(lmdb_of(tmp_path / "x.lmdb", {**values, "num-samples": count}))


@pytest.mark.parametrize(
    ("image", "label", "told"),
    [
        (
            "img-{:09d}",
            "label-{:09d}",
            r"has no image-000000001 nor .* but img-000000001, label-000000001, num-samples; write",
        ),
        ("image-{:08d}", "label-{:09d}", r"has no image-000000001 nor those after it, but image-00000001, "),
        ("image-{:09d}", "text-{:09d}", r"has no label-000000001 nor those after it, but image-000000001, "),
        (
            "image_hr-{:09d}",
            "label-{:09d}",
            r"has no image-000000001 nor .* but image_hr-000000001, label-000000001",
        ),
    ],
)
def test_keys_of_other_names_are_shown(image: str, label: str, told: str, tmp_path: Path) -> None:
    values = {form.format(at): "x" for form in (image, label) for at in (1, 2)}
    with pytest.raises(DatasetInvalid, match=told):
        open_dataset(lmdb_of(tmp_path / "x.lmdb", {**values, "num-samples": "2"}))


DETECTED = {**MMOCR, "data_list": [{"img_path": "a", "instances": [{"text": "x", "bbox": [1, 2, 3, 4]}]}]}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("Label.txt", 'a.png\t[{"transcription": "x", "points": []}]', "line 1: is a label of text detec"),
        ("gt_img_1.txt", "377,117,463,117,465,130,378,130,Genaxis", "corners of a box"),
        ("gt.txt", '38, 43, 920, 215, "Tiredness"', "corners of a box"),
        ("l.json", json.dumps({"images": [], "annotations": []}), "COCO"),
        ("l.json", json.dumps({"a.png": {"polygons": []}}), "of text detection"),
        ("l.json", json.dumps(DETECTED), "data_list 0: has 1 instances, as labels of text detection"),
        ("l.json", json.dumps({**MMOCR, "data_list": [{"img_path": "a"}]}), "data_list 0: has no list"),
        ("l.jsonl", '{"filename": "a", "text": "x"}\n{"filename": "b"}', "line 2: 'text' is missing"),
        ("l.jsonl", '{"filename": "a", "text": 7}', "line 1: 'text' is int, not a text in quotes"),
        ("l.jsonl", '{"filename": "a", "text": "x"}\nnone', "line 2: is not JSON"),
        ("l.jsonl", '{"image": {"bytes": "x"}, "text": "x"}', "line 1: 'image' holds the image itself"),
        ("l.jsonl", '{"url": "x", "text": "x"}', "line 1: its keys, url, text, need one of"),
        ("gt.txt", 'a.png, "x"\nb.png', "line 2: is not a name, a comma and a text"),
        ("gt.txt", "a.png,Latin,x\nb.png,Latin", "line 2: has no script and text, as line 1 has"),
        ("l.txt", "a.png\t[{'transcription': 'x', 'points': []}]", "line 1: is a label of text detection"),
        ("l.json", json.dumps({"shapes": []}), "infer --boxes reads them as they are"),
        ("l.txt", 'a.png\tx\n["b.png", 7]\ty', "line 2: needs names in its list"),
        ("l.txt", "[]\ty", "line 1: needs names in its list"),
        ("words.txt", "#--- words.txt ---#\n#\na01-000u-00-00 ok 154 408 768 27 51 AT A", "a list of IAM"),
        ("lines.txt", "a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE", "a list of IAM"),
        ("l.txt", "a.png | one\nb.png | two", "has '|' between names and texts; write a tab"),
        ("l.yaml", "a.png: one\nb.png: two", "has ':' between names and texts; write a tab"),
        ("l.txt", "{'filename': 'a.png', 'text': 'x'}\n{'filename': 'b.png', 'text': 'y'}", "is not JSON"),
        ("gt.txt", "a.png,x\nb.png,y, z", "delimiter ',', or say --kind icdar"),
        ("a.gt.txt", "hello world", "holds the text of one image; give the folder"),
        ("l.txt", "a.png => one\nb.png => two", "has '=>' between names and texts; write a tab"),
        ("l.csv", 'filename,text\na.png,"say \\"x\\""', "--kind icdar"),
        ("l.csv", "filename,text\ra.png,x\r", "CR alone"),
        ("t.xml", '\ufeff<?xml version="1.0"?>\n<tagset>', "XML or HTML"),
        ("t.txt", "<tagset>\n<image>a b</image>", "XML or HTML"),
        ("t.tar", b"a.png" + bytes(252) + b"ustar\x0000" + bytes(300), "is not a tar, or is torn"),
        ("t.txt", b"a.png" + bytes(252) + b"ustar\x0000" + bytes(300), "a tar archive"),
        ("t.txt", b"\x80\x04\x95\x10\0\0\0", "a pickle"),
        ("t.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an Excel workbook"),
        ("t.txt", b"a.png x\nb.png Stra\xdfe", "line 2 is not UTF-8; convert the file: iconv"),
        ("t.jsonl", b'{"filename":"a","text":"x"}\n\n{"filename":"b","text":"\xdf"}', "line 3 is not UTF-8"),
        ("t.json", b'{"a.png":\n"\xdf"}', "line 2 is not UTF-8"),
        ("t.parquet", b"PAR1....PAR1", "Parquet"),
        ("t.arrow", b"ARROW1\0\0", "Arrow"),
        ("t.txt", b"PK\x03\x04....", "Excel"),
        ("t.csv", b"PK\x03\x04....", "Excel"),
        ("t.xml", '<?xml version="1.0"?>', "XML"),
        ("t.mat", b"MATLAB 5.0 MAT-file", "MATLAB"),
        ("t.txt", "a.png one".encode("utf-16-le"), "iconv -f UTF-16LE"),
        ("t.csv", "a.png,one".encode("utf-16-be"), "iconv -f UTF-16BE"),
        ("t.txt", "a.png one".encode("utf-32"), "iconv -f UTF-32"),
        ("t.csv", "filename;text\na.png;é".encode("cp1252"), "is not UTF-8"),
        ("t.txt", b"a.png one\rb.png two\r", "CR alone"),
        ("t.txt", "a.png|one\nb.png|two", None),
        ("t.txt", "a.png\nb.png", "no line has a space, and a text after it"),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_it_is(
    name: str, text: str | bytes, told: str | None, tmp_path: Path
) -> None:
    path = written(tmp_path, name, text)
    if told is None:
        assert rows(path, tmp_path) == [("a.png", "one"), ("b.png", "two")]
        return
    with pytest.raises(DatasetInvalid) as caught:
        open_dataset(path)
    assert told in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_folder_of_parquet_is_refused_with_the_way_out(tmp_path: Path) -> None:
    written(tmp_path, "train-00000-of-00001.parquet", b"PAR1....PAR1")
    with pytest.raises(DatasetInvalid, match=r"Parquet, a table of Hugging Face .* metadata\.jsonl"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('a.png, "x"\n', "icdar"),
        ('{"filename": "a.png", "text": "x"}\n', "objects"),
        ("1/1_x_2.jpg 2\n", "mjsynth"),
        ("a.png,x\n", "csv"),
        ("a.png\tx\nb.png y\n", "tabs"),
        ("a.png x\nb.png\ty\n", "names"),
        ("filename\ttext\na.png\tx\n", "tabs"),
        ("a.png 12 7 3\nb.png 4 5 66\n", "names"),
        ('a.png "x"\nb.png "y"\n', "names"),
        ("a.png   x\nb.png   y\n", "names"),
        ("a.png\tx\t0.9\nb.png\ty\t0.8\n", "tabs"),
        ('a.png\t"x"\nb.png\t"y"\n', "tabs"),
        ('{"a.png": "x", "b.png": "y"}', "doctr"),
    ],
)
def test_the_command_line_says_which_of_two_kinds_it_took(text: str, kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, "l.txt", text)
    result = CliRunner().invoke(main, ["dataset", "check", path])
    assert result.stderr.startswith(f"{path}: read as kind {kind}: ")
    result = CliRunner().invoke(main, ["dataset", "check", path, "--kind", kind])
    assert "read as" not in result.stderr


def test_what_was_told_before_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "my").touch()
    said: list[str] = []
    for text in ("a.png x\nb.png y, z\n", "a.png\tx\nb.png\ty\n", "my image.png x\n"):
        open_dataset(written(tmp_path, "l.txt", text), told=said.append)
    assert said == []


def test_a_script_is_one_only_where_the_first_line_has_one(tmp_path: Path) -> None:
    path = written(tmp_path, "l.txt", 'a.png, "x"\nb.png, None\nc.png, "Latin, y"\nd.png, Latin, z\n')
    assert [text for _, text in rows(path, tmp_path)] == ["x", "None", "Latin, y", "Latin, z"]


def test_a_csv_whose_texts_begin_with_a_space_keeps_it_and_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "l.csv", "a.png, x\nb.png, y\n")
    said: list[str] = []
    assert open_dataset(path, told=said.append)[0].text == " x"
    assert "begin with a space, which is kept; --kind icdar" in said[0]
    assert open_dataset(path, kind="icdar")[0].text == "x"


def test_mjsynths_names_with_backslashes(tmp_path: Path) -> None:
    path = written(tmp_path, "annotation_val.txt", ".\\1\\1_a_2.jpg 2\r\n.\\1\\2_B_3.jpg 3\r\n")
    assert [text for _, text in rows(path, tmp_path)] == ["a", "B"]


def test_texts_beside_images_in_folders_below(tmp_path: Path) -> None:
    for name in ("s1/a.png", "s2/b.raw.png", "S2/C.PNG", "s2/untold.png", "other/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name, text in (("s1/a.gt.txt", "one\n"), ("s2/b.gt.txt", "two\n"), ("S2/C.GT.TXT", "three")):
        written(tmp_path, name, text)
    (tmp_path / "s1" / "loop").symlink_to(tmp_path)
    said: list[str] = []
    dataset = open_dataset(str(tmp_path), told=said.append)
    samples = [dataset[at] for at in range(len(dataset))]
    found = {os.path.relpath(str(one.image), tmp_path): one.text for one in samples}
    assert found == {"s1/a.png": "one", "s2/b.raw.png": "two", "S2/C.PNG": "three"}
    assert "the .gt.txt files in its folders are read" in said[0] and "1 image is passed over" in said[1]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ["train/metadata.csv", "test/metadata.csv"],
            "; test, train in it may be datasets: name each by itself",
        ),
        (["MJ/MJ_train/data.mdb", "ST/data.mdb"], "; MJ/MJ_train, ST in it may be datasets"),
        (["dataset_dict.json", "train/state.json", "train/data-0.arrow"], "; train in it may be datasets"),
        (["2AB3_0.png", "README.txt"], "; texts in the names of images are not read: write a file"),
        (["README.md"], "nor .gt.txt files beside images"),
    ],
)
def test_a_folder_without_labels_says_where_some_may_be(names: list[str], told: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DatasetInvalid) as caught:
        open_dataset(str(tmp_path))
    assert told in str(caught.value) and "no dataset in this folder" in str(caught.value)


def test_folders_of_tools_hold_files_that_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    for name, data in (("dataset_info.json", b"{}"), ("state.json", b"{}"), ("d.arrow", b"ARROW1\0\0")):
        written(tmp_path / "hf", name, data)
    with pytest.raises(DatasetInvalid, match="Arrow, a table of Hugging Face"):
        open_dataset(str(tmp_path / "hf"))
    (tmp_path / "paddle").mkdir()
    for name, text in (("Label.txt", "p.png\t[]\n"), ("fileState.txt", "p.png\t1\n")):
        written(tmp_path / "paddle", name, text)
    written(tmp_path / "paddle", "rec_gt.txt", "crop_img/p.png\tx\n")
    assert open_dataset(str(tmp_path / "paddle"))[0].text == "x"


def test_images_that_are_not_where_the_labels_are_read_from(tmp_path: Path) -> None:
    path = written(tmp_path, "labels.json", '{"a.png": "x", "b.png": "y"}')
    (tmp_path / "b.png").touch()
    said: list[str] = []
    open_dataset(path, told=said.append)
    [line] = said
    assert (
        f"none of its first images is there, such as {tmp_path / 'images' / 'a.png'}; --image-folder" in line
    )
    open_dataset(path, images=str(tmp_path), told=said.append)
    assert len(said) == 1


def test_an_lmdb_says_what_of_it_is_not_read(tmp_path: Path) -> None:
    values = {f"{name}-{at:09d}": "x" for name in ("image", "label") for at in range(1, 6)}
    said: list[str] = []
    whole = lmdb_of(tmp_path / "whole.lmdb", {**values, "num-samples": "5"})
    assert len(open_dataset(whole, told=said.append)) == 5 and said == []
    short = lmdb_of(tmp_path / "short.lmdb", {**values, "num-samples": "3.0"})
    assert len(open_dataset(short, told=said.append)) == 3
    assert said == [f"{short}: num-samples says 3, but image-000000004 is there too and is not read"]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"gt_1": [{"transcription": "x", "points": [[1, 2]]}]}, "as LSVT and ArT have"),
        ({"version": "5.0", "shapes": [{"label": "x"}], "imagePath": "a"}, "has shapes"),
        ([{"id": 1, "annotations": [], "data": {"image": "a"}}], "item 0: its keys, id, annotations, data"),
    ],
)
def test_json_of_other_tools_is_named(found: object, told: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid) as caught:
        open_dataset(written(tmp_path, "l.json", json.dumps(found)))
    assert told in str(caught.value)


def test_a_table_with_boxes_says_that_they_are_not_cut_out(tmp_path: Path) -> None:
    path = written(tmp_path, "l.csv", "image,xmin,ymin,xmax,ymax,label\na.png,1,2,3,4,x\n")
    (tmp_path / "a.png").touch()
    said: list[str] = []
    assert open_dataset(path, told=said.append)[0].text == "x"
    assert len(said) == 1 and "columns of boxes, which are not cut out" in said[0]


@pytest.mark.parametrize("text", ["<b>.png x>\n<c>.png y\n", "<b>.png <x>\n", "<b> <x>\n<c> </y\n"])
def test_names_in_angle_brackets_are_no_markup(text: str, tmp_path: Path) -> None:
    lines = [tuple(line.split(" ", 1)) for line in text.splitlines()]
    assert rows(written(tmp_path, "l.txt", text), tmp_path) == lines


def test_texts_that_are_all_empty_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert rows(written(tmp_path, "l.txt", "a.png \nb.png\n"), tmp_path) == [("a.png", ""), ("b.png", "")]
