"""Every TensorRT name that the code uses stands in the public API of TensorRT 10, 11 and that for RTX."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[3] / "crnn_deploy"
SNAPSHOTS = Path(__file__).parents[4] / "shared" / "tools"
NAMES = ("tensorrt-10.16.1-api.json", "tensorrt-11.4-api.json", "tensorrt-rtx-1.7.1-api.json")
# what engine/network.py, which alone talks to TensorRT's objects, calls them, and their classes
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "error": "ParserError",
    "cache": "ITimingCache",
}
# asked for with hasattr before it is used; TensorRT builds for the GPU that is there, and all of its plan
RTX_ONLY = {
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineInvalidityDiagnostics",
    "EngineValidity",
    "ComputeCapability",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
}
PYTHONS_OWN = {"__members__", "__init__", "__version__", "name"}  # of enums, classes and modules


def used(file: Path) -> set[str]:
    """`X` and `X.Y` of `trt.X.Y`; of `parser.member` and `self._parser.member`, `OnnxParser.member`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        path = ast.unparse(node).removeprefix("self.").removeprefix("_").split(".")
        if any(not part.isidentifier() for part in path):
            continue
        if path[0] == "trt":
            found.add(".".join(part for part in path[1:3] if part not in PYTHONS_OWN))
        elif file.name == "network.py" and path[0] in OBJECTS and len(path) > 1:
            found.add(f"{OBJECTS[path[0]]}.{path[1]}")
    return found - {""}


def missing(names: set[str], api: dict[str, Any]) -> list[str]:
    def known(name: str) -> bool:
        first, _, member = name.partition(".")
        if first not in api:
            return False
        [(kind, members)] = api[first].items()
        return not member or kind == "func" or member in members

    return sorted(name for name in names if not known(name))


ALL = set().union(*(used(file) for file in PACKAGE.rglob("*.py")))


def test_the_names_are_found() -> None:
    assert {"NetworkDefinitionCreationFlag.STRONGLY_TYPED", "MemoryPoolType.WORKSPACE", "Builder"} <= ALL
    assert {"OnnxParser.supports_model_v2", "IBuilderConfig.progress_monitor", "ILayer.get_output"} <= ALL
    assert {"ComputeCapability", "IBuilderConfig.set_compute_capability", "ILogger.ERROR"} <= ALL
    old = {"BuilderFlag.FP16", "OnnxParser.supports_model", "ILayer.precision", "INetworkDefinition.nothing"}
    api = {"BuilderFlag": {"enum": {"TF32": 6}}, "OnnxParser": {"class": ["supports_model_v2"]}}
    assert missing(old, api) == sorted(old)


@pytest.mark.parametrize("snapshot", NAMES)
def test_the_names_exist(snapshot: str) -> None:
    path = SNAPSHOTS / snapshot
    if not path.is_file():
        pytest.skip(f"no snapshot {snapshot}")
    api = json.loads(path.read_text(encoding="utf-8"))["api"]
    expected = set() if "rtx" in snapshot else RTX_ONLY
    assert {name.removesuffix(".INVALID") for name in missing(ALL, api)} == expected
