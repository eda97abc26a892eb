"""Checkpoints of strangers: nothing in them is called, and nothing is larger than the file."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from crnn_deploy.cli.main import main
from crnn_deploy.export.checkpoints.checkpoint import CheckpointNotFound, CheckpointUnreadable, load
from crnn_deploy.export.checkpoints.stored import FileBroken, NamesCode, with_tensors
from crnn_deploy.export.checkpoints.torch_file import read_saved
from crnn_deploy.export.reference import open_reference
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.settings import CheckpointSettings

SMALL = (2, 2, 2, 2, 2, 2, 2)
DIGITS = tuple("0123456789")


def saved(content: Any, *, old: bool = False, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old, pickle_protocol=protocol)
    return file.getvalue()


def read(data: bytes) -> Any:
    return with_tensors(read_saved(io.BytesIO(data)))


def small() -> dict[str, Any]:
    return CRNN(32, 1, 11, 4, widths=SMALL).state_dict()


def rezipped(data: bytes, compression: int = zipfile.ZIP_STORED, **changed: bytes) -> bytes:
    """The same archive with records of other contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            short = name.removeprefix("archive/").replace("data/", "record_").replace(".", "_")
            new.writestr(name, changed.get(short, old.read(name)))
    return file.getvalue()


def pickled(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("archive/data.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_what_trainers_save_is_read_as_torch_reads_it(old: bool, protocol: int) -> None:
    numbers = torch.arange(24.0).reshape(2, 3, 4)
    content = {
        **{"plain": numbers, "moved": numbers.permute(2, 0, 1), "part": numbers[1, 1:, ::2]},
        **{"half": numbers.half(), "bf16": numbers.bfloat16(), "double": numbers.double()},
        **{"whole": numbers.long(), "flags": numbers > 3, "empty": torch.zeros(0, 3)},
        **{"parameter": torch.nn.Parameter(numbers), "scalar": torch.tensor(3)},
    }
    found = read(saved(content, old=old, protocol=protocol))
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    noted = {"a": [1, -5, 10**30, 2.5, None, True, b"\x00\xff", (1, "ü")], "b": OrderedDict(c={1, 2}), 7: "x"}
    assert read(saved(noted, old=old, protocol=protocol)) == noted


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "torch.load", "torch.storage._load_from_bytes"]
)
def test_names_beyond_the_table_are_refused(old: bool, name: str) -> None:
    module, _, function = name.rpartition(".")
    data = saved({"a": torch.ones(1)})
    code = b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"X\x02\x00\x00\x00id\x85R."
    if old:
        data = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + code
    else:
        data = rezipped(data, data_pkl=code)
    with pytest.raises(NamesCode, match=name):
        read(data)


BOMBS: dict[str, bytes] = {
    # 64 KB that would be 8 GB
    "stride 0": saved({"a.b": torch.zeros(1).expand(2_000_000_000)}),
    "stride 0, old": saved({"a.b": torch.zeros(1).expand(2_000_000_000)}, old=True),
    "10,000 of one": saved({f"a.{i}": t.view(-1) for t in [torch.ones(100_000)] for i in range(10_000)}),
    "compressed": rezipped(saved({"a.b": torch.zeros(10_000_000)}), zipfile.ZIP_DEFLATED),
    "a size beyond the storage": rezipped(
        data := saved({"a.b": torch.ones(4)}),
        data_pkl=pickled(data).replace(b"K\x04\x85q", b"J\x00\x00\x00\x70\x85q", 1),
    ),
    "a record shorter than told": rezipped(data, record_0=b"1234"),
    "zeros of a number": rezipped(data, data_pkl=b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R."),
    "a tensor of a number": rezipped(data, data_pkl=b"\x80\x02ctorch\nTensor\nJ\x00\x00\x00\x70\x85R."),
    "a key of tuples": rezipped(data, data_pkl=b"\x80\x02}N" + b"2\x86" * 40 + b"Ns."),
    "a word of tuples": rezipped(data, data_pkl=b"\x80\x04N" + b"2\x86" * 40 + b"2\x93."),
    "a device of tuples": rezipped(data, data_pkl=b"\x80\x04ctorch\ndevice\nN" + b"2\x86" * 40 + b"\x85R."),
    "a storage of tuples": rezipped(
        data,
        data_pkl=b"\x80\x04(\x8c\x07storagectorch\nFloatStorage\nN" + b"2\x86" * 40 + b"\x8c\x03cpuK\x01tQ.",
    ),
    "a text longer than the file": rezipped(data, data_pkl=b"\x80\x02X\xff\xff\xff\xff."),
    "too many instructions": rezipped(data, data_pkl=b"\x80\x02" + b"\x8f0" * 2_100_000 + b"N."),
}


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_is_larger_than_the_file(name: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "x.pth"
    path.write_bytes(BOMBS[name])
    with pytest.raises(CheckpointUnreadable, match=r"x\.pth: not a PyTorch checkpoint") as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000  # KiB


def test_a_weight_of_many_names_is_read_once(tmp_path: Path) -> None:
    weight = torch.ones(1_000_000).half()
    (tmp_path / "x.pth").write_bytes(saved({f"a.{i}": weight for i in range(10_000)}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len({value.data_ptr() for value in load(tmp_path / "x.pth").state.values()}) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000  # KiB


def test_records_may_not_overlap() -> None:
    data = bytearray(saved({"a.b": torch.ones(4), "a.c": torch.zeros(4)}))
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    offsets = [struct.unpack_from("<I", data, at + 42)[0] for at in entries]
    struct.pack_into("<I", data, entries[2] + 42, offsets[1])
    with pytest.raises(FileBroken, match="overlap"):
        read(bytes(data))


def cyclic() -> dict[str, Any]:
    content: dict[str, Any] = {"x": 1}
    content["state_dict"] = content["model"] = content
    return content


def nested(depth: int) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for _ in range(depth):
        content = {"state_dict": content}
    return content


def nested_pickle(depth: int) -> bytes:
    return rezipped(
        saved({"a": torch.ones(1)}),
        data_pkl=b"\x80\x02" + b"}X\x0a\x00\x00\x00state_dict" * depth + b"}" + b"s" * depth + b".",
    )


@pytest.mark.parametrize("data", [saved(cyclic()), saved(nested(50)), nested_pickle(10_000)])
def test_a_checkpoint_that_holds_itself_ends(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(CheckpointUnreadable, match="it holds no weights"):
        load(tmp_path / "x.pth")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(CheckpointUnreadable, match="not a regular file"):
        load(tmp_path / "x.pth")
    with pytest.raises(CheckpointNotFound, match=f"{tmp_path} is a folder; give the file of a checkpoint"):
        load(tmp_path)
    for path in (tmp_path / "none.pth", tmp_path / "x.pth" / "y.pth"):
        with pytest.raises(CheckpointNotFound, match="no checkpoint at"):
            load(path)


GOOD: dict[Any, Any] = {"width": {"minimum": 100, "maximum": 100}}


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({**GOOD, "model": "helper.py:make"}, "unknown keys ['model']"),
        ({**GOOD, "folder": "/"}, "unknown keys ['folder']"),
        ({"base": "paper", "model": "os:abort"}, "unknown keys ['base', 'model']"),
        ({**GOOD, 5: 6}, "unknown keys [5]"),
        ({}, "it has no width"),
        ({**GOOD, "height": "x"}, "height is 'x', not a whole number from 1 to 1024"),
        ({**GOOD, "height": 30_000}, "height is 30000, not a whole"),
        ({**GOOD, "height": 10**5000}, "height is a number of more than 60 digits, not a whole"),
        ({**GOOD, "height": True}, "height is True, not a whole"),
        ({"width": [1, 2]}, "width is a list, not a table"),
        ({"width": {"minimum": 10**5000, "maximum": 1}}, "width.minimum is a number of more"),
        ({"width": {"minimum": 1, "maximum": [1]}}, "width.maximum is a list"),
        ({"width": {"minimum": 1}}, "width has no maximum"),
        ({"width": {"minimum": 60_000, "maximum": 60_000}}, "its smallest image has 32 x 60000 pixels"),
        ({**GOOD, "blank": "3"}, "blank is '3', not first, last or the number of a class"),
        ({**GOOD, "color": ["gray"]}, "color is a list, not one of gray"),
        ({**GOOD, "mean": [float("nan")]}, "mean holds nan, not numbers"),
        ({**GOOD, "std": "wide"}, "std is 'wide', not a list of a number for each channel"),
        ({**GOOD, "leaky_relu": "no"}, "leaky_relu is 'no', not true or false"),
        ({**GOOD, "filters": [3]}, "filters hold 3, not tables"),
        ({**GOOD, "filters": [{"filter": "clahe", "clip": [1], "tiles": 2}]}, "'clip' of a filter is a list"),
        ({**GOOD, "filters": [{"filter": "blur"}]}, "unknown filter 'blur'"),
    ],
)
def test_a_checkpoint_says_how_images_are_prepared_and_nothing_else(
    recipe: dict[Any, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(saved({"state_dict": small(), "recipe": recipe}))
    with pytest.raises(CheckpointUnreadable) as caught:
        open_reference(path, CheckpointSettings(alphabet=DIGITS))
    assert f"{path}: its recipe is not valid: {reason}" in str(caught.value)
    assert open_reference(path, CheckpointSettings(recipe="paper", alphabet=DIGITS)).manifest.height == 32


def test_no_code_named_in_a_checkpoint_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """os:abort would end this process."""
    monkeypatch.chdir(tmp_path)
    Path("helper.py").write_text("print('this must never be printed')")
    for spec in ("helper.py:make", "helper:make", "os:abort"):
        for content in (
            {"recipe": {**GOOD, "model": spec}},
            {"recipe": {**GOOD}, "model": spec, "factory": spec},
            {"config": {"recipe": {**GOOD, "model": spec}}},
        ):
            Path("x.pth").write_bytes(saved({"state_dict": {"a.b": torch.zeros(1)}, **content}))
            for command in ("inspect x.pth", "export --checkpoint x.pth", "verify x.pth x.pth"):
                done = CliRunner().invoke(main, command.split())
                assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1, done.output
                assert "never" not in done.output and "never" not in capfd.readouterr().out


NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "10^12 weights": (
        {
            **small(),
            "cnn.conv0.weight": torch.zeros(1_000_000, 1),
            "cnn.conv1.weight": torch.zeros(1_000_000),
        },
        "its weights are fewer than its network's",
    ),
    "10^10 weights": (
        {**small(), "cnn.conv2.weight": torch.zeros(100_000, 1), "cnn.conv3.weight": torch.zeros(100_000, 1)},
        "its weights are fewer than its network's",
    ),
    "an empty axis": ({**small(), "cnn.conv6.weight": torch.zeros(2, 2, 0, 2)}, "not 0"),
    "a lost axis": ({**small(), "cnn.conv6.weight": torch.zeros(2)}, "of another shape"),
    "a scalar": ({**small(), "cnn.conv3.weight": torch.tensor(1.0)}, "of another shape"),
    "high images": (CRNN(2048, 1, 11, 4, widths=SMALL).state_dict(), "2048 pixels high; the limit is 1024"),
    "no hidden units": ({**small(), "rnn.0.rnn.weight_hh_l0": torch.zeros(16, 0)}, "make no network"),
    "many channels": (
        CRNN(32, 1, 11, 4, widths=(1_000_000, 1, 1, 1, 1, 1, 1)).state_dict(),
        "a layer of its network makes",
    ),
    "a name of a megabyte": ({**small(), "module." * 150_000 + "a": torch.ones(1)}, "a weight has a name of"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_no_larger_than_its_weights(name: str, tmp_path: Path) -> None:
    state, reason = NETWORKS[name]
    path = tmp_path / "x.pth"
    path.write_bytes(saved(state))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointUnreadable, match=reason) as caught:
        open_reference(path, CheckpointSettings("crnn.pytorch", alphabet=DIGITS))
    assert len(str(caught.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 700_000  # KiB
