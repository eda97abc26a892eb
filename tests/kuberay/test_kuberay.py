"""What can be held of KubeRay's manifests and of their image without a cluster: schema, safety, agreement."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from container.containerfile import Copy, Run, files_of, parse
from crnn_deploy import __version__
from crnn_deploy.cli.main import main

yaml = pytest.importorskip("yaml", reason="the extra ray has PyYAML")
jsonschema = pytest.importorskip("jsonschema", reason="the extra ray has jsonschema")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "container" / "kuberay"
SCHEMA = json.loads((Path(__file__).parent / "rayjob.json").read_text(encoding="utf-8"))
JOBS = ["infer-cluster.yaml", "infer-cluster-gpu.yaml"]
each = pytest.mark.parametrize("name", JOBS)
# maps whose keys are free: names of labels, resources and options of ray start
FREE = {"labels", "matchLabels", "requests", "limits", "rayStartParams"}


def load(name: str) -> dict[str, Any]:
    [manifest] = yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(manifest, dict)
    return manifest


def faults(manifest: object) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(manifest)]


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [container for pod in pods(job) for container in pod["spec"]["containers"]]


def places(part: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where an object of named fields is."""
    if isinstance(part, dict):
        if not path or path[-1] not in FREE:
            yield path
        for key, inner in part.items():
            yield from places(inner, (*path, key))
    elif isinstance(part, list):
        for at, inner in enumerate(part):
            yield from places(inner, (*path, at))


@each
def test_a_job_is_what_kuberay_takes(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert faults(load(name)) == []


@each
def test_a_field_that_kuberay_does_not_know_is_a_fault_wherever_it_stands(name: str) -> None:
    job = load(name)
    tried = [path for path in places(job) if path != ("metadata",)]  # which every Kubernetes object has
    assert len(tried) > 30
    for path in tried:
        changed = copy.deepcopy(job)
        part: Any = changed
        for step in path:
            part = part[step]
        part["secretname"] = "x"
        assert any("secretname" in fault for fault in faults(changed)), path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("spec", "backoffLimit"), "2"),
        (("spec", "rayClusterSpec", "rayVersion"), 2.6),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs"), {}),
        (("apiVersion",), "ray.io/v1alpha1"),
        (("kind",), "RayCluster"),
    ],
)
def test_a_value_that_kuberay_does_not_take_is_a_fault(path: tuple[str, ...], value: object) -> None:
    job = load(JOBS[0])
    part = job
    for step in path[:-1]:
        part = part[step]
    assert path[-1] in part
    part[path[-1]] = value
    assert faults(job)


@each
def test_the_entry_point_is_a_command_that_there_is(name: str) -> None:
    line = shlex.split(load(name)["spec"]["entrypoint"])
    assert line[:2] == ["crnn-deploy", "infer-cluster"]
    command = main.get_command(click.Context(main), line[1])
    assert command is not None
    with command.make_context(line[1], line[2:], resilient_parsing=False) as context:
        given = context.params
    assert given["address"] == "auto" and given["resume"] and not given["without_token"]
    job = load(name)
    asked = {key for each in containers(job) for key in each["resources"]["limits"]}
    assert (given["device"] == "cuda") is (given["gpus_per_worker"] > 0) is ("nvidia.com/gpu" in asked)


@each
def test_a_token_is_asked_for_and_nothing_is_exposed(name: str) -> None:
    cluster = load(name)["spec"]["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token" and cluster["authOptions"]["secretName"]
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not cluster["headGroupSpec"].get("enableIngress")
    ports = {port["name"] for each in containers(load(name)) for port in each.get("ports", ())}
    assert ports <= {"gcs-server", "dashboard"} and not [
        port for each in containers(load(name)) for port in each.get("ports", ()) if "hostPort" in port
    ]


@each
def test_no_pod_has_more_rights_than_it_needs(name: str) -> None:
    for pod in pods(load(name)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & spec.keys()
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
        who = spec["securityContext"]
        assert who["runAsNonRoot"] and who["runAsUser"] == who["runAsGroup"] == 10001
        assert who["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            may = container["securityContext"]
            assert may["allowPrivilegeEscalation"] is False and may["readOnlyRootFilesystem"] is True
            assert may["capabilities"] == {"drop": ["ALL"]}
            asked = container["resources"]
            assert {"cpu", "memory"} <= asked["requests"].keys() and asked["requests"] == asked["limits"]
            assert not [each for each in container.get("env", ()) if "TOKEN" in each["name"]]


@each
def test_the_policy_is_about_every_pod_and_opens_the_dashboard_to_the_operator_alone(name: str) -> None:
    policy = load("network-policy.yaml")
    assert policy["apiVersion"] == "networking.k8s.io/v1" and policy["kind"] == "NetworkPolicy"
    own = {"podSelector": policy["spec"]["podSelector"]}
    for pod in pods(load(name)):
        assert own["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    others = [rule for rule in policy["spec"]["ingress"] if rule["from"] != [own]]
    assert [rule["ports"] for rule in others] == [[{"protocol": "TCP", "port": 8265}]]
    assert all({"namespaceSelector", "podSelector"} <= peer.keys() for peer in others[0]["from"])


@each
def test_the_versions_are_those_of_the_image(name: str) -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "container" / "ray.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    assert load(name)["spec"]["rayClusterSpec"]["rayVersion"] == pins["ray"]
    assert {each["image"] for each in containers(load(name))} <= {
        f"<registry>/crnn-deploy:{__version__}-ray",
        f"<registry>/crnn-deploy:{__version__}-ray-cuda",
    }


def test_the_image_is_pinned_and_its_user_is_that_of_the_pods() -> None:
    text = (ROOT / "Containerfile.ray").read_text(encoding="utf-8")
    rules = (ROOT / ".containerignore").read_text(encoding="utf-8")
    build, shipped = parse(text)
    assert build.base == shipped.base and re.search(r":\d", shipped.base)
    assert shipped.image.user == "10001:10001"
    assert shipped.image.labels["org.opencontainers.image.version"] == __version__
    copied = [step for step in build.steps if isinstance(step, Copy)]
    assert all(files_of(ROOT, source, rules) for step in copied for source in step.sources)
    lines = [step.line for step in build.steps if isinstance(step, Run)]
    installs = [part for line in lines for part in line.split("&&") if " install " in part]
    assert len(installs) == 2 and all("-c constraints.txt" in part for part in installs)
    assert "-c ray.txt" in installs[1] and "-c cuda.txt" in installs[1]
    assert not [
        step.line for step in shipped.steps if isinstance(step, Run) and re.search(r"\bpip\b", step.line)
    ]
