"""Files that are brought as checkpoints and are something else: what they are, and what to do with them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from typing import BinaryIO

__all__ = ["is_safetensors", "kind_of_archive", "kind_of_file"]

_MOST_HEADER = 100_000_000  # bytes of the names and shapes in a safetensors file, as its library has it
_SAVE = "torch.save(model.state_dict(), FILE)"
_ARCHIVES = "it is packed ({}); unpack it first"
# what a file begins with
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "it is a pointer of Git LFS and not the file itself; run: git lfs pull"),
    (b"\x89HDF", "it is an HDF5 file, as of Keras; convert its network to ONNX and give that to describe"),
    (b"\x93NUMPY", f"it is an array of NumPy (.npy) without names of weights; save them with {_SAVE}"),
    (b"\x1f\x8b", _ARCHIVES.format("gzip")),
    (b"BZh", _ARCHIVES.format("bzip2")),
    (b"\xfd7zXZ", _ARCHIVES.format("xz")),
    (b"7z\xbc\xaf", _ARCHIVES.format("7z")),
    (b"Rar!", _ARCHIVES.format("rar")),
    (b"GGUF", f"it is a GGUF file; save the network's weights with {_SAVE}"),
)
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12.(pytorch|onnx|tf2onnx|keras|paddle|crnn)", re.DOTALL)


def kind_of_file(file: BinaryIO) -> str | None:
    """What a file is that is no checkpoint, told by its first bytes, in a sentence; None: it may be one."""
    file.seek(0)
    start = file.read(512)
    file.seek(0)
    if not start:
        return "it is empty; download it or save it again"
    if _WEB_PAGE.match(start):
        return "it is a web page; download the file itself"
    if start[257:262] == b"ustar":
        return _ARCHIVES.format("tar")
    if start[4:8] == b"TFL3":
        return "it is a TensorFlow Lite file; convert its network to ONNX and give that to describe"
    if _ONNX.match(start):
        return "it is an ONNX file; give it to crnn-deploy describe"
    return next((kind for begin, kind in _KINDS if start.startswith(begin)), None)


def kind_of_archive(entries: Sequence[zipfile.ZipInfo]) -> str | None:
    """What a zip archive is that torch.save did not write, in a sentence; None: it may have written it."""
    names = [entry.filename for entry in entries]
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return (
            "it is a TorchScript file, which is a program; load it with torch.jit.load where you trust it, "
            f"and save its weights alone: {_SAVE}"
        )
    if "data.pkl" in inside:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return (
            "it is an archive of NumPy arrays (.npz); save them as tensors: "
            "torch.save({name: torch.from_numpy(array) for name, array in numpy.load(FILE).items()}, OUT)"
        )
    if _any_ends(names, ("model.json", "program.json", "serialized_exported_program.json")):
        return f"it is a program of torch.export (.pt2); save the network's weights alone: {_SAVE}"
    if _any_ends(names, (".weights.h5", "saved_model.pb")):
        return "it is a network of Keras; convert it to ONNX and give that to describe"
    if packed := next((name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".tar"))), None):
        return f"{_ARCHIVES.format('zip')}: it holds {packed[:60]}"
    return None


def is_safetensors(file: BinaryIO) -> bool:
    """Whether a file begins as one of safetensors, whatever its name."""
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    start = file.read(9)
    file.seek(0)
    header = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and 2 <= header <= min(_MOST_HEADER, size - 8)


def _any_ends(names: Iterable[str], ends: tuple[str, ...]) -> bool:
    return any(name.endswith(ends) for name in names)
