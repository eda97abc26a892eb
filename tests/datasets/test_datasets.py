"""Readers of labelled images, against files written by hand."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn_deploy.datasets import (
    Dataset,
    DatasetInvalid,
    DatasetNotFound,
    RecordInvalid,
    open_dataset,
)
from crnn_deploy.datasets.labels import UNUSABLE, characters_alphabet, read_characters
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.images.pixels import ImageNotFound, read_image

DATA = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of public data is not here")

Written = Callable[[str, bytes], str]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def write_lmdb(path: Path, values: Mapping[str, bytes], *, subdir: bool = True) -> str:
    with (
        lmdb.open(str(path), map_size=2**24, subdir=subdir) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            transaction.put(key.encode(), value)
    return str(path)


def three(path: Path) -> str:
    """An LMDB of three samples."""
    values = {"num-samples": b"3"}
    for number, text in enumerate(("one", "zwei 2", "三"), 1):
        values |= {f"image-{number:09d}": b"bytes %d" % number, f"label-{number:09d}": text.encode()}
    return write_lmdb(path, values)


def rows(dataset: Dataset, folder: str = "") -> list[tuple[object, str]]:
    """Images, relative to a folder, and texts."""
    samples = [dataset[index] for index in range(len(dataset))]
    return [
        (os.path.relpath(s.image, folder) if folder and isinstance(s.image, str) else s.image, s.text)
        for s in samples
    ]


# lines of text


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_names_are_split_at_the_first_space_only(
    written: Written, tmp_path: Path, bom: bytes, end: bytes, last: bool
) -> None:
    lines = ["a.png one  two ", "sub/b.png  lead", "c.png", "d.png ", "e.png x\ty\u2028z\x0b", "f.png é一"]
    path = written("train.txt", bom + end.join(line.encode() for line in lines) + end * last)
    assert rows(open_dataset(path), str(tmp_path)) == [
        *[("a.png", "one  two "), ("sub/b.png", " lead"), ("c.png", ""), ("d.png", "")],
        *[("e.png", "x\ty\u2028z\x0b"), ("f.png", "é一")],
    ]


def test_tabs_are_told_by_the_first_line_and_are_not_quoted(written: Written, tmp_path: Path) -> None:
    path = written("gt.txt", b'\nmy image.png\t"a b\nb.png\t"\tc\n\nc.png\t\n')
    expected = [("my image.png", '"a b'), ("b.png", '"\tc'), ("c.png", "")]
    assert rows(open_dataset(path), str(tmp_path)) == expected
    assert rows(open_dataset(str(tmp_path)), str(tmp_path)) == expected


def test_images_lie_where_the_user_says(written: Written, tmp_path: Path) -> None:
    path = written("labels.txt", b"a.png text\n/abs/b.png text\n")
    found = rows(open_dataset(path, images="elsewhere"))
    assert found == [(os.path.join("elsewhere", "a.png"), "text"), ("/abs/b.png", "text")]


def test_a_missing_image_is_an_error_only_when_it_is_read(written: Written) -> None:
    dataset = open_dataset(written("labels.txt", b"gone.png text\n"))
    sample = dataset[0]
    with pytest.raises(ImageNotFound, match=r"gone\.png"):
        read_image(sample.image)
    assert sample.name == sample.image


@pytest.mark.parametrize("index", [-1, 1, 10**9])
def test_beyond_the_samples_is_an_index_error(written: Written, tmp_path: Path, index: int) -> None:
    for dataset in (open_dataset(written("labels.txt", b"a.png x\n")), open_dataset(three(tmp_path / "l"))):
        with pytest.raises(IndexError):
            dataset[index + (2 if index == 1 and len(dataset) == 3 else 0)]


# tables


@pytest.mark.parametrize(
    "header", ["filename,words", "Image,TEXT", " path , Label ", "id,file_name,split,transcription", None]
)
def test_a_csv_as_the_csv_module_writes_it(tmp_path: Path, header: str | None) -> None:
    texts = ["plain", "with, comma", 'a "quote"', "", "two\nlines", " spaces ", "é一", '"', "a\r\nb"]
    with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        if header is not None:
            writer.writerow(header.split(","))
        for number, text in enumerate(texts):
            wide = header is not None and header.count(",") == 3
            writer.writerow(["7", f"{number}.png", "train", text] if wide else [f"{number}.png", text])
    expected = [(f"{number}.png", text) for number, text in enumerate(texts)]
    assert rows(open_dataset(str(tmp_path / "labels.csv")), str(tmp_path)) == expected
    assert rows(open_dataset(str(tmp_path)), str(tmp_path)) == expected


@given(st.lists(st.text(), min_size=1, max_size=5), st.sampled_from(["csv", "tsv"]))
def test_any_text_survives_a_table(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], kind: str
) -> None:
    path = tmp_path_factory.mktemp("table") / f"labels.{kind}"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="," if kind == "csv" else "\t", quoting=csv.QUOTE_ALL)
        writer.writerows((f"{number}.png", text) for number, text in enumerate(texts))
    assert [text for _, text in rows(open_dataset(str(path)))] == texts


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"a.png,one,two\n", "needs one column of"),
        ("a.csv", b"name,path,text\n", "needs one column of"),
        ("a.csv", b"filename,caption\na.png,x\n", "needs one column of"),
        ("a.csv", b"filename,text\na.png,x\nb.png,y,z\n", "line 3 has 3 fields, the first row has 2"),
        ("a.csv", b'a.png,"x\n', "line 1: unexpected end of data"),
        ("a.tsv", b'a.png\t"x" y\n', "--kind tabs"),
        ("a.csv", b"filename,text\n", "no labels"),
        ("a.txt", b"", "no labels"),
        ("a.txt", "a.png é\n".encode("latin-1"), "is not UTF-8"),
        ("a.csv", b"a.png,\xff\n", "is not UTF-8"),
        ("a.json", b"\xff{}", "is not UTF-8"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.json", b'["a.png"]', "is not an object of names and texts"),
        ("a.json", b'{"a.png": {"polygons": []}}', "is not an object of names and texts"),
        ("a.json", b'{"a.png": "\\ud800"}', "half of a surrogate pair"),
        ("a.json", b"{}", "no labels"),
        ("a.json", b'{"a.png": ' + b"9" * 5000 + b"}", "a number of 5,000 digits"),
        ("a.json", b'{"a.png": NaN}', "NaN is no number"),
        ("a.json", b'{"a.png": "x", "a.png": "y"}', "it says 'a.png' twice"),
        ("a.json", b'{"a":' * 3000 + b"1" + b"}" * 3000, "is not"),
        ("a.csv", b"a.png," + b"x" * 200_000, "field larger than field limit"),
        ("a.csv", b"a.png,x\n" + b"b.png," + b"x" * 2**20, "line 2 is longer than"),
        ("a.txt", b"a.png " + b"x" * 2**20, "line 1 is longer than"),
        ("a.txt", b"a.png x\nb.png " + b"x" * 2**20, "line 2 is longer than"),
        ("a.csv", b"x" * 2**17, "its first row"),
        ("a.lmdb", b"not an LMDB at all", "is not an LMDB"),
    ],
)
def test_labels_that_are_not_what_they_should_be(
    written: Written, name: str, data: bytes, message: str
) -> None:
    path = written(name, data)
    with pytest.raises(DatasetInvalid) as caught:
        open_dataset(path)
    assert str(caught.value).startswith(path) and message in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert len(str(caught.value)) < len(path) + 350


def test_doctr_keeps_its_images_in_a_folder(written: Written, tmp_path: Path) -> None:
    labels = {"img_1.jpg": "I", "img_2.jpg": "été ", "img_3.jpg": ""}
    for text in (json.dumps(labels), json.dumps(labels, ensure_ascii=False)):
        written("labels.json", text.encode())
        expected = [(f"images/{name}", text) for name, text in labels.items()]
        assert rows(open_dataset(str(tmp_path)), str(tmp_path)) == expected
    moved = open_dataset(str(tmp_path / "labels.json"), images=str(tmp_path / "crops"))
    assert rows(moved, str(tmp_path))[0] == ("crops/img_1.jpg", "I")


# what is where


def test_a_folder_says_which_labels_it_holds(written: Written, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="no dataset in this folder"):
        open_dataset(str(tmp_path))
    written("train.txt", b"a.png train\n")
    assert open_dataset(str(tmp_path))[0].text == "train"
    written("test.csv", b"a.png,test\n")
    with pytest.raises(DatasetInvalid, match=r"which of test\.csv, train\.txt holds the labels"):
        open_dataset(str(tmp_path))
    written("labels.tsv", b"a.png\tlabels\n")
    assert open_dataset(str(tmp_path))[0].text == "labels"
    assert open_dataset(str(tmp_path / "test.csv"), kind="names")[0].text == ""


def test_what_is_not_there_or_not_known(written: Written, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound) as caught:
        open_dataset(str(tmp_path / "gone"))
    assert isinstance(caught.value, FileNotFoundError)
    path = written("labels.txt", b"a.png 1\n")
    with pytest.raises(DatasetInvalid, match="there is no kind 'xml'"):
        open_dataset(path, kind="xml")  # type: ignore[arg-type]
    with pytest.raises(DatasetInvalid, match="need their character file"):
        open_dataset(path, kind="indices")
    with pytest.raises(DatasetInvalid, match="need their character file"):
        open_dataset(path, kind="names", characters=path)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json", "a.lmdb", "a", "data.mdb"])
def test_only_regular_files_are_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        if path == tmp_path and name == "a":
            continue
        with pytest.raises(DatasetInvalid, match=r"not a regular file|no dataset in this folder"):
            open_dataset(str(path))
    (tmp_path / "labels.tsv").write_text("a.png\t1\n")
    with pytest.raises(DatasetInvalid, match="not a regular file"):
        open_dataset(str(tmp_path / "labels.tsv"), kind="indices", characters=str(tmp_path / name))


def test_a_name_that_is_not_utf8_names_an_lmdb_too(tmp_path: Path) -> None:
    plain = three(tmp_path / "plain.lmdb")
    name = os.path.join(tmp_path, os.fsdecode(b"\xff.lmdb"))
    try:
        os.rename(plain, name)
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    assert open_dataset(name)[0].text == "one"
    Path(name, "data.mdb").write_bytes(b"none")
    with pytest.raises(DatasetInvalid, match=r"is not an LMDB|is truncated") as caught:
        open_dataset(name, kind="lmdb")
    assert str(caught.value).isprintable()


def test_a_path_with_a_nul_is_not_found() -> None:
    with pytest.raises(DatasetNotFound):
        open_dataset("a\0b")


# 360CC


def test_indexes_into_a_character_file(written: Written, tmp_path: Path) -> None:
    characters = ["blank", "，", "的", "0", "国"]
    labels = written("train.txt", b"a.jpg 4 1 4 3\nb.jpg\nc.jpg 2\r\n")
    expected = [("a.jpg", "国，国0"), ("b.jpg", ""), ("c.jpg", "的")]
    for encoding, end in (("gbk", "\n"), ("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("gbk", "\r\n")):
        for last in ("", end):
            path = written("chars", (end.join(characters) + last).encode(encoding))
            assert rows(open_dataset(labels, characters=path), str(tmp_path)) == expected
            assert characters_alphabet(path) == ("，", "的", "0", "国")


def test_a_line_that_is_no_character_is_marked_and_keeps_its_index(written: Written, tmp_path: Path) -> None:
    path = written("chars", b"blank\n" + "，\n".encode("gbk") + b"\xaa\xa5\n\nab\n" + "国".encode("gbk"))
    assert read_characters(path) == ("", "，", UNUSABLE, UNUSABLE, UNUSABLE, "国")
    assert characters_alphabet(path) == ("，", "国")
    dataset = open_dataset(written("train.txt", b"a.jpg 5 2 5 1\n"), characters=path)
    assert dataset[0].text == f"国{UNUSABLE}国，"


@pytest.mark.parametrize("item", ["0", "3", "-1", "x", "1.0", "²", "９", pytest.param("9" * 5000, id="long")])
def test_an_index_that_is_none_is_told_with_its_line(written: Written, item: str) -> None:
    path = written("chars.txt", b"blank\na\nb\n")
    labels = written("train.txt", f"a.jpg 1 2\nb.jpg 1 {item}\n".encode())
    with pytest.raises(DatasetInvalid, match=r"line 2: '.*' is not an index from 1 to 2"):
        open_dataset(labels, characters=path)


def test_another_file_is_no_character_file(written: Written, tmp_path: Path) -> None:
    labels = written("train.txt", b"a.jpg 1\n")
    with pytest.raises(DatasetInvalid, match="line 0 of a character file says blank"):
        open_dataset(labels, characters=written("chars.txt", b"a\nb\n"))
    with pytest.raises(DatasetInvalid, match="cannot be read"):
        open_dataset(labels, characters=str(tmp_path / "gone"))


# LMDB


@pytest.mark.parametrize("subdir", [True, False])
def test_an_lmdb_written_by_hand(tmp_path: Path, subdir: bool) -> None:
    values = {"num-samples": b"2", "image-000000001": b"\x00\xff", "label-000000001": "é\n".encode()}
    values |= {"image-000000002": b"two", "label-000000002": b""}
    for name in ("x.lmdb", "plain"):
        dataset = open_dataset(write_lmdb(tmp_path / name, values, subdir=subdir))
        assert rows(dataset) == [(b"\x00\xff", "é\n"), (b"two", "")]
        assert dataset[1].name == f"{tmp_path / name} image-000000002"


def broken(**changes: bytes | None) -> dict[str, bytes]:
    values = {"num-samples": b"2", "image-000000001": b"i", "label-000000001": b"a"}
    values |= {"image-000000002": b"i", "label-000000002": b"b"}
    changed = {**values, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (broken(num_samples=None), "num-samples is missing"),
        (broken(num_samples=b"many"), "num-samples is b'many'"),
        (broken(num_samples=b"0"), "num-samples is b'0'"),
        (broken(num_samples=b"-1"), "num-samples is b'-1'"),
        (broken(num_samples=b"1e3"), "num-samples is b'1e3'"),
        (broken(num_samples=b"9" * 5000), "num-samples is b'999"),
        (broken(num_samples=b"1000000000000"), "num-samples says 1000000000000, but it has 5 entries"),
        (broken(num_samples=b"3"), "num-samples says 3, but there is no label-000000003"),
    ],
)
def test_an_lmdb_that_is_broken_as_a_whole(tmp_path: Path, values: dict[str, bytes], message: str) -> None:
    path = write_lmdb(tmp_path / "x.lmdb", values)
    with pytest.raises(DatasetInvalid) as caught:
        open_dataset(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (broken(image_000000001=None), "image-000000001 is missing, of 2 samples"),
        (broken(label_000000001=None), "label-000000001 is missing, of 2 samples"),
        (broken(label_000000001=b"\xff"), "label-000000001 is not UTF-8"),
        (broken(image_000000002=None), "image-000000002 is missing, of 2 samples"),
        (broken(label_000000002=None), "label-000000002 is missing, of 2 samples"),
    ],
)
def test_a_sample_that_is_broken_leaves_the_others(
    tmp_path: Path, values: dict[str, bytes], message: str
) -> None:
    path = write_lmdb(tmp_path / "x.lmdb", values)
    dataset = open_dataset(path)
    at = int("000000002" in message)
    assert dataset[1 - at].text == dataset.glance(1 - at) == "ba"[at]
    for read in (dataset.__getitem__, dataset.glance):
        with pytest.raises(RecordInvalid) as caught:
            read(at)
        assert str(caught.value) == f"{path}: {message}"
        assert caught.value.name == f"{path} {message.split()[0]}"


@pytest.mark.parametrize("keep", [0, 100, 4096, 8192, 0.5, -1])
def test_a_truncated_lmdb_is_an_error_and_not_the_end_of_the_process(tmp_path: Path, keep: float) -> None:
    values = {"num-samples": b"50"}
    for number in range(1, 51):
        values |= {f"image-{number:09d}": os.urandom(3000), f"label-{number:09d}": b"x"}
    path = write_lmdb(tmp_path / "x.lmdb", values)
    assert len(open_dataset(path)) == 50
    data = tmp_path / "x.lmdb" / "data.mdb"
    size = data.stat().st_size
    os.truncate(data, int(size * keep) if 0 < keep < 1 else size - 1 if keep < 0 else int(keep))
    with pytest.raises(DatasetInvalid, match=r"is truncated|is not an LMDB"):
        open_dataset(path)


def test_a_folder_or_a_file_that_is_no_lmdb(tmp_path: Path) -> None:
    (tmp_path / "empty.lmdb").mkdir()
    with pytest.raises(DatasetInvalid, match="no dataset in this folder"):
        open_dataset(str(tmp_path / "empty.lmdb"))
    with pytest.raises(DatasetInvalid, match="is not an LMDB"):
        open_dataset(str(tmp_path / "empty.lmdb"), kind="lmdb")
    (tmp_path / "data.mdb").write_bytes(b"hello" * 5000)
    with pytest.raises(DatasetInvalid, match="is not an LMDB"):
        open_dataset(str(tmp_path))


def test_an_lmdb_of_labels_only(tmp_path: Path) -> None:
    values = {"num-samples": b"2", "label-000000001": b'{"filename": "a.jpg", "text": "A"}'}
    path = write_lmdb(tmp_path / "x.lmdb", {**values, "label-000000002": b'{"filename": 1, "text": "A"}'})
    dataset = open_dataset(path)
    assert (dataset[0].image, dataset[0].text) == (str(tmp_path / "a.jpg"), "A")
    assert open_dataset(path, images="crops")[0].image == os.path.join("crops", "a.jpg")
    with pytest.raises(DatasetInvalid, match="label-000000002 is not"):
        dataset[1]


def test_an_lmdb_opened_twice_and_from_threads(tmp_path: Path) -> None:
    path = three(tmp_path / "x.lmdb")
    one, other = open_dataset(path), open_dataset(os.path.join(path, "..", "x.lmdb"))
    assert rows(one) == rows(other)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(rows, [one, other] * 8))
    assert found == [rows(one)] * 16
    del one, other
    shutil.rmtree(path)  # nothing stale is left of what was there
    write_lmdb(tmp_path / "x.lmdb", broken())
    assert len(open_dataset(path)) == 2


def put_rows(dataset: Dataset, queue: multiprocessing.Queue[object]) -> None:
    try:
        queue.put(rows(dataset))
    except CrnnDeployError as error:
        queue.put(error)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["lmdb", "names"])
def test_other_processes_read_what_this_one_has_open(
    written: Written, tmp_path: Path, method: str, kind: str
) -> None:
    path = three(tmp_path / "x.lmdb") if kind == "lmdb" else written("x.txt", b"a.png one\nb.png two\n")
    dataset, other = open_dataset(path), open_dataset(path)
    before = rows(dataset), rows(other)  # now it is open here
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=put_rows, args=(item, queue)) for item in (dataset, other, dataset)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [before[0]] * 3
    assert (rows(dataset), rows(other)) == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_the_lmdb_for_itself(tmp_path: Path) -> None:
    dataset = open_dataset(three(tmp_path / "x.lmdb"))
    rows(dataset)
    if not (child := os.fork()):
        opened: list[str] = []
        lmdb_open = lmdb.open
        lmdb.open = lambda path, **options: opened.append(path) or lmdb_open(path, **options)  # type: ignore[func-returns-value, assignment]
        rows(dataset)
        os._exit(len(opened))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert len(rows(dataset)) == 3


def test_a_dataset_is_pickled_without_what_it_has_open(tmp_path: Path) -> None:
    dataset = open_dataset(three(tmp_path / "x.lmdb"))
    before = rows(dataset)
    copy: Dataset = pickle.loads(pickle.dumps(dataset))
    assert rows(copy) == before


# public data


@real
def test_mmocrs_lmdbs() -> None:
    labels = open_dataset(str(DATA / "scene_words_mmocr"))
    expected = {os.path.basename(str(s.image)): s.text for s in (labels[i] for i in range(len(labels)))}
    whole = open_dataset(str(DATA / "lmdb" / "imgs.lmdb"))
    only = open_dataset(str(DATA / "lmdb" / "label.lmdb"), images=str(DATA / "scene_words_mmocr" / "images"))
    assert len(whole) == len(only) == len(labels) == 10
    for index in range(10):
        path = only[index].image
        assert isinstance(path, str)
        assert whole[index].text == only[index].text == expected[os.path.basename(path)]
        assert whole[index].image == Path(path).read_bytes()


@real
def test_mmocrs_broken_lmdb_has_an_image_that_cannot_be_read() -> None:
    dataset = open_dataset(str(DATA / "lmdb" / "broken.lmdb"))
    assert [dataset[index].text for index in range(len(dataset))] == ["broken"]
    with pytest.raises(CrnnDeployError, match="JPEG"):
        read_image(dataset[0].image)


@real
@pytest.mark.parametrize(
    ("name", "count"),
    [("plates_cn", 292), ("signed_numbers", 182), ("scene_words_clova", 10), ("scene_words_demo", 18)],
)
def test_folders_of_public_data(name: str, count: int) -> None:
    dataset = open_dataset(str(DATA / name))
    assert len(dataset) == count
    lines = (DATA / name / "labels.tsv").read_text("utf-8").splitlines()
    for index, line in enumerate(lines):
        file, text = line.split("\t")
        assert (dataset[index].image, dataset[index].text) == (str(DATA / name / file), text)
        assert read_image(dataset[index].image).size
