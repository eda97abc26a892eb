"""Alphabet files as people have them: tokens by the numbers of their classes, or a refusal."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crnn_deploy.recipes.alphabets import AlphabetInvalid, check_distinct, read_alphabet, read_table

LETTERS = "QWERTZUIOP"
PAIRS = "".join(f"{c} {i + 1}\n" for i, c in enumerate(LETTERS))


def written(content: str | bytes, folder: Path, name: str = "alphabet.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";", ":", "=", "  ", ", ", ": ", " = "])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_pairs_give_the_classes_by_their_numbers(
    separator: str, turned: bool, first: int, tmp_path: Path
) -> None:
    pairs = [(c, str(i + first)) for i, c in enumerate(LETTERS)]
    lines = [separator.join(pair[::-1] if turned else pair) for pair in reversed(pairs)]
    found = read_table(written("\n".join(lines), tmp_path))
    assert "".join(found.tokens) == LETTERS and found.left_out == (0 if first else len(LETTERS))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PAIRS.replace("\n", "\r\n"), LETTERS),
        (b"\xef\xbb\xbf" + PAIRS.encode(), LETTERS),
        ("char index\n" + PAIRS, LETTERS),
        ("character,index\n" + PAIRS.replace(" ", ","), LETTERS),
        ('"Q",1\n",",2\n"""",3\n', 'Q,"'),
        ("  1\na 2\n", " a"),  # a space has the class 1
        ("1 0\n2 1\n3 2\n10 9\n4 3\n5 4\n6 5\n7 6\n8 7\n9 8\n", string.digits),
        ("1 2\n2 1\n3 3\n", None),
        ("".join(f"{i} {i + 1}\n" for i in range(10)), string.digits),
        ("".join(f"{i + 1} {i}\n" for i in range(10)), string.digits),
        ("Q 0\nW 1\nE 3\n", "QWE"),
    ],
)
def test_pairs_of_every_kind(content: str | bytes, expected: str | None, tmp_path: Path) -> None:
    path = written(content, tmp_path)
    if expected is None:  # either column may be the classes
        with pytest.raises(AlphabetInvalid):
            read_alphabet(path)
    else:
        assert "".join(read_alphabet(path)) == expected


def test_a_number_that_is_left_out_is_the_blanks(tmp_path: Path) -> None:
    assert read_table(written("Q 0\nW 1\nE 3\n", tmp_path)).left_out == 2
    assert read_table(written(LETTERS, tmp_path)).left_out is None


FORMS: dict[str, tuple[str, str]] = {
    "list.json": (json.dumps(list(LETTERS)), LETTERS),
    "text.json": (json.dumps(LETTERS), LETTERS),
    "to.json": (json.dumps({c: i for i, c in enumerate(LETTERS)}), LETTERS),
    "from.json": (json.dumps({i + 1: c for i, c in enumerate(LETTERS)}, indent=1), LETTERS),
    "named.json": (json.dumps({"version": 2, "idx2char": {i: c for i, c in enumerate(LETTERS)}}), LETTERS),
    "pairs.json": (json.dumps([[c, i + 1] for i, c in enumerate(LETTERS)]), LETTERS),
    "json.txt": (json.dumps(list("aß京")), "aß京"),
    "list.yaml": ("".join(f"- {c}\n" for c in "yn01"), "yn01"),
    "to.yml": ("".join(f"{c}: {i + 1}\n" for i, c in enumerate(LETTERS)), LETTERS),
    "named.yaml": (f"network: crnn\ncharacter_list: '{LETTERS}'\n", LETTERS),
    "alphabets.py": (f'# of the project\nalphabet = """{LETTERS}"""\n', LETTERS),
    "keys.py": (f"import os\n\nkeys = {list(LETTERS)!r}\nos.abort()\n", LETTERS),
    "dict.txt": (f"char_to_int = {dict(zip(LETTERS, range(1, 11), strict=True))}", LETTERS),
    "brackets.txt": ("[]{}()", "[]{}()"),
    "more.txt": ('["a]', '["a]'),
    "words.txt": ("abc='x'[", "abc='x'["),
    "paddle.txt": ("'\n疗\n绚\n \n", "'疗绚 "),
    "twice.txt": ("a\nb\na\n", "aba"),
    "mac.txt": ("a\rb\rc", "abc"),
}


@pytest.mark.parametrize("name", FORMS)
def test_files_of_other_forms(name: str, tmp_path: Path) -> None:
    content, expected = FORMS[name]
    assert "".join(read_alphabet(written(content, tmp_path, name))) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(encoding: str, tmp_path: Path) -> None:
    for content in ("aß京", "a\nß\n京\n", "a\r\nß\r\n京\r\n", "a 1\nß 2\n京 3\n"):
        assert read_alphabet(written(content.encode(encoding), tmp_path)) == ("a", "ß", "京")
    marked = "\ufeffaß京".encode("utf-16-be")
    assert read_alphabet(written(marked, tmp_path)) == ("a", "ß", "京")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", "ab".encode("utf-16-le"), ("UTF-16", "UTF-8")),
        ("x.txt", b"\xff\xfea", ("UTF-16",)),
        (
            "x.txt",
            "".join(f"{c} {n}\n" for c, n in (("e", 1200), ("t", 900), ("a", 30))),
            ("number", "one on each"),
        ),
        ("x.txt", "a 1\nb 2\nc 2\n", ("class 2", "'b'", "'c'")),
        ("x.txt", "a 1\nb 2\n3\nd 4\n", ("line 3",)),
        ("x.txt", "- a\n- b\n", ("YAML", ".yaml")),
        ("x.json", "[1, 2]", ("JSON", "one character on each line")),
        ("x.json", "['a']", ("JSON",)),
        ("x.json", '{"charset": "ab", "letters": "cd"}', ("JSON", "2 tables")),
        ("x.yaml", "a: [", ("YAML",)),
        ("x.py", "alphabet = open('x').read()", ("Python", "one character on each line")),
    ],
)
def test_what_cannot_be_read_names_its_format(
    name: str, content: str | bytes, words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(AlphabetInvalid) as caught:
        read_alphabet(written(content, tmp_path, name))
    said = str(caught.value)
    assert all(word in said for word in words) and "\n" not in said, said


def test_an_alphabet_to_be_trained_has_each_token_once() -> None:
    with pytest.raises(AlphabetInvalid, match="'b' stands twice, as character 2 and 4"):
        check_distinct(("a", "b", "c", "b"), "x")


TOKENS = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=1),
    min_size=3,
    max_size=40,
    unique=True,
)


@given(TOKENS, st.sampled_from(["\t", " "]))
def test_pairs_and_lines_of_any_characters_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[str], separator: str
) -> None:
    assume(
        not set(tokens) <= set(string.digits)
    )  # digits beside digits, of which nothing tells which are which
    folder = tmp_path_factory.getbasetemp()
    lines = read_alphabet(written("\n".join(tokens) + "\n", folder, "lines.txt"))
    pairs = "".join(f"{token}{separator}{at + 1}\n" for at, token in enumerate(tokens))
    assert lines == tuple(tokens)
    assert read_alphabet(written(pairs, folder, "pairs.txt")) == tuple(tokens)
