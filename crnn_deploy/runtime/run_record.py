"""What made a file of records: beside it stands OUT.run.json, so that no other run goes on with it.

Its settings are what decides about texts, by the names that the command line gives them. What it says about
the run besides is for people and never compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crnn_deploy import files
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import CrnnDeployError, shortened
from crnn_deploy.runtime.backends.installed import version_of

__all__ = ["FileUnreadable", "RunDiffers", "RunRecord", "RunRecordInvalid", "RunUnknown", "Value", "place"]

SCHEMA = "crnn-deploy/run/1"
_LARGEST = 2**20  # bytes
_CHUNK = 2**20  # bytes
_SHOWN = 60  # characters of a value in a message

Value = str | int | float | bool | list[str]


class RunUnknown(CrnnDeployError, ValueError):
    """An output to go on with of which nothing says what made it."""

    def __init__(self, output: Path) -> None:
        super().__init__(
            f"{output} has no {place(output).name} beside it, which says what made it; "
            "name another file with -o"
        )


class RunDiffers(CrnnDeployError, ValueError):
    """An output to go on with that other settings have made."""

    def __init__(self, output: Path | str, before: RunRecord, now: RunRecord) -> None:
        names = [name for name in {**now.settings, **before.settings} if not before.agrees(now, name)]
        super().__init__(
            f"{output} was made with {', '.join(map(before.told, names))}, "
            f"this run has {', '.join(map(now.told, names))}; "
            "go on with the same, or name another output with -o"
        )


class FileUnreadable(CrnnDeployError, OSError):
    """A file that decides about texts and cannot be told by its content."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; a run that writes a file takes regular files alone")


class RunRecordInvalid(CrnnDeployError, ValueError):
    """A file in the place of a run's record that is none."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path} is no record of a run ({reason}); name another output with -o")


@dataclass(frozen=True)
class RunRecord:
    """What decides about the records of a run, and what else is to be known of it."""

    settings: Mapping[str, Value]  # digests of files among them
    about: Mapping[str, str] = field(default_factory=dict)  # names of files by setting, versions

    @classmethod
    def of(
        cls,
        model: Path,
        rule: DecodingRule,
        settings: Mapping[str, Value],
        *,
        lexicon: Path | None = None,
        lm: Path | None = None,
        boxes: Path | None = None,
    ) -> RunRecord:
        """That of a run of a model, by the content of its files. Raises FileUnreadable."""
        of_model: tuple[Path, ...] = (model,)
        if model.suffix == ".engine":
            from crnn_deploy.runtime.backends.engine_file import sidecar_of

            of_model = (model, sidecar_of(model))
        named = {
            "model": of_model,
            **({} if lexicon is None else {"lexicon": (lexicon,)}),
            **({} if lm is None else {"lm": (lm,)}),
            **({} if boxes is None else {"boxes": (boxes,)}),
        }
        digests = {name: _digest(paths) for name, paths in named.items()}
        decoding = {name.replace("_", "-"): value for name, value in rule.to_plain().items()}
        about = {name: paths[0].name for name, paths in named.items()}
        return cls(
            {**digests, **settings, "decoder": rule.decoder, **decoding},
            {**about, "crnn-deploy": version_of("crnn-deploy")},
        )

    def agrees(self, other: RunRecord, name: str) -> bool:
        """Whether both runs have this setting alike; one that is missing is not the same as any."""
        mine, theirs = (record.settings.get(name, ...) for record in (self, other))
        return isinstance(mine, bool) == isinstance(theirs, bool) and mine == theirs

    def told(self, name: str) -> str:
        """A setting in words."""
        value = self.settings.get(name, False)
        if value is False:
            return f"no {name}"
        if value is True:
            return name
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        if name in self.about:  # a file, whose digest says little to people
            shown = f"{self.about[name]} (sha256 {shown[:8]})"
        return f"{name} {shortened(shown, _SHOWN)}"

    def write(self, output: Path) -> None:
        """Put it beside an output. Raises OutputUnwritable, and RunRecordInvalid where a file of another kind
        stands there.
        """
        path = place(output)
        if os.path.lexists(path) and not _is_empty(path):
            _load(path)
        files.write(path, self.encoded())

    def encoded(self) -> str:
        """The record as its file holds it."""
        plain = {"schema": SCHEMA, "settings": self.settings, "about": self.about}
        return json.dumps(plain, indent=1) + "\n"

    @classmethod
    def parsed(cls, text: bytes, path: Path | str) -> RunRecord:
        """The record of a file's text; `path` is for messages. Raises RunRecordInvalid."""
        try:
            plain = json.loads(text)
        except (ValueError, RecursionError):
            raise RunRecordInvalid(path, "it is not JSON") from None
        match plain:
            case {"schema": str(schema)} if schema != SCHEMA:
                raise RunRecordInvalid(path, f"its schema is {schema[:_SHOWN]}, this version reads {SCHEMA}")
            case {"schema": str(), "settings": dict(settings), "about": dict(about), **rest} if not rest:
                if all(map(_is_value, settings.values())) and all(map(_is_text, about.values())):
                    return cls(settings, about)
        raise RunRecordInvalid(path, f"it has not the fields of {SCHEMA}")

    def check(self, output: Path) -> None:
        """Refuse to go on with an output that was not made so. Raises RunUnknown, RunDiffers,
        RunRecordInvalid.
        """
        path = place(output)
        if not os.path.lexists(path):
            raise RunUnknown(output)
        self.compare(_load(path), output)

    def compare(self, before: RunRecord, output: Path | str) -> None:
        """Refuse to go on with the output of another run. Raises RunDiffers."""
        if not all(before.agrees(self, name) for name in {**before.settings, **self.settings}):
            raise RunDiffers(output, before, self)


def place(output: Path) -> Path:
    """Where the record of the run that made an output stands."""
    return output.with_name(files.fitting_name(output.name, ".run.json"))


def _digest(paths: Iterable[Path]) -> str:
    """SHA-256 of files, one after the other; a folder counts by the names and contents of its files."""
    found = hashlib.sha256()
    for path in paths:
        try:
            if path.is_dir():
                for one in sorted(one for one in path.iterdir() if one.is_file()):
                    found.update(os.fsencode(one.name) + _digest([one]).encode())
                continue
            with files.open_regular(path) as file:
                while data := file.read(_CHUNK):
                    found.update(data)
        except OSError as error:
            raise FileUnreadable(path, error.strerror or str(error)) from None
    return found.hexdigest()


def _is_empty(path: Path) -> bool:
    return path.is_file() and not path.stat().st_size


def _load(path: Path) -> RunRecord:
    try:
        return RunRecord.parsed(files.read_regular(path, _LARGEST), path)
    except OSError as error:
        raise RunRecordInvalid(path, error.strerror or str(error)) from None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_text, value))
    return isinstance(value, str | int | float)
