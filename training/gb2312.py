"""Write an alphabet for Chinese to stdout: ASCII, Chinese marks, and the first level of GB 2312."""

import sys

ascii_ = "".join(map(chr, range(0x20, 0x7F)))
marks = "，。、；：？！（）《》“”…·￥"
codes = (bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
level1 = "".join(code.decode("gb2312") for code in codes if code <= b"\xd7\xf9")  # 3,755, by their sound

sys.stdout.buffer.write((ascii_ + marks + level1 + "\n").encode())
