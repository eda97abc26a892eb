"""Alphabets in checkpoints, in the forms that people keep them in, against the classes that are meant."""

from __future__ import annotations

import argparse
import json
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crnn_deploy.export.reference import open_reference
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.alphabets import AlphabetInvalid
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.recipes.settings import CheckpointSettings

LETTERS = "QWERTZUIOP"  # of no recipe, in no order of code points
FIRST, LAST = ["", *LETTERS], [*LETTERS, ""]  # the token of each class, the blank's being empty
FED = CheckpointSettings(recipe="crnn.pytorch", activation="relu")


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    torch.manual_seed(0)
    return CRNN(32, 1, 11, 4, widths=(2, 2, 2, 2, 2, 2, 2)).state_dict()


def told(content: Any, path: Path, settings: CheckpointSettings = FED) -> tuple[list[str], str]:
    """The token of each class of a checkpoint, and where they come from."""
    torch.save(content, path)
    manifest = open_reference(path, settings).manifest
    tokens = list(manifest.alphabet)
    tokens.insert(manifest.blank, "")
    return tokens, manifest.source["alphabet"]


FORMS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "a text": ({"alphabet": LETTERS}, FIRST, "alphabet"),
    "a list": ({"classes": list(LETTERS)}, FIRST, "classes"),
    "a tuple": ({"vocab": tuple(LETTERS)}, FIRST, "vocab"),
    "a deque": ({"charset": deque(LETTERS)}, FIRST, "charset"),
    "NumPy's words": ({"characters": np.array(list(LETTERS))}, FIRST, "characters"),
    "NumPy's objects": ({"chars": np.array(list(LETTERS), object)}, FIRST, "chars"),
    "lines": ({"letters": "\n".join(LETTERS) + "\n"}, FIRST, "letters"),
    "JSON": ({"vocab": json.dumps(list(LETTERS))}, FIRST, "vocab"),
    "to classes": ({"char2idx": {c: i + 1 for i, c in enumerate(LETTERS)}}, FIRST, "char2idx"),
    "from classes": ({"idx2char": {i + 1: c for i, c in enumerate(LETTERS)}}, FIRST, "idx2char"),
    "in another order": (
        {"stoi": OrderedDict((c, i + 1) for i, c in reversed(list(enumerate(LETTERS))))},
        FIRST,
        "stoi",
    ),
    "digits as words": (
        {"int_to_char": {str(i + 1): c for i, c in enumerate(LETTERS)}},
        FIRST,
        "int_to_char",
    ),
    "NumPy's numbers": ({"ctoi": {c: np.int64(i + 1) for i, c in enumerate(LETTERS)}}, FIRST, "ctoi"),
    "a defaultdict": (
        {"char_to_index": defaultdict(int, {c: i + 1 for i, c in enumerate(LETTERS)})},
        FIRST,
        "char_to_index",
    ),
    "with its blank": ({"idx2char": {0: "[blank]", **{i + 1: c for i, c in enumerate(LETTERS)}}}, FIRST, ""),
    "blank first": ({"alphabet": "-" + LETTERS}, FIRST, "alphabet, where '-' is the blank"),
    "blank last": ({"alphabet": LETTERS + "_"}, LAST, "alphabet, where '_' is the blank"),
    "a word for it": ({"characters": ["<blank>", *LETTERS]}, FIRST, ""),
    "EasyOCR's word": ({"character": ["[blank]", *LETTERS]}, FIRST, ""),
    "clovaai's word": ({"character": [*LETTERS, "[CTCblank]"]}, LAST, ""),
    "in the middle": ({"vocab": [*"QWERTZUIO", "<PAD>", "P"]}, [*"QWERTZUIO", "", "P"], ""),
    "a class left out": (
        {"label2char": {i + (i > 3): c for i, c in enumerate(LETTERS)}},
        [*"QWER", "", *"TZUIOP"],
        "",
    ),
    "options": ({"opt": argparse.Namespace(character=LETTERS, imgH=32)}, FIRST, "opt.character"),
    "options in options": (
        {"hyper_parameters": {"cfg": argparse.Namespace(data={"ALPHABETS": LETTERS})}},
        FIRST,
        "hyper_parameters.cfg.data.ALPHABETS",
    ),
    "a converter": (
        {"converter": {"dict": {c: i + 1 for i, c in enumerate(LETTERS)}}},
        FIRST,
        "converter.dict",
    ),
    "in a list": ({"stages": [{"name": "ctc", "alphabet": LETTERS}]}, FIRST, "stages.0.alphabet"),
    "two that agree": ({"chars": LETTERS, "idx2char": {i + 1: c for i, c in enumerate(LETTERS)}}, FIRST, ""),
    "beside others": (
        {
            "classes": ["text", "background"],
            "vocab": {"the": 0, "of": 1},
            "labels": ["a.png"],
            "alphabet": LETTERS,
        },
        FIRST,
        "alphabet",
    ),
    "any name": ({"my_signs": {c: i + 1 for i, c in enumerate(LETTERS)}}, FIRST, "my_signs"),
    "with commas": ({"alphabet": ",".join(LETTERS)}, FIRST, "alphabet"),
    "bytes": ({"alphabet": LETTERS.encode()}, FIRST, "alphabet"),
    "nothing for the blank": ({"itos": [None, *LETTERS]}, FIRST, "itos"),
    "lists of one": ({"classes": [[c] for c in LETTERS]}, FIRST, "classes"),
    "the blank beside it": (
        {"charset": LETTERS, "config": {"blank_idx": 10}},
        LAST,
        "its blank_idx the blank",
    ),
    "the blank beside numbers": (
        {"char2idx": {c: i for i, c in enumerate(LETTERS)}, "blank": -1},
        LAST,
        "its blank the blank",
    ),
    "an encoding beside it": ({"charset": "utf-8", "letters": LETTERS}, FIRST, "letters"),
    "numbers in tensors": (
        {"char2idx": {c: torch.tensor(i + 1) for i, c in enumerate(LETTERS)}},
        FIRST,
        "char2idx",
    ),
    "settings in YAML": (
        {"config": f"# of the run\nmodel:\n  height: 32\n  alphabet: '{LETTERS}'\n"},
        FIRST,
        "config.model.alphabet",
    ),
    "the end of its line": ({"alphabet": LETTERS + "\n"}, FIRST, "alphabet"),
    "the end of a line within": ({"alphabet": "QWERTZUI\n\t"}, ["", *"QWERTZUI\n\t"], "alphabet"),
    "meijieru's converter": (
        {"converter": {"alphabet": LETTERS + "-", "dict": {c: i + 1 for i, c in enumerate(LETTERS)}}},
        FIRST,
        "converter.dict",
    ),
    "a repeated character": ({"alphabet": "QWERTZUIOO"}, ["", *"QWERTZUIOO"], "alphabet"),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_alphabet_is_found_in_every_form(form: str, weights: dict[str, Any], tmp_path: Path) -> None:
    extra, expected, where = FORMS[form]
    tokens, source = told({"state_dict": weights, "epoch": 3, **extra}, tmp_path / "x.pth")
    assert tokens == expected
    assert source.startswith("the checkpoint's ") and where in source


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "two that differ": ({"alphabet": LETTERS, "chars": "POIUZTREWQ"}, ("alphabet", "chars", "differ")),
    "too few": ({"alphabet": "abc"}, ("alphabet", "3 characters", "11 classes")),
    "too many": (
        {"idx2char": dict(enumerate("abcdefghijklmnop"))},
        ("idx2char", "16 characters", "11 classes"),
    ),
    "no order": ({"charset": set(LETTERS)}, ("charset", "a set")),
    "how often each stands": ({"chars": Counter(LETTERS * 30)}, ("chars",)),
    "two for one class": (
        {"char2idx": {**dict.fromkeys("aA", 1), "b": 2}},
        ("char2idx", "class 1", "'a'", "'A'"),
    ),
    "another file": (
        {"opt": {"charset": "data/chars.txt"}},
        ("opt.charset", "names the file data/chars.txt"),
    ),
    "a file, by its name": (
        {"character_dict_path": "en_dict"},
        ("character_dict_path", "names the file en_dict"),
    ),
    "numbers of characters": ({"alphabet": [ord(c) for c in LETTERS]}, ("alphabet", "not understood")),
    "the blank twice": ({"alphabet": "-" + LETTERS, "blank": 10}, ("class 0", "blank says class 10")),
    "no blank in sight": ({"characters": [*LETTERS, "x"]}, ("characters", "nothing tells which")),
    "a blank too much": (
        {"vocab": ["<blank>", *LETTERS[:-1]], "chars": ["<blank>", *LETTERS[:-1]]},
        ("<blank>",),
    ),
    "counted from 0": (
        {"char2idx": {c: i for i, c in enumerate(LETTERS)}},
        ("char2idx", "from 0", "--blank"),
    ),
}


@pytest.mark.parametrize("form", WRONG)
def test_an_alphabet_that_cannot_be_right_is_asked_for(
    form: str, weights: dict[str, Any], tmp_path: Path
) -> None:
    extra, words = WRONG[form]
    with pytest.raises(AlphabetInvalid) as caught:
        told({"state_dict": weights, **extra}, tmp_path / "x.pth")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value) and "--" in str(caught.value)
    given = CheckpointSettings(recipe="crnn.pytorch", activation="relu", alphabet=tuple(LETTERS))
    assert told({"state_dict": weights, **extra}, tmp_path / "x.pth", given) == (FIRST, "as given")


@pytest.mark.parametrize(("blank", "expected"), [("first", FIRST), ("last", LAST)])
def test_numbers_from_0_are_read_as_the_user_says(
    blank: Any, expected: list[str], weights: dict[str, Any], tmp_path: Path
) -> None:
    settings = CheckpointSettings(recipe="crnn.pytorch", activation="relu", blank=blank)
    content = {"state_dict": weights, "char2idx": {c: i for i, c in enumerate(LETTERS)}}
    assert told(content, tmp_path / "x.pth", settings)[0] == expected


def test_a_recipe_with_the_blank_last_reads_numbers_from_0(tmp_path: Path) -> None:
    """mmocr's, whose dictionary counts characters from 0 and has the blank behind them."""
    from crnn_deploy.networks.mmocr import MmocrCRNN

    state = MmocrCRNN(32, 1, 11, 4, widths=(2, 2, 2, 2, 2, 2, 2)).state_dict()
    settings = CheckpointSettings(recipe="mmocr", activation="relu")
    content = {"state_dict": state, "char2idx": {c: i for i, c in enumerate(LETTERS)}}
    assert told(content, tmp_path / "x.pth", settings)[0] == LAST


def test_without_an_alphabet_the_recipes_is_assumed(tmp_path: Path) -> None:
    state = CRNN(32, 1, 37, 4, widths=(2, 2, 2, 2, 2, 2, 2)).state_dict()
    tokens, source = told({"state_dict": state, "classes": 37, "charset": None}, tmp_path / "x.pth")
    assert tuple(tokens[1:]) == RECIPES["crnn.pytorch"].alphabet and "assumed" in source


def test_a_given_alphabet_may_hold_the_blank(weights: dict[str, Any], tmp_path: Path) -> None:
    for alphabet, expected in (("-" + LETTERS, FIRST), (LETTERS + "-", LAST)):
        given = CheckpointSettings(recipe="crnn.pytorch", activation="relu", alphabet=tuple(alphabet))
        assert told(weights, tmp_path / "x.pth", given)[0] == expected


def test_safetensors_keep_it_in_their_metadata(weights: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(weights, path, metadata={"alphabet": LETTERS})
    assert "".join(open_reference(path, FED).manifest.alphabet) == LETTERS
    save_file(weights, path, metadata={"idx2char": json.dumps({i + 1: c for i, c in enumerate(LETTERS)})})
    assert "".join(open_reference(path, FED).manifest.alphabet) == LETTERS


def test_what_is_nested_without_end_ends(weights: dict[str, Any], tmp_path: Path) -> None:
    nested: dict[str, Any] = {}
    nested["config"] = nested
    wide = {f"c{i}": {f"d{j}": {"chars": 5} for j in range(40)} for i in range(60)}
    notes = {f"note{i}": "a:\n" + "  - [[[[[]]]]]\n" * 300 for i in range(300)}
    content = {"state_dict": weights, "config": nested, "args": wide, "alphabet": LETTERS, "notes": notes}
    assert told(content, tmp_path / "x.pth")[0] == FIRST
