"""What sentences, signs and receipts say: writable, as long as is said, of the words that they are given."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.synthesis.lexicon import LANGUAGES, Language, Vocabulary, is_held_out, read_vocabularies
from crnn_deploy.synthesis.phrases import phrases
from crnn_deploy.synthesis.texts import TextKind, TextsImpossible, TextSource

LATIN = tomllib.loads((Path(__file__).parents[2] / "training" / "latin.toml").read_text())["alphabet"]
ASCII = "".join(chr(code) for code in range(32, 127))
NEW: tuple[TextKind, ...] = ("sentence", "sign", "receipt")
SYLLABLES = ("ba", "ko", "ri", "tu", "ne", "sa", "lo", "mi", "du", "fe")


def zipfian(language: Language, count: int = 300) -> Vocabulary:
    """Invented words of two to five syllables, none held out, the first the most frequent."""
    rng = np.random.default_rng(LANGUAGES.index(language))
    words: dict[str, None] = {}
    while len(words) < count:
        word = "".join(rng.choice(SYLLABLES, rng.integers(1, 4)))
        if not is_held_out(word):
            words[word] = None
    shares = 1 / np.arange(1, count + 1)
    return Vocabulary(language, list(words), shares / shares.sum())


VOCABULARIES = [zipfian(language) for language in LANGUAGES]


def drawn(kind: TextKind, count: int = 400, alphabet: Sequence[str] = LATIN, seed: int = 0) -> list[str]:
    source = TextSource(alphabet, ["word", "apple", "don't"], {kind: 1.0}, VOCABULARIES)
    rng = np.random.default_rng(seed)
    return [source.sample(rng) for _ in range(count)]


@given(st.sampled_from(NEW), st.sampled_from([LATIN, ASCII]), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_texts_are_of_the_alphabet_have_single_spaces_and_come_again(
    kind: TextKind, alphabet: str, seed: int
) -> None:
    texts = drawn(kind, 20, alphabet, seed)
    assert all(text and set(text) <= set(alphabet) for text in texts)
    assert all(text == " ".join(text.split()) for text in texts)
    assert texts == drawn(kind, 20, alphabet, seed)


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_sentences_have_10_to_75_characters(seed: int) -> None:
    assert all(10 <= len(text) <= 75 for text in drawn("sentence", 30, LATIN, seed))


@pytest.mark.parametrize("alphabet", ["0123456789", "abcdefghijklmnopqrstuvwxyz"])
def test_sentences_need_letters_and_spaces(alphabet: str) -> None:
    with pytest.raises(TextsImpossible, match="'sentence'"):
        drawn("sentence", 1, alphabet)


def test_words_are_drawn_by_their_frequency() -> None:
    english = VOCABULARIES[0]
    source = TextSource(ASCII, ["word"], {"sentence": 1.0}, [english])
    rng = np.random.default_rng(0)
    counts = Counter(word for _ in range(2000) for word in re.findall("[a-z]+", source.sample(rng).lower()))
    found = np.array([counts[word] for word in english.words[:20]]) / sum(counts.values())
    assert np.allclose(found, english.shares[:20], rtol=0.25)  # abbreviations and names take a little
    # signs are flatter, and within one length keep the order
    source = TextSource(ASCII, ["word"], {"sign": 1.0}, [english])
    signs = Counter(source.sample(rng).lower() for _ in range(6000))
    four = [word for word in english.words if len(word) == 4]
    assert signs[four[0]] > signs[four[10]] > 0


def test_only_given_words_and_the_languages_own_marks_stand_in_sentences() -> None:
    french = TextSource(LATIN, ["word"], {"sentence": 1.0}, [VOCABULARIES[1]])
    rng = np.random.default_rng(3)
    lines = [french.sample(rng) for _ in range(600)]
    assert sum(" !" in line or " ?" in line or " ;" in line or " :" in line for line in lines) > 60
    assert any("« " in line and " »" in line for line in lines)
    english = TextSource(LATIN, ["word"], {"sentence": 1.0}, [VOCABULARIES[0]])
    lines = [english.sample(rng) for _ in range(600)]
    assert not any("«" in line for line in lines)
    assert sum(line.endswith("-") and line[-2].isalpha() for line in lines) > 30  # words broken at the end
    assert 0.02 < np.mean([line.isupper() for line in lines]) < 0.1


def test_every_language_is_drawn_as_often_as_is_said() -> None:
    """Told apart by words that one of them alone has."""
    ones = [Vocabulary(name, [2 * name + "k"], np.ones(1)) for name in LANGUAGES]
    source = TextSource(LATIN, ["word"], {"sentence": 1.0}, ones)
    rng = np.random.default_rng(0)
    counts = Counter(
        next((name for name in LANGUAGES if 2 * name + "k" in text.lower()), None)
        for text in (source.sample(rng) for _ in range(2000))
    )
    shares = [counts[name] / 2000 for name in LANGUAGES]
    assert np.allclose(shares, [0.4, 0.25, 0.2, 0.075, 0.075], atol=0.035)


def test_signs_are_as_long_as_those_of_real_scenes() -> None:
    texts = drawn("sign", 4000)
    single = [len(text) for text in texts if " " not in text]
    assert 3.5 < np.mean(single) < 7 and np.median(single) in (4, 5)
    assert 0.1 < np.mean([" " in text for text in texts]) < 0.25
    assert 0.4 < np.mean([text.isupper() for text in texts]) < 0.6
    assert 0.08 < np.mean([any(c.isdigit() for c in text) for text in texts]) < 0.25


def test_receipts_hold_amounts_totals_dates_and_rules() -> None:
    texts = drawn("receipt", 4000)
    assert 0.05 < np.mean([bool(re.fullmatch(r"\d+[.,]\d\d", text)) for text in texts]) < 0.3
    for pattern in (
        r"TOTAL", r"\d\d[/.-]\d\d[/.-]\d{2,4}", r"\d\d:\d\d", r"GST", r"\d X ", r"SDN|LTD|GMBH", r"\*\*\*",
        r"(-|=|\*)\1{3}", r"%", r"TEL", r" :",
    ):  # fmt: skip
        assert sum(bool(re.search(pattern, text)) for text in texts) > 10, pattern
    assert 0.4 < np.mean([text.isupper() for text in texts]) < 0.8
    assert max(map(len, texts)) < 90


def test_no_held_out_word_of_shops_and_streets_is_drawn() -> None:
    """Known words are all in this split; what else stands alone is a listed word, a name or a brand."""
    alone = {text.lower() for text in drawn("sign", 3000) if text.isalpha()}
    listed = alone & set(phrases("signs", "shop"))
    assert len(listed) > 100 and not any(map(is_held_out, listed))
    assert any(map(is_held_out, phrases("signs", "shop")))  # so the rule was met


def test_the_frequent_words_of_five_languages() -> None:
    pytest.importorskip("wordfreq", reason="wordfreq is not installed")
    train, held_out = read_vocabularies("train"), read_vocabularies("held-out")
    assert [vocabulary.language for vocabulary in train] == list(LANGUAGES)
    for seen, unseen in zip(train, held_out, strict=True):
        assert not any(map(is_held_out, seen.words)) and all(map(is_held_out, unseen.words))
        assert 0.08 < len(unseen.words) / (len(seen.words) + len(unseen.words)) < 0.12
        assert np.isclose(seen.shares.sum(), 1) and (np.diff(seen.shares) <= 0).all()
        assert not any(c.isdigit() for word in seen.words for c in word)
    top = {vocabulary.language: set(vocabulary.words[:100]) for vocabulary in train}
    assert {"the", "and", "you"} <= top["en"] and {"de", "les", "et"} <= top["fr"]
    assert {"und", "die", "für"} <= top["de"] and {"que", "el"} <= top["es"] and {"che", "di"} <= top["it"]


def test_a_file_of_frequencies_stands_in_for_wordfreq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a font pack carries one to machines without wordfreq."""
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    levels = {"en": [[100, ["tree"]], [200, ["house", "a"]]], "de": [[150, ["über"]]]}
    path = tmp_path / "frequencies.json"
    path.write_text(json.dumps(levels), encoding="utf-8")
    english, german = read_vocabularies("train", path)
    assert (english.language, list(english.words)) == ("en", ["tree", "house"])  # `a` is held out
    assert np.allclose(english.shares, [10 / 11, 1 / 11]) and list(german.words) == ["über"]
    assert list(read_vocabularies("held-out", path)[0].words) == ["a"]


def test_without_wordfreq_the_word_lists_are_taken_which_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from crnn_deploy.synthesis import lexicon

    monkeypatch.setitem(sys.modules, "wordfreq", None)
    lexicon._say_absent.cache_clear()
    read_vocabularies.cache_clear()
    assert read_vocabularies("train") == () == read_vocabularies("held-out")
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "wordfreq" in told.err
    read_vocabularies.cache_clear()
    for kind in NEW:
        source = TextSource(ASCII, ["word", "apple"], {kind: 1.0})
        texts = [source.sample(np.random.default_rng(seed)) for seed in range(50)]
        assert kind == "sign" or any("word" in text.lower() or "apple" in text.lower() for text in texts)
