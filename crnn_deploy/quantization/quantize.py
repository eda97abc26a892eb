"""A float model to INT8, kept only when it reads the same text and is faster, in one run on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import onnx

from crnn_deploy.errors import BackendMissing, VerdictFailed
from crnn_deploy.files import replacing
from crnn_deploy.graph.model import OnnxModel, attach_manifest, backend_of, manifest_of
from crnn_deploy.graph.precision import CastImpossible, cast, rounded
from crnn_deploy.parity.proof_images import read
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import Scales
from crnn_deploy.quantization.int8_lstm import with_int8_lstm
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.backends.openvino import OpenVinoBackend
from crnn_deploy.runtime.backends.weight_bits import CpuUnfit
from crnn_deploy.runtime.batching import Batch
from crnn_deploy.verdict.judge import Budget, Reading, Verdict, judge, margin_change

__all__ = [
    "NEEDS",
    "VERDICT",
    "Offer",
    "Quantization",
    "Refused",
    "Sensitivity",
    "Variant",
    "quantize",
    "speed_ratio",
]

# entries of a manifest's source
VERDICT = "int8_verdict"  # of a model whose verdict is open
NEEDS = "needs"  # of one that not every CPU runs rightly

_ROUNDS = 9  # of the speed's comparison
_LEAST_ROUNDS = 3  # of slow models
_LONG = 10.0  # CPU-seconds, after which no further round begins
_TIMED = 16  # batches of a round
_SCREEN = 256  # images on which layers are compared

Target = Literal["cpu", "gpu"]
Lstm = Literal["float", "int8"]
Rest = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one layer alone does."""

    layer: str  # its output
    operator: str
    flips: int  # strings changed of the first images
    confident_flips: int
    margin_change: float  # mean |change| of the difference of the two best logits


@dataclass(frozen=True)
class Variant:
    """A model that was measured."""

    name: str
    kept_float: tuple[str, ...]  # outputs of layers that stay float
    verdict: Verdict
    speed: float  # images per CPU-second as a ratio to the float model in the same run

    def to_plain(self) -> dict[str, Any]:
        plain = {"name": self.name, "kept_float": self.kept_float, "speed": round(self.speed, 3)}
        return plain | {"verdict": self.verdict.to_plain()}


@dataclass(frozen=True)
class Offer:
    """Some layers back in float, chosen by margins alone, for who has too few images for a verdict."""

    kept_float: tuple[str, ...]  # the layers that change the margins most
    layers: int  # that can be quantised
    margin_change: float  # mean |change| of the difference of the two best logits, of the first images
    confident_flips: int  # of the first images
    speed: float  # as a ratio to the float model

    def line(self) -> str:
        return (
            f"--float-layers {len(self.kept_float)} (of {self.layers}): margins change by "
            f"{self.margin_change:.3f} logits, {self.confident_flips} confident strings change, "
            f"{self.speed:.2f} x float"
        )


@dataclass(frozen=True)
class Quantization:
    """What was tried; the last variant is the one that was written, or refused."""

    variants: tuple[Variant, ...]
    sensitivity: tuple[Sensitivity, ...]  # the layer that hurts most first
    activations: qdq.Activations
    weight_bits: qdq.WeightBits
    reference: tuple[Reading, ...]
    bf16: Variant | str  # the float model by OpenVINO; or why it was not measured
    fp16: Verdict | None  # of the first images, emulated; None where it cannot be cast to
    offers: tuple[Offer, ...] = ()  # where the images were too few

    @property
    def chosen(self) -> Variant:
        return self.variants[-1]

    @property
    def measured(self) -> tuple[Variant, ...]:
        """The variants, and what else was measured beside them."""
        return (*self.variants, self.bf16) if isinstance(self.bf16, Variant) else self.variants

    def to_plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "activations": self.activations,
            "weights": f"int8, per channel, {self.weight_bits} bits",
            "cpu": cpu.kind(),
            "variants": [variant.to_plain() for variant in self.variants],
            "sensitivity": [vars(one) for one in self.sensitivity],
            "openvino_bf16": self.bf16 if isinstance(self.bf16, str) else self.bf16.to_plain(),
            "fp16_emulated": None if self.fp16 is None else self.fp16.to_plain(),
            "offers": [vars(offer) for offer in self.offers],
        }

    def table(self) -> str:
        """The variants as lines of text, the last with all its figures."""
        told = [*(one.verdict.line() for one in self.variants[:-1]), self.chosen.verdict.answer]
        lines = [
            f"{one.name}: {one.speed:.2f} x float, {answer}"
            for one, answer in zip(self.variants, told, strict=True)
        ]
        offers = [offer.line() for offer in self.offers]
        if offers:
            offers.insert(0, f"--accept-undecided writes one of these, compared on {_SCREEN} images at most:")
        return "\n".join([*lines, self.chosen.verdict.table(), *offers])


class Refused(VerdictFailed):
    """No variant is both within the budget and faster; nothing was written."""

    def __init__(self, reason: str, result: Quantization) -> None:
        super().__init__(f"no INT8 model was written: {reason}")
        self.result = result


def quantize(
    model: OnnxModel,
    scales: Scales,
    batches: Sequence[Batch],
    truths: Sequence[str] | None,
    path: Path,
    *,
    budget: Budget,
    activations: qdq.Activations = "int8",
    lstm: Lstm = "float",
    rest: Rest = "fp32",
    target: Target = "cpu",
    weight_bits: qdq.WeightBits = 7,
    float_layers: int = 0,
    accept_undecided: bool = False,
    progress: Callable[[int], object] = lambda images: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Quantization:
    """Write the Q/DQ model that changes the least layers back to float and passes both gates, atomically.

    batches: of all images, for the verdict; truths: their texts by index, None without labels
    lstm: int8 is for ONNX Runtime on CPUs alone (`int8_lstm`)
    rest: of what stays float; fp16 is for GPUs, and is judged rounded as it is stored
    target: gpu leaves the speed gate out, since this machine's CPU says nothing of it
    weight_bits: 8 is for CPUs with VNNI alone, and proven there; the file's manifest then says so, as the
        entry NEEDS of its source
    float_layers: so many stay float from the start, those whose quantisation changes the margins most
    accept_undecided: write the file too where there are too few images to tell; its manifest then says so, as
        the entry VERDICT of its source
    progress: called with the number of images of each batch that was read
    Raises CpuUnfit where weights of 8 bits would overflow here, Refused, QuantizationImpossible, and what
    running the model raises; KeyboardInterrupt.
    """
    qdq.check_float(model.graph)
    if weight_bits == 8 and cpu.saturates():
        raise CpuUnfit(path, cpu.kind())
    search = _Search(
        model=model,
        scales=scales,
        batches=batches,
        truths=truths,
        budget=budget,
        activations=activations,
        lstm=lstm,
        rest=rest,
        weight_bits=weight_bits,
        progress=progress,
        stopped=stopped,
    )
    sensitivity: list[Sensitivity] = []
    kept: list[str] = []
    if float_layers:
        sensitivity = search.sensitivity()
        kept = by_margins(sensitivity)[:float_layers]
    variants = [search.variant(tuple(kept))]
    while (answer := _answer(variants[-1], target)) != "passed":
        if answer == "undecided" and accept_undecided:
            break
        sensitivity = sensitivity or search.sensitivity()
        ended = answer == "slow" or len(kept) == len(sensitivity)
        first = next((one for one in variants if _answer(one, target) == "undecided"), None)
        if first is not None and (ended or not search.strings_decide()):
            raise Refused(
                f"{first.verdict.line()}; give more images, or write the file with --accept-undecided and "
                "the --float-layers that the report offers",
                replace(
                    search.result(variants, sensitivity),
                    variants=(*(one for one in variants if one is not first), first),
                    offers=search.offers(sensitivity, target),
                ),
            )
        if answer == "slow":
            raise Refused(
                f"at {variants[-1].speed:.2f} x the float model it is not faster on this machine"
                + (f" with {len(kept)} layers in float" if kept else "")
                + (
                    "; try --activations uint8, which is faster on CPUs without VNNI"
                    if activations == "int8" and cpu.saturates()
                    else ""
                ),
                search.result(variants, sensitivity),
            )
        if ended:
            raise Refused(
                "even with all layers in float the budget does not hold", search.result(variants, sensitivity)
            )
        # the layers that hurt most go back to float, twice as many at each try
        kept = [one.layer for one in sensitivity[: max(1, 2 * len(kept))]]
        variants.append(search.variant(tuple(kept)))
    sensitivity = sensitivity or search.sensitivity()
    written = search.quantized(kept)
    told = {}
    if (verdict := variants[-1].verdict).answer != "PASSED":
        told[VERDICT] = verdict.line()
    if weight_bits == 8:
        told[NEEDS] = "a CPU with VNNI: its INT8 weights have 8 bits"
    manifest = manifest_of(written)
    attach_manifest(written, replace(manifest, source={**manifest.source, **told}))
    with replacing(path) as temporary:
        onnx.save(written, temporary)
    return search.result(variants, sensitivity)


def by_margins(sensitivity: Sequence[Sensitivity]) -> list[str]:
    """Layers, the one that changes the margins most first."""
    return [one.layer for one in sorted(sensitivity, key=lambda one: -one.margin_change)]


def _answer(variant: Variant, target: Target) -> Literal["passed", "undecided", "failed", "slow"]:
    if variant.speed <= 1 and target == "cpu":
        return "slow"
    if variant.verdict.answer == "NOT ENOUGH IMAGES":
        return "undecided"
    return "passed" if variant.verdict.passed else "failed"


@dataclass(frozen=True)
class _Search:
    """Quantises a model in one way after another, and judges what each reads beside the float model."""

    model: OnnxModel  # in float
    scales: Scales
    batches: Sequence[Batch]  # of all images
    truths: Sequence[str] | None  # their texts by index; None without labels
    budget: Budget
    activations: qdq.Activations
    lstm: Lstm
    rest: Rest
    weight_bits: qdq.WeightBits
    progress: Callable[[int], object]  # called with the number of images of each batch that was read
    stopped: Callable[[], bool]

    @cached_property
    def reference(self) -> list[Reading]:
        """What the float model reads."""
        return self._read(self.model.backend(), self.batches)

    def strings_decide(self) -> bool:
        """Whether there are so many images that a model which changes none of their strings passes.

        Otherwise no layers in float help, and one that seems to does so by chance.
        """
        return judge(self.reference, self.reference, budget=self.budget).passed

    def quantized(self, kept: Sequence[str]) -> onnx.ModelProto:
        model = self._with_layers(kept)
        if self.rest == "fp16":
            return cast(model, "fp16")
        if self.lstm == "int8":
            ranges = self.scales.ranges
            return with_int8_lstm(model, self.model.graph, ranges, weight_bits=self.weight_bits)
        return model

    def _with_layers(self, kept: Sequence[str]) -> onnx.ModelProto:
        return qdq.insert(
            self.model.graph,
            self.scales.ranges,
            keep_float=kept,
            activations=self.activations,
            weight_level=qdq.LEVELS[self.weight_bits],
        )

    def variant(self, kept: tuple[str, ...]) -> Variant:
        model = self.quantized(kept)
        backend = backend_of(_without_peak(rounded(model)) if self.rest == "fp16" else model)
        verdict = judge(self.reference, self._read(backend, self.batches), self.truths, budget=self.budget)
        speed = speed_ratio(self.model.backend(), backend, self.batches)
        name = self.activations + (", LSTM int8" if self.lstm == "int8" else "")
        name += ", the rest fp16" if self.rest == "fp16" else ""
        name += f", {len(kept)} layers float" if kept else ""
        return Variant(name, kept, verdict, speed)

    def sensitivity(self) -> list[Sensitivity]:
        """Every layer quantised alone, on the first images; the one that hurts most first."""
        layers = qdq.quantizable(self.model.graph)
        operators = {node.output[0]: node.op_type for node in self.model.graph.graph.node}
        few, reference = self._few()
        found = []
        for layer in layers:
            backend = backend_of(self._with_layers([other for other in layers if other != layer]))
            candidate = self._read(backend, few)
            verdict = judge(reference, candidate, budget=self.budget)
            flips, sure = verdict.flips.count, verdict.confident_flips.count
            found.append(
                Sensitivity(layer, operators[layer], flips, sure, margin_change(reference, candidate))
            )
        return sorted(found, key=lambda one: (-one.confident_flips, -one.flips, -one.margin_change))

    def offers(self, sensitivity: Sequence[Sensitivity], target: Target) -> tuple[Offer, ...]:
        """None, one, two, four and so on of the layers back in float, up to half of them.

        Without those that would be refused, since they are not faster than the float model.
        """
        few, reference = self._few()
        order = by_margins(sensitivity)
        counts = [0, *(2**at for at in range(len(order).bit_length()) if 2**at <= len(order) / 2)]
        offers = []
        for count in counts:
            backend = backend_of(self.quantized(order[:count]))
            candidate = self._read(backend, few)
            flips = judge(reference, candidate, budget=self.budget).confident_flips.count
            speed = speed_ratio(self.model.backend(), backend, few)
            if count and speed <= 1 and target == "cpu":
                continue
            change = margin_change(reference, candidate)
            offers.append(Offer(tuple(order[:count]), len(order), change, flips, speed))
        return tuple(offers)

    def result(self, variants: Sequence[Variant], sensitivity: Sequence[Sensitivity]) -> Quantization:
        return Quantization(
            *(tuple(variants), tuple(sensitivity), self.activations, self.weight_bits, tuple(self.reference)),
            self._bf16(),
            self._fp16(),
        )

    def _bf16(self) -> Variant | str:
        """What OpenVINO's bfloat16 does to the float model, where it is installed and the CPU has it."""
        try:
            backend = OpenVinoBackend(self.model.path, floats="bf16")
        except BackendMissing as error:
            return str(error)
        verdict = judge(self.reference, self._read(backend, self.batches), self.truths, budget=self.budget)
        return Variant("OpenVINO bf16", (), verdict, speed_ratio(self.model.backend(), backend, self.batches))

    def _fp16(self) -> Verdict | None:
        """What half precision changes on the first images, told by a float32 graph that rounds as it does."""
        try:
            model = _without_peak(rounded(cast(self.model.graph, "fp16")))
        except CastImpossible:
            return None
        few, reference = self._few()
        return judge(reference, self._read(backend_of(model), few), budget=self.budget)

    def _few(self) -> tuple[list[Batch], list[Reading]]:
        """Some batches of all widths, their images counted from 0, and what the float model reads in them."""
        few = list(self.batches)
        while len(few) > 1 and sum(len(batch.indices) for batch in few) > _SCREEN:
            few = few[::2]
        order = [at for batch in few for at in batch.indices]
        few = [Batch(b.images, tuple(order.index(at) for at in b.indices)) for b in few]
        return few, [self.reference[at] for at in order]

    def _read(self, backend: Backend, batches: Sequence[Batch]) -> list[Reading]:
        if self.stopped():
            raise KeyboardInterrupt
        return read(backend, batches, progress=self.progress)


def _without_peak(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.output[-1]
    return model


def speed_ratio(reference: Backend, candidate: Backend, batches: Sequence[Batch]) -> float:
    """Images per CPU-second of the candidate by those of the reference: interleaved, the median ratio."""
    some = batches[:: max(1, -(-len(batches) // _TIMED))]
    ratios: list[float] = []
    begun = time.process_time()
    while len(ratios) < _ROUNDS:
        if len(ratios) >= _LEAST_ROUNDS and time.process_time() - begun > _LONG:
            break
        seconds = []
        for backend in (reference, candidate):
            start = time.process_time()
            for batch in some:
                backend.run(np.ascontiguousarray(batch.images))
            seconds.append(time.process_time() - start)
        ratios.append(seconds[0] / seconds[1])
    return median(ratios)
