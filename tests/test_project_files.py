"""What stands around the package is well formed and agrees: forms, hooks, citation, jobs, guide."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
HIDDEN = [path for path in ROOT.glob(".*.yaml")]
COMMITTED = sorted(
    [*FORMS, *HIDDEN, *(ROOT / "training").glob("*.yaml"), *(ROOT / "container").rglob("*.yaml")]
)
NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")
GATE = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
JOBS = set(re.findall(r"@nox\.session\ndef (\w+)", NOXFILE))


class OnceEach(yaml.SafeLoader):  # type: ignore[misc]
    """A loader that refuses a key that stands twice."""


def _mapping(loader: OnceEach, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    assert len(keys) == len(set(keys)), f"a key stands twice among {keys}{node.start_mark}"
    loader.flatten_mapping(node)
    return dict(loader.construct_mapping(node, deep=True))


OnceEach.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def loaded(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), OnceEach)


def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_committed_yaml_is_yaml(path: Path) -> None:
    assert list(yaml.load_all(path.read_text(encoding="utf-8"), OnceEach))


@pytest.mark.parametrize(
    "path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name
)
def test_an_issue_form_has_what_a_form_needs(path: Path) -> None:
    form = loaded(path)
    assert form["name"] and form["description"]
    inputs = [part for part in form["body"] if part["type"] != "markdown"]
    names = [part["id"] for part in inputs]
    assert inputs and len(names) == len(set(names))
    for part in inputs:
        assert part["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert part["attributes"]["label"]
        assert part.keys() <= {"type", "id", "attributes", "validations"}


@pytest.mark.parametrize("name", ["bug.yml", "parity.yml"])
def test_a_report_of_a_fault_asks_for_doctor_and_inspect(name: str) -> None:
    required = [
        part["attributes"]["label"]
        for part in loaded(ROOT / ".github" / "ISSUE_TEMPLATE" / name)["body"]
        if part.get("validations", {}).get("required")
    ]
    for command in ("doctor", "inspect"):
        assert any(f"crnn-deploy {command}" in label for label in required)


def test_the_citation_says_what_setup_cfg_says() -> None:
    citation, metadata = loaded(ROOT / "CITATION.cff"), setup()["metadata"]
    assert str(citation["version"]) == metadata["version"]
    assert citation["license"] == metadata["license_expression"]
    assert citation["authors"] == [{"name": metadata["author"]}]
    assert citation["cff-version"] and citation["title"] and citation["message"]


def test_hooks_are_jobs_and_fetch_nothing() -> None:
    repos = loaded(ROOT / ".pre-commit-config.yaml")["repos"]
    assert {repo["repo"] for repo in repos} == {"local"}
    for hook in (hook for repo in repos for hook in repo["hooks"]):
        assert hook["language"] == "system"
        [job] = re.fullmatch(r"python -m nox -s (\w+)", hook["entry"]).groups()  # type: ignore[union-attr]
        assert job in JOBS


def test_the_gate_runs_the_jobs_and_the_command_of_the_readme() -> None:
    assert "python -m nox" in GATE and "python -m pytest" not in GATE and "ruff" not in GATE
    [listed] = re.findall(r"^nox\.options\.sessions = \[(.*)\]", NOXFILE, re.MULTILINE)
    assert {"lint", "types", "dist", "tests"} == set(re.findall(r"\w+", listed)) <= JOBS
    [words] = re.findall(r'session\.run\(PYTHON, ("-m", "pytest".*), \*session\.posargs', NOXFILE)
    command = " ".join(re.findall(r'"([^"]+)"', words))
    assert f"python {command}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_guide_names_every_job_and_the_gate_s_extras() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"nox -s (\w+)", guide)) == JOBS
    extras = re.findall(r"-e '\.\[(.*,dev,docs)\]'", GATE)
    assert extras == re.findall(r"-e '\.\[(.*,dev,docs)\]'", guide) and len(extras) == 1


def test_the_pythons_of_the_job_are_those_of_setup_cfg() -> None:
    [listed] = re.findall(r"^PYTHONS = \((.*)\)", NOXFILE, re.MULTILINE)
    classified = re.findall(r"Python :: (3\.\d+)", setup()["metadata"]["classifiers"])
    assert re.findall(r"3\.\d+", listed) == classified
