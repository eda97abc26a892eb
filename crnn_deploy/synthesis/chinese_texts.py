"""Lines of printed Chinese: words, sentences, figures, Latin within Chinese, forms, and rare characters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from crnn_deploy.synthesis.chinese_words import ChineseWords
from crnn_deploy.synthesis.figures import digits, integer, one_of, price
from crnn_deploy.synthesis.lexicon import is_held_out
from crnn_deploy.synthesis.phrases import phrases

__all__ = ["CHINESE_KINDS", "ChineseKind", "ChineseTexts"]

ChineseKind = Literal[
    "chinese-word",
    "chinese-sentence",
    "chinese-figure",
    "chinese-mixed",
    "chinese-label",
    "chinese-rare",
    "chinese-plate",
]
CHINESE_KINDS: tuple[ChineseKind, ...] = get_args(ChineseKind)

_LONGEST = 25  # characters of a line
_LONGEST_RARE = 12
_SHORTEST_SENTENCE = 6
_DIGITS, _CAPITALS = "〇一二三四五六七八九", "零壹贰叁肆伍陆柒捌玖"  # as years and as cheques write them
_PLACES = ("", "拾", "佰", "仟")
_CLOSING = "，。、；：？！）》〉】」』〕”’…～·％℃"  # never the first character of a line
_OPENING = "（《〈【「『〔“‘"  # never the last one
_BRACKETS = ("《》", "“”", "（）", "【】", "‘’", "「」", "〈〉", "〔〕", "『』", "()", "[]", '""')
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PLATE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # number plates have neither I nor O


class ChineseTexts:
    """Draws lines of Chinese of at most 25 characters.

    alphabet: characters that may stand in them; words and phrases that it cannot write are left out
    words: as `read_chinese_words` gives them; phrases are held out as words are, told by the same hash
    latin: words that stand within Chinese, beside a list of names and abbreviations
    """

    def __init__(self, alphabet: Collection[str], words: ChineseWords, latin: Sequence[str]) -> None:
        self._alphabet = frozenset(alphabet)
        kept = [at for at, word in enumerate(words.words) if self._alphabet.issuperset(word)]
        self._words = [words.words[at] for at in kept]
        self._cumulated = np.cumsum(words.shares[kept])
        self._split = words.split
        self._latin = latin
        self._characters = sorted(c for c in self._alphabet if len(c) == 1 and not c.isspace())

    def makers(self) -> dict[ChineseKind, Callable[[np.random.Generator], str]]:
        """What draws each kind."""
        return {
            "chinese-word": self._some_words,
            "chinese-sentence": self._sentence,
            "chinese-figure": self._figure,
            "chinese-mixed": self._mixed,
            "chinese-label": self._label,
            "chinese-rare": self._rare,
            "chinese-plate": self._plate,
        }

    def _word(self, rng: np.random.Generator) -> str:
        """A word, as often as its share says; nothing where the alphabet writes none."""
        if not self._words:
            return ""
        at = np.searchsorted(self._cumulated, rng.random() * self._cumulated[-1], side="right")
        return self._words[min(int(at), len(self._words) - 1)]

    def _some_words(self, rng: np.random.Generator) -> str:
        """One to three words, some in brackets, a few as a list or as a name with a point in it."""
        parts = [self._word(rng) for _ in range(int(rng.choice((1, 2, 3), p=(0.5, 0.32, 0.18))))]
        shape = rng.random()
        if shape < 0.06:
            return one_of("、·— /-", rng).join(parts)
        text = "".join(parts)
        if shape < 0.12:
            return text.join(one_of(_BRACKETS, rng))
        return text + one_of("，。：；！？、…", rng) if shape < 0.2 else text

    def _sentence(self, rng: np.random.Generator) -> str:
        """A line of running text, cut where the line of a book or the width of a column cuts it."""
        long, until_mark, text = _LONGEST + int(rng.integers(8)), int(rng.integers(2, 8)), ""
        while len(text) < long:
            part = self._word(rng)
            if not part:
                return ""
            shape = rng.random()
            if shape < 0.03:
                part = (part + self._word(rng)).join(one_of(_BRACKETS, rng))
            elif shape < 0.06:
                part = integer(rng, 4) + one_of(phrases("chinese", "units"), rng)
            elif shape < 0.075:
                part = self._latin_word(rng)
            text += part
            until_mark -= 1
            if until_mark == 0:
                text += one_of("，，，，，。。。、、；：？！…", rng)
                until_mark = int(rng.integers(2, 8))
        length = int(rng.integers(_SHORTEST_SENTENCE, _LONGEST + 1))
        start = 0 if rng.random() < 0.4 else int(rng.integers(len(text) - length + 1))
        return text[start : start + length].lstrip(_CLOSING).rstrip(_OPENING)

    def _figure(self, rng: np.random.Generator) -> str:
        """A number with its unit, a date, an amount, a telephone number, a place in a building or a train."""
        year, month, day = rng.integers(1949, 2051), rng.integers(1, 13), rng.integers(1, 32)
        shape = int(rng.integers(16))
        if shape < 3:
            date = one_of(
                (
                    *(f"{year}年{month}月{day}日", f"{month}月{day}日", f"{year}年{month}月", f"{year}年度"),
                    *(f"{year}-{month:02}-{day:02}", f"{year}/{month}/{day}", f"{year}.{month:02}.{day:02}"),
                    "".join(_DIGITS[int(digit)] for digit in str(year)) + f"年{self._spelled(int(month))}月",
                    f"{self._spelled(int(month))}月{self._spelled(int(day))}日",
                    f"{year}年{month:02}月{day:02}日",
                ),
                rng,
            )
            return date + (f" {self._time(rng)}" if rng.random() < 0.2 else "")
        if shape == 3:
            half = one_of(("", "上午", "下午", "晚", "每天", "星期" + one_of("一二三四五六日", rng)), rng)
            return (
                half + self._time(rng) + (one_of("~-～", rng) + self._time(rng) if rng.random() < 0.4 else "")
            )
        if shape < 6:
            return one_of(("￥", "￥", "￥ ", "人民币", "RMB "), rng) + price(rng, 5)
        if shape == 6:
            return (
                one_of(("", "", "约", "共", "仅", "共计"), rng)
                + price(rng, 5)
                + one_of(("元", "万元", "元/斤", "元整"), rng)
            )
        if shape == 7:
            return self.cheque(int(rng.integers(1, 10 ** int(rng.integers(2, 8)))))
        if shape < 10:
            unit = one_of(phrases("chinese", "units"), rng)
            number = integer(rng, 4) + (f".{digits(rng, 1, 2)}" if rng.random() < 0.25 else "")
            text = one_of(("", "", "", "第", "共", "约", "满", "前", "-", "+"), rng) + number + unit
            return text + (
                one_of(("/", "×", "~", "+"), rng) + integer(rng, 2) + unit if rng.random() < 0.15 else ""
            )
        if shape == 10:
            number = one_of(
                (
                    *(f"0{digits(rng, 2)}-{digits(rng, 8)}", f"0{digits(rng, 3)}-{digits(rng, 7)}"),
                    *(
                        f"1{digits(rng, 10)}",
                        f"400-{digits(rng, 3)}-{digits(rng, 4)}",
                        f"+86 1{digits(rng, 10)}",
                    ),
                    f"1{digits(rng, 2)} {digits(rng, 4)} {digits(rng, 4)}",
                ),
                rng,
            )
            return (
                one_of(
                    ("", "电话：", "电话:", "手机：", "联系电话：", "热线：", "传真：", "Tel：", "订餐电话 "),
                    rng,
                )
                + number
            )
        if shape == 11:
            side = one_of(_LETTERS[:6], rng)
            return one_of(
                (
                    *(
                        f"{side}座{digits(rng, 3, 4)}室",
                        f"{integer(rng, 2)}号楼{integer(rng, 1)}单元{digits(rng, 3)}",
                    ),
                    *(f"第{integer(rng, 1)}层", f"{integer(rng, 1)}楼", f"B{integer(rng, 1)}层{side}区"),
                    *(
                        f"{digits(rng, 2)}车{digits(rng, 2)}{side}号",
                        f"{one_of('GDKTZC', rng)}{integer(rng, 4)}次",
                    ),
                    *(f"检票口{digits(rng, 1, 2)}", f"{integer(rng, 3)}号院", f"{integer(rng, 3)}路"),
                ),
                rng,
            )
        if shape == 12:
            return self._plate(rng)
        if shape == 13:
            return one_of(
                (
                    *(f"No.{digits(rng, 4, 8)}", f"№{digits(rng, 6)}", f"NO：{digits(rng, 6, 10)}"),
                    *(f"{digits(rng, 6)}{year}{month:02}{day:02}{digits(rng, 4)}", f"{digits(rng, 12, 20)}"),
                    *(f"{integer(rng, 2)}/{integer(rng, 2)}", f"第{integer(rng, 2)}页 共{integer(rng, 3)}页"),
                ),
                rng,
            )
        if shape == 14:
            return f"{integer(rng, 2)}{one_of(('%', '.5%', '℃', '°', '‰', '折'), rng)}"
        at = one_of(("{}.", "{}、", "({})", "（{}）", "第{}章", "第{}条"), rng)
        number = integer(rng, 2) if rng.random() < 0.5 else self._spelled(int(rng.integers(1, 100)))
        return at.format(number) + self._word(rng) + self._word(rng)

    @staticmethod
    def _plate(rng: np.random.Generator) -> str:
        """A car's number: province, its letter, five digits and letters; six for an electric car."""
        place = (
            one_of(phrases("chinese", "provinces"), rng)
            + one_of(_PLATE_LETTERS, rng)
            + one_of(("", "·"), rng)
        )
        if rng.random() < 0.15:
            return place + one_of("DF", rng) + digits(rng, 5)
        return place + "".join(one_of("0123456789" * 6 + _PLATE_LETTERS, rng) for _ in range(5))

    def _mixed(self, rng: np.random.Generator) -> str:
        """Chinese with Latin words and figures in it, with or without spaces between them."""
        space = " " if rng.random() < 0.25 else ""
        parts = [self._word(rng) for _ in range(int(rng.integers(1, 5)))]
        for _ in range(int(rng.choice((1, 2), p=(0.75, 0.25)))):
            other = self._latin_word(rng)
            if rng.random() < 0.3:
                other += one_of(("", " ", "-"), rng) + integer(rng, 2)
            elif rng.random() < 0.3:
                other = one_of(_LETTERS, rng) + one_of(("", "", "-"), rng) + integer(rng, 3)
            elif rng.random() < 0.1:
                other = one_of(("（{}）", "({})", "《{}》", "“{}”"), rng).format(other)
            parts.insert(int(rng.integers(len(parts) + 1)), space + other + space)
        return "".join(parts).strip()[:_LONGEST].strip()

    def _label(self, rng: np.random.Generator) -> str:
        """A field of a form, a line of a receipt or a menu, a notice, a shop's name."""
        shape = rng.random()
        if shape < 0.25:
            label = self._phrase("labels", rng)
            return label + one_of(("", "", "：", "：", ":"), rng)
        if shape < 0.45:
            value = self._figure(rng) if rng.random() < 0.6 else self._word(rng)
            return (self._phrase("labels", rng) + one_of(("：", "：", ": ", " "), rng) + value)[:_LONGEST]
        if shape < 0.55:
            return self._phrase("english", rng)
        if shape < 0.68:
            return self._phrase("notices", rng)
        if shape < 0.82:
            name = self._word(rng) + (self._word(rng) if rng.random() < 0.5 else "")
            return name + self._phrase("shops", rng)
        dish = self._phrase("dishes", rng) if rng.random() < 0.5 else self._word(rng) + self._word(rng)
        amount = one_of(("￥", "", "×", "x"), rng) + price(rng, 2)
        return dish + one_of((" ", "  ", "…", "……", ""), rng) + amount + one_of(("", "", "元", "元/份"), rng)

    def _rare(self, rng: np.random.Generator) -> str:
        """Characters of the alphabet, each as likely as the other, half of them within a word."""
        if not self._characters:
            return ""
        length, text = int(rng.integers(1, _LONGEST_RARE + 1)), ""
        while len(text) < length:
            character = self._characters[int(rng.integers(len(self._characters)))]
            words = self._words_with.get(character)
            if words and rng.random() < 0.5:
                text += self._words[words[int(rng.integers(len(words)))]]
            else:
                text += character
        return text[:_LONGEST]

    @cached_property
    def _words_with(self) -> dict[str, list[int]]:
        """Of each character the words that it stands in."""
        found: dict[str, list[int]] = {}
        for at, word in enumerate(self._words):
            for character in set(word):
                found.setdefault(character, []).append(at)
        return found

    def _latin_word(self, rng: np.random.Generator) -> str:
        if not self._latin or rng.random() < 0.5:
            return one_of(phrases("chinese", "latin"), rng)
        word = self._latin[int(rng.integers(len(self._latin)))]
        return one_of((word, word.capitalize(), word.upper()), rng)

    def _phrase(self, name: str, rng: np.random.Generator) -> str:
        """A phrase of a list, of this split."""
        every = phrases("chinese", name)
        while True:
            phrase = one_of(every, rng)
            if is_held_out(phrase) == (self._split == "held-out"):
                return phrase

    @staticmethod
    def _time(rng: np.random.Generator) -> str:
        hour, minute = int(rng.integers(24)), int(rng.integers(60))
        if rng.random() < 0.2:
            return f"{hour}时{minute:02}分"
        return f"{hour:02}:{minute:02}" + (f":{rng.integers(60):02}" if rng.random() < 0.2 else "")

    @staticmethod
    def _spelled(number: int) -> str:
        """1 to 99 in words: 三, 十三, 三十一."""
        tens, ones = divmod(number, 10)
        if not tens:
            return _DIGITS[ones]
        return ("" if tens == 1 else _DIGITS[tens]) + "十" + (_DIGITS[ones] if ones else "")

    @staticmethod
    def cheque(amount: int) -> str:
        """An amount of yuan as cheques and receipts write it, below 100 million: 壹仟零贰拾元整."""
        text = ""
        for at, group in enumerate(divmod(amount, 10_000)):
            if not group:
                continue
            figures, zero = "", False
            for place in (3, 2, 1, 0):
                digit = group // 10**place % 10
                if digit:
                    figures += ("零" if zero else "") + _CAPITALS[digit] + _PLACES[place]
                    zero = False
                else:
                    zero = bool(figures or text)
            text += figures + ("万" if at == 0 else "")
        return text + "元整"
