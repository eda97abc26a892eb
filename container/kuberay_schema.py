"""The schema of RayJob in a small file, made from KubeRay's CustomResourceDefinition.

    python -m container.kuberay_schema ray.io_rayjobs.yaml VERSION > tests/kuberay/rayjob.json

KubeRay's release VERSION has the first file as ray-operator/config/crd/bases/ray.io_rayjobs.yaml. The small
one has the schema of v1 without descriptions and status, equal parts once, and no field beside those that are
named: the API server drops others without a word.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import yaml

__all__ = ["reduced"]

_TOLD = ("description", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type")
_INNER = ("items", "additionalProperties")
_SMALL = 60  # characters of a part that is not worth a name


def reduced(definition: dict[str, Any], version: str) -> dict[str, Any]:
    """JSON Schema of the objects of v1."""
    [v1] = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema = v1["schema"]["openAPIV3Schema"]
    schema["properties"].pop("status", None)
    schema = _strict(schema)
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"]["apiVersion"] = {"const": "ray.io/v1"}
    schema["properties"]["kind"] = {"const": definition["spec"]["names"]["kind"]}
    counts: Counter[str] = Counter()
    _count(schema, counts)
    names = {
        text: f"p{at}"
        for at, text in enumerate(
            sorted(text for text, count in counts.items() if count > 1 and len(text) > _SMALL)
        )
    }
    parts = {name: _shared(json.loads(text), names, but=text) for text, name in names.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"From KubeRay {version}, ray-operator/config/crd/bases/ray.io_rayjobs.yaml "
        "(https://github.com/ray-project/kuberay), Apache License 2.0, Copyright the KubeRay authors. "
        "Changed by container/kuberay_schema.py: v1 alone, without descriptions, status and rules in CEL, "
        "equal parts once, and no fields beside those that are named.",
        **_shared(schema, names, but=""),
        "$defs": parts,
    }


def _strict(schema: Any) -> Any:
    """The schema without words, and without room for other fields."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: {key: _strict(part) for key, part in value.items()} if name == "properties" else _strict(value)
        for name, value in schema.items()
        if name not in _TOLD and name != "x-kubernetes-validations" and name != "default"
    }
    open_ = kept.pop("x-kubernetes-preserve-unknown-fields", False)
    kept.pop("x-kubernetes-int-or-string", None)  # anyOf says the same
    if "properties" in kept and not open_:
        kept.setdefault("additionalProperties", False)
    return kept


def _parts(schema: dict[str, Any]) -> list[Any]:
    """The schemas within one."""
    parts = list(schema.get("properties", {}).values())
    parts += [
        schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)
    ]
    return parts


def _count(schema: dict[str, Any], counts: Counter[str]) -> None:
    counts[json.dumps(schema, sort_keys=True)] += 1
    for part in _parts(schema):
        _count(part, counts)


def _shared(schema: dict[str, Any], names: dict[str, str], but: str) -> dict[str, Any]:
    """The schema with references in the place of parts that have a name."""
    text = json.dumps(schema, sort_keys=True)
    if text != but and text in names:
        return {"$ref": f"#/$defs/{names[text]}"}
    kept = dict(schema)
    if "properties" in kept:
        kept["properties"] = {key: _shared(part, names, but="") for key, part in kept["properties"].items()}
    for name in _INNER:
        if isinstance(kept.get(name), dict):
            kept[name] = _shared(kept[name], names, but="")
    return kept


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(json.dumps(reduced(yaml.safe_load(file), sys.argv[2]), separators=(",", ":"), sort_keys=True))
