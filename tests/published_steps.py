"""How many time steps the published networks put out."""

from __future__ import annotations

TIME_STEPS = {  # at widths 32, 33, 100 and 257
    "crnn": (9, 9, 26, 65),
    "mmocr": (9, 9, 26, 65),
    "compact": (8, 9, 25, 65),
    "gitycc": (7, 7, 24, 63),
    "clovaai-vgg": (7, 7, 24, 63),
    "clovaai-resnet": (9, 9, 26, 65),
    "easyocr-g1": (9, 9, 26, 65),
    "easyocr-g2": (7, 7, 24, 63),
    "doctr-vgg16": (8, 8, 25, 64),
    "doctr-mobilenet-small": (8, 9, 25, 65),
    "doctr-mobilenet-large": (8, 9, 25, 65),
}
