"""What a training is told: one YAML file, checked before anything runs.

Every key is explained where it stands; `training/` in the repository has files to start from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from crnn_deploy.datasets import Kind
from crnn_deploy.datasets.shard_cache import MOST_CACHED, ShardCache
from crnn_deploy.errors import CrnnDeployError, did_you_mean
from crnn_deploy.synthesis.dataset import Polarity, Style
from crnn_deploy.synthesis.fonts import FOLDERS, Split, Tier
from crnn_deploy.synthesis.texts import TextKind

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "AlphabetConfig",
    "CacheConfig",
    "Config",
    "ConfigInvalid",
    "DataConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "StartConfig",
    "SyntheticConfig",
    "read_config",
]

_MOST = 10**12  # of anything that is counted
_SHOWN = 80  # characters of a change in an error

Count = Annotated[int, Field(ge=1, le=_MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=_MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class ConfigInvalid(CrnnDeployError, ValueError):
    """A training configuration that cannot be used."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AlphabetConfig(_Section):
    """The characters in class order, the blank left out; one of the three."""

    string: str | None = None  # the characters themselves
    file: Path | None = None  # UTF-8: one line of characters, or one token a line
    characters: Path | None = None  # a 360CC character file, whose line 0 is the blank

    @model_validator(mode="after")
    def _one_origin(self) -> AlphabetConfig:
        given = [name for name in ("string", "file", "characters") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"takes one of string, file and characters, not {' and '.join(given) or 'none'}")
        return self


class NetworkConfig(_Section):
    """A network of random weights; not read where training starts from a checkpoint."""

    name: Literal["crnn", "compact"] = "crnn"  # the paper's VGG, or convolutions for CPUs
    scale: PositiveFloat = 1.0  # of all its channels: 1, 0.5, 0.25
    widths: tuple[Count, Count, Count, Count, Count] | None = (
        None  # of compact: its channels, in place of scale
    )
    depths: tuple[Count, Count] | None = (
        None  # of compact: separable convolutions after the third and the fourth change of size
    )
    hidden: Count = 256  # LSTM units per direction
    head: Count | None = None  # of compact: features between the LSTM and thousands of classes
    leaky_relu: bool = False  # of the paper's

    @model_validator(mode="after")
    def _compact_alone(self) -> NetworkConfig:
        for key in ("widths", "depths", "head"):
            if self.name != "compact" and getattr(self, key) is not None:
                raise ValueError(f"`{key}` belongs to the network `compact`")
        if self.widths is not None and self.scale != 1:
            raise ValueError("`widths` and `scale` both set the channels; leave one out")
        return self


class StartConfig(_Section):
    """Training that starts from a checkpoint of any family that `export` reads."""

    checkpoint: Path
    recipe: str | None = None  # of the checkpoint, as `export --recipe`
    freeze_cnn: bool = False  # neither weights nor batch norm's statistics of the convolutions change


class SyntheticConfig(_Section):
    """Images drawn on the fly."""

    kinds: dict[TextKind, PositiveFloat] = Field(min_length=1)  # how often each kind of text is drawn
    split: Split = "train"  # of words and fonts
    augmented: bool = True  # with the faults of cameras, scanners and screens
    polarity: Polarity = "both"
    empty: Share = 0.0  # of the images, without letters: a model learns that paper alone has no text
    style: Style = "print"  # clean and faulty print, photographed scenes, or old documents and receipts
    fonts: Tier = "latin"
    folders: tuple[Path, ...] = FOLDERS  # where fonts are looked for
    photographs: Path | None = None  # folder of backgrounds for scenes; none: made-up textures alone
    size: Count | None = None  # images; none: without end

    @model_validator(mode="after")
    def _photographs_for_scenes(self) -> SyntheticConfig:
        if self.photographs is not None and self.style != "scene":
            raise ValueError("`photographs` are backgrounds of `style: scene`; set it, or leave them out")
        return self


class DataConfig(_Section):
    """Labelled images: on disk, or drawn."""

    path: str | None = None  # as `dataset check DATA`
    kind: Kind | None = None
    images: str | None = None
    characters: str | None = None
    synthetic: SyntheticConfig | None = None
    weight: PositiveFloat = 1.0  # share of the training images among all sources
    part: tuple[Share, Share] = (
        0.0,
        1.0,
    )  # told by a hash of the image, so equal ones stay together
    joined: Count = 4  # shards of a set of tars whose samples are shuffled together

    @field_validator("part")
    @classmethod
    def _ascending(cls, part: tuple[float, float]) -> tuple[float, float]:
        if part[0] >= part[1]:
            raise ValueError("a part goes from a lower share to a higher one, such as [0.0, 0.9]")
        return part

    @model_validator(mode="after")
    def _one_origin(self) -> DataConfig:
        if (self.path is None) == (self.synthetic is None):
            raise ValueError("a source of images has either `path` or `synthetic`")
        return self


class CacheConfig(_Section):
    """Where shards of a store lie while they are trained on; processes of a machine share it."""

    folder: Path | None = None  # none: one for this user among the system's temporary files
    gigabytes: PositiveFloat = MOST_CACHED / 1e9  # beyond it the shards used least recently are removed

    def opened(self) -> ShardCache:
        return ShardCache(self.folder, int(self.gigabytes * 1e9))


class OptimizerConfig(_Section):
    """As torch.optim has it."""

    name: Literal["adam", "adamw", "rmsprop", "sgd", "adadelta"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Decay = 0.0  # of SGD and RMSprop
    betas: tuple[Decay, Decay] = (0.9, 0.999)  # of Adam and AdamW
    rho: Share = 0.9  # of Adadelta


class ScheduleConfig(_Section):
    """The learning rate over the steps, as a factor of the optimiser's."""

    name: Literal["constant", "step", "multistep", "onecycle", "cosine", "trapezoid"] = "constant"
    warmup: CountOrZero = 0  # steps from 0 to the full rate
    every: Count | None = None  # step: steps between two falls
    at: tuple[int, ...] = ()  # multistep: steps of the falls
    gamma: PositiveFloat = 0.1  # step, multistep: factor of each fall
    decay: Share = 0.2  # trapezoid: last share of the steps, over which the rate falls to 0

    @model_validator(mode="after")
    def _whole(self) -> ScheduleConfig:
        if self.name == "step" and self.every is None:
            raise ValueError("the schedule `step` needs `every`, the steps between two falls")
        if self.name == "multistep" and not self.at:
            raise ValueError("the schedule `multistep` needs `at`, the steps of its falls")
        if self.name == "onecycle" and self.warmup:
            raise ValueError("the schedule `onecycle` has a warmup of its own; leave `warmup` out")
        return self


class Config(_Section):
    """A training run."""

    out: Path  # folder of checkpoints, logs and samples
    alphabet: AlphabetConfig | None = None  # none: that of the checkpoint to start from, or of the recipe
    ignore_case: bool = False  # texts are lowered before they become labels
    recipe: str = "paper"  # preprocessing, blank and width rule: a name or a TOML file
    network: NetworkConfig = NetworkConfig()
    start: StartConfig | None = None
    train: tuple[DataConfig, ...] = Field(min_length=1)
    validation: dict[str, DataConfig] = {}
    cache: CacheConfig = CacheConfig()
    max_dropped: Share = 0.05  # of a source's samples that cannot be trained on; beyond it nothing is trained
    qat: Count | None = None  # finetune for INT8: largest level of the weights, which `quantize` takes as 63
    augment: bool = False  # vary images on disk: crop, slope, slant, contrast, blur, noise
    font_pack: Path | None = None  # draw with the fonts and words of this file, not with the machine's
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: Count  # of the optimiser, in all
    batch: Count = 64  # images of a step, in each process
    window: Count = 32  # batches that are sorted by width together
    workers: CountOrZero = 0  # processes that read or draw images; 0: the trainer itself
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip: PositiveFloat | None = 5.0  # of the gradient's norm
    ema: Decay = 0.999  # decay of the averaged weights; 0: none
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the convolutions and products; fp16 needs a GPU
    threads: Count = 1  # of each process on a CPU
    log_every: Count = 100  # steps
    validate_every: Count = 1000
    save_every: Count = 1000  # `last.pth`
    keep_every: Count | None = None  # a file of its own

    @model_validator(mode="after")
    def _qat_finetunes(self) -> Config:
        if self.qat is not None and self.start is None:
            raise ValueError("qat finetunes: name the float checkpoint as start.checkpoint")
        return self

    @field_validator("validation")
    @classmethod
    def _validation_ends(cls, validation: dict[str, DataConfig]) -> dict[str, DataConfig]:
        for name, source in validation.items():
            if source.synthetic is not None and source.synthetic.size is None:
                raise ValueError(f"{name}: drawn images without a size have no end")
        return validation


def read_config(path: Path, changes: tuple[str, ...] = ()) -> Config:
    """The configuration of a YAML file, with `key=value` changes, such as `optimizer.lr=0.01`.

    Raises ConfigInvalid, which names the key.
    """
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigInvalid(f"no configuration at {path}") from error
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no UTF-8, no date
        raise ConfigInvalid(f"{path} is not a YAML file: {_why_no_yaml(error)}") from error
    if not isinstance(plain, dict):
        raise ConfigInvalid(f"{path} holds no keys; see the files in training/")
    for change in changes:
        _apply(plain, change)
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        first, *others = _own_faults(error.errors())
        key = ".".join(str(part) for part in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        raise ConfigInvalid(f"{path}: {key}: {_said(first)}{more}") from error


def _own_faults(faults: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The faults without those that others cause: a list with a faulty item also counts as too short."""
    places = [fault["loc"] for fault in faults]
    return [
        fault
        for fault in faults
        if fault["type"] != "too_short"
        or not any(place != fault["loc"] and place[: len(fault["loc"])] == fault["loc"] for place in places)
    ]


def _said(fault: ErrorDetails) -> str:
    """What is wrong with a key, and the nearest key or word where there is none of its name."""
    if fault["type"] == "extra_forbidden":
        *above, name = fault["loc"]
        return f"there is no such key{did_you_mean(name, _section(above).model_fields)}"
    if fault["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
        return f"{fault['msg']}{did_you_mean(fault['input'], words)}"
    return fault["msg"]


def _section(above: Sequence[str | int]) -> type[BaseModel]:
    """The section that keys lead to; positions in a list and names of datasets lead nowhere else."""
    section: type[BaseModel] = Config
    for key in above:
        if key in section.model_fields:
            section = next(_sections(section.model_fields[str(key)].annotation), section)
    return section


def _sections(kind: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type names."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from _sections(inner)


def _why_no_yaml(error: Exception) -> str:
    """Why a text is no YAML."""
    if isinstance(error, RecursionError):
        return "its values are nested too deep"
    if "int_max_str_digits" in str(error):
        return "it holds a number of more than 4,300 digits"
    return " ".join(str(error).split())


def _apply(plain: dict[str, Any], change: str) -> None:
    """Set one dotted key; the value is YAML. Raises ConfigInvalid."""
    key, equals, text = change.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigInvalid(f"--set {change[:_SHOWN]}: it is written key=value, such as optimizer.lr=0.01")
    try:
        value = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigInvalid(
            f"--set {change[:_SHOWN]}: the value is not YAML: {_why_no_yaml(error)}"
        ) from error
    inner: Any = plain
    for at, name in enumerate(names):
        last = at == len(names) - 1
        if isinstance(inner, list):
            if not (name.isdecimal() and int(name) < len(inner)):
                above = ".".join(names[:at])
                raise ConfigInvalid(
                    f"--set {change[:_SHOWN]}: {above} is a list of {len(inner)}, counted from 0"
                )
            position: Any = int(name)
        elif isinstance(inner, dict):
            position = name
        else:
            raise ConfigInvalid(f"--set {change[:_SHOWN]}: {'.'.join(names[:at])} holds a value, not keys")
        if last:
            inner[position] = value
        elif isinstance(inner, dict):
            inner = inner.setdefault(name, {})
        else:
            inner = inner[position]
