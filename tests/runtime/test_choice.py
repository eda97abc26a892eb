"""The choice of a library for a model is remembered and explained."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from crnn_deploy.cli.main import main
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.choice import choose


def test_a_choice_is_remembered_and_explained(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRNN_DEPLOY_CACHE", str(tmp_path))
    first = choose(tiny_onnx)
    assert choose(tiny_onnx) == first  # times are never the same twice
    # and what the verdict said of OpenVINO in fp32, and in bf16 where that could be asked
    asked = (1 + cpu.has_bf16()) * (find_spec("openvino") is not None)
    assert len(list(tmp_path.rglob("*.json"))) == 1 + asked
    shown = CliRunner().invoke(main, ["doctor", "--model", str(tiny_onnx)])
    assert shown.exit_code == 0 and shown.stdout == first.why() + "\n"
    plain = CliRunner().invoke(main, ["doctor", "--json", "--model", str(tiny_onnx)]).stdout
    assert json.loads(plain)["backend"] == first.backend
