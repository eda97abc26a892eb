"""The scripts of `training/` that prepare a start and labels."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from crnn_deploy.datasets import Sample, open_dataset
from crnn_deploy.export.reference import open_reference
from crnn_deploy.models import model_file
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.recognizer import Recognizer

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "training" / script), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_grown_network_has_the_sizes_asked_for_and_the_logits_it_had(tmp_path: Path) -> None:
    wide, old = tmp_path / "wide.pth", ROOT / "training" / "print.pth"
    done = run("grow.py", old, wide, "--widths", "26,50,97,140,200", "--hidden", "130")
    assert done.returncode == 0, done.stderr
    grown, trained = (open_reference(path, CheckpointSettings(None)) for path in (wide, old))
    assert (grown.manifest.alphabet, grown.manifest.width) == (
        trained.manifest.alphabet,
        trained.manifest.width,
    )
    assert isinstance(grown.module, CompactCRNN)
    shapes = {name: tuple(value.shape) for name, value in grown.module.state_dict().items()}
    assert shapes["features.6.0.weight"] == (140, 97, 3, 3)
    assert shapes["sequence.weight_hh_l0"] == (4 * 130, 130)
    images = torch.rand(3, 1, 32, 120, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        difference = trained.module.eval()(images) - grown.module.eval()(images)
    assert difference.abs().max() < 1e-3
    # what is new takes part in training: its weights have gradients, at least after one step
    grown.module.train()
    grown.module(images).square().sum().backward()
    weight = grown.module.get_parameter("classifier.weight")
    assert weight.grad is not None and weight.grad[:, 128:130].abs().max() > 0


def test_a_deeper_network_has_the_logits_it_had_and_learns(tmp_path: Path) -> None:
    deep, old = tmp_path / "deep.pth", ROOT / "training" / "print.pth"
    done = run("grow.py", old, deep, "--depths", "4,5")
    assert done.returncode == 0, done.stderr
    grown, trained = (open_reference(path, CheckpointSettings(None)) for path in (deep, old))
    assert isinstance(grown.module, CompactCRNN) and isinstance(trained.module, CompactCRNN)
    kinds = [type(layer).__name__.strip("_") for layer in grown.module.features]
    assert kinds == ["Convolution"] * 4 + ["Separable"] * 4 + ["Convolution"] + ["Separable"] * 5 + [
        "Convolution"
    ]
    images = torch.rand(3, 1, 32, 120, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(grown.module.eval()(images), trained.module.eval()(images))
    grown.module.train()
    grown.module(images).square().sum().backward()
    weight = grown.module.get_parameter("features.7.norm2.weight")
    assert weight.grad is not None and weight.grad.abs().max() > 0


def test_blended_weights_lie_between_those_of_two_checkpoints(tmp_path: Path) -> None:
    before, after = ROOT / "training" / "print.pth", tmp_path / "after.pth"
    content = torch.load(before, weights_only=True)
    content["state_dict"] = {
        name: value + 1 if value.is_floating_point() else value
        for name, value in content["state_dict"].items()
    }
    torch.save(content, after)
    blended = tmp_path / "blended.pth"
    done = run("blend.py", before, after, blended, "--share", "0.75")
    assert done.returncode == 0, done.stderr
    old, new = (open_reference(path, CheckpointSettings(None)) for path in (before, blended))
    assert new.manifest.alphabet == old.manifest.alphabet
    for name, value in new.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, old.module.state_dict()[name] + 0.75, atol=1e-5, rtol=1e-5)


def test_checkpoints_of_different_networks_are_not_blended(tmp_path: Path) -> None:
    training = ROOT / "training"
    for other, why in (("latin.pth", "are different networks"), ("chinese.pth", "have different alphabets")):
        done = run("blend.py", training / "print.pth", training / other, tmp_path / "x.pth", "--share", "0.5")
        assert done.returncode == 2 and why in done.stderr
        assert not (tmp_path / "x.pth").exists()


def test_a_factorised_head_is_the_best_of_its_rank_and_takes_another_input_rule(tmp_path: Path) -> None:
    start, old = tmp_path / "start.pth", ROOT / "training" / "print.pth"
    done = run(
        *("grow.py", old, start, "--widths", "24,48,96,128,192", "--hidden", "128", "--head", "40"),
        *("--recipe", "training/chinese.toml"),
    )
    assert done.returncode == 0, done.stderr
    grown, trained = (open_reference(path, CheckpointSettings(None)) for path in (start, old))
    assert (grown.manifest.alphabet, grown.manifest.width.aspect) == (trained.manifest.alphabet, 0.75)
    state = grown.module.state_dict()
    weight = trained.module.state_dict()["classifier.weight"].double()
    product = state["classifier.1.weight"].double() @ state["classifier.0.weight"].double()
    # no matrix of rank 40 is nearer than the root of the sum of the squares of the other singular values
    rest = torch.linalg.svdvals(weight)[40:].square().sum().sqrt()
    assert torch.linalg.norm(weight - product) == pytest.approx(rest.item(), rel=1e-4)
    assert torch.equal(state["classifier.1.bias"], trained.module.state_dict()["classifier.bias"])


def test_a_network_of_another_kind_is_not_grown(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "other.pth")
    done = run(
        "grow.py", tmp_path / "other.pth", tmp_path / "wide.pth", "--widths", "9,9,9,9,9", "--hidden", "9"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "wide.pth").exists()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ("--widths 16,48,96,128,192 --hidden 128", "no width may be smaller than it was: 24,48,96,128,192"),
        ("--widths 24,48 --hidden 128", "'24,48' is not five numbers"),
        ("--widths 24,48,96,128,x --hidden 128", "is not five numbers"),
        ("--widths 24,48,96,128,192 --hidden 64", "--hidden may not be smaller than it was: 128"),
        ("--depths 2,2", "no depth may be smaller than it was: 2,3"),
        ("--depths 2", "'2' is not two numbers"),
        ("--widths 24,48,96,128,192 --hidden 128 --head 0", "'--head': 0 is not in the range"),
        ("--widths 24,48,96,128,192 --hidden 128 --recipe nosuch", "there is no recipe 'nosuch'"),
    ],
)
def test_sizes_that_cannot_be_grown_to_are_one_line(
    tmp_path: Path, sizes: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "training")
    main = importlib.import_module("grow").main
    done = CliRunner().invoke(
        main, [str(ROOT / "training" / "print.pth"), str(tmp_path / "o.pth"), *sizes.split()]
    )
    assert done.exit_code == 2 and said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "o.pth").exists()


def test_a_network_with_a_factorised_head_is_not_grown_again(tmp_path: Path) -> None:
    sizes = ("--widths", "24,48,96,128,192", "--hidden", "128", "--head", "8")
    assert run("grow.py", ROOT / "training" / "print.pth", tmp_path / "start.pth", *sizes).returncode == 0
    done = run("grow.py", tmp_path / "start.pth", tmp_path / "again.pth", *sizes)
    assert done.returncode == 2 and "a product of two" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("label", "reading", "settled"),
    [
        ("TAN WOON YANN", "Tan Woon Yann", "Tan Woon Yann"),
        ("TAMAN DAYA,", "TamanDaya,", "Taman Daya,"),  # the label's spaces
        ("12.50", "1250", "12.50"),  # no letters: as it is
        ("TOTAL", "Totai", None),
        ("STRASSE", "Straße", None),  # another number of letters
        ("TOTAL", "", None),
    ],
)
def test_the_case_of_a_reading_settles_a_label_that_it_equals(
    tmp_path: Path, label: str, reading: str, settled: str | None
) -> None:
    (tmp_path / "labels.tsv").write_text(f"a.png\t{label}\n", encoding="utf-8")
    (tmp_path / "readings.tsv").write_text(f"a.png\t{reading}\t0.9\n", encoding="utf-8")
    done = run("settle_case.py", *(tmp_path / name for name in ("labels.tsv", "readings.tsv", "settled.tsv")))
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "settled.tsv").read_text(encoding="utf-8")
    assert written == ("" if settled is None else f"a.png\t{settled}\n")


def settle(folder: Path, labels: bytes, readings: bytes, output: str = "settled.tsv") -> tuple[int, str]:
    (folder / "labels.tsv").write_bytes(labels)
    (folder / "readings.tsv").write_bytes(readings)
    done = run("settle_case.py", folder / "labels.tsv", folder / "readings.tsv", folder / output)
    return done.returncode, done.stderr


def test_labels_with_line_ends_of_windows_and_empty_lines_are_read(tmp_path: Path) -> None:
    assert settle(tmp_path, b"\xef\xbb\xbfa\tFOO\r\n\r\nb\t12\r\n", b"a\tFoo\r\nb\t\r\n\r\n") == (0, "")
    assert (tmp_path / "settled.tsv").read_bytes() == b"a\tFoo\nb\t12\n"


@pytest.mark.parametrize(
    ("labels", "readings", "output", "said"),
    [
        (b"a\tFOO\nb\n", b"a\tFoo\n", "settled.tsv", "labels.tsv, line 2 has no tab"),
        (b"a\tFOO\n", b"a\n", "settled.tsv", "readings.tsv, line 1 has no tab"),
        (b"\xff\t\n", b"", "settled.tsv", "labels.tsv is not UTF-8"),
        (b"a\t1\n", b"", "labels.tsv", "labels.tsv is read by this command"),
        (b"a\t1\n", b"", "labels.tsv/out.tsv", "labels.tsv is not a folder"),
    ],
)
def test_labels_that_cannot_be_settled_are_one_line(
    tmp_path: Path, labels: bytes, readings: bytes, output: str, said: str
) -> None:
    code, error = settle(tmp_path, labels, readings, output)
    assert code == 2 and said in error.splitlines()[-1] and "Traceback" not in error
    assert (tmp_path / "labels.tsv").read_bytes() == labels


def labelled(folder: Path, pairs: Sequence[tuple[str, str]], more: str = "") -> Path:
    """A training on images of examples/."""
    (folder / "labels.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in pairs), "utf-8")
    config = folder / "training.yaml"
    config.write_text(
        f"out: {folder}/run\nsteps: 1\nstart: {{checkpoint: training/latin.pth}}\ntrain:\n"
        f"  - {{path: {folder}/labels.tsv, images: examples}}\n{more}",
        "utf-8",
    )
    return config


def examples() -> list[tuple[str, str]]:
    lines = (ROOT / "examples" / "labels.txt").read_text(encoding="utf-8").splitlines()
    return [(name, text) for name, text in (line.split(" ", 1) for line in lines)]


def kept(path: Path) -> list[Sample]:
    hard = open_dataset(str(path))
    return [hard[i] for i in range(len(hard))]


def test_what_is_misread_is_kept_as_images_to_train_on(tmp_path: Path) -> None:
    [(first, text), *others] = examples()
    pairs = [(first, f"{text}?"), *others, (first, "漢"), (first, 80 * "long")]
    config = labelled(tmp_path, pairs, "  - {synthetic: {kinds: {random: 1}, empty: 0.5}}\n")
    done = run("misread.py", config, model_file("latin"), tmp_path / "hard.lmdb", "--drawn", "40")
    assert done.returncode == 0 and "2 cannot be trained on" in done.stdout, done.stderr
    reader = Recognizer()
    # the last two are left out: no training could use them
    own = [text for name, text in pairs[:-2] if reader.read(ROOT / "examples" / name).text != text]
    found = kept(tmp_path / "hard.lmdb")
    assert f"{text}?" in own and [sample.text for sample in found][: len(own)] == own
    assert len(own) < len(found) < len(own) + 40
    assert all(sample.text and reader.read(sample.image).text != sample.text for sample in found)


def test_upper_case_is_not_misread_in_a_training_without_case(tmp_path: Path) -> None:
    reader = Recognizer()
    read = [(name, reader.read(ROOT / "examples" / name).text) for name, _ in examples()]
    small = [(name, text.upper()) for name, text in read if text == text.lower()]
    config = labelled(tmp_path, small)
    with_case, without = (tmp_path / name for name in ("with.lmdb", "without.lmdb"))
    assert run("misread.py", config, model_file("latin"), with_case).returncode == 0
    assert [sample.text for sample in kept(with_case)] == [
        text.upper() for name, text in read if (name, text.upper()) in small and text != text.upper()
    ]
    config.write_text(config.read_text("utf-8") + "ignore_case: true\n", "utf-8")
    done = run("misread.py", config, model_file("latin"), without)
    assert done.returncode == 0 and "nothing is misread; nothing was written" in done.stdout
    assert not without.exists()


def test_an_output_that_is_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    config = labelled(tmp_path, examples())
    (tmp_path / "hard.lmdb").write_bytes(b"mine")
    done = run("misread.py", config, model_file("latin"), tmp_path / "hard.lmdb")
    assert done.returncode == 2 and "hard.lmdb exists; remove it first" in done.stderr and not done.stdout
    assert (tmp_path / "hard.lmdb").read_bytes() == b"mine"


def test_a_font_pack_that_is_not_there_is_an_error_as_in_the_training(tmp_path: Path) -> None:
    config = labelled(tmp_path, examples(), f"font_pack: {tmp_path}/none.tar.xz\n")
    done = run("misread.py", config, model_file("latin"), tmp_path / "hard.lmdb")
    assert done.returncode == 2 and "none.tar.xz" in done.stderr and "Traceback" not in done.stderr
