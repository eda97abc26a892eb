"""Listing a tar: as Python's tarfile and GNU tar have it, and what is torn or ambiguous is refused."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crnn_deploy.datasets.tar_file import Member, TarInvalid, members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE]
KINDS += [tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]


def listed(data: bytes) -> list[Member]:
    return list(members(io.BytesIO(data)))


def tar_of(*files: tuple[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def reference(data: bytes) -> list[Member]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return [Member(info.name, info.offset_data, info.size) for info in tar if info.isreg()]


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300)
plain = names.filter(lambda name: name.rstrip("/") == name and name.strip() == name)
entries = st.lists(st.tuples(plain, st.sampled_from(KINDS), st.binary(max_size=1500)), max_size=6)


@given(entries, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.floats(0, 1e9))
@settings(deadline=None)
def test_the_same_files_as_tarfile(entries: list[tuple[str, bytes, bytes]], format: int, time: float) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mtime = kind, time  # a time with a fraction has a pax header
            if info.isreg():
                info.size = len(content)
            if info.islnk() or info.issym():
                info.linkname = "x" * 200
            tar.addfile(info, io.BytesIO(content))
    passed: list[str] = []
    found = list(members(io.BytesIO(out.getvalue()), lambda name, kind: passed.append(name)))
    assert found == reference(out.getvalue())
    regular = [content for _, kind, content in entries if tarfile.TarInfo.isreg(_typed(kind))]
    assert [out.getvalue()[one.offset :][: one.size] for one in found] == regular
    folders = sum(kind == tarfile.DIRTYPE for _, kind, _ in entries)
    assert len(found) + len(passed) + folders == len(entries)


def _typed(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type = kind
    return info


def test_a_long_name_in_ustar_is_two_fields() -> None:
    name = "/".join(["folder"] * 25) + "/a.png"
    data = tar_of((name, b"1"), format=tarfile.USTAR_FORMAT)
    assert listed(data) == reference(data) == [Member(name, 512, 1)]


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes(tmp_path: Path, format: str) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    long = "n" * (60 if format in ("v7", "ustar") else 240)
    for name, size in ((long, 10), ("sub/b.txt", 0), ("sub/c.jpg", 5000)):
        (folder / name).write_bytes(os.urandom(size))
    (folder / "link").symlink_to("sub/c.jpg")
    os.link(folder / "sub/c.jpg", folder / "sub/d.jpg")
    made = subprocess.run(
        ["tar", f"--format={format}", "-cf", tmp_path / "a.tar", "--sort=name", "-C", folder, "."],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"no GNU tar here: {made.stderr.decode()}")
    passed: list[tuple[str, str]] = []
    with open(tmp_path / "a.tar", "rb") as file:
        found = {one.name: one for one in members(file, lambda *one: passed.append(one))}
        assert found.keys() == {f"./{long}", "./sub/b.txt", "./sub/c.jpg"}
        for name, one in found.items():
            file.seek(one.offset)
            assert file.read(one.size) == (folder / name).read_bytes()
    assert sorted(passed) == [("./link", "a symbolic link"), ("./sub/d.jpg", "a hard link")]


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"]])
def test_a_sparse_file_is_refused(tmp_path: Path, options: list[str]) -> None:
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(2**20)
        file.seek(2**19)
        file.write(b"here")
    command = ["tar", *options, "--sparse", "-cf", str(tmp_path / "a.tar"), "-C", str(tmp_path), "holes"]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no GNU tar here")
    if (tmp_path / "a.tar").stat().st_size > 2**20:
        pytest.skip("this file system has no holes")
    with pytest.raises(TarInvalid, match="sparse file"):
        listed((tmp_path / "a.tar").read_bytes())


def test_a_size_in_a_pax_header_counts() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.pax_headers, info.size = {"size": "700"}, 700
        tar.addfile(info, io.BytesIO(b"a" * 700))
        tar.addfile(tarfile.TarInfo("b"))
    assert [(one.name, one.size) for one in listed(out.getvalue())] == [("a", 700), ("b", 0)]


def test_a_binary_size_counts() -> None:
    info = tarfile.TarInfo("a")
    info.size = 8**11  # bytes: one more than octal digits have room for
    with pytest.raises(TarInvalid, match="should end at byte 8,589,935,104"):
        listed(info.tobuf(tarfile.GNU_FORMAT))


def test_a_torn_tar_is_told_wherever_it_ends() -> None:
    data = tar_of(("a.png", b"a" * 700), ("b" * 150, b"b" * 512), ("c", b""))
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for size in (*range(0, end + 512, 61), *range(0, end + 512, 512)):
        with pytest.raises(TarInvalid, match="is torn"):
            listed(data[:size])
    assert listed(data[: end + 512]) == listed(data) == reference(data)


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(deadline=None)
@example(257, 1)
def test_an_altered_header_is_told_or_names_the_same_files(place: int, by: int) -> None:
    data = bytearray(tar_of(("a.png", b"a" * 700), ("b" * 150, b"b" * 512), format=tarfile.PAX_FORMAT))
    before = listed(bytes(data))
    data[place % len(data)] ^= by
    try:
        found = listed(bytes(data))
    except TarInvalid:
        return
    # bytes of contents and padding may change; the long name stands in the contents of a header
    assert [(one.offset, one.size) for one in found] == [(one.offset, one.size) for one in before]


@given(st.binary(max_size=3000))
def test_other_bytes_are_no_tar(data: bytes) -> None:
    with pytest.raises(TarInvalid):
        listed(data)


def test_joined_tars_are_refused() -> None:
    one = tar_of(("a", b"1"))
    with pytest.raises(TarInvalid, match="has more bytes after its end"):
        listed(one + one)


def test_a_compressed_tar_is_named() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a" * 90))
    with pytest.raises(TarInvalid, match="is compressed"):
        listed(out.getvalue() + bytes(1000))


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"path": "a" * 5000}, "too long"),
        ({"comment": "a" * 2**20}, "a pax header of 1,0"),
        ({"size": "-1"}, "in the place of a size"),
        ({"GNU.sparse.major": "1"}, "sparse"),
    ],
)
def test_pax_headers_have_bounds(headers: dict[str, str], said: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.pax_headers = headers
        tar.addfile(info)
    with pytest.raises(TarInvalid, match=said):
        listed(out.getvalue())


def test_a_name_for_all_files_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "b"}) as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with pytest.raises(TarInvalid, match="one name or size to all"):
        listed(out.getvalue())


def test_a_link_with_bytes_is_refused() -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.SYMTYPE, 512
    with pytest.raises(TarInvalid, match="a symbolic link with 512 bytes"):
        listed(info.tobuf() + bytes(2048))


def test_the_caller_may_read_between_members() -> None:
    data = tar_of(*((f"{at}.png", bytes([at]) * at) for at in range(1, 200)))
    file = io.BufferedReader(io.BytesIO(data), 4096)
    for one in members(file):
        file.seek(one.offset)
        assert file.read(one.size) == bytes([one.size]) * one.size


def test_bytes_of_a_name_that_are_no_utf8_are_kept() -> None:
    info = tarfile.TarInfo("a\udcff.png")
    data = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(1024)
    assert listed(data) == [Member("a\udcff.png", 512, 0)]
