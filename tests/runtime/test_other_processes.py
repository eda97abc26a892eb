"""A recogniser in other processes: pickled, it is a path and settings, and reads the same."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from crnn_deploy import Beam, Constraint, Recognizer
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import AlphabetMismatch, CharacterUnknown, CrnnDeployError, ModelNotFound, RunFailed
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.ctc import LogitsMissing
from crnn_deploy.runtime.images.header import ImageUnreadable
from crnn_deploy.runtime.images.pixels import ImageNotFound
from crnn_deploy.runtime.opening import NotPortable

IMAGES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))[:4]


def read(recognizer: Recognizer) -> list[Any]:
    return recognizer.read(IMAGES)


RECOGNIZERS: dict[str, Any] = {
    "default": lambda: Recognizer(),
    "by name": lambda: Recognizer("latin", batch=3),
    "loaded": lambda: Recognizer.load(DEFAULT, threads=2, batch=2, wide="shrink", max_pixels=10**6),
    "turning": lambda: Recognizer(rotate="auto"),
    "beam": lambda: Recognizer(decoder=Beam(width=4, constraint=Constraint(allow="PrintedHol"), nbest=2)),
    "lexicon": lambda: Recognizer(decoder=decoder_of(DecodingRule(decoder="beam"), lexicon=["Printed"])),
    "hotwords": lambda: Recognizer(decoder=decoder_of(DecodingRule(decoder="beam", hotwords=("Printed",)))),
    "with another decoder": lambda: Recognizer().with_decoder(Beam(width=3)),
}


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_a_recogniser_that_was_pickled_reads_the_same(name: str) -> None:
    recognizer = RECOGNIZERS[name]()
    again = pickle.loads(pickle.dumps(recognizer))
    assert read(again) == read(recognizer)
    assert again.max_pixels == recognizer.max_pixels and again.manifest == recognizer.manifest
    assert len(pickle.dumps(Recognizer())) < 2000  # no weights
    assert read(copy.deepcopy(again)) == read(pickle.loads(pickle.dumps(again))) == read(recognizer)


def test_a_copy_shares_the_network() -> None:
    recognizer = Recognizer(batch=2)
    assert read(copy.copy(recognizer)) == read(recognizer)
    opened = Recognizer(open_backend(DEFAULT))
    assert read(copy.copy(opened)) == read(opened)


def test_an_open_network_cannot_be_sent() -> None:
    opened = Recognizer(open_backend(DEFAULT))
    for recognizer in (opened, opened.with_decoder(Beam())):
        for send in (pickle.dumps, copy.deepcopy):
            with pytest.raises(NotPortable, match=r"make it with Recognizer\.load\(path\)"):
                send(recognizer)
            with pytest.raises(TypeError):  # as Python's own
                send(recognizer)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_processes_of_every_kind(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    recognizer = Recognizer()
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(read, (recognizer,)) == read(recognizer)


def test_a_relative_path_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(DEFAULT.read_bytes())
    monkeypatch.chdir(tmp_path)
    for recognizer in (Recognizer.load("m.onnx"), Recognizer("m.onnx"), Recognizer("./m.onnx")):
        data = pickle.dumps(recognizer)
        monkeypatch.chdir("/")
        assert read(pickle.loads(data)) == read(Recognizer())
        monkeypatch.chdir(tmp_path)


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(DEFAULT.read_bytes())
    data = pickle.dumps(Recognizer.load(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model file at .*m\.onnx"):
        pickle.loads(data)


def test_workers_of_a_data_loader() -> None:
    data = pytest.importorskip("torch.utils.data")

    class Texts(data.Dataset):  # type: ignore[name-defined,misc]
        def __init__(self, recognizer: Recognizer) -> None:
            self.recognizer = recognizer

        def __len__(self) -> int:
            return len(IMAGES)

        def __getitem__(self, at: int) -> str:
            return self.recognizer.read(IMAGES[at]).text

    recognizer = Recognizer()
    loaded = data.DataLoader(Texts(recognizer), batch_size=None, num_workers=1)
    assert list(loaded) == [text.text for text in read(recognizer)]


ERRORS = [
    ImageNotFound("word.png"),
    ImageUnreadable("word.png", "empty file"),
    ModelNotFound(Path("m.onnx"), "an .onnx file"),
    AlphabetMismatch(36, 38),
    CharacterUnknown("x", "box"),
    LogitsMissing("a lexicon"),
    RunFailed(Path("m.onnx"), (1, 1, 32, 100), "no memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_in_another_process(error: CrnnDeployError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and again.args == error.args
    assert vars(again) == vars(error)
