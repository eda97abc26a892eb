"""Finding inputs: what files, folders, globs and lists mean."""

from __future__ import annotations

import glob
import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn_deploy.runtime.images import sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of empty files; the working directory stands in it."""
    for name in [
        *("b.png", "a.JPG", "notes.txt", ".hidden.png", "zoo.webp"),
        *("a/2.png", "a/10.png", "a/labels.csv", "a/deep/er/x.tif", ".git/y.png", "c/only.txt", "z[1].png"),
        *("a/deep/a/w.png", "a/deep/a/deep/v.png"),
    ]:
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


def find(*paths: str, stdin: bytes = b"") -> list[str]:
    sources.check(paths)
    return list(sources.find(paths, sources.lines_of(io.BytesIO(stdin))))


def test_a_folder_gives_its_images_sorted_within_each_folder(tree: Path) -> None:
    assert find(".") == [
        *("./a.JPG", "./b.png", "./z[1].png", "./zoo.webp"),
        *("./a/10.png", "./a/2.png", "./a/deep/a/w.png", "./a/deep/a/deep/v.png", "./a/deep/er/x.tif"),
    ]
    assert find("a/") == ["a/10.png", "a/2.png", "a/deep/a/w.png", "a/deep/a/deep/v.png", "a/deep/er/x.tif"]


def test_a_folder_gives_every_image_that_an_independent_walk_finds(tree: Path) -> None:
    walked = [
        path
        for path in tree.rglob("*")
        if path.suffix.lower() in sources.IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(tree).parts)
    ]
    assert sorted(find(str(tree))) == sorted(map(str, walked))


def test_a_file_is_taken_whatever_its_suffix_and_as_often_as_it_is_named(tree: Path) -> None:
    assert find("notes.txt", ".hidden.png", "b.png", "b.png", "c/only.txt") == [
        *("notes.txt", ".hidden.png", "b.png", "b.png", "c/only.txt")
    ]


def test_a_name_with_glob_marks_that_exists_is_a_name(tree: Path) -> None:
    assert find("z[1].png") == ["z[1].png"]


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "*.png",
            "*",
            "a/*.png",
            "*/*.png",
            "?.png",
            "[ab].*",
            ".h*",
            "./*.png",
            "a/../b.*",
            "a/d*/*/x.tif",
        ),
        *("**/*.png", "a/**/x.tif", "a/**/?.p*", "**/deep/*/*", "**/a/**/*.png", "**/deep/**/v.png"),
        *("a/**/deep/**/*.png", "**/**/*.tif", "a//*.png", "*/"),
    ],
)
def test_a_glob_gives_the_files_that_a_shell_would(tree: Path, pattern: str) -> None:
    for base in ("", f"{tree}/"):
        wanted = {path for path in glob.glob(base + pattern, recursive=True) if os.path.isfile(path)}
        found = find(base + pattern)
        if "**" not in pattern:  # folders that match are walked
            folders = [path for path in glob.glob(base + pattern) if os.path.isdir(path)]
            wanted.update(sources.find(folders, []))
        assert {os.path.normpath(path) for path in found} == {os.path.normpath(path) for path in wanted}
        assert len(found) == len(set(found))


def test_a_glob_is_written_out_as_bash_writes_it(tree: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    for pattern in ("a/*.png", "**/*.png", "./*/*.png", "a/../*.png"):
        listed = subprocess.run(
            [bash, "-c", f"shopt -s globstar; printf '%s\\n' {pattern}"], capture_output=True, check=True
        )
        assert sorted(find(pattern)) == sorted(listed.stdout.decode().split())


def test_two_stars_at_the_end_are_all_files_below(tree: Path) -> None:
    files = {path for path in glob.glob("a/**", recursive=True) if os.path.isfile(path)}
    assert set(find("a/**")) == files
    assert len(find("a/**")) == len(files)


def test_a_list_is_taken_line_by_line_unchecked_and_unexpanded(tree: Path) -> None:
    listed = b"b.png\r\n\nmissing.png\na\n*.png\n with space \nlast"
    assert find("-", stdin=listed) == ["b.png", "missing.png", "a", "*.png", " with space ", "last"]
    assert find("b.png", "-", "a.JPG", stdin=b"x\n") == ["b.png", "x", "a.JPG"]


def test_a_list_is_not_read_ahead() -> None:
    def lines() -> Iterator[bytes]:
        yield b"first\n"
        raise AssertionError("read ahead")

    assert next(sources.find(["-"], lines())) == "first"


def test_names_that_are_not_text_survive(tree: Path) -> None:
    names = [b"caf\xe9.png", "写真 1.png".encode(), b"tab\there.png", b"line\nfeed.png", b"\xff\xfe.png"]
    (tree / "names").mkdir()
    try:
        for name in names:
            with open(os.path.join(b"names", name), "wb"):
                pass
    except OSError:
        pytest.skip("this file system holds text names only")
    for pattern in ("names", "names/*.png", "**/names/*"):
        assert {os.fsencode(path) for path in find(pattern)} == {b"names/" + name for name in names}
    assert find("-", stdin=b"names/caf\xe9.png\n") == [os.fsdecode(b"names/caf\xe9.png")]


@pytest.mark.parametrize("path", ["*.gif", "missing/**/*.png", "", "a/b[1"])
def test_a_glob_that_matches_nothing_is_refused(tree: Path, path: str) -> None:
    with pytest.raises(sources.PathNotFound) as caught:
        find("b.png", path)
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, FileNotFoundError)
    assert "\n" not in str(caught.value)


def test_a_folder_without_images_is_refused(tree: Path) -> None:
    (tree / "empty").mkdir()
    (tree / "hidden").mkdir()
    (tree / "hidden" / ".hidden.png").touch()
    for folder in ("c", "empty", "hidden"):
        with pytest.raises(sources.ImagesMissing, match=folder):
            find("a", folder)


def test_links_are_followed_and_their_loops_end(tree: Path) -> None:
    for name in ("one", "two"):
        (tree / "a" / name).symlink_to(tree / "a", target_is_directory=True)
        (tree / "a" / "deep" / name).symlink_to(tree, target_is_directory=True)
    (tree / "itself.png").symlink_to("itself.png")
    (tree / "broken.png").symlink_to("nowhere.png")
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere" / "e.png").touch()
    (tree / "link").symlink_to("elsewhere", target_is_directory=True)
    found = find(".")
    assert sorted(os.path.basename(path) for path in found) == sorted(
        [
            *("a.JPG", "b.png", "broken.png", "itself.png", "z[1].png", "zoo.webp"),
            *("10.png", "2.png", "w.png", "v.png", "x.tif", "e.png"),
        ]
    )
    assert len(find("**/*.png")) == len({os.path.realpath(path) for path in find("**/*.png")})
    assert "link/e.png" in find("link/*.png")


def test_a_folder_that_cannot_be_listed_is_an_input_that_fails(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def locked(path: str) -> object:  # permissions do not bind the superuser, who may run this test
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert find("a") == ["a/10.png", "a/2.png", "a/deep/."]


def test_a_name_that_is_gone_costs_itself_alone(tree: Path) -> None:
    (tree / "dangling.png").symlink_to("nowhere")
    (tree / "dangling[1].png").symlink_to("nowhere")
    for gone in ("missing.png", "no/such/folder", "dangling.png", "dangling[1].png"):
        assert find("b.png", gone, "a.JPG") == ["b.png", gone, "a.JPG"]
    with pytest.raises(sources.PathNotFound, match=r"missing\.png"):
        find("missing.png", "no/such/folder")
    assert find("dangling.png") == ["dangling.png"]


def test_folders_within_folders_are_walked_however_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1_500):
        os.mkdir("d")
        os.chdir("d")
    Path("deep.png").touch()
    os.chdir(tmp_path)
    Path("top.png").touch()
    deep = "d/" * 1_500 + "deep.png"
    assert find(".") == ["./top.png", f"./{deep}"]
    assert find("**/*.png") == ["top.png", deep]
    for _ in range(1_500):  # beyond what the system takes for a path
        os.chdir("d")
    for _ in range(1_000):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(tmp_path)
    paths = find(".")
    assert paths[:2] == ["./top.png", f"./{deep}"]
    assert len(paths) == 3 and paths[2].endswith("/d/.")
    for _ in range(2_500):
        os.chdir("d")
    for _ in range(2_500):  # pytest removes recursively
        os.chdir("..")
        for name in os.listdir("d"):
            os.unlink(f"d/{name}")
        os.rmdir("d")


def test_a_folder_that_vanishes_in_the_walk_is_an_input_that_fails(tree: Path) -> None:
    found = sources.find(["."], [])
    paths = [next(found)]
    shutil.rmtree(tree / "a" / "deep")
    (tree / "a" / "deep").touch()
    shutil.rmtree(tree / "a")
    paths += found
    assert paths[-1] == "./a/."


def test_a_line_of_a_list_is_bounded(tmp_path: Path) -> None:
    with open(tmp_path / "list", "w+b") as file:
        file.write(b"a.png\n" + b"x" * 200_000 + b"\nb.png\n" + b"y" * 2**16 + b"\nc.png")
        file.seek(0)
        lines = [line.rstrip(b"\n") for line in sources.lines_of(file)]
    assert lines == [b"a.png", b"x" * 2**16, b"b.png", b"y" * 2**16, b"c.png"]


NAMES = ["word.png", "a b.png", "字 ünï.png"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ended", [True, False])
def test_lists_as_programs_write_them(encoding: str, end: str, ended: bool) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    data = (mark + end.join(NAMES) + end * ended).encode(encoding)
    assert find("-", stdin=data) == NAMES


def test_a_list_parted_by_nuls_as_find_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = sorted([*NAMES, "two\nlines.png", " blank ", '"quoted".png'])
    for name in names:
        Path(name).touch()
    listed = subprocess.run(["find", ".", "-type", "f", "-print0"], stdout=subprocess.PIPE, check=True).stdout
    assert sorted(find("-", stdin=listed)) == [f"./{name}" for name in names]
    many = [f"{at:06}.png" for at in range(30_000)]
    assert find("-", stdin="\0".join(many).encode()) == many


def test_blanks_quotes_and_tildes_in_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are part of a name where a file is called so, and else what a shell takes them for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a b.png", " odd ", '"it"', "~x"):
        Path(name).touch()
    lines = {
        "a b.png": "a b.png",
        '"a b.png"': "a b.png",
        "'a b.png'": "a b.png",
        "a b.png  ": "a b.png",
        "\ta b.png": "a b.png",
        "\ufeffa b.png": "a b.png",
        '  "a b.png" ': "a b.png",
        "~/a b.png": str(tmp_path / "a b.png"),
        '"~/a b.png"': str(tmp_path / "a b.png"),
        " odd ": " odd ",
        '"it"': '"it"',
        "~x": "~x",
        '"none.png"': '"none.png"',
        " none.png ": " none.png ",
        "~/none.png": "~/none.png",
        '"': '"',
        " ": " ",
    }
    assert find("-", stdin="\n".join(lines).encode()) == list(lines.values())


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))))
def test_a_list_of_any_names_gives_them_back(names: list[str]) -> None:
    names = [f"x{name}.png" for name in names]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert find("-", stdin="".join(f"{name}\n" for name in names).encode(encoding)) == names
