"""Write the alphabet of the Chinese model to stdout, in one line, in the order of its classes.

\b
    python training/gb2312.py > gb2312.txt
    python training/gb2312.py --level 1 > gb2312_level1.txt

The alphabet has ASCII, Chinese punctuation marks, signs of menus, tickets and price tags, and the ideographs
of GB 2312: 3,755 of its first level, in the order of their sound, and 3,008 of its second, by their radicals.

Full-width letters, digits and signs are no classes of their own, and are read as ASCII: in print, only the
space around them differs. Benchmarks of Chinese text also turn them into ASCII before they compare (Yu et
al., arXiv 2112.15093). A mark keeps its own form only if Chinese sets it in another shape or place than
ASCII. Money has one sign, the full-width one.
"""

from __future__ import annotations

import sys

import click

ASCII = "".join(map(chr, range(0x20, 0x7F)))
MARKS = "，。、；：？！（）《》〈〉【】「」『』〔〕“”‘’…—～·￥々〇"
SIGNS = "°℃‰±×÷√≈≠≤≥∞²³℉㎡αβμΩ→←↑↓①②③④⑤⑥⑦⑧⑨⑩※№§☆★○●◎◇◆□■△▲▽▼®©™€£"
FIRST_LEVEL, SECOND_LEVEL = range(0xB0, 0xD8), range(0xD8, 0xF8)  # rows of GB 2312 in EUC-CN


def ideographs(rows: range) -> str:
    """The ideographs of some rows; five cells at the end of the first level are empty."""
    codes = (bytes([row, cell]) for row in rows for cell in range(0xA1, 0xFF))
    return "".join(code.decode("gb2312", errors="ignore") for code in codes)


@click.command(help=__doc__)
@click.option(
    "--level",
    type=click.IntRange(1, 2),
    default=2,
    show_default=True,
    help="Write ideographs up to this level.",
)
def main(level: int) -> None:
    text = ASCII + MARKS + SIGNS + ideographs(FIRST_LEVEL)
    if level == 2:
        text += ideographs(SECOND_LEVEL)
    sys.stdout.buffer.write((text + "\n").encode())


if __name__ == "__main__":
    main()
