"""Numbers as they are written: prices, dates, times, telephone numbers."""

from __future__ import annotations

import numpy as np

__all__ = ["clock", "date", "digits", "integer", "one_of", "phone", "price"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def one_of(options: tuple[str, ...] | list[str] | str, rng: np.random.Generator) -> str:
    """Any of them, each as often as the other."""
    return options[int(rng.integers(len(options)))]


def digits(rng: np.random.Generator, low: int, high: int | None = None) -> str:
    """So many digits; a first zero may stand."""
    count = low if high is None else int(rng.integers(low, high + 1))
    return "".join(map(str, rng.integers(0, 10, count).tolist()))


def integer(rng: np.random.Generator, most: int) -> str:
    """A number from 1 of at most so many digits, short ones as often as long ones."""
    return str(int(rng.integers(1, 10 ** int(rng.integers(1, most + 1)))))


def price(rng: np.random.Generator, most: int = 3, point: str = ".") -> str:
    """An amount with two decimals, often round: 12.00, 3.90, 145.37."""
    shape = rng.random()
    cents = "00" if shape < 0.3 else f"{digits(rng, 1)}0" if shape < 0.6 else digits(rng, 2)
    whole = "0" if rng.random() < 0.1 else integer(rng, most)
    return f"{whole}{point}{cents}"


def clock(rng: np.random.Generator) -> str:
    """A time of day, of 24 or 12 hours, with or without seconds."""
    seconds = f":{rng.integers(60):02}" if rng.random() < 0.4 else ""
    minutes = f"{rng.integers(60):02}{seconds}"
    if rng.random() < 0.6:
        return f"{rng.integers(24):02}:{minutes}"
    half = one_of(("AM", "PM", " AM", " PM", "am", "pm", " am"), rng)
    hour = int(rng.integers(1, 13))
    return f"{hour:02}:{minutes}{half}" if rng.random() < 0.5 else f"{hour}:{minutes}{half}"


def date(rng: np.random.Generator) -> str:
    """A date in one of ten forms, of 1990 to 2030."""
    day, month, year = int(rng.integers(1, 29)), int(rng.integers(1, 13)), int(rng.integers(1990, 2031))
    mark, name = one_of("//--. ", rng), _MONTHS[month - 1]
    if rng.random() < 0.4:
        name = name.upper()
    forms = (
        f"{day:02}{mark}{month:02}{mark}{year}",
        f"{day:02}{mark}{month:02}{mark}{year % 100:02}",
        f"{day}{mark}{month}{mark}{year}",
        f"{month:02}/{day:02}/{year}",
        f"{year}-{month:02}-{day:02}",
        f"{day:02} {name} {year}",
        f"{day:02}-{name}-{year}",
        f"{day:02}-{name}-{year % 100:02}",
        f"{name} {day}, {year}",
        f"{day:02}{name}{year % 100:02}",
    )
    return one_of(forms, rng)


def phone(rng: np.random.Generator) -> str:
    """A telephone number in one of seven forms."""
    forms = (
        f"0{digits(rng, 1)}-{digits(rng, 4)} {digits(rng, 4)}",
        f"0{digits(rng, 1)}-{digits(rng, 7, 8)}",
        f"0{digits(rng, 2)}-{digits(rng, 3)} {digits(rng, 4)}",
        f"({digits(rng, 3)}) {digits(rng, 3)}-{digits(rng, 4)}",
        f"+{digits(rng, 2)} {digits(rng, 2, 3)} {digits(rng, 3, 4)} {digits(rng, 3, 4)}",
        f"1-800-{digits(rng, 2)}-{digits(rng, 4)}",
        f"0{digits(rng, 1)} {digits(rng, 2)} {digits(rng, 2)} {digits(rng, 2)} {digits(rng, 2)}",
    )
    return one_of(forms, rng)
