"""Which target of TensorRT for RTX runs on this GPU: each is built, loaded, run and recorded."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.device import Device
from benchmarks.gpu.measure import noise
from benchmarks.gpu.plans import TorchEngine
from benchmarks.gpu.work import Work
from crnn_deploy.engine.network import Network
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends.engine_file import Profile, Range
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.backends.trt import Kernels, import_tensorrt, logger

__all__ = ["targets"]

_TARGETS = ("default", "current", "sm_80", "sm_89", "sm_86", "sm_120")
_SIZES = ((1, 104), (8, 160), (64, 320))  # batch, width
_NEAR = 0.1  # of logits that reach 25: a kernel that does not fit the GPU is further off
_LATER = 3.0  # seconds after which lazy kernels are measured again
_ROUNDS = 30
_KERNELS: tuple[Kernels, ...] = ("lazy", "eager", "none")


def targets(work: Work, gpu: Device) -> None:
    """Try one after the other until one runs; what follows builds for that one (`Work.targets`)."""
    trt = import_tensorrt("tensorrt-rtx")
    (work.folder / "target.txt").unlink(missing_ok=True)
    for target in _TARGETS:
        plans: dict[str, bytes] = {}
        work.attempt(partial(_build, plans, trt, target), target, "build", again=True)
        if (plan := plans.get(target)) is None:
            continue
        work.attempt(partial(_validity, trt, plan), target, "validity")
        near = [
            work.attempt(partial(_run, trt, plan, gpu, kernels), target, f"{kernels} kernels")
            for kernels in _KERNELS
        ]
        if any(rows is not None and all(row["max_delta"] < _NEAR for row in rows.values()) for rows in near):
            work.keep(target, "runs")
            name = "" if target == "default" else target
            (work.folder / "target.txt").write_text(name, encoding="utf-8")
            return
    work.keep("none of them", "runs")


def _build(plans: dict[str, bytes], trt: Any, target: str) -> dict[str, float]:
    start = time.perf_counter()
    profile = Profile(Range(1, 8, 64), Range(104, 160, 640))
    asked = () if target == "default" else (target,)
    plans[target], _ = Network(trt, load_onnx(DEFAULT)).build([profile], targets=asked)
    return {"seconds": round(time.perf_counter() - start, 2), "bytes": len(plans[target])}


def _validity(trt: Any, plan: bytes) -> str:
    validity, diagnostics = trt.Runtime(logger(trt)).get_engine_validity(plan)
    return f"{validity.name}, diagnostics {int(diagnostics)}"


@torch.inference_mode()
def _run(trt: Any, plan: bytes, gpu: Device, kernels: Kernels) -> dict[str, dict[str, Any]]:
    """Of each size: the first run, the difference from ONNX Runtime on the CPU, and the speed."""
    engine, reference = TorchEngine(trt, plan, gpu, kernels=kernels), OrtBackend(DEFAULT)
    rows: dict[str, dict[str, Any]] = {}
    for batch, width in _SIZES:
        images = noise(reference.manifest, batch, width)
        expected = reference.run(images).logits
        assert expected is not None
        inputs = torch.from_numpy(images).to(gpu.device)
        start = time.perf_counter()
        [logits] = engine(inputs)
        gpu.synchronize()
        row = rows[f"batch {batch}, width {width}"] = {
            "first_seconds": round(time.perf_counter() - start, 3),
            "max_delta": _delta(logits, expected),
        }
        for moment, pause in (
            ("ms", 0.0),
            (f"ms after {_LATER:.0f} s", _LATER if kernels == "lazy" else 0.0),
        ):
            if moment == "ms" or pause:
                time.sleep(pause)
                row[moment] = round(float(np.median(gpu.milliseconds(partial(engine, inputs), _ROUNDS))), 4)
        try:
            replay, [written] = gpu.captured(partial(engine, inputs))
            replay()
            gpu.synchronize()
            row["CUDA graph, max_delta"] = _delta(written, expected)
        except RuntimeError as error:  # a graph that cannot be recorded is a result here
            row["CUDA graph"] = " ".join(str(error).split())[:300]
    return rows


def _delta(logits: torch.Tensor, expected: Any) -> float:
    return float(np.abs(logits.cpu().numpy() - expected).max())
