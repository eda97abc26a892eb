"""`inspect`: a checkpoint and what is exported of it have the same facts."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from click.testing import CliRunner, Result

from crnn_deploy.cli.main import main
from crnn_deploy.networks.crnn import CRNN

DIGITS = "0123456789"
GIVEN = ("--recipe", "paper", "--alphabet-string", DIGITS)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_inspect(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint, model = tmp_path / "net CRNN-ü.pth", tmp_path / "net CRNN-ü.onnx"
    torch.save(CRNN(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8)).state_dict(), checkpoint)
    exported = run("export", "--checkpoint", checkpoint, *GIVEN)
    assert exported.exit_code == 0, exported.output
    of_onnx = json.loads(run("inspect", model, "--json").stdout)
    of_checkpoint = json.loads(run("inspect", checkpoint, "--json", *GIVEN).stdout)
    assert of_onnx["flops"] == of_checkpoint["flops"]
    assert of_onnx["alphabet"] == of_checkpoint["alphabet"] == "10 characters: 0123456789"
    assert of_onnx["operators"]["LSTM"] == 2 and of_onnx["opset"]["onnx"] >= 19
    assert of_checkpoint["family"] == "crnn"
    assert "time steps" in run("inspect", model).stdout
