"""Which library decodes the JPEG files of crops fastest, and whether decoding them smaller changes the text.

    python -m benchmarks.speed.jpeg [--images 200] [--rounds 9] [--data DIR ...] [--json FILE]

Speed: the files are drawn words 32 to 64 px high, and the same words 4 and 12 times larger, as phones give
them. Decoders get bytes and give grey or BGR pixels, with one thread. The row `decode_image` is the toolkit's
own function, which checks a file before OpenCV decodes it.

Text: every image of the folders of --data is written as JPEG, in its own size and enlarged 4 times. The
default model reads it from the whole image, and from OpenCV's reduced ones. A reduced image must be at least
one and a half times as high as the network's input. Another row shows how much another quality of JPEG
changes the text.

The script needs the extra [cpu]. The other decoders are left out if they are missing. This installs them;
PyTurboJPEG also needs Debian's libturbojpeg0:

    pip install --no-deps simplejpeg 'PyTurboJPEG<2'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import cpu_in_turn, measured, options, write
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.pixels import decode_image, read_image
from crnn_deploy.runtime.recognizer import Recognizer

Decode = Callable[[bytes], object]
REDUCED = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
QUALITY = 92


def enlarged(data: bytes, times: int) -> bytes:
    """The same picture with more pixels."""
    pixels = decode_image(data, "<drawn>")
    large = cv2.resize(pixels, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    return jpeg(np.asarray(large, np.uint8))


def jpeg(pixels: NDArray[np.uint8], quality: int = QUALITY) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def opencv(flags: int) -> Decode:
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def decoders() -> dict[str, Decode]:
    """What is installed, by name."""
    found: dict[str, Decode] = {
        "decode_image": lambda data: decode_image(data, "<bytes>"),
        "OpenCV, BGR": opencv(cv2.IMREAD_COLOR),
        "OpenCV, grey": opencv(cv2.IMREAD_GRAYSCALE),
    }
    found |= {f"OpenCV, grey, 1/{times}": opencv(flag) for times, flag in REDUCED.items()}
    try:
        simple: Any = import_module("simplejpeg")
        found["simplejpeg, BGR"] = lambda data: simple.decode_jpeg(data, "BGR")
        found["simplejpeg, grey"] = lambda data: simple.decode_jpeg(data, "GRAY")
    except ImportError as error:
        print(f"simplejpeg is left out: {error}")
    try:
        library: Any = import_module("turbojpeg")
        turbo = library.TurboJPEG()
        found["PyTurboJPEG, BGR"] = turbo.decode
        found["PyTurboJPEG, grey"] = lambda data: turbo.decode(data, pixel_format=library.TJPF_GRAY)
    except (ImportError, RuntimeError) as error:
        print(f"PyTurboJPEG is left out: {error}")
    return found


def speeds(files: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """CPU time of each decoder at three sizes, in turn."""
    sizes = {"32-64 px high": list(files)}
    sizes |= {f"{32 * n}-{64 * n} px high": [enlarged(f, n) for f in files[:: n * 2]] for n in (4, 12)}
    tasks: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}
    for size, some in sizes.items():
        for name, decode in decoders().items():
            key = f"{size}: {name}"
            tasks[key] = lambda some=some, decode=decode: [decode(data) for data in some]  # type: ignore[misc]
            counts[key] = len(some)
    spent = cpu_in_turn(tasks, counts, rounds)
    for key, values in spent.items():
        print(f"{float(np.median(values)) * 1e3:8.1f} us  {key}", flush=True)
    return {key: {"cpu_per_image": measured(values, "CPU ms")} for key, values in spent.items()}


def texts(folders: Sequence[str]) -> dict[str, Any]:
    """Texts of whole images and of reduced ones."""
    reader = Recognizer()
    least = 1.5 * reader.manifest.height
    names = [*(f"1/{times}" for times in REDUCED), f"quality {QUALITY - 5}"]
    counts = {name: {"images": 0, "texts_changed": 0} for name in names}
    for path in sources.find(folders, ()):
        pixels = read_image(path)
        for data in (jpeg(pixels), enlarged(jpeg(pixels), 4)):
            whole = decode_image(data, path)
            candidates = {f"quality {QUALITY - 5}": decode_image(jpeg(whole, QUALITY - 5), path)}
            for times, flag in REDUCED.items():
                if whole.shape[0] / times >= least:
                    small = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
                    candidates[f"1/{times}"] = np.asarray(small, np.uint8)
            first = reader.read([whole])[0].text
            for name, pixels_of_it in candidates.items():
                counts[name]["images"] += 1
                counts[name]["texts_changed"] += reader.read([pixels_of_it])[0].text != first
    for name, row in counts.items():
        print(name, row, flush=True)
    return {f"text at {name}": row for name, row in counts.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=9)
    parser.add_argument("--images", type=int, default=200, help="Draw this many words.")
    parser.add_argument(
        "--data", action="append", default=[], metavar="DIR", help="Read the images of this folder."
    )
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    rows = speeds(draw_images("words", given.images), given.rounds)
    folders = [name for name in given.data if Path(name).is_dir()]
    write("jpeg", rows | texts(folders), given.json)


if __name__ == "__main__":
    main()
