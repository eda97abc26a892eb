"""A reader of another project as a process of its own, which answers lines of JSON.

It runs in the environment of that project, so it imports nothing of this one. Its first line says what the
reader is, or why it cannot be used. Each line that `serve` gets holds two lists: `files`, PNG files of one
crop each, and `languages`, Tesseract's name of the language of each. `serve` answers with the texts in that
order, and with the CPU-seconds of reading. It decodes the images and loads the languages before the clock
starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from glob import glob
from importlib import import_module, metadata
from typing import Any

__all__ = ["serve"]

# images decoded, with their languages, to texts
_Read = Callable[[Sequence[Any], Sequence[str]], list[str]]
_Opened = tuple[dict[str, str], Callable[[str], Any], _Read]


def _rapidocr() -> _Opened:
    """The recogniser alone, as it stands: PP-OCRv4, batches of 6 sorted by width."""
    cv2 = import_module("cv2")
    cv2.setNumThreads(1)
    package = import_module("rapidocr_onnxruntime")
    recogniser = package.RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1).text_rec
    about = {"version": metadata.version("rapidocr_onnxruntime"), "model": "PP-OCRv4, Chinese and English"}
    return about, cv2.imread, lambda images, _: [text for text, _ in recogniser(list(images))[0]]


def _tesseract() -> _Opened:
    """Tesseract told that an image is one line of text (`--psm 7`)."""
    tesserocr, image = import_module("tesserocr"), import_module("PIL.Image")
    folder = next((path for path in _tessdata() if tesserocr.get_languages(path)[1]), None)
    if folder is None:
        raise ImportError("no languages of Tesseract are installed")
    apis: dict[str, Any] = {}

    def api_of(languages: str) -> Any:
        missing = {*languages.split("+")} - {*tesserocr.get_languages(folder)[1]}
        if missing:
            raise ImportError(f"Tesseract's languages {', '.join(sorted(missing))} are not installed")
        if languages not in apis:
            apis[languages] = tesserocr.PyTessBaseAPI(
                path=folder, lang=languages, psm=tesserocr.PSM.SINGLE_LINE
            )
            apis[languages].SetVariable("user_defined_dpi", "70")  # its own guess, without a warning for each
        return apis[languages]

    def read(images: Sequence[Any], languages: Sequence[str]) -> list[str]:
        texts = []
        for pixels, language in zip(images, languages, strict=True):
            api = api_of(language)
            api.SetImage(pixels)
            texts.append(" ".join(api.GetUTF8Text().split()))
        return texts

    about = {"version": tesserocr.tesseract_version().split()[1], "mode": "psm 7", "data": folder}
    return about, lambda path: image.open(path).convert("RGB"), read


def _tessdata() -> list[str]:
    """Folders that may hold Tesseract's languages."""
    named = os.environ.get("TESSDATA_PREFIX")
    return [*([named] if named else []), *sorted(glob("/usr/share/tesseract-ocr/*/tessdata"))]


def serve(kind: str) -> None:
    """Answer until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print what they like

    def answer(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    try:
        about, load, read = {"rapidocr": _rapidocr, "tesseract": _tesseract}[kind]()
    except ImportError as error:
        return answer({"missing": str(error)})
    answer(about)
    for line in sys.stdin:
        asked = json.loads(line)
        images, languages = [load(path) for path in asked["files"]], asked["languages"]
        try:
            first = {language: image for language, image in zip(languages, images, strict=True)}
            read([*first.values()], [*first])  # warms up
        except ImportError as error:
            answer({"missing": str(error)})
            continue
        start = time.process_time()
        texts = read(images, languages)
        answer({"texts": texts, "cpu_seconds": time.process_time() - start})
