"""Which characters a face draws, whatever it claims: some fonts list empty glyphs, boxes and strokes."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from crnn_deploy.synthesis.fonts import Face

__all__ = ["as_drawn"]

_SIZE = 24  # pixels of em
_FIRST_IDEOGRAPH, _LAST_IDEOGRAPH = 0x4E00, 0x9FFF
_ALIKE = 3  # characters that may have one glyph; what more have is a placeholder
_BRACKETS = frozenset("()[]{}<>")
_STROKES = frozenset("/|")
_IN_NO_FONT = "\U0010ffff"
_BLANK = frozenset("\u2800\u3164\u115f\u1160\uffa0")  # letters and signs that look like a space
_UNSEEN = "CMZ"  # first letters of the categories of control characters, marks and separators


def as_drawn(face: Face, alphabet: Iterable[str]) -> Face:
    """The face, without those characters of the alphabet that it draws as something else.

    Of a face with ideographs, that is nothing or a box: what it draws for a character that no font has, or
    for more than three characters. Of any face, it is nothing for a character that need not be seen, such as
    a joiner, and a bracket drawn as a stroke or as another bracket: GNU Typewriter has a slash in the place
    of each.
    """
    if any(_FIRST_IDEOGRAPH <= code <= _LAST_IDEOGRAPH for code in face.characters):
        looked_at = frozenset(ord(c) for c in alphabet if len(c) == 1 and not c.isspace())
    else:
        unseen = {c for c in alphabet if len(c) == 1 and not c.isspace() and _may_be_unseen(c)}
        looked_at = frozenset(map(ord, _BRACKETS | _STROKES | unseen))
    codes = looked_at & face.characters
    return _looked_at(face, codes) if codes else face


def _may_be_unseen(character: str) -> bool:
    return unicodedata.category(character)[0] in _UNSEEN or character in _BLANK


@lru_cache(maxsize=4096)
def _looked_at(face: Face, codes: frozenset[int]) -> Face:
    font = ImageFont.truetype(face.path, _SIZE, face.index, layout_engine=ImageFont.Layout.BASIC)
    canvas = Image.new("L", (2 * _SIZE, 2 * _SIZE))
    pen = ImageDraw.Draw(canvas)

    def drawn(character: str) -> bytes:
        canvas.paste(0, (0, 0, *canvas.size))
        pen.text((_SIZE // 2, _SIZE // 2), character, 255, font)
        return canvas.tobytes()

    pictures = {code: drawn(chr(code)) for code in codes}
    shared = Counter(pictures.values())
    empty, box = bytes(canvas.width * canvas.height), drawn(_IN_NO_FONT)
    absent = {
        code
        for code, picture in pictures.items()
        if picture in (empty, box)
        or shared[picture] > _ALIKE
        or (chr(code) in _BRACKETS and shared[picture] > 1)
    }
    return replace(face, characters=face.characters - absent)
