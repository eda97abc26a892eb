"""An engine's sidecar, FILE.engine.json: what was built, from what, for what; and whether it runs here.

The engine itself is a plain TensorRT plan, so other tools load it; what this toolkit must know stands beside
it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from crnn_deploy.errors import CrnnDeployError, ManifestInvalid, ModelNotFound
from crnn_deploy.files import open_regular, read_regular
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.build_arguments import BuildArguments, build_arguments
from crnn_deploy.runtime.backends.driver import Gpu

__all__ = [
    "CURRENT",
    "BuilderName",
    "EngineChanged",
    "EngineFile",
    "EngineLayer",
    "EngineStale",
    "Fitness",
    "LayersFrom",
    "Precision",
    "Profile",
    "Range",
    "SidecarInvalid",
    "SidecarMissing",
    "check_bytes",
    "check_gpu",
    "check_library",
    "digest",
    "fitness",
    "read_sidecar",
    "sidecar_of",
    "system",
]

SCHEMA = 2  # of 1, fp32 engines multiplied in TF32 without saying so

CURRENT = "current"  # target: the GPU of the machine that builds
_MOST_BYTES = 2**25  # of a sidecar
_MOST_PLAN = 2**40  # bytes of an engine
_LARGEST = 2**20  # images of a batch, pixels of a width, seconds of a build
_RTX_DEFAULT = ("sm_80", "sm_86", "sm_89", "sm_120")  # what TensorRT for RTX builds for without targets

BuilderName = Literal["tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8"]  # tf32: fp32 tensors, TF32 products
LayersFrom = Literal["network", "engine"]


class SidecarMissing(CrnnDeployError, FileNotFoundError):
    """An engine without the file that says how to feed it."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} has no sidecar {sidecar_of(path).name} beside it; copy it along, "
            f"or build again: crnn-deploy build-engine MODEL.onnx -o {path}"
        )


class SidecarInvalid(CrnnDeployError, ValueError):
    """A sidecar that this version cannot read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; build again: crnn-deploy build-engine MODEL.onnx -o FILE.engine")


class EngineChanged(CrnnDeployError, ValueError):
    """An engine that is not the file its sidecar was written for."""

    def __init__(self, path: Path, reason: str, command: str) -> None:
        super().__init__(f"{path}: {reason}; refused. Build again: {command}")


class EngineStale(CrnnDeployError, RuntimeError):
    """An engine that was built for another library, system or GPU."""

    def __init__(self, path: Path, reason: str, command: str) -> None:
        super().__init__(f"{path} does not run here: {reason}; build again: {command}")


@dataclass(frozen=True)
class Range:
    """Sizes of one axis: the engine takes all from smallest to largest and is tuned for one."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        sizes = (self.minimum, self.optimum, self.maximum)
        if any(type(size) is not int for size in sizes) or self.maximum > _LARGEST:
            raise ValueError(f"{self} are not whole numbers up to {_LARGEST}")
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise ValueError(f"{self} is not MIN,OPT,MAX with 1 <= MIN <= OPT <= MAX")

    def __str__(self) -> str:
        return f"{self.minimum},{self.optimum},{self.maximum}"


@dataclass(frozen=True)
class Profile:
    """Input sizes that one optimisation profile of an engine serves."""

    batch: Range  # images
    width: Range  # pixels


@dataclass(frozen=True)
class EngineLayer:
    """One layer that computes: moves, casts, constants and shapes left out."""

    name: str
    kind: str  # as TensorRT calls it, CONVOLUTION
    precision: Precision

    def __post_init__(self) -> None:
        texts = isinstance(self.name, str) and isinstance(self.kind, str) and isinstance(self.precision, str)
        if not texts or self.precision not in get_args(Precision):
            raise ValueError(f"{self} is no layer of a name, a kind and a precision")


@dataclass(frozen=True)
class EngineFile:
    """What is known of one engine."""

    manifest: Manifest  # its width rule is the one that the profiles cover
    engine_sha256: str
    engine_bytes: int
    onnx_sha256: str
    builder: BuilderName
    builder_version: str  # of the library, which loads no plan of another version
    system: str  # operating system and architecture, as Linux x86_64
    cuda: str | None  # newest CUDA that the driver served where it was built
    driver: str | None  # version
    gpu: str | None  # name of the GPU it was built on, if any
    compute_capability: str | None  # of that GPU, as "9.0"
    targets: tuple[str, ...]  # asked for, as sm_80 or current; empty: the GPU above, or the builder's default
    precision: Precision
    kept_fp32: tuple[str, ...]  # ONNX nodes left in fp32 in a half precision engine
    layers: tuple[EngineLayer, ...]
    layers_from: LayersFrom  # network: tensor types before the build; engine: read back from it
    profiles: tuple[Profile, ...]
    verified: str | None  # what the check after the build found; None where no GPU could load the engine
    build_seconds: float
    crnn_deploy: str  # version
    arguments: tuple[
        str, ...
    ]  # of `crnn-deploy build-engine`, as they were given; `build_arguments` reads them

    def command(self, path: Path) -> str:
        """The command that builds it again at `path`, with the settings that a sidecar may give."""
        try:
            given = build_arguments(self.arguments)
        except ValueError:
            given = BuildArguments("MODEL.onnx", (), ())
        command = shlex.join(("crnn-deploy", "build-engine", given.model, *given.settings, "-o", str(path)))
        return (
            f"{command}  # add the {', '.join(given.left_out)} that you used" if given.left_out else command
        )

    def counts(self) -> dict[Precision, int]:
        """Computing layers by precision, the most frequent first."""
        return dict(Counter(layer.precision for layer in self.layers).most_common())

    def built_for(self) -> str:
        """The GPUs, as `sm_80, sm_89`."""
        if self.targets:
            return ", ".join(self.targets)
        if self.builder == "tensorrt-rtx":
            return f"{_RTX_DEFAULT[0]} and later (the builder's own choice)"
        return self.gpu or "a GPU that its sidecar does not name"

    def shares(self) -> str:
        """As `fp16 45 of 50 (90 %), fp32 5 of 50 (10 %)`."""
        total = len(self.layers)
        return ", ".join(f"{p} {n} of {total} ({n / total:.0%})" for p, n in self.counts().items())

    def to_json(self) -> str:
        plain = {"schema": SCHEMA, **asdict(self), "manifest": json.loads(self.manifest.to_json())}
        return json.dumps(plain, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, path: Path) -> EngineFile:
        """Read `to_json`'s text. path: its file, for messages. Raises SidecarInvalid, ManifestInvalid."""
        try:
            plain: dict[str, Any] = json.loads(text)
            schema = plain.pop("schema")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise SidecarInvalid(path, "it is not the JSON object that build-engine writes") from error
        if schema != SCHEMA:
            raise SidecarInvalid(path, f"its schema is {schema!r}, this version reads {SCHEMA}")
        names = {f.name for f in fields(cls)}
        if differing := sorted(names.symmetric_difference(plain)):
            raise SidecarInvalid(path, f"fields missing or unknown: {', '.join(differing)}")
        if "\\u" in text and _SURROGATE.search(json.dumps(plain, ensure_ascii=False)):
            raise SidecarInvalid(path, "it holds halves of characters, which are no text")
        _check_types(plain, path)
        try:
            return cls(
                **{
                    **plain,
                    "manifest": Manifest.from_json(json.dumps(plain["manifest"])),
                    "layers": tuple(EngineLayer(**layer) for layer in plain["layers"]),
                    "profiles": tuple(
                        Profile(Range(**p.pop("batch")), Range(**p.pop("width")), **p)
                        for p in plain["profiles"]
                    ),
                    "targets": tuple(plain["targets"]),
                    "kept_fp32": tuple(plain["kept_fp32"]),
                    "arguments": tuple(plain["arguments"]),
                }
            )
        except ManifestInvalid:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SidecarInvalid(path, f"{type(error).__name__}: {error}") from error


_TEXTS = ("engine_sha256", "onnx_sha256", "builder_version", "system", "crnn_deploy")
_TEXTS_OR_NONE = ("cuda", "driver", "gpu", "compute_capability", "verified")
_LISTS_OF_TEXT = ("targets", "kept_fp32", "arguments")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TARGET, _CAPABILITY = re.compile(r"sm_\d{2,3}"), re.compile(r"\d{1,2}\.\d")
_CHOICES = {"builder": BuilderName, "precision": Precision, "layers_from": LayersFrom}


def _check_types(plain: Mapping[str, Any], path: Path) -> None:
    wrong = [name for name in _TEXTS if not isinstance(plain[name], str)]
    wrong += [name for name in _TEXTS_OR_NONE if not isinstance(plain[name], str | None)]
    wrong += [
        name
        for name in _LISTS_OF_TEXT
        if not isinstance(plain[name], list) or not all(isinstance(item, str) for item in plain[name])
    ]
    wrong += [name for name, choices in _CHOICES.items() if plain[name] not in get_args(choices)]
    if not wrong:
        wrong += _wrong_gpus(plain["targets"], plain["compute_capability"])
    wrong += [name for name in ("layers", "profiles") if not isinstance(plain[name], list) or not plain[name]]
    seconds = plain["build_seconds"]
    if (
        type(plain["engine_bytes"]) is not int
        or not 0 <= plain["engine_bytes"] <= _MOST_PLAN
        or type(seconds) not in (int, float)
        or not 0 <= seconds <= _LARGEST
    ):
        wrong.append("engine_bytes or build_seconds")
    if wrong:
        raise SidecarInvalid(path, f"it holds no valid {', '.join(wrong)}")


def _wrong_gpus(targets: list[str], capability: str | None) -> list[str]:
    known = all(target == CURRENT or _TARGET.fullmatch(target) for target in targets)
    told = CURRENT not in targets if capability is None else _CAPABILITY.fullmatch(capability)
    return [name for name, right in (("targets", known), ("compute_capability", told)) if not right]


def sidecar_of(path: Path) -> Path:
    """Where an engine's sidecar stands."""
    return path.with_name(f"{path.name}.json")


def read_sidecar(path: Path) -> EngineFile:
    """The sidecar of an engine. Raises ModelNotFound, SidecarMissing, SidecarInvalid, ManifestInvalid."""
    if not path.is_file():
        raise ModelNotFound(path)
    sidecar = sidecar_of(path)
    try:
        text = read_regular(sidecar, _MOST_BYTES).decode()
    except FileNotFoundError as error:
        raise SidecarMissing(path) from error
    except UnicodeDecodeError as error:
        raise SidecarInvalid(sidecar, "it is not UTF-8") from error
    except OSError as error:
        raise SidecarInvalid(sidecar, f"it cannot be read ({error.strerror})") from error
    return EngineFile.from_json(text, sidecar)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def system() -> str:
    """Operating system and architecture; a plan belongs to both."""
    return f"{platform.system()} {platform.machine()}"


def check_bytes(engine: EngineFile, path: Path) -> bytes:
    """The plan, when it is the one that the sidecar was written for. Raises EngineChanged."""
    with open_regular(path) as file:
        data = file.read(max(0, engine.engine_bytes) + 1)
    if len(data) != engine.engine_bytes:
        reason = f"it has {path.stat().st_size} bytes of {engine.engine_bytes}"
        raise EngineChanged(path, reason, engine.command(path))
    if digest(data) != engine.engine_sha256:
        raise EngineChanged(path, "its bytes are not those its sidecar was written for", engine.command(path))
    return data


def check_library(engine: EngineFile, path: Path, version: str) -> None:
    """Hold an engine against the version of its builder's library and the system here. Raises EngineStale."""
    if engine.system != system():
        raise EngineStale(
            path, f"it was built on {engine.system}, and this is {system()}", engine.command(path)
        )
    if engine.builder_version != version:
        reason = f"it was built by {engine.builder} {engine.builder_version}, and {version} is installed"
        raise EngineStale(path, reason, engine.command(path))


@dataclass(frozen=True)
class Fitness:
    """Whether an engine may run on a GPU, and why."""

    allowed: bool
    why: str


def fitness(engine: EngineFile, gpu: Gpu) -> Fitness:
    """What an engine's sidecar allows on a GPU.

    TensorRT's plan runs on the kind of GPU that built it. TensorRT for RTX finishes its plan on the GPU that
    loads it: on its targets and, where its validity check passes, on newer GPUs (NVIDIA's documentation of
    its engine compatibility; `TrtBackend` asks for that check).
    """
    here = f"{gpu.target} ({gpu.name})"
    if engine.builder == "tensorrt":
        built = f"{engine.gpu} (compute capability {engine.compute_capability})"
        same = (engine.gpu, engine.compute_capability) == (gpu.name, gpu.compute_capability)
        return Fitness(same, f"TensorRT built it for {built}, {'as' if same else 'and this'} is {here}")
    targets = _targets(engine)
    if gpu.target in targets:
        return Fitness(True, f"{here} is what it was built for")
    if older := [target for target in targets if _capability(target) < _capability(gpu.target)]:
        newest = max(older, key=_capability)
        why = f"{here} is newer than its target {newest}: it runs where TensorRT for RTX finds it valid"
        return Fitness(True, why)
    return Fitness(False, f"{here} is older than what it was built for, {', '.join(targets)}")


def _targets(engine: EngineFile) -> tuple[str, ...]:
    """GPUs that an engine of TensorRT for RTX was built for, as sm_80."""
    if CURRENT in engine.targets:
        return (f"sm_{(engine.compute_capability or '').replace('.', '')}",)
    return engine.targets or _RTX_DEFAULT


def _capability(target: str) -> tuple[int, int]:
    """(8, 0) of sm_80; the last digit is the minor version."""
    digits = target.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])


def check_gpu(engine: EngineFile, path: Path, gpu: Gpu) -> None:
    """Hold an engine against the GPU here. Raises EngineStale."""
    if not (found := fitness(engine, gpu)).allowed:
        raise EngineStale(path, found.why, engine.command(path))
