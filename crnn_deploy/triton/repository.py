"""A folder that Triton serves: the models of one layout, what they need, and how to start the server."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import (
    OutputIsInput,
    OutputUnwritable,
    keep,
    open_regular,
    parse_json,
    sha256,
    temporary,
)
from crnn_deploy.runtime.backends.backend import Device
from crnn_deploy.runtime.backends.engine_file import sidecar_of
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.triton.config import (
    IMAGE,
    RESULTS,
    ensemble_model,
    network_model,
    python_model,
    text_of,
)
from crnn_deploy.triton.network import OWN, ServedNetwork, Tensor, network_of
from crnn_deploy.triton.readme import readme

__all__ = ["LAYOUTS", "Layout", "ModelNameInvalid", "RepositoryThere", "Written", "write_repository"]

Layout = Literal["bls", "ensemble", "python"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_MARK = "crnn-deploy.json"  # tells a repository that this toolkit wrote; Triton looks into folders alone
_SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class ModelNameInvalid(CrnnDeployError, ValueError):
    """A name that no model of Triton should have."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} cannot be the name of a model of Triton; give one with --name, at most 100 letters "
            "(a to z), digits, _ . and -"
        )


class RepositoryThere(CrnnDeployError, FileExistsError):
    """A folder that is not written over."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is there already; {reason}")


@dataclass(frozen=True)
class Written:
    """What was written."""

    name: str  # of the model that clients ask
    network: ServedNetwork
    models: tuple[str, ...]


@dataclass(frozen=True)
class _StoredModel:
    """A model of the repository."""

    config: Any  # pb.ModelConfig
    texts: dict[str, str] = field(default_factory=dict)  # files of its version, by name
    copies: dict[str, Path] = field(default_factory=dict)


def write_repository(
    model: Path,
    output: Path,
    *,
    layout: Layout = "bls",
    name: str | None = None,
    batch: int = 8,
    instances: int = 1,
    device: Device = "cpu",
    onnx: Path | None = None,
    replace: bool = False,
) -> Written:
    """A model repository for Triton in a folder that appears as a whole or not at all.

    name: of the model that clients ask; by default the file's without its suffix
    batch: most images that run together
    instances: processes of each Python model
    device: where ONNX Runtime runs an .onnx file
    onnx: the file that an .engine was built from; a layout `python` does without
    replace: whether a repository that this toolkit wrote may be replaced
    Raises ModelNameInvalid, RepositoryThere, OutputIsInput, OutputUnwritable, LogitsMissing, and what
    `network_of` raises.
    """
    name = model.stem if name is None else name
    if not _NAME.fullmatch(name):
        raise ModelNameInvalid(name)
    _check_output(output, model, replace)
    network = network_of(model, batch, onnx, tensors=layout != "python")
    Recognizer(_Described(network)).close()  # its decoder is made, so that one that does not fit is told now
    models = _models(layout, name, network, instances, device)
    with _whole_folder(output) as folder:
        for one in models:
            version = folder / one.config.name / "1"
            version.mkdir(parents=True)
            (version.parent / "config.pbtxt").write_text(text_of(one.config), encoding="utf-8")
            for file, text in one.texts.items():
                (version / file).write_text(text, encoding="utf-8")
            for file, source in one.copies.items():
                with open_regular(source) as read, (version / file).open("wb") as written:
                    shutil.copyfileobj(read, written)
        names = tuple(one.config.name for one in models)
        (folder / "README.md").write_text(
            readme(name, layout, network, names, instances, device), encoding="utf-8"
        )
        mark = {"schema": _SCHEMA, "layout": layout, "model": name, "models": names, "sha256": sha256(model)}
        (folder / _MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
    return Written(name, network, names)


class _Described:
    """A network that nobody runs."""

    def __init__(self, network: ServedNetwork) -> None:
        self.manifest = network.manifest

    def run(self, images: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


def _models(
    layout: Layout, name: str, network: ServedNetwork, instances: int, device: Device
) -> list[_StoredModel]:
    if layout == "python":
        parameters = {"file": network.file.name, "batch": str(network.max_batch), "device": device}
        copies = {network.file.name: network.file}
        if network.file.suffix == ".engine":
            sidecar = sidecar_of(network.file)
            copies[sidecar.name] = sidecar
        config = python_model(name, [IMAGE], RESULTS, parameters, instances)
        return [_StoredModel(config, _step("read"), copies)]
    served = network_model(f"{name}_network", network, device)
    file = "model.plan" if network.backend == "tensorrt" else "model.onnx"
    models = [_StoredModel(served, copies={file: network.file})]
    parameters = {
        "batch": str(network.max_batch),
        "network": served.name,
        "network_input": network.input.name,
        "network_outputs": "\n".join(output.name for output in network.outputs),
    }
    manifest = {"manifest.json": network.manifest.to_json()}
    if layout == "bls":
        config = python_model(name, [IMAGE], RESULTS, parameters, instances)
        return [_StoredModel(config, _step("front") | manifest), *models]
    pixels = Tensor("pixels", "TYPE_FP32", (1, *network.input.dims))
    width = Tensor("width", "TYPE_INT32", (1,))
    said = [Tensor(OWN + one.name, one.kind, (-1, *one.dims)) for one in network.outputs]
    prepare = python_model(f"{name}_prepare", [IMAGE], [pixels, width], parameters, instances)
    decode = python_model(f"{name}_decode", [IMAGE, width, *said], RESULTS, parameters, instances)
    own = {output.name: OWN + output.name for output in network.outputs}
    results = {result.name: result.name for result in RESULTS}
    steps = [
        (prepare, {"image": "image"}, {"pixels": "pixels", "width": "width"}),
        (served, {network.input.name: "pixels"}, own),
        (decode, {one.name: one.name for one in (IMAGE, width, *said)}, results),
    ]
    return [
        _StoredModel(ensemble_model(name, steps)),
        _StoredModel(prepare, _step("prepare") | manifest),
        *models,
        _StoredModel(decode, _step("decode") | manifest),
    ]


def _step(name: str) -> dict[str, str]:
    """The program of a Python model, which is the toolkit's."""
    return {
        "model.py": '"""A step of crnn-deploy, which the server\'s Python must have."""\n\n'
        f"from crnn_deploy.triton.steps.{name} import {name.capitalize()}Step as TritonPythonModel\n\n"
        '__all__ = ["TritonPythonModel"]\n'
    }


def _check_output(output: Path, model: Path, replace: bool) -> None:
    """Refuse what must not be written over. Raises RepositoryThere, OutputIsInput, OutputUnwritable."""
    if output.resolve() in (model.resolve(), *model.resolve().parents):
        raise OutputIsInput(output)
    try:
        output.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:  # such as a name that is too long
        raise OutputUnwritable(output, error.strerror or str(error)) from error
    ours = "name another folder"
    if not replace:
        raise RepositoryThere(output, f"{ours}, or say --replace where crnn-deploy triton wrote it")
    if output.is_symlink() or not _is_ours(output):
        raise RepositoryThere(output, f"{ours}, since crnn-deploy triton did not write it")


def _is_ours(folder: Path) -> bool:
    """Whether this toolkit wrote a repository, and nothing else lies in it."""
    try:
        mark = parse_json((folder / _MARK).read_text(encoding="utf-8"))
        known = {*mark["models"], "README.md", _MARK}
        return mark["schema"] == _SCHEMA and {path.name for path in folder.iterdir()} <= known
    except (OSError, ValueError, TypeError, KeyError):
        return False


@contextmanager
def _whole_folder(output: Path) -> Iterator[Path]:
    """A folder that takes its name when the block ends well; one that had the name is gone then.

    Raises OutputUnwritable.
    """
    with ExitStack() as stack:

        def beside() -> Path:
            made = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name[:16]}."))
            stack.enter_context(temporary(made))
            return made

        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            made = beside()
            yield made
            made.chmod(0o755)
            if output.exists():
                old = beside() / "old"
                output.replace(old)
                try:
                    made.replace(output)
                except OSError:
                    old.replace(output)
                    raise
            else:
                made.replace(output)
            keep(made)
        except OSError as error:
            if isinstance(error, CrnnDeployError):
                raise
            raise OutputUnwritable(output, error.strerror or str(error)) from error
