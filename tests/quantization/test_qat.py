"""Training for INT8 against ONNX Runtime, and `train --qat`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from crnn_deploy.cli.main import main
from crnn_deploy.graph.model import backend_of, load_onnx, open_model
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import read_scales


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_fake_quantisation_computes_what_the_file_computes() -> None:
    """The default model in training for INT8 against ONNX Runtime, which runs the Q/DQ graph node by node."""
    import onnxruntime
    import torch

    from crnn_deploy.export.reference import open_reference
    from crnn_deploy.models import DEFAULT
    from crnn_deploy.quantization.qat import fake_quantize
    from crnn_deploy.recipes.settings import CheckpointSettings

    root = Path(__file__).parents[2]
    source = load_onnx(DEFAULT)
    ranges = read_scales(root / "calibration" / "latin.scales.json", open_model(DEFAULT)).ranges
    module = open_reference(root / "training" / "latin.pth", CheckpointSettings()).module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images = np.random.default_rng(0).normal(0, 0.5, (2, 1, 32, 100)).astype(np.float32)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = qdq.insert(source, ranges, weight_level=7).SerializeToString()
    [expected] = onnxruntime.InferenceSession(graph, plain).run(["logits"], {"images": images})
    fake_quantize(module, source, ranges, weight_level=7)
    assert module.state_dict().keys() == before.keys()
    logits = module(torch.from_numpy(images))
    # a value between two levels may be rounded the other way after sums in another order
    error = np.abs(logits.detach().numpy() - expected)
    assert np.median(error) < 1e-4 and error.max() < 0.1 * np.abs(expected).max()
    assert np.abs(backend_of(source).run(images).logits - expected).mean() > 0.1  # the rounding is felt
    module.train()(torch.from_numpy(images)).square().mean().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in module.parameters())


def test_finetuning_for_int8_needs_a_float_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{out: run, steps: 1, train: [{synthetic: {kinds: {word: 1}}}]}")
    result = run("train", "--config", tmp_path / "c.yaml", "--qat")
    assert result.exit_code == 2 and "start.checkpoint" in result.stderr and not (tmp_path / "run").exists()


def test_finetuning_for_int8_writes_an_ordinary_checkpoint(tmp_path: Path) -> None:
    import torch

    from crnn_deploy.export.checkpoints.checkpoint import load

    start = Path(__file__).parents[2] / "training" / "print.pth"
    (tmp_path / "c.yaml").write_text(
        f"{{out: {tmp_path / 'run'}, start: {{checkpoint: {start}}}, steps: 1, batch: 2, window: 1, ema: 0,"
        " train: [{synthetic: {kinds: {word: 1}}}]}"
    )
    result = run("train", "--config", tmp_path / "c.yaml", "--qat")
    assert result.exit_code == 0, result.output
    before, after = load(start).state, load(tmp_path / "run" / "last.pth").state
    assert before.keys() == after.keys() and all(after[name].shape == before[name].shape for name in before)
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


def test_a_resumed_finetuning_for_int8_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """The ranges are those of the start again, not of the weights that were trained since."""
    import torch

    from crnn_deploy.export.checkpoints.checkpoint import load

    start = Path(__file__).parents[2] / "training" / "print.pth"
    (tmp_path / "c.yaml").write_text(
        f"{{start: {{checkpoint: {start}}}, batch: 2, window: 1, ema: 0, optimizer: {{lr: 0.01}},"
        " train: [{synthetic: {kinds: {word: 1}}}]}"
    )
    command = ("train", "--config", tmp_path / "c.yaml", "--qat")
    whole = run(*command, "--set", f"out={tmp_path / 'whole'}", "--set", "steps=3")
    assert whole.exit_code == 0, whole.output
    parts = (*command, "--set", f"out={tmp_path / 'parts'}")
    assert run(*parts, "--set", "steps=1").exit_code == 0
    went_on = run(*parts, "--set", "steps=3", "--resume")
    assert went_on.exit_code == 0, went_on.output
    expected, found = (load(tmp_path / name / "last.pth").state for name in ("whole", "parts"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
