"""OpenVINO reads as ONNX Runtime does, and leaves the process as it was."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from crnn_deploy.errors import BackendMissing
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.backends.ort import OrtBackend

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")


def test_a_device_that_openvino_does_not_serve_is_refused(tiny_onnx: Path) -> None:
    with pytest.raises(BackendMissing, match="OpenVINO runs on the CPU"):
        open_backend(tiny_onnx, backend="openvino", device="cuda")


@needs_openvino
def test_openvino_reads_as_onnx_runtime_does(tiny_onnx: Path) -> None:
    from crnn_deploy.runtime.backends.openvino import OpenVinoBackend

    images = np.random.default_rng(0).standard_normal((3, 1, 32, 120), np.float32)
    expected, backend = OrtBackend(tiny_onnx).run(images), OpenVinoBackend(tiny_onnx)
    actual = backend.run(images)
    assert backend.manifest == OrtBackend(tiny_onnx).manifest
    assert actual.logits is not None and expected.logits is not None
    np.testing.assert_allclose(actual.logits, expected.logits, atol=1e-4)


@needs_openvino
def test_a_signal_after_openvinos_models_are_closed_in_their_order() -> None:
    """OpenVINO 2026.4 would leave the thread a stack for signals that is freed."""
    code = (
        "import signal, subprocess, sys\n"
        "from crnn_deploy.runtime.backends.openvino import OpenVinoBackend\n"
        "from crnn_deploy.models import DEFAULT\n"
        "models = [OpenVinoBackend(DEFAULT) for _ in range(3)]\n"
        "for model in models: model.close()\n"
        "models.clear()\n"
        "seen = []\n"
        "signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))\n"
        "for _ in range(3): subprocess.run(['true'])\n"
        "print(len(seen) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
