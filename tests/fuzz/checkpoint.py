"""Checkpoints: files of torch.save, new and old, and of safetensors; the pickle within; shapes of weights.

The first byte of an input says which of them follows.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import torch
from harness import fuzz, guided
from safetensors.torch import save

with guided():
    from crnn_deploy.export.checkpoints.checkpoint import load
    from crnn_deploy.export.checkpoints.torch_file import read_saved
    from crnn_deploy.recipes.recipe import recipe_of_checkpoint

from crnn_deploy.export.reference import open_reference
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.families import recognise
from crnn_deploy.recipes.settings import CheckpointSettings

torch.set_num_threads(1)
FILE = Path(tempfile.mkdtemp()) / "x.pth"
SAFE = FILE.with_suffix(".safetensors")
DIGITS = tuple("0123456789")
STATE = CRNN(16, 1, 11, 2, widths=(2,) * 7).state_dict()
KEYS = [name for name, value in STATE.items() if value.ndim]
RECIPE = {
    "about": "as trained",
    "width": {"minimum": 100, "maximum": 100, "fit": "pad", "pad": "edge"},
    "blank": "first",
    "color": "gray",
    "height": 16,
    "mean": (0.5,),
    "filters": [
        {"filter": "stretch", "tails": 0.01, "least": 96},
        {"filter": "clahe", "clip": 2.0, "tiles": 8},
    ],
    "leaky_relu": False,
}


def torch_saved(old: bool) -> bytes:
    file = io.BytesIO()
    content = {"state_dict": STATE, "recipe": RECIPE, "alphabet": list(DIGITS), "epoch": 3}
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def zipped(pickle: bytes) -> bytes:
    """An archive of torch.save with another pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SAVED)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle if name.endswith("/data.pkl") else old.read(name))
    return file.getvalue()


SAVED = torch_saved(old=False)
with zipfile.ZipFile(io.BytesIO(SAVED)) as archive:
    PICKLE = archive.read("archive/data.pkl")


def target(data: bytes) -> None:
    """Read it, tell its family, and read its recipe."""
    kind, data = data[:1], data[1:]
    if kind == b"n":
        shapes(data)
        return
    path = SAFE if kind == b"s" else FILE
    path.write_bytes(zipped(data) if kind == b"p" else data)
    checkpoint = load(path)
    assert sum(value.numel() for value in checkpoint.state.values()) <= 64 * path.stat().st_size + 2**20
    for state in checkpoint.variants():
        try:
            recognise(state)
        except IndexError:  # `open_reference` says so
            return
    if checkpoint.recipe is not None:
        recipe_of_checkpoint(checkpoint.recipe, path)


def shapes(data: bytes) -> None:
    """Weights of a small network, some of them of another shape, all of zeros."""
    state = dict(STATE)
    for at in range(0, len(data) - 6, 6):
        key, axes, *sizes = data[at : at + 6]
        state[KEYS[key % len(KEYS)]] = torch.zeros([size % 64 for size in sizes[: axes % 5]])
        if at > 24:
            break
    torch.save(state, FILE)
    open_reference(FILE, CheckpointSettings("crnn.pytorch", alphabet=DIGITS))


assert read_saved(io.BytesIO(SAVED))["alphabet"] == list(DIGITS)
SEEDS = [b"z" + SAVED, b"o" + torch_saved(old=True), b"p" + PICKLE, b"s" + save(STATE)]
fuzz(target, [*SEEDS, b"n" + bytes((0, 4, 2, 1, 3, 3)), b"n" + bytes((20, 2, 11, 4, 0, 0))])
