"""A Containerfile, read: the instructions that this project uses, and a refusal of any other."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

__all__ = ["PATH", "Copy", "Image", "Run", "Stage", "expanded", "files_of", "ignored", "parse"]

PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"  # of base images

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Run:
    """RUN: a line for /bin/sh, with the settings that hold where it stands."""

    line: str
    environment: Mapping[str, str]
    folder: str


@dataclass(frozen=True)
class Copy:
    """COPY: sources of the build's context or of an earlier stage."""

    sources: tuple[str, ...]
    target: str  # absolute; it ends with a slash where it is a folder that takes the sources
    stage: str | None


@dataclass
class Image:
    """What an image says of the process that it starts."""

    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    folder: str = "/"
    user: str = "0"
    labels: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    health: list[str] = field(default_factory=list)
    health_options: dict[str, str] = field(default_factory=dict)
    entry_point: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


@dataclass
class Stage:
    """FROM and what follows it."""

    base: str
    name: str
    steps: list[Run | Copy] = field(default_factory=list)
    image: Image = field(default_factory=Image)


def parse(text: str, arguments: Mapping[str, str] | None = None) -> list[Stage]:
    """The stages of a Containerfile.

    arguments: values of its ARGs, in the place of their defaults
    Raises ValueError for what is not understood here, JSON's forms of RUN and COPY among it.
    """
    stages: list[Stage] = []
    local: dict[str, str] = {}
    for name, rest in _instructions(text):
        if name == "FROM":
            words = rest.split()
            if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
                raise ValueError(f"FROM {rest}")
            stages.append(Stage(words[0], words[2] if len(words) == 3 else ""))
            local = {}
            continue
        if not stages:
            raise ValueError(f"{name} before FROM")
        _take(stages[-1], name, rest, local, arguments or {})
    return stages


def _instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction's name and the rest of it, without comments and with its lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in re.sub(r"\\\n[ \t]*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        found.append((name.upper(), rest.strip()))
    return found


def _take(stage: Stage, name: str, rest: str, local: dict[str, str], given: Mapping[str, str]) -> None:
    image = stage.image
    known = {**local, **image.environment}
    match name:
        case "ARG":
            key, _, default = rest.partition("=")
            local[key] = given.get(key, default)
        case "ENV":
            image.environment.update(_pairs(rest, known))
        case "LABEL":
            image.labels.update(_pairs(rest, known))
        case "WORKDIR":
            image.folder = str(PurePosixPath(image.folder) / expanded(rest, known))
        case "RUN" if not rest.startswith(("[", "-", "<<")):
            stage.steps.append(Run(rest, known, image.folder))
        case "COPY" if not rest.startswith("["):
            words = expanded(rest, known).split()
            source = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
            if words[0].startswith("-") or len(words) < 2:
                raise ValueError(f"COPY {rest}")
            target = str(PurePosixPath(image.folder) / words[-1])
            folder = "/" if words[-1].endswith(("/", ".")) else ""
            stage.steps.append(Copy(tuple(words[:-1]), target + folder, source))
        case "USER":
            image.user = expanded(rest, known)
        case "EXPOSE":
            image.ports += rest.split()
        case "STOPSIGNAL":
            image.stop_signal = rest
        case "HEALTHCHECK":
            options, _, command = rest.partition("CMD ")
            image.health_options = dict(word.removeprefix("--").split("=", 1) for word in options.split())
            image.health = _exec_form(command)
        case "ENTRYPOINT":
            image.entry_point = _exec_form(rest)
        case "CMD":
            image.command = _exec_form(rest)
        case _:
            raise ValueError(f"{name} {rest}")


def _exec_form(text: str) -> list[str]:
    words = json.loads(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(text)
    return words


def _pairs(text: str, known: Mapping[str, str]) -> dict[str, str]:
    return {key: expanded(value, known) for key, value in (word.split("=", 1) for word in shlex.split(text))}


def expanded(text: str, known: Mapping[str, str]) -> str:
    """A text with the values of its $VARIABLES; an unknown one is empty."""
    return _VARIABLE.sub(lambda found: known.get(found[1] or found[2], ""), text)


def ignored(path: str, rules: str) -> bool:
    """Whether a file of the build's context is left out by the text of a .containerignore.

    path: relative to the context, with slashes
    A rule names a file or a folder with all that is in it; the last one that fits decides.
    """
    left_out = False
    parts = PurePosixPath(path).parts
    for line in rules.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        rule = line.strip().removeprefix("!").strip("/")
        if any(_fits(parts[:end], tuple(rule.split("/"))) for end in range(1, len(parts) + 1)):
            left_out = not line.startswith("!")
    return left_out


def _fits(parts: tuple[str, ...], rule: tuple[str, ...]) -> bool:
    if not rule:
        return not parts
    if rule[0] == "**":
        return any(_fits(parts[start:], rule[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], rule[0]) and _fits(parts[1:], rule[1:])


def files_of(context: Path, source: str, rules: str) -> list[Path]:
    """The files that COPY takes from the context for one source, relative to the context."""
    top = context / source
    paths = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
    found = [path.relative_to(context) for path in paths]
    return [path for path in found if not ignored(path.as_posix(), rules)]
