"""Lines of Chinese: what they are made of, how long they are, and that every character gets its turn."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.recipes.alphabets import read_alphabet
from crnn_deploy.synthesis.chinese_texts import CHINESE_KINDS, ChineseKind, ChineseTexts
from crnn_deploy.synthesis.chinese_words import ChineseWords, WordsMissing, read_chinese_words
from crnn_deploy.synthesis.texts import TextsImpossible, TextSource

SCRIPT = Path(__file__).parents[2] / "training" / "gb2312.py"
WORDS = ("的", "中国", "我们", "电子邮件", "火锅", "饕餮", "齉鼻", "龌龊")
CLOSING = "，。、；：？！）》〉】」』〕”’…"


@pytest.fixture(scope="module")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    path = tmp_path_factory.mktemp("alphabet") / "gb2312.txt"
    path.write_bytes(subprocess.run([sys.executable, SCRIPT], capture_output=True, check=True).stdout)
    return read_alphabet(path)


def words(*found: str) -> ChineseWords:
    return ChineseWords(found, np.full(len(found), 1 / len(found)), "train")


def test_the_alphabet_holds_gb2312_and_folds_full_width_ascii(alphabet: tuple[str, ...]) -> None:
    ideographs = [c for c in alphabet if "\u4e00" <= c <= "\u9fff"]
    assert (len(ideographs), ideographs[0], ideographs[3755], ideographs[-1]) == (6763, "啊", "亍", "齄")
    assert alphabet[:95] == tuple(map(chr, range(0x20, 0x7F)))
    assert len(set(alphabet)) == len(alphabet)
    kept = {c for c in alphabet if "\uff01" <= c <= "\uff5e"}  # the full-width forms of ASCII
    assert kept == set("，；：？！（）～")


@pytest.mark.parametrize("kind", CHINESE_KINDS)
def test_texts_are_lines_that_the_alphabet_writes(alphabet: tuple[str, ...], kind: ChineseKind) -> None:
    source = TextSource(alphabet, ["example"], {kind: 1}, chinese=words(*WORDS[:-2]))
    rng = np.random.default_rng(0)
    texts = [source.sample(rng) for _ in range(400)]
    assert all(1 <= len(text) <= 25 and set(text) <= set(alphabet) for text in texts)
    assert all(text == text.strip() and "  " not in text for text in texts)
    assert len(set(texts)) > 10
    assert texts[:5] == [source.sample(rng) for rng in [np.random.default_rng(0)] for _ in range(5)]


def test_sentences_do_not_begin_with_a_mark_that_closes(alphabet: tuple[str, ...]) -> None:
    source = TextSource(alphabet, ["example"], {"chinese-sentence": 1}, chinese=words(*WORDS[:4]))
    rng = np.random.default_rng(1)
    texts = [source.sample(rng) for _ in range(300)]
    assert not any(text[0] in CLOSING for text in texts)
    assert any(set(text) & set(CLOSING) for text in texts)


def test_words_that_the_alphabet_lacks_are_left_out() -> None:
    source = TextSource("的中国0123456789，。", ["example"], {"chinese-word": 1}, chinese=words(*WORDS))
    rng = np.random.default_rng(2)
    assert set("".join(source.sample(rng) for _ in range(100))) <= set("的中国，。")
    with pytest.raises(TextsImpossible):
        TextSource("abc", ["example"], {"chinese-sentence": 1}, chinese=words(*WORDS)).sample(rng)


def test_every_character_gets_its_turn(alphabet: tuple[str, ...]) -> None:
    source = TextSource(alphabet, ["example"], {"chinese-rare": 1}, chinese=words(*WORDS))
    rng = np.random.default_rng(3)
    counts = Counter[str]()
    while counts.total() < 40 * len(alphabet):
        counts.update(source.sample(rng))
    # of 40 expected each, Poisson's probability of fewer than 10 is 10 ** -8
    visible = [c for c in alphabet if not c.isspace()]
    assert min(counts[c] for c in visible) >= 10
    assert np.median([counts[c] for c in visible]) > 30


def test_frequent_words_are_drawn_more_often() -> None:
    vocabulary = ChineseWords(("我们", "火锅"), np.array([0.9, 0.1]), "train")
    draw = ChineseTexts("我们火锅", vocabulary, []).makers()["chinese-word"]
    rng = np.random.default_rng(4)
    drawn = "".join(draw(rng) for _ in range(1000))
    assert 0.85 < drawn.count("我") / (drawn.count("我") + drawn.count("火")) < 0.95


def test_plates_are_numbers_that_cars_have() -> None:
    draw = ChineseTexts("", words(*WORDS), []).makers()["chinese-plate"]
    rng = np.random.default_rng(5)
    plates = {draw(rng).replace("·", "") for _ in range(5000)}
    usual = {plate for plate in plates if re.fullmatch("[一-龥][A-HJ-NP-Z][0-9A-HJ-NP-Z]{5}", plate)}
    electric = {plate for plate in plates if re.fullmatch("[一-龥][A-HJ-NP-Z][DF][0-9]{5}", plate)}
    assert usual | electric == plates
    assert min(len(usual), len(electric)) > 500
    assert len({plate[0] for plate in plates}) == 31  # what mainland China is divided into


def read_cheque(text: str) -> int:
    """The number of yuan that an amount in capital numerals says."""
    total = group = digit = 0
    for character in text.removesuffix("元整"):
        if character == "万":
            total, group, digit = (group + digit) * 10_000, 0, 0
        elif character in "拾佰仟":
            group, digit = group + digit * 10 ** ("拾佰仟".index(character) + 1), 0
        else:
            digit = "零壹贰叁肆伍陆柒捌玖".index(character)
    return total + group + digit


@settings(max_examples=200)
@given(st.integers(1, 10**8 - 1))
def test_cheques_say_their_amount(amount: int) -> None:
    text = ChineseTexts.cheque(amount)
    assert read_cheque(text) == amount
    assert "零零" not in text and "零万" not in text and "零元" not in text and text[0] != "零"


def test_held_out_words_are_never_trained_on() -> None:
    pytest.importorskip("wordfreq")
    train, held_out = (read_chinese_words(split) for split in ("train", "held-out"))
    both = set(train.words) & set(held_out.words)
    assert {len(word) for word in both} == {1}  # a character alone is no word to hold out
    longer = [sum(len(word) > 1 for word in found.words) for found in (train, held_out)]
    assert 0.08 < longer[1] / sum(longer) < 0.12
    assert "我们" in train.words + held_out.words
    assert train.shares.sum() == pytest.approx(1)
    alone = [sum(p for w, p in zip(f.words, f.shares, strict=True) if len(w) == 1) for f in (train, held_out)]
    assert alone[0] == pytest.approx(alone[1], abs=0.1)
    assert np.all(np.diff(train.shares) <= 0)


def test_words_come_from_the_file_of_a_font_pack(tmp_path: Path) -> None:
    path = tmp_path / "chinese.json"
    path.write_text(json.dumps([[100, ["的"]], [200, ["我们", "火锅"]]]), encoding="utf-8")
    found = [read_chinese_words(split, path) for split in ("train", "held-out")]
    assert sorted(word for part in found for word in part.words) == sorted(["的", "的", "我们", "火锅"])
    assert all(part.words[0] == "的" and part.shares.sum() == pytest.approx(1) for part in found)


def test_without_wordfreq_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(WordsMissing, match="pip install wordfreq"):
        read_chinese_words.__wrapped__("train")  # not what an earlier test has read
