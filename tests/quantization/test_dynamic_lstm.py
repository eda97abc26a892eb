"""The LSTM in INT8 against itself, one image at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from crnn_deploy.graph.model import backend_of, load_onnx, manifest_of, open_model
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import read_scales


def test_an_lstm_in_int8_reads_an_image_alone_as_among_others(tiny_scales: Path, tiny_onnx: Path) -> None:
    from crnn_deploy import Recognizer
    from crnn_deploy.quantization.dynamic_lstm import with_dynamic_lstm

    source = load_onnx(tiny_onnx)
    convolutions = qdq.insert(source, read_scales(tiny_scales, open_model(tiny_onnx)).ranges)
    model = with_dynamic_lstm(convolutions)
    assert {node.op_type for node in model.graph.node} >= {"DynamicQuantizeLSTM", "Conv"}
    manifest = manifest_of(model)
    assert manifest is not None and manifest.max_batch == 1
    assert replace(manifest, max_batch=None) == manifest_of(source)
    batch = np.random.default_rng(0).normal(0, 0.5, (5, 1, 32, 132)).astype(np.float32)
    batch[1:] *= 3  # in a batch, the first image's scales would be those of the others
    backend = backend_of(model)
    together = backend.run(batch).logits
    assert together is not None
    for image, logits in zip(batch, together, strict=True):
        alone = backend.run(image[None]).logits
        assert alone is not None
        np.testing.assert_array_equal(alone[0], logits)
    expected = backend_of(convolutions).run(batch).logits
    assert expected is not None and 0 < np.abs(together - expected).max() < 0.1 * np.abs(expected).max()
    pixels = list(np.random.default_rng(0).integers(0, 256, (5, 32, 132), np.uint8))
    assert Recognizer(backend, batch=8).read(pixels) == [Recognizer(backend).read([one])[0] for one in pixels]
