"""Lines of shop receipts and invoices: items and amounts, totals, taxes, dates, addresses, rules of marks.

All is invented. What every receipt prints (TOTAL, CASH, GST) is drawn in both splits; the other words are
those of the word lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from crnn_deploy.synthesis.figures import clock, date, digits, integer, one_of, phone, price
from crnn_deploy.synthesis.phrases import phrases

__all__ = ["Receipts"]

_UNITS = (
    "PCS",
    "PC",
    "KG",
    "G",
    "ML",
    "L",
    "PKT",
    "BOX",
    "CM",
    "MM",
    "'S",
    "X",
    "SET",
    "ROLL",
    "CTN",
    "UNIT",
)
_CODES = ("SR", "ZR", "S", "Z", "T", "SR*", "A", "B", "-", "*", "T1")
_MONEY = ("RM", "RM ", "$", "$ ", "EUR ", "USD ", "£", "€", "MYR ", "S$")


class Receipts:
    """Draws lines of receipts.

    words: of the items, streets and companies
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        kinds: list[tuple[float, Callable[[np.random.Generator], str]]] = [
            (0.32, _amount),
            (0.15, self._item),
            (0.14, _total),
            (0.13, _labelled),
            (0.07, _moment),
            (0.06, self._heading),
            (0.06, self._address),
            (0.04, self._company),
            (0.04, _tax),
            (0.03, _phone),
            (0.02, self._courtesy),
            (0.02, _rule),
        ]
        self._bounds = np.cumsum([share for share, _ in kinds])
        self._makers = [maker for _, maker in kinds]

    def draw(self, rng: np.random.Generator) -> str:
        """A line: in capitals mostly, as cash registers print."""
        at = int(np.searchsorted(self._bounds, rng.random() * self._bounds[-1]))
        text = self._makers[min(at, len(self._makers) - 1)](rng)
        style = rng.random()
        if style < 0.22:
            text = text.title()
        elif style < 0.27:
            text = text.lower()
        elif style < 0.3:
            text = text.capitalize()
        return text

    def _some(self, rng: np.random.Generator, low: int, high: int) -> str:
        count = int(rng.integers(low, high + 1))
        return " ".join(self._words[int(at)] for at in rng.integers(0, len(self._words), count)).upper()

    def _item(self, rng: np.random.Generator) -> str:
        """What was bought, at times with its number, size, count and price."""
        name = self._some(rng, 1, 4)
        unit = one_of(_UNITS, rng)
        size = f"{integer(rng, 3)}{'' if rng.random() < 0.7 else ' '}{unit}"
        code = digits(rng, 4, 13)
        forms = (
            name,
            name,
            f"{name} {size}",
            f"{name} {size}",
            f"{name} ({size})",
            f"{rng.integers(1, 10)} {name}",
            f"{rng.integers(1, 6)} X {name}",
            f"{rng.integers(1, 20)}. {name}",
            f"{code} {name}",
            f"{code}",
            f"{name} {price(rng, 2)}",
            f"{name} {price(rng, 2)} {one_of(_CODES, rng)}",
            f"{rng.integers(1, 10)} {name} {price(rng, 2)}",
            f"{name} @ {price(rng, 2)}",
            f"-{name}",
            f"{one_of(_CODES, rng)}: {name} - {size}",
            f'{name} {rng.integers(1, 5)}/{rng.integers(2, 9)}"',
        )
        return one_of(forms, rng)

    def _heading(self, rng: np.random.Generator) -> str:
        heading = one_of(phrases("receipts", "headings"), rng)
        frame = rng.random()
        if frame < 0.08:
            return f"-{heading}-"
        if frame < 0.14:
            return f"*** {heading} ***"
        if frame < 0.2:
            return f"{heading}{one_of((':', ' :', '.', ' (RM)', '(RM)', ' ($)', ' EUR'), rng)}"
        return f"({heading})" if frame < 0.24 else heading

    def _address(self, rng: np.random.Generator) -> str:
        name, town = self._some(rng, 1, 2), self._some(rng, 1, 2)
        form = one_of(phrases("receipts", "streets"), rng)
        street = form.format(name, integer(rng, 3), rng.integers(1, 30))
        code = digits(rng, 5)
        forms = (
            street,
            f"{street},",
            f"{code} {town}",
            f"{code} {town}, {name}.",
            f"{town} {digits(rng, 5)}",
            f"{street}, {code} {town}",
            f"{street},{code} {town}.",
        )
        return one_of(forms, rng)

    def _company(self, rng: np.random.Generator) -> str:
        name, end = self._some(rng, 1, 2), one_of(phrases("receipts", "company_ends"), rng)
        shop = one_of(phrases("receipts", "shops"), rng)
        number = f"({digits(rng, 5, 7)}-{one_of('ABDHKMPTUVWX', rng)})"
        forms = (
            f"{name} {end}",
            f"{name} {shop}",
            f"{name} {shop} {end}",
            f"{name} {end} {number}",
            f"CO. REG: {number[1:-1]}",
            number,
        )
        return one_of(forms, rng)

    def _courtesy(self, rng: np.random.Generator) -> str:
        text = one_of(phrases("receipts", "courtesies"), rng)
        end = rng.random()
        if end < 0.15:
            return text + "!"
        if end < 0.25:
            return f"*** {text} ***"
        if end < 0.35:
            return f"WWW.{self._some(rng, 1, 1).replace(chr(39), '')}.COM"
        return text + "." if end < 0.45 else text


def _amount(rng: np.random.Generator) -> str:
    """A figure of a column."""
    money, cost = one_of(_MONEY, rng), price(rng, 3)
    forms = (
        *(cost,) * 5,
        *(price(rng, 1),) * 4,
        f"{money}{cost}",
        f"{money}{cost}",
        f"{cost} {one_of(_CODES, rng)}",
        f"{cost}{one_of(_CODES, rng)}",
        f"{int(integer(rng, 5)):,}.{digits(rng, 2)}",
        price(rng, 3, ","),
        f"{price(rng, 2, ',')} {one_of(('EUR', '€', 'A', 'B'), rng)}",
        f"-{cost}",
        f"({price(rng, 1)})",
        f"{cost}-",
        *(f"{rng.integers(1, 20)}",) * 2,
        f"{rng.integers(1, 20)}.00",
        f"{rng.integers(1, 12)} X {cost}",
        f"{rng.integers(1, 12)}X{cost}",
        f"{rng.integers(1, 12)} @ {cost}",
        f"@{rng.integers(1, 9)} X {money}{cost}",
        f"X{rng.integers(1, 12)}",
        f"{rng.integers(1, 9)} {one_of(_UNITS, rng)}",
        f"{rng.integers(0, 3)}.{digits(rng, 3)} KG",
        f".{digits(rng, 2)}",
        one_of(("0.00", "RM0.00", "RM 0.00", "0%", "6%", "%", "RM", "SR", "ZRL", ":", "1", "X"), rng),
        digits(rng, 4, 13),
    )
    return one_of(forms, rng)


def _spaced(label: str, value: str, rng: np.random.Generator) -> str:
    """A label and what it says, set apart as cash registers do."""
    return label + one_of((" : ", ": ", ":", " ", " ", " :", ".", ". ", " = ", "  "), rng) + value


def _total(rng: np.random.Generator) -> str:
    label, cost, money = one_of(phrases("receipts", "totals"), rng), price(rng, 3), one_of(_MONEY, rng)
    forms = (
        label,
        label,
        f"{label}:",
        f"{label} :",
        f"{label} ({money.strip()})",
        f"{label} {money}",
        _spaced(label, cost, rng),
        _spaced(label, f"{money}{cost}", rng),
        f"{label} {price(rng, 3, ',')} EUR",
        f"{label} {rng.integers(1, 30)}%",
        f"{label} ({rng.integers(1, 9)})",
    )
    return one_of(forms, rng)


def _labelled(rng: np.random.Generator) -> str:
    label = one_of(phrases("receipts", "labels"), rng)
    letters = "".join(one_of("ABCDEFGHIJKLMNOPRSTUVWXYZ", rng) for _ in range(int(rng.integers(1, 4))))
    value = one_of(
        (
            digits(rng, 1, 12),
            f"{letters}{digits(rng, 4, 9)}",
            f"{letters}-{digits(rng, 4, 7)}",
            f"{digits(rng, 4, 6)}/{digits(rng, 2, 3)}/{letters}{digits(rng, 3, 4)}",
            f"{rng.integers(1, 30):03}",
            letters,
            f"#{digits(rng, 1, 5)}",
            f"{letters} {digits(rng, 3)} {digits(rng, 3)} {digits(rng, 3)}",
        ),
        rng,
    )
    shape = rng.random()
    if shape < 0.15:
        return label
    if shape < 0.3:
        return label + one_of((":", " :", ".:", ".", "#"), rng)
    return value if shape < 0.36 else _spaced(label, value, rng)


def _moment(rng: np.random.Generator) -> str:
    """A date, a time, or both, at times with their label."""
    day, time = date(rng), clock(rng)
    forms = (
        *(day, day, time, f"{day} {time}", f"{day} {time}", f"{time} {day}"),
        _spaced(one_of(("DATE", "Date", "INV DATE", "BILL DATE", "DATUM"), rng), day, rng),
        _spaced(one_of(("TIME", "Time", "ORDER TIME", "CHECK IN"), rng), time, rng),
        f": {day} {time}",
    )
    return one_of(forms, rng)


def _tax(rng: np.random.Generator) -> str:
    rate = one_of(("6%", "6.00%", "7%", "5%", "10%", "19%", "20%", "5.5%", "7.7%", "0%", "21%", "22%"), rng)
    name = one_of(("GST", "VAT", "TAX", "SST", "MWST", "TVA", "IVA", "HST", "SERVICE TAX"), rng)
    cost = price(rng, 3)
    forms = (
        f"{name} {rate}",
        f"{name} @ {rate}",
        f"{name} @{rate} {cost}",
        f"{name} ({rate})",
        f"({name} {rate} INCL.)",
        f"INCL. {rate} {name}",
        f"(@ {rate})",
        f"SR @ {rate} {cost} {price(rng, 2)}",
        f"{rate} {name} {cost}",
        f"{name} INCLUDED IN TOTAL {price(rng, 2)}",
        f"{name} REG NO : {digits(rng, 12)}",
        f"({name} ID: {digits(rng, 9, 12)})",
        f"{one_of(('DE', 'FR', 'GB', 'IT', 'ATU', 'ESB'), rng)}{digits(rng, 8, 11)}",
    )
    return one_of(forms, rng)


def _phone(rng: np.random.Generator) -> str:
    number = phone(rng)
    label = one_of(("TEL", "TEL.", "TEL NO", "PHONE", "FAX", "T", "HP", "WHATSAPP", "TEL/FAX"), rng)
    forms = (number, _spaced(label, number, rng), f"TEL:{number} FAX:{phone(rng)}", f"({label} {number})")
    return one_of(forms, rng)


def _rule(rng: np.random.Generator) -> str:
    """A line of one mark over and over."""
    mark = one_of(("-", "-", "=", "*", "_", ".", "- ", "* ", "-:", "~", "#"), rng)
    return mark * int(rng.integers(3, 24))
