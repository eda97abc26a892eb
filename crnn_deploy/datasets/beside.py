"""Images with their texts beside them: `a.png` and `a.gt.txt`, or `a.txt`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from crnn_deploy.datasets import DatasetInvalid, RecordInvalid, Sample
from crnn_deploy.datasets.kinds import stem
from crnn_deploy.datasets.text_file import decoded
from crnn_deploy.files import read_regular

__all__ = ["TextsBeside"]

_MOST_TEXT = 2**20  # bytes
_PREFERRED = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".pgm", ".ppm", ".pbm")


class TextsBeside:
    """A folder of tesstrain (github.com/tesseract-ocr/tesstrain) or Calamari, or of pairs such as these.

    images: folder of the images; None: the same
    The texts of `.gt.txt` files are read where there are any, else those of `.txt` files. Of several images
    of a text, as a.png and a.bin.png, the plain one is taken. A text is the one line of its file.
    """

    def __init__(self, folder: str, images: str | None = None) -> None:
        self._folder, self._images = folder, folder if images is None else images
        try:
            names = sorted(os.listdir(folder))
            beside = names if images is None else sorted(os.listdir(images))
        except OSError as error:
            raise DatasetInvalid(folder, f"cannot be read: {error.strerror}") from None
        suffix = ".gt.txt" if any(name.endswith(".gt.txt") for name in names) else ".txt"
        found: dict[str, str] = {}
        for name in sorted(beside, key=_rank):
            if name.lower().endswith(_PREFERRED):
                found.setdefault(stem(name), name)
        texts = [name for name in names if name.endswith(suffix)]
        if not texts:
            raise DatasetInvalid(folder, "no .gt.txt or .txt files beside the images in it")
        self._pairs = [
            (found.get(name[: -len(suffix)], f"{name[: -len(suffix)]}.png"), name) for name in texts
        ]
        self.untold = len(found.keys() - {name[: -len(suffix)] for name in texts})  # images without a text

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        image, text = self._pairs[index]
        path = os.path.join(self._images, image)
        return Sample(path, self._text(text, path), path)

    def glance(self, index: int) -> str:
        sample = self[index]
        if not os.path.exists(sample.name):
            text = os.path.join(self._folder, self._pairs[index][1])
            raise RecordInvalid(text, sample.name, "is missing", "image missing", name=sample.name)
        return sample.text

    def files(self) -> Iterator[str]:
        for image, text in self._pairs:
            yield os.path.join(self._folder, text)
            yield os.path.join(self._images, image)

    def _text(self, name: str, image: str) -> str:
        path = os.path.join(self._folder, name)
        try:
            text = decoded(path, read_regular(path, _MOST_TEXT))
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            raise RecordInvalid(self._folder, name, reason, "label unreadable", name=image) from None
        except DatasetInvalid as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise RecordInvalid(self._folder, name, reason, "label unreadable", name=image) from None
        rows = text.replace("\r\n", "\n").rstrip("\n").split("\n")
        if len(rows) > 1:
            reason = f"holds {len(rows)} lines; the text of an image is one"
            raise RecordInvalid(self._folder, name, reason, "label unreadable", name=image)
        return rows[0]


def _rank(name: str) -> tuple[bool, int, str]:
    """Plain images come before processed ones, and suffixes in the order of `_PREFERRED`."""
    at = next((at for at, suffix in enumerate(_PREFERRED) if name.lower().endswith(suffix)), len(_PREFERRED))
    return stem(name) != name.rpartition(".")[0], at, name
