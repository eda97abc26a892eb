"""Draw the example images: Latin and Chinese texts in fonts that the shipped models were not trained with.

    python examples/make.py

Writes images/*.png and labels.txt (name, space, text) beside this file, and the same below chinese/. Needs
the extra [train] and the fonts of the tiers `latin` and `chinese` (crnn-deploy dataset fonts --packages).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from crnn_deploy.synthesis.fonts import Tier, scan
from crnn_deploy.synthesis.renderer import Renderer

HERE = Path(__file__).parent
# text, strength of the faults, light on dark
EXAMPLES = (
    ("Printed", 0.0, False),
    ("Grüße aus Köln", 0.2, False),
    ("INVOICE 2026-0417", 0.4, False),
    ("€ 1,299.00", 0.5, True),
    ("Keep dry!", 0.7, True),
    ("EXIT", 0.9, True),
    ("HX-4711/B", 0.6, False),
    ("naïve façade", 0.4, True),
    ("support@example.org", 0.3, False),
    ("18:45", 0.9, False),
    ("Best before 03/2027", 0.6, True),
    ("Señor Muñoz, 3rd floor", 0.5, False),
)


CHINESE = (
    ("最高洗涤温度30℃", 0.0, False),
    ("请勿在此停车", 0.4, True),
    ("2026年11月30日", 0.3, False),
    ("人民币壹仟贰佰元整", 0.5, False),
    ("联系电话：010-62345678", 0.6, False),
    ("用手机APP扫一扫", 0.5, True),
    ("饕餮盛宴", 0.2, True),
    ("但愿人长久，千里共婵娟。", 0.4, False),
)


def draw(examples: Sequence[tuple[str, float, bool]], tier: Tier, folder: Path, seed: int) -> None:
    """The images of some examples, and their labels."""
    characters = sorted({character for text, _, _ in examples for character in text})
    faces = [face for face in scan(tier) if face.split == "held-out"]
    renderer = Renderer(faces, characters)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for at, (text, strength, inverted) in enumerate(examples, 1):
        rng = np.random.default_rng((seed, at))
        name = f"{at:02}.png"
        cv2.imwrite(
            str(folder / "images" / name), renderer.render(text, rng, strength=strength, inverted=inverted)
        )
        lines.append(f"images/{name} {text}\n")
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    draw(EXAMPLES, "latin", HERE, 2026)
    draw(CHINESE, "chinese", HERE / "chinese", 2027)


if __name__ == "__main__":
    main()
