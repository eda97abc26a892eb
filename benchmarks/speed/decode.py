"""How fast decoders are, beside fast-ctc-decode and pyctcdecode, and how much a lexicon improves the text.

    python -m benchmarks.speed.decode [--rounds 9] [--images 8000] [--pyctcdecode PYTHON] [--json FILE]

Speed is in CPU-milliseconds per line of 71 frames (outputs of time steps): the median of rounds in turn. The
frames of 37 classes are the default model's on drawn lines, with upper and lower case added up. The frames of
6,736 classes are made up, with peaks like those of a trained network. A "cold" decoder has seen no line
before; a "warm" one gets the same lines again.

Accuracy is measured on drawn held-out words with the faults of cameras. The lexicon is the held-out word
list. A text is right only if it is exact, upper and lower case included. "listed" counts only the images
whose words are in the list exactly, accents included. "half" of the lexicon is every other word of it.

pyctcdecode needs numpy < 2. So it runs in an environment of its own, in the same rounds, and --pyctcdecode
names its interpreter. The script needs the extras [cpu,decode,train], fast-ctc-decode, and the fonts and word
lists of the tier `latin`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pickle
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from importlib import metadata
from pathlib import Path
from typing import Any

import fast_ctc_decode
import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.drawn_text import SETS
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.evaluation.speed import header
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends.backend import Backend, open_backend
from crnn_deploy.runtime.decoding.alignment import Decode, Decoder
from crnn_deploy.runtime.decoding.beam import Beam
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.constraints import Constraint
from crnn_deploy.runtime.decoding.ctc import BestPath, Frames
from crnn_deploy.runtime.decoding.lexicon import ClosestWord, Lexicon
from crnn_deploy.runtime.decoding.lm import train
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.dataset import SyntheticDataset
from crnn_deploy.synthesis.fonts import scan
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import WORD_LISTS, TextSource, read_words

Logits = NDArray[np.float32]
STEPS, LINES, MANY = 71, 64, 16  # frames; lines in a round; lines in a round of 6,736 classes
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
HANZI = "".join(map(chr, range(0x4E00, 0x4E00 + 6735)))
LEXICON = 100_000  # words
BATCHES = 200  # of 256 lines, in a round of greedy decoding: 50 ms
AWAKE = 0.5  # CPU-seconds of work until a core that waited for another process is at its clock again
TUNED = range(2000, 4000)  # images that the lexicon's weights were chosen on

PYCTCDECODE = """
import logging, pickle, sys, time
logging.disable(logging.WARNING)
from pyctcdecode import build_ctcdecoder
logits, labels = pickle.load(open(sys.argv[1], "rb"))
decoder = build_ctcdecoder(labels)
for _ in sys.stdin:
    start = time.process_time()
    for line in logits:
        decoder.decode(line, beam_width=10)
    print((time.process_time() - start) / len(logits) * 1e3, flush=True)
"""


def drawn(backend: Backend, name: str, count: int, *, without: range = range(0)) -> list[tuple[str, Frames]]:
    """Texts of a set of `benchmarks.accuracy.drawn_text`, and the default model's frames of them."""
    kinds, augmented, polarity, seed = SETS[name]
    recognizer, alphabet = Recognizer(backend), backend.manifest.alphabet
    renderer = Renderer([face for face in scan() if face.split == "held-out"], alphabet)
    texts = TextSource(alphabet, read_words("held-out"), kinds)
    images = SyntheticDataset(texts, renderer, seed, augmented, polarity)
    kept = (index for index in itertools.count() if index not in without)
    samples = [images[index] for index in itertools.islice(kept, count)]
    return [(sample.text, backend.run(recognizer.prepare(sample.image).pixels[None])) for sample in samples]


def folded(logits: Logits, alphabet: Sequence[str], blank: int) -> Logits:
    """Logits (N, T, 37) of the blank, digits and letters, upper and lower case taken together."""
    tokens = [*alphabet[:blank], "", *alphabet[blank:]]
    cases = [{tokens.index(letter), tokens.index(letter.upper())} for letter in LETTERS]
    columns = [np.logaddexp.reduce(logits[:, :, [*case]], axis=2) for case in cases]
    return np.stack([logits[:, :, blank], *columns], axis=2).astype(np.float32)


def made_up(lines: int, classes: int) -> Logits:
    """Logits (N, T, classes) of which two frames of three are blank, and of some a class rivals the best."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(lines, STEPS, classes)).astype(np.float32)
    spoken = np.where(rng.random((lines, STEPS)) < 0.67, 0, rng.integers(1, classes, (lines, STEPS)))
    strength = rng.normal(14, 2, (lines, STEPS)).astype(np.float32)
    np.put_along_axis(logits, spoken[:, :, None], strength[:, :, None], axis=2)
    row, frame = np.nonzero(rng.random((lines, STEPS)) < 0.15)
    logits[row, frame, rng.integers(0, classes, len(row))] += 12
    return logits


class Timed:
    """What is compared: milliseconds of CPU per line, round by round."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[float]] = {}

    def add(self, name: str, milliseconds: float) -> None:
        self.rounds.setdefault(name, []).append(milliseconds)

    def time(self, name: str, lines: int, run: Callable[[], object]) -> None:
        start = time.process_time()
        run()
        self.add(name, (time.process_time() - start) / lines * 1e3)

    def decoder(
        self, name: str, decoder: Decoder, alphabet: Sequence[str], blank: int, frames: Frames
    ) -> None:
        """Cold and warm, without the time of binding."""
        decode = decoder.bind(alphabet, blank)
        pixels = [(4.0, 4 * STEPS)] * len(frames.indices)
        for how in ("cold", "warm"):
            self.time(f"{name}, {how}", len(pixels), lambda: decode(frames, pixels))


def speed(backend: Backend, rounds: int, pyctcdecode: str | None) -> dict[str, Any]:
    """CPU-milliseconds per line of each decoder."""
    alphabet, blank = backend.manifest.alphabet, backend.manifest.blank
    lines = [frames.logits for _, frames in drawn(backend, "augmented lines of words", 2 * LINES)]
    long = [line[0, :STEPS] for line in lines if line is not None and line.shape[1] >= STEPS][:LINES]
    logits = np.stack(long)
    few, many = folded(logits, alphabet, blank), made_up(MANY, len(HANZI) + 1)
    line_frames, few_frames, many_frames = map(Frames.from_logits, (logits, few, many))
    probabilities = [np.exp(x - np.logaddexp.reduce(x, axis=2, keepdims=True)) for x in (few, many)]
    words = sorted({word for path in WORD_LISTS for word in path.read_text(encoding="utf-8").split()})
    words = words[:: max(1, len(words) // LEXICON)][:LEXICON]
    lexicon = Lexicon(words)
    closest = ClosestWord(words).bind(alphabet, blank)
    short = [frames for _, frames in drawn(backend, "augmented words", LINES)]
    model = train(read_words("train"), 6)
    batch = Frames.from_logits(np.concatenate([few] * 4)[:256])
    batch_pixels = [(4.0, 4 * STEPS)] * len(batch.indices)
    greedy = BestPath(LETTERS, 0)
    mask = Constraint(mask="AA999AA")

    def batches() -> None:
        for _ in range(BATCHES):
            greedy(batch, batch_pixels)

    timed = Timed()
    with ExitStack() as stack:
        workers = {}
        if pyctcdecode:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name, array, letters in (("37 classes", few, LETTERS), ("6,736 classes", many, HANZI)):
                path = folder / f"{len(letters)}.pickle"
                path.write_bytes(pickle.dumps((list(array), ["", *letters])))
                worker = subprocess.Popen(
                    [pyctcdecode, "-c", PYCTCDECODE, str(path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                workers[name] = stack.enter_context(worker)
        for _ in range(1 + rounds):  # the first warms up
            awake = time.process_time() + AWAKE
            while time.process_time() < awake:
                batches()
            timed.time("greedy, 37 classes", BATCHES * len(batch_pixels), batches)
            timed.decoder("beam 10, 37 classes", Beam(), LETTERS, 0, few_frames)
            timed.decoder("beam 10, 6,736 classes", Beam(), HANZI, 0, many_frames)
            timed.decoder(f"beam 10, lexicon of {len(words):,} words", Beam(scorers=[(lexicon, 1.0)]),
                          alphabet, blank, line_frames)  # fmt: skip
            timed.time(f"closest of {len(words):,} words, images of words", LINES, lambda: [
                closest(frames, [(4.0, 1)]) for frames in short
            ])  # fmt: skip
            timed.decoder(
                "beam 10, character 6-gram", Beam(scorers=[(model, 0.5)]), alphabet, blank, line_frames
            )
            timed.decoder("beam 10, mask that the image contradicts", Beam(constraint=mask),
                          alphabet, blank, line_frames)  # fmt: skip
            timed.time("fast-ctc-decode, beam 10, 37 classes", LINES, lambda: [
                fast_ctc_decode.beam_search(line, "_" + LETTERS, 10, 1e-3) for line in probabilities[0]
            ])  # fmt: skip
            timed.time("fast-ctc-decode, beam 10, 6,736 classes", 1, lambda: fast_ctc_decode.beam_search(
                probabilities[1][0], "_" + HANZI, 10, 1e-4
            ))  # fmt: skip
            for name, worker in workers.items():
                assert worker.stdin and worker.stdout
                worker.stdin.write("again\n")
                worker.stdin.flush()
                timed.add(f"pyctcdecode, beam 10, {name}", float(worker.stdout.readline()))
    return {name: {"median": statistics.median(found[1:]), "least": min(found[1:])}
            for name, found in timed.rounds.items()}  # fmt: skip


def accuracy(backend: Backend, images: int) -> dict[str, Any]:
    """Wrong texts of drawn words by decoder: of all, and of those whose words the list has as they stand."""
    alphabet, blank = backend.manifest.alphabet, backend.manifest.blank
    words = read_words("held-out")
    half = words[::2]
    listed = Lexicon(words)
    ignoring = {unknown: DecodingRule("beam", accents=False, unknown=unknown) for unknown in (-6, -10)}
    kinds: dict[str, Decoder] = {
        "beam 10": Beam(),
        "beam 10, lexicon": Beam(scorers=[(listed, 1.0)]),
        "beam 10, lexicon, accents ignored": decoder_of(ignoring[-6], lexicon=words),
        "beam 10, lexicon, accents ignored, unknown -10": decoder_of(ignoring[-10], lexicon=words),
        "beam 10, half the lexicon, accents ignored": decoder_of(ignoring[-6], lexicon=half),
        "beam 10, half the lexicon, accents ignored, unknown -10": decoder_of(ignoring[-10], lexicon=half),
        "closest word": ClosestWord(words),
    }
    decoders: dict[str, Decode] = {"greedy": BestPath(alphabet, blank)}
    decoders |= {name: decoder.bind(alphabet, blank) for name, decoder in kinds.items()}
    results: dict[str, Any] = {"words in the lexicon": len(words)}
    for name in ("augmented words", "augmented words, inverted"):
        found = drawn(backend, name, images, without=TUNED)
        known = [weight(listed, text) == 0 for text, _ in found]
        results[name] = {"images": images, "listed": sum(known)}
        for label, decode in decoders.items():
            wrong = [decode(frames, [(4.0, 1)])[0].text != text for text, frames in found]
            results[name][label] = {
                "wrong": sum(wrong),
                "wrong of the listed": sum(w and k for w, k in zip(wrong, known, strict=True)),
            }
    return results


def weight(lexicon: Lexicon, text: str) -> float:
    """What a lexicon makes of a whole text."""
    state, total = lexicon.start(), 0.0
    for char in text:
        state, more = lexicon.step(state, char)
        total += more
    return total + lexicon.end(state)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="Measure this many rounds.")
    parser.add_argument("--images", type=int, default=8000, help="Draw this many images of each set.")
    parser.add_argument(
        "--pyctcdecode", metavar="PYTHON", help="Compare with the pyctcdecode of this Python."
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    results = header("decode")
    packages = ("numba", "fast-ctc-decode")
    results["versions"] |= {name: metadata.version(name) for name in packages}
    if arguments.pyctcdecode:
        code = "from importlib import metadata; print(metadata.version('pyctcdecode'))"
        run = subprocess.run([arguments.pyctcdecode, "-c", code], capture_output=True, text=True, check=True)
        results["versions"]["pyctcdecode"] = run.stdout.strip()
    with closing(open_backend(DEFAULT)) as backend:
        results["CPU-milliseconds per line"] = speed(backend, arguments.rounds, arguments.pyctcdecode)
        results["wrong texts"] = accuracy(backend, arguments.images)
    for name in ("CPU-milliseconds per line", "wrong texts"):
        print(f"{name}:")
        for key, value in results[name].items():
            print(f"  {key}: {json.dumps(value)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
