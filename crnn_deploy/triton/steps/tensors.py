"""Requests and responses of the models in a repository, as Triton's Python backend gives and takes them.

Input `image` BYTES [N], encoded image files; outputs `text` BYTES [N], `confidence` FP64 [N] and `error`
BYTES [N], empty where the image was read. They are those of `crnn-deploy serve`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.decoding.ctc import Text

__all__ = [
    "FINAL",
    "MOST_IMAGES",
    "RequestRefused",
    "error_response",
    "images_of",
    "response_of",
    "setting",
]

NAME = "image"  # of an image in messages
MOST_IMAGES = 256  # of one request
FINAL = triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
# what a request to `crnn-deploy serve` may ask for, and these models do as their file says
_OPTIONS = frozenset(
    (
        *("decoder", "nbest", "beam_width", "allow", "block", "mask", "pattern", "min_length", "max_length"),
        *("hotwords", "boost", "chars", "min_confidence", "rotate", "model"),
    )
)
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


class RequestRefused(CrnnDeployError, ValueError):
    """A request that is no row of images, or asks for what these models do not do."""


def images_of(request: Any) -> list[bytes]:
    """The encoded images of a request. Raises RequestRefused."""
    if options := sorted(_OPTIONS & json.loads(request.parameters() or "{}").keys()):
        raise RequestRefused(
            f"the parameter {options[0]} is not taken: this model decodes as its file says; change the file "
            "with crnn-deploy set-decoding and write the repository again"
        )
    given = triton.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1).tolist()
    if not 1 <= len(given) <= MOST_IMAGES:
        raise RequestRefused(f"a request holds 1 to {MOST_IMAGES} images; this one holds {len(given)}")
    return [_encoded(one) for one in given]


def _encoded(given: bytes) -> bytes:
    """An image's bytes, which a request in JSON alone has to write in base64.

    No image format consists of these characters alone.
    """
    if given and _BASE64.issuperset(given):
        try:
            return base64.b64decode(given, validate=True)
        except ValueError:
            pass
    return given


def response_of(results: Sequence[Text | CrnnDeployError]) -> Any:
    """What is answered to a request, one result for each of its images."""
    texts, confidences, errors = [], [], []
    for result in results:
        text, confidence, error = (
            (result.text, result.confidence, "") if isinstance(result, Text) else ("", 0.0, str(result))
        )
        texts.append(text.encode("utf-8", "replace"))
        confidences.append(confidence)
        errors.append(error.encode("utf-8", "replace"))
    return triton.InferenceResponse(
        [
            triton.Tensor("text", np.array(texts, np.object_)),
            triton.Tensor("confidence", np.array(confidences, np.float64)),
            triton.Tensor("error", np.array(errors, np.object_)),
        ]
    )


def error_response(error: Exception) -> Any:
    """A request that failed as a whole; what was not expected is not told to the client."""
    if isinstance(error, RequestRefused):
        return triton.InferenceResponse(error=triton.TritonError(str(error), triton.TritonError.INVALID_ARG))
    known = isinstance(error, CrnnDeployError)
    triton.Logger.log_error(f"crnn-deploy: {type(error).__name__}: {error}")
    told = str(error) if known else "the model failed; the server's log says why"
    return triton.InferenceResponse(error=triton.TritonError(told))


def setting(args: dict[str, str], name: str) -> str:
    """A parameter of a model's config.pbtxt."""
    value: str = json.loads(args["model_config"])["parameters"][name]["string_value"]
    return value
