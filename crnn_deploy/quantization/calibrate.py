"""Ranges of activations in the batches of the runtime, and how much of them INT8 shall cover."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import parse_json, read_regular, replacing
from crnn_deploy.graph.model import OnnxModel, backend_of, session_of
from crnn_deploy.parity.proof_images import read
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibration_set import CalibrationImage, CalibrationImpossible, batched
from crnn_deploy.quantization.int8_lstm import lstm_inputs
from crnn_deploy.quantization.ranges import METHODS, Method, Ranges
from crnn_deploy.verdict.judge import judge, margin_change

__all__ = ["BATCH", "Scales", "ScalesInvalid", "calibrate", "probe", "read_scales"]

BATCH = 8  # as `infer` has it
_SCHEMA = 1
_MOST_BYTES = 2**26  # of a file; a histogram has 64 bins
_SAVE_EVERY = 8  # batches
_BINS = 64  # of the histograms in the file


class ScalesInvalid(CrnnDeployError, ValueError):
    """A file of scales that is none, or another model's."""


@dataclass(frozen=True)
class Scales:
    """Ranges of a model's activations and where they come from."""

    model_sha256: str
    method: Method
    ranges: Mapping[str, float]  # tensor: largest |value| that is not clipped
    histograms: Mapping[str, tuple[float, tuple[int, ...]]]  # tensor: largest |value|, counts in equal bins
    images: tuple[Mapping[str, Any], ...]  # name, sha256 and width of each
    images_sha256: str  # of the images' digests in their order
    rendered: bool  # drawn by the synthetic renderer, since no images were given
    compared: Mapping[str, Mapping[str, float]]  # method: what it changes on the held-back images
    versions: Mapping[str, str]

    def to_json(self) -> str:
        return json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1) + "\n"


def read_scales(path: Path, model: OnnxModel) -> Scales:
    """The scales of a model. Raises ScalesInvalid, also where they are of another model."""
    try:
        plain = parse_json(read_regular(path, _MOST_BYTES))
        if plain.pop("schema") != _SCHEMA:
            raise ScalesInvalid(f"{path} was written by another version; calibrate again")
        scales = Scales(**plain)
        ranges = {str(name): float(value) for name, value in scales.ranges.items()}
        if scales.method not in METHODS or not isinstance(scales.images_sha256, str):
            raise ValueError
    except FileNotFoundError as error:
        raise ScalesInvalid(
            f"no scales at {path}; write them with: crnn-deploy calibrate {model.path} -o {path}"
        ) from error
    except ScalesInvalid:
        raise
    except OSError as error:
        raise ScalesInvalid(f"{path} is not a file of crnn-deploy calibrate: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScalesInvalid(f"{path} is not a file of crnn-deploy calibrate") from error
    if bad := [name for name, value in ranges.items() if not 0 <= value < math.inf]:
        raise ScalesInvalid(f"{path}: the range of {bad[0][:80]} is {ranges[bad[0]]}; calibrate again")
    if scales.model_sha256 != model.sha256:
        raise ScalesInvalid(f"{path} belongs to another model than {model.path}; calibrate this one")
    return replace(scales, ranges=ranges)


def calibrate(
    model: OnnxModel,
    images: Sequence[CalibrationImage],
    held_back: Sequence[CalibrationImage],
    method: Method | Literal["auto"],
    path: Path,
    *,
    rendered: bool,
    progress: Callable[[int], object] = lambda images: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Scales:
    """Run the images and write their ranges; a run that was stopped goes on from `path`.part.

    method: of clipping; auto compares all on the held-back images and takes the one that changes least
    progress: called with the number of images of each batch
    Raises what running the model raises; QuantizationImpossible, CalibrationImpossible, KeyboardInterrupt.
    """
    qdq.check_float(model.graph)
    key = hashlib.sha256(f"{model.sha256} {[one.sha256 for one in images]}".encode()).hexdigest()
    part = path.with_name(f"{path.name}.part")
    collected = Ranges()
    done = collected.load(part, key)
    run = probe(model.graph)
    for at, batch in enumerate(batched(images, model.manifest, BATCH)):
        if at >= done:
            values = run(batch.images)
            for name, array in values.items():
                if not np.isfinite(array).all():
                    raise CalibrationImpossible(
                        f"{name} is NaN or infinite on {images[batch.indices[0]].name} or an image beside it"
                    )
            collected.add(values)
            if (at + 1) % _SAVE_EVERY == 0 or stopped():
                collected.save(part, key, at + 1)
        progress(len(batch.indices))
        if stopped():
            raise KeyboardInterrupt
    ranges = {one: collected.of(one) for one in METHODS}
    compared = _compare(model, ranges, held_back, progress) if method == "auto" else {}
    chosen = min(METHODS, key=lambda one: tuple(compared[one].values())) if method == "auto" else method
    digests = "".join(one.sha256 for one in images)
    scales = Scales(
        model_sha256=model.sha256,
        method=chosen,
        ranges=ranges[chosen],
        histograms=collected.coarse(_BINS),
        images=tuple({"name": one.name, "sha256": one.sha256, "width": one.width} for one in images),
        images_sha256=hashlib.sha256(digests.encode()).hexdigest(),
        rendered=rendered,
        compared=compared,
        versions={name: metadata.version(name) for name in ("crnn-deploy", "onnx", "onnxruntime", "numpy")},
    )
    with replacing(path) as temporary:
        temporary.write_text(scales.to_json(), encoding="utf-8")
    part.unlink(missing_ok=True)
    return scales


def probe(source: onnx.ModelProto) -> Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """A run of images (N, C, H, W) that gives the tensors whose ranges are asked for."""
    names = list(dict.fromkeys((*qdq.calibrated_tensors(source), *lstm_inputs(source))))
    inner = onnx.ModelProto()
    inner.CopyFrom(source)
    del inner.graph.output[:]
    fed = inner.graph.input[0].name
    wanted = [name for name in names if name != fed]
    inner.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    session = session_of(inner)

    def run(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        values = dict(zip(wanted, session.run(wanted, {fed: images}), strict=True))
        return values | ({fed: images} if fed in names else {})

    return run


def _compare(
    model: OnnxModel,
    ranges: Mapping[Method, Mapping[str, float]],
    held_back: Sequence[CalibrationImage],
    progress: Callable[[int], object],
) -> dict[str, dict[str, float]]:
    """What each method changes, the most important figure first."""
    batches = list(batched(held_back, model.manifest, BATCH))
    reference = read(model.backend(), batches, progress=progress)
    results: dict[str, dict[str, float]] = {}
    for method in METHODS:
        candidate = read(backend_of(qdq.insert(model.graph, ranges[method])), batches, progress=progress)
        verdict = judge(reference, candidate)
        results[method] = {
            "confident strings changed": verdict.confident_flips.count,
            # of so few images it tells more than the strings that changed
            "change of the margins": margin_change(reference, candidate),
            "strings changed": verdict.flips.count,
        }
    return results
