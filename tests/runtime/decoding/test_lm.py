"""Character models: trained ones against Witten and Bell's formula, files against KenLM."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.runtime.decoding.lm import (
    CharacterModel,
    KenlmModel,
    LanguageModelInvalid,
    open_language_model,
    train,
)
from crnn_deploy.runtime.decoding.scoring import Scorer

corpora = st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=5)


def witten_bell(corpus: list[str], history: str, char: str, order: int) -> float:
    """Probability of a character by the recursive formula (Chen and Goodman 1998, section 2.5)."""
    texts = [f"^{text}$" for text in corpus]
    if order == 0:
        return 1 / (len(set("".join(texts)) - {"^"}) + 1)  # every character that was seen, and any other
    history = history[len(history) - order + 1 :] if order > 1 else ""
    grams = [text[i : i + order] for text in texts for i in range(len(text) - order + 1)]
    after = [gram[-1] for gram in grams if gram[:-1] == history and gram != "^"]
    lower = witten_bell(corpus, history[1:], char, min(order - 1, len(history)))
    if not after:
        return lower
    return (after.count(char) + len(set(after)) * lower) / (len(after) + len(set(after)))


def weights(model: Scorer, text: str) -> list[float]:
    """Of each character and of the end."""
    state, found = model.start(), []
    for char in text:
        state, weight = model.step(state, char)
        found.append(weight)
    return [*found, model.end(state)]


@settings(deadline=None)
@given(corpora, st.text("abcx ", max_size=8), st.integers(1, 4))
def test_a_trained_model_is_witten_and_bells(corpus: list[str], text: str, order: int) -> None:
    expected = []
    for at, char in enumerate(text + "$"):
        history = ("^" + text)[: at + 1][-(order - 1) :] if order > 1 else ""
        expected.append(math.log(witten_bell(corpus, history, char, len(history) + 1)))
    assert weights(train(corpus, order), text) == pytest.approx(expected, abs=1e-6)


@given(corpora, st.text("abc ", max_size=5), st.integers(1, 4))
def test_what_may_follow_adds_up_to_one(corpus: list[str], text: str, order: int) -> None:
    model = train(corpus, order)
    state = model.start()
    for char in text:
        state, _ = model.step(state, char)
    chars = {*"".join(corpus), "\U0010ffff"}
    total = sum(math.exp(model.step(state, char)[1]) for char in chars) + math.exp(model.end(state))
    assert total == pytest.approx(1)


@given(corpora, st.text("abc ", max_size=6), st.integers(1, 4))
def test_a_state_is_all_that_matters(corpus: list[str], text: str, order: int) -> None:
    model = train(corpus, order)
    by_state: dict[object, list[float]] = {}
    for start in range(len(text) + 1):
        state = model.start()
        for char in text[start:]:
            state, _ = model.step(state, char)
        ahead = [model.step(state, char)[1] for char in "abc "] + [model.end(state)]
        assert by_state.setdefault(state, ahead) == ahead


@settings(deadline=None, max_examples=25)
@given(corpora, st.text("abcx ", max_size=8), st.integers(1, 5))
def test_files_are_read_as_they_were_written(corpus: list[str], text: str, order: int) -> None:
    model = train(corpus, order)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.arpa"
        with path.open("w", encoding="utf-8") as file:
            model.write(file)
        read = open_language_model(path)
    assert isinstance(read, CharacterModel) and read.order == model.order
    assert weights(read, text) == pytest.approx(weights(model, text), abs=1e-4)


CORPUS = ["the cat sat on the mat", "a dog ate the cat's food", "thé à la carte"]


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "model.arpa"
    with path.open("w", encoding="utf-8") as file:
        train(CORPUS, 4).write(file)
    return path


@pytest.mark.parametrize("text", ["the cat", "a dog sat", "xyz the", "thé", ""])
def test_kenlm_scores_our_file_alike(arpa: Path, text: str) -> None:
    kenlm = pytest.importorskip("kenlm")
    marked = " ".join("<space>" if char == " " else char for char in text)
    settings = kenlm.Config()
    settings.show_progress = False
    score = kenlm.Model(str(arpa), settings).score(marked, bos=True, eos=True) * math.log(10)
    for model in (open_language_model(arpa), KenlmModel(arpa)):
        assert sum(weights(model, text)) == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("kind", [["probing"], ["trie"], ["-q", "8", "-b", "8", "trie"]])
def test_kenlms_binary_files_are_read(arpa: Path, tmp_path: Path, kind: list[str]) -> None:
    """Of KenLM's `build_binary`, which its Python package brings as source alone."""
    pytest.importorskip("kenlm")
    if (build_binary := shutil.which("build_binary")) is None:
        pytest.skip("KenLM's build_binary is not on the PATH")
    path = tmp_path / "model.bin"
    subprocess.run([build_binary, *kind, str(arpa), str(path)], check=True, capture_output=True)
    model, same = open_language_model(path), open_language_model(arpa)
    assert isinstance(model, KenlmModel)
    exact = "-q" not in kind  # -q rounds the probabilities
    for text in ("the cat", "a dog sat", "xyz the", "thé", ""):
        expected = pytest.approx(weights(same, text), abs=1e-4 if exact else 0.3)
        assert weights(model, text) == expected


def test_kenlms_states_are_equal_where_they_are_alike(arpa: Path) -> None:
    pytest.importorskip("kenlm")
    model = KenlmModel(arpa)
    states = {}
    for text in ("the cat", "a the cat", "the rat", "xyz", "a xyz"):
        state = model.start()
        for char in text:
            state, _ = model.step(state, char)
        states[text] = state
    assert states["the cat"] == states["a the cat"] and len(set(states.values())) == 3
    assert hash(states["xyz"]) == hash(states["a xyz"])


def arpa_of(grams: str, told: int = 1, head: str = "", order: str = "1") -> bytes:
    """An ARPA file of one order."""
    return f"\\data\\\n{head or f'ngram 1={told}'}\n\n\\{order}-grams:\n{grams}\n\\end\\\n".encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "whole ARPA"),
        (arpa_of("-1\ta")[:-6], "whole ARPA"),
        (arpa_of("-1\ta\n-1\tb", told=3), "fewer 1-grams than its head says, 3"),
        (arpa_of("-1\ta\n-1\tb", told=1), "line 6: more 1-grams than its head says, 1"),
        (arpa_of("-1\ta\n-1\ta", told=2), "line 6: 'a' stands there twice"),
        (arpa_of("x\ta"), "no numbers"),
        (arpa_of("-1\ta b c"), "no 1-gram"),
        (arpa_of("-1\tparis\n-1\tlondon", told=2), "over words such as 'paris'"),
        *((arpa_of(f"{weight}\ta"), "no log10") for weight in ("nan", "-inf", "0.5", "-1e999", "9" * 5000)),
        *((arpa_of(f"-1\ta\t{weight}"), "no log10") for weight in ("nan", "inf", "-inf", "9" * 5000)),
        (arpa_of("-1\ta", head="ngram 2=1"), "line 2: 'ngram 2=1' is not the count of order 1"),
        (arpa_of("-1\ta", head="ngram 1=" + "9" * 5000), "is not the count of order 1"),
        (arpa_of("-1\ta", head="ngram 1=999999999999"), "more than 16,777,216; make a binary file"),
        (arpa_of("-1\ta", head="ngram 1=1\nngram 2=1"), "where .2-grams: should"),
        (arpa_of("-1\ta", order="99999999999"), "where .1-grams: should"),
        (arpa_of("-1\t" + "a" * 2**16), "line 5 is longer than"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_files_that_are_no_character_model(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "broken.arpa"
    path.write_bytes(content)
    with pytest.raises(LanguageModelInvalid, match=says):
        open_language_model(path)


def test_models_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelInvalid, match="no such file"):
        open_language_model(tmp_path / "absent.arpa")
    with pytest.raises(LanguageModelInvalid, match="empty"):
        train(["", "\n"])
    with pytest.raises(ValueError, match="order 0"):
        train(["a"], 0)


def test_kenlm_says_which_file_it_cannot_read(tmp_path: Path) -> None:
    pytest.importorskip("kenlm")
    path = tmp_path / "broken.bin"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(LanguageModelInvalid, match=r"broken\.bin: KenLM cannot read it"):
        open_language_model(path)


def test_a_model_finds_its_own_texts_likelier() -> None:
    model = train(CORPUS, 4)
    own = sum(weights(model, "the cat ate the food"))
    assert all(own > sum(weights(model, other)) for other in ("tac eht eta doof eht", "zzzzz"))
    assert all(one < 0 for one, _ in pairwise(weights(model, "the cat")))


# KenLM runs in a process of its own; here is one that does what a damaged file makes it do

KENLM = """
import os, time
class State:
    words = ()
    def __eq__(self, other): return self.words == other.words
class Config: pass
class ARPALoadComplain: NONE = 0
class Model:
    order = 2
    def __init__(self, path, settings):
        self.does = open(path).read().split()
        if self.does[0] == "load": self.fall()
    def fall(self):
        what = self.does[1]
        if what == "abort": os.abort()
        if what == "raise": raise OSError("no model\\nat all")
        if what == "exit": os._exit(3)
        if what == "hang": time.sleep(1000)
        if what == "memory": self.much = bytearray(2**40)
        if what == "print": print("noise")
        if what == "nan": return float("nan")
        return -1.0
    def BeginSentenceWrite(self, state): state.words = ("<s>",)
    def NullContextWrite(self, state): state.words = ()
    def BaseScore(self, state, word, after):
        after.words = (word,)
        return self.fall() if self.does[0] == word else -0.5
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kenlm.py").write_text(KENLM)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "kenlm", raising=False)
    return tmp_path / "model.bin"


@pytest.mark.parametrize("when", ["load", "x"])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("abort", r"model\.bin: KenLM was ended by signal 6 .* build it again"),
        ("exit", r"model\.bin: KenLM ended with code 3 .* build it again"),
        ("memory", r"KenLM cannot read it|KenLM ended with code 1"),
    ],
)
def test_a_kenlm_that_ends_is_one_line(stand_in: Path, when: str, what: str, says: str) -> None:
    stand_in.write_text(f"{when} {what}")
    with pytest.raises(LanguageModelInvalid, match=says):
        open_language_model(stand_in).step(open_language_model(stand_in).start(), "x")


def test_a_kenlm_that_answers_nonsense_is_one_line(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.write_text("load raise")
    with pytest.raises(LanguageModelInvalid, match="KenLM cannot read it: no model at all"):
        open_language_model(stand_in)
    stand_in.write_text("x nan")
    model = open_language_model(stand_in)
    assert model.step(model.start(), "a")[1] == -0.5 * math.log(10)
    with pytest.raises(LanguageModelInvalid, match="damaged"):
        model.step(model.start(), "x")
    monkeypatch.setattr("crnn_deploy.runtime.decoding.kenlm_process._SECONDS", 1)
    stand_in.write_text("x hang")
    with pytest.raises(LanguageModelInvalid, match="gives no answer within 1 seconds"):
        open_language_model(stand_in).step(model.start(), "x")


def test_a_kenlm_may_print_and_ends_with_its_model(stand_in: Path) -> None:
    stand_in.write_text("x print")
    model = open_language_model(stand_in)
    assert isinstance(model, KenlmModel)
    states, found = model.start(), []
    for char in "axb ":
        states, weight = model.step(states, char)
        found.append(weight / math.log(10))
    assert found == pytest.approx([-0.5, -1.0, -0.5, -0.5])
    process = model._process._process
    del model
    assert process.wait(30) is not None


def test_only_regular_files_are_language_models(tmp_path: Path, stand_in: Path) -> None:
    for name in ("pipe.arpa", "pipe.bin"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(LanguageModelInvalid, match="not a regular file"):
            open_language_model(tmp_path / name)
