"""Draw the example images: a dozen texts in fonts that the default model was not trained with.

    python examples/make.py

Writes images/*.png and labels.txt (name, space, text) beside this file. Needs the extra [train] and the fonts
of the tier `latin` (crnn-deploy dataset fonts --packages).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from crnn_deploy.synthesis.fonts import scan
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


def main() -> None:
    characters = sorted({character for text, _, _ in EXAMPLES for character in text})
    renderer = Renderer([face for face in scan() if face.split == "held-out"], characters)
    (HERE / "images").mkdir(exist_ok=True)
    lines = []
    for at, (text, strength, inverted) in enumerate(EXAMPLES, 1):
        rng = np.random.default_rng((2026, at))
        name = f"{at:02}.png"
        cv2.imwrite(
            str(HERE / "images" / name), renderer.render(text, rng, strength=strength, inverted=inverted)
        )
        lines.append(f"images/{name} {text}\n")
    (HERE / "labels.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
