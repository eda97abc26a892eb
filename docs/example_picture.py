"""The example images with what the shipped models read in them: docs/pictures/examples.png, chinese.png.

    python docs/example_picture.py

Under each image its text and confidence; a text in red is not what stands in the image. Needs the extras
[cpu,train], and the font WenQuanYi Zen Hei.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from crnn_deploy import Recognizer, open_dataset
from crnn_deploy.runtime.images.pixels import read_image

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"


def picture(model: str, labels: Path, columns: int, font: str) -> Figure:
    """The labelled images, each over its text and confidence."""
    dataset = open_dataset(str(labels))
    samples = [dataset[at] for at in range(len(dataset))]
    texts = Recognizer(model).read([sample.image for sample in samples])
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(10, 1.05 * rows), dpi=90)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.97, bottom=0.1, wspace=0.06, hspace=0.9)
    for at, (sample, text) in enumerate(zip(samples, texts, strict=True), 1):
        cell = figure.add_subplot(rows, columns, at)
        cell.set_axis_off()
        cell.imshow(read_image(sample.image), cmap="gray", vmin=0, vmax=255)
        cell.set_title(
            f"{text.text}   {text.confidence:.2f}",
            y=0,
            pad=-6,
            verticalalignment="top",
            fontsize=11,
            family=font,
            color="black" if text.text == sample.text else "firebrick",
        )
    return figure


def main() -> None:
    examples = ROOT / "examples"
    picture("latin", examples / "labels.txt", 3, "DejaVu Sans Mono").savefig(PICTURES / "examples.png")
    chinese = picture("chinese", examples / "chinese" / "labels.txt", 2, "WenQuanYi Zen Hei")
    chinese.savefig(PICTURES / "chinese.png")


if __name__ == "__main__":
    main()
