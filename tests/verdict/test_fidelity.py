"""What a candidate in another precision does to frames and texts, counted by hand."""

from __future__ import annotations

import numpy as np

from crnn_deploy.graph.precision import LARGEST
from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.fidelity import Fidelity, fidelity


def test_the_verdict_counts_confident_texts() -> None:
    manifest = Manifest(("a", "b"), 0, "gray", 32, WidthRule(8, 8), (0.5,), (0.5,), "linear", StepRule(1, -6))

    def frames(sure: float, *rows: list[int]) -> Frames:
        indices = np.array(rows, np.int64)
        return Frames(indices, np.full(indices.shape, sure, np.float32))

    def report_of(one: Frames, other: Frames, peak: float = 7.0) -> Fidelity:
        return fidelity([one], [other], manifest, manifest, peak=peak, largest=LARGEST["fp16"])

    same = frames(0.9, *([[1, 2]] * 100))
    one_other = frames(0.9, [1, 1], *([[1, 2]] * 99))
    assert report_of(same, same).passed and report_of(same, same, 65504).passed
    assert not report_of(same, same, 65520).passed and not report_of(same, same, float("nan")).passed
    report = report_of(same, one_other)
    assert (report.flips, report.verdict.flips.count) == (1, 1)
    assert (report.verdict.confident_flips.count, report.verdict.confident_flips.images) == (1, 100)
    assert not report.passed
    # the same change of a text that the model was unsure of, and then too many of them
    unsure = frames(0.5, *same.indices.tolist())
    assert report_of(unsure, one_other).passed
    assert not report_of(unsure, frames(0.5, *([[1, 1]] * 3), *([[1, 2]] * 97))).passed
