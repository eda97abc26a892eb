"""The root file systems of a Containerfile's stages, made by its own steps without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from container.containerfile import Copy, Run, Stage, files_of

__all__ = ["HANDED_DOWN", "Builder", "environment", "overlay"]

BASE = re.compile(r"python:(?P<version>3\.\d+)-slim-(?P<suite>\w+)")
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
HANDED_DOWN = re.compile(r"PIP_\w+|https?_proxy|no_proxy|SSL_CERT_FILE", re.IGNORECASE)  # to RUN


class Builder:
    """Makes the root file systems of a Containerfile's stages in a folder."""

    def __init__(self, work: Path, context: Path, binds: Sequence[Path]) -> None:
        self.work, self.context, self.binds = work, context, binds
        self.rules = (context / ".containerignore").read_text(encoding="utf-8")
        self.layers: dict[str, list[Path]] = {}  # of each stage, the topmost first

    def base(self, name: str) -> Path:
        """A stand-in for a base image."""
        if not (found := BASE.fullmatch(name)):
            raise SystemExit(f"there is no stand-in for FROM {name}")
        root = self.work / f"base-{found['suite']}"
        if not root.exists():
            made = root.with_name(f"{root.name}.part")
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", found["suite"], str(made)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(made / "var/cache/apt/archives", ignore_errors=True)
            made.rename(root)
        for path in ("/etc/resolv.conf", "/etc/hosts", *map(str, self.binds)):
            place = root / path[1:]
            if Path(path).is_dir():
                place.mkdir(parents=True, exist_ok=True)
            elif not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
        said = subprocess.run(["chroot", root, "python", "-V"], capture_output=True, text=True, check=True)
        if not said.stdout.startswith(f"Python {found['version']}."):
            raise SystemExit(f"the stand-in for {name} has {said.stdout.strip()}")
        return root

    def build(self, stages: Sequence[Stage]) -> list[Path]:
        """Run all steps; the layers of the last stage, the topmost first."""
        names = [stage.name or str(at) for at, stage in enumerate(stages)]
        for name, stage in zip(names, stages, strict=True):
            lower = self.layers.get(stage.base) or [self.base(stage.base)]
            upper, scratch = self.work / f"layer-{name}", self.work / f"scratch-{name}"
            for folder in (upper, scratch):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            with overlay(self.work / f"root-{name}", lower, upper, scratch) as root:
                (root / stage.image.folder[1:]).mkdir(parents=True, exist_ok=True)
                for step in stage.steps:
                    if isinstance(step, Copy):
                        self._copy(step, root)
                    else:
                        self._run(step, root)
            self.layers[name] = [upper, *lower]
        return self.layers[names[-1]]

    def _copy(self, step: Copy, root: Path) -> None:
        print(f"COPY {' '.join(step.sources)} -> {step.target}", flush=True)
        target = root / step.target[1:]
        if step.stage is not None:
            with overlay(self.work / "root-from", self.layers[step.stage]) as source:
                for name in step.sources:
                    shutil.copytree(source / name[1:], target, symlinks=True, dirs_exist_ok=True)
            return
        for name in step.sources:
            top = self.context / name
            for path in files_of(self.context, name, self.rules):
                inside = (self.context / path).relative_to(top)
                place = target / path.name if top.is_file() else target / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.context / path, place)

    def _run(self, step: Run, root: Path) -> None:
        print(f"RUN {step.line}", flush=True)
        handed_down = {name: value for name, value in os.environ.items() if HANDED_DOWN.fullmatch(name)}
        settings = {"HOME": "/root", **handed_down, **step.environment}
        binds = ["/etc/resolv.conf", "/etc/hosts", "/dev", *map(str, self.binds)]
        mounts = "\n".join(f'mount --bind "{path}" "$1{path}"' for path in binds)
        script = f'set -e\n{mounts}\nmount -t proc proc "$1/proc"\nroot="$1"; shift\nexec chroot "$root" "$@"'
        command = ["sh", "-c", f'cd {step.folder} && exec /bin/sh -c "$1"', "sh", step.line]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--ipc", "--uts"]
        line = [*unshare, "sh", "-c", script, "sh", str(root), *environment(settings), *command]
        subprocess.run(line, check=True)


def environment(settings: Mapping[str, str]) -> list[str]:
    return ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in settings.items())]


@contextmanager
def overlay(
    at: Path, lower: Sequence[Path], upper: Path | None = None, scratch: Path | None = None
) -> Iterator[Path]:
    """Layers as one tree, which cannot be written where no upper layer is given."""
    at.mkdir(exist_ok=True)
    given = [("lowerdir", ":".join(map(str, lower))), ("upperdir", upper), ("workdir", scratch)]
    options = ",".join(f"{name}={value}" for name, value in given if value is not None)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)
