"""Files of labels, of all kinds: what is accepted gives samples."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness import fuzz, guided

with guided():
    from crnn_deploy.datasets import open_dataset
    from crnn_deploy.datasets.labels import characters_alphabet

FOLDER = Path(tempfile.mkdtemp())
NAMES = ("labels.txt", "labels.csv", "labels.tsv", "labels.json", "labels.jsonl")
CHARACTERS = FOLDER / "characters"


def target(data: bytes) -> None:
    """The first byte says which kind of file the others are."""
    kind, data = data[:1] or b"0", data[1:]
    if kind == b"5":
        CHARACTERS.write_bytes(data)
        characters_alphabet(str(CHARACTERS))
        return
    CHARACTERS.write_bytes(b"blank\na\nb\nc\n")
    path = FOLDER / NAMES[4 if kind == b"6" else kind[0] % 5 % 4]
    path.write_bytes(data)
    dataset = open_dataset(str(path), characters=str(CHARACTERS) if kind == b"4" else None)
    for index in {0, len(dataset) // 2, len(dataset) - 1}:
        sample = dataset[index]
        assert isinstance(sample.image, str) and sample.text.encode() is not None


SEEDS = (
    *(b"0a.png one\nb.png two three\n", b"0a.png\tone\nb.png\ttwo\n"),
    *(b'1name,text\na.png,"o ""n"" e"\n', b"2a.png\tone\n", b'3{"a.png": "one", "b.png": "\\u00e9"}'),
    *(b'0a.png, "one"\nb.png, "t\\"wo"\n', b'0["a.png", "b.png"]\tone\n', b"01/1_one_2.jpg 2\n"),
    *(
        b'1sep=;\na.png;"one"\n',
        b"1filename,words\na.png,one, two\n",
        b'0{"filename": "a.png", "text": "x"}\n',
    ),
    *(b'3{"data_list": [{"img_path": "a", "instances": [{"text": "x"}]}]}', b'6{"path": "a", "gt": "x"}\n'),
    *(b"4a.png 1 2 3\n", b"5blank\na\n\xe9\n"),
)
fuzz(target, SEEDS)
