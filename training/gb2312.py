"""Write the alphabet of the Chinese model to stdout, one line in the order of its classes.

    python training/gb2312.py > gb2312.txt
    python training/gb2312.py --level 1 > gb2312_level1.txt

ASCII, Chinese marks, signs of menus, tickets and price tags, and the ideographs of GB 2312: 3,755 of its
first level, by their sound, and 3,008 of its second, by their radicals.

Full-width letters, digits and signs are no classes of their own: in print only the space around them differs,
so what is read is ASCII. Benchmarks of Chinese text fold them before they compare (Yu et al., arXiv
2112.15093). Only marks that Chinese sets in another shape or place than ASCII keep their own form, and for
money there is one sign, the full-width one.
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


@click.command()
@click.option("--level", type=click.IntRange(1, 2), default=2, show_default=True, help="highest level")
def main(level: int) -> None:
    text = ASCII + MARKS + SIGNS + ideographs(FIRST_LEVEL)
    if level == 2:
        text += ideographs(SECOND_LEVEL)
    sys.stdout.buffer.write((text + "\n").encode())


if __name__ == "__main__":
    main()
