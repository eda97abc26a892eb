"""What is installed, as the file system alone tells it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from crnn_deploy.runtime.backends.installed import version_of


@pytest.mark.parametrize("name", ["onnxruntime", "numpy", "opencv-python", "click", "no-such-thing"])
def test_versions_are_those_of_importlib(name: str) -> None:
    try:
        expected = metadata.version(name)
    except metadata.PackageNotFoundError:
        expected = ""
    assert version_of(name) == expected


def test_a_name_with_a_dash_and_the_form_of_older_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "onnxruntime-1.30.0.dist-info",
        "onnxruntime_gpu-1.31.0.dist-info",
        "six-1.17-py3.11.egg-info",
    ):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = [version_of(name) for name in ("onnxruntime", "onnxruntime-gpu", "six")]
    assert found == ["1.30.0", "1.31.0", "1.17"]
