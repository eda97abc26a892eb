"""The README of a repository: what lies in it, and how Triton is started on it safely."""

from __future__ import annotations

import base64
from importlib.metadata import version

import cv2
import numpy as np

from crnn_deploy.triton.network import ServedNetwork

__all__ = ["readme"]

_RESTRICTED = "model-repository,shared-memory,model-config,statistics,trace,logging"

_WHAT = {
    "ensemble": """\
- `{name}`: the ensemble, which is what clients ask
- `{name}_prepare`: from an encoded image to the network's input
- `{name}_network`: the network, run by Triton's `{backend}` backend
- `{name}_decode`: from the network's output to the text

An image is run at the width that its shape asks for, and is never padded. Triton joins the images of requests
that come one after the other and have one width, at most {batch}. A request may hold several images; those,
and lines that are cut into parts, are read by `{name}_decode`, which asks `{name}_network` itself.""",
    "bls": """\
- `{name}`: what clients ask; it prepares the images of all requests that wait, gives those of one width to
  the network together, at most {batch}, and decodes
- `{name}_network`: the network, run by Triton's `{backend}` backend

An image is run at the width that its shape asks for, and is never padded.""",
    "python": """\
- `{name}`: it prepares the images of all requests that wait, runs those of one width together, at most
  {batch}, and decodes; each of its instances is a process with a network of its own

An image is run at the width that its shape asks for, and is never padded.""",
}


def readme(
    name: str,
    layout: str,
    network: ServedNetwork,
    models: tuple[str, ...],
    instances: int,
    device: str,
) -> str:
    """Markdown.

    models: the names of all models, that which clients ask first
    instances: processes of each Python model
    device: where an .onnx file runs
    """
    what = _WHAT[layout].format(name=name, backend=network.backend, batch=network.max_batch)
    needs = extra = ""
    if layout == "python":
        engine = network.file.suffix == ".engine"
        needs = ", TensorRT and CUDA" if engine else ", ONNX Runtime"
        extra = "[tensorrt,cuda]" if engine else "[gpu]" if device == "cuda" else "[cpu]"
    plan = (
        """
The engine runs on the GPU and with the version of TensorRT that it was built with: take the release of Triton
that has that version.
"""
        if network.file.suffix == ".engine"
        else ""
    )
    often = (
        f" {instances} times, one after the other, as there are {instances} processes"
        if instances > 1
        else ""
    )
    others = f"Clients ask `{name}` alone; the server itself asks the others.\n\n" if models[1:] else ""
    release = version("crnn-deploy")
    wheel = f"crnn_deploy-{release}-py3-none-any.whl"
    return f"""# {name} for NVIDIA Triton Inference Server

Written by `crnn-deploy triton` from `{network.file.name}`, layout {layout}:

{what}

{others}| tensor | type | shape | |
|---|---|---|---|
| `image` | BYTES | [N] | encoded image files; in a request of JSON alone, their base64 |
| `text` | BYTES | [N] | UTF-8 |
| `confidence` | FP64 | [N] | 0 to 1; 0 with an error |
| `error` | BYTES | [N] | one line where an image cannot be read, else empty |

These are the tensors of `crnn-deploy serve`, so a client moves between the two unchanged. A bad image fails
no other. Texts are decoded as the model file says (`crnn-deploy set-decoding`).

## What the server's Python needs

crnn-deploy {release} with NumPy and OpenCV{needs}, in the Python that Triton's Python backend runs. That
backend ignores PYTHONPATH: install with that Python's pip, as in an image of your own. The wheel is made in
the source of crnn-deploy by `pip wheel --no-deps .`:

    FROM nvcr.io/nvidia/tritonserver:YY.MM-py3
    COPY {wheel} /tmp/
    RUN pip install '/tmp/{wheel}{extra}'

Take release 24.12 or later, whose Python is 3.12; this toolkit needs 3.11, and NVIDIA's images of 23.05 to
24.10 have 3.10. With a Python backend that you built yourself for another Python, 24.06 is enough. A backend
that was built for NumPy 1 (that of 24.10 was) does not work with NumPy 2: install `numpy<2` there, and
crnn-deploy and opencv-python-headless with `pip install --no-deps`; their metadata ask for NumPy 2, and their
code runs with 1.26.
{plan}
## Start

    tritonserver --model-repository=REPOSITORY --model-control-mode=none --disable-auto-complete-config \\
      --http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1 \\
      --http-max-input-size=16777216 --exit-timeout-secs=30 \\
      --http-restricted-api={_RESTRICTED}:admin-key=SECRET \\
      --grpc-restricted-protocol={_RESTRICTED}:admin-key=SECRET

- `--model-control-mode=none`: no client loads, changes or unloads a model. A model is a program.
- The addresses keep it on this machine: put a proxy before it that ends TLS, checks who asks and bounds
  sizes and times. Triton does none of that for HTTP.
- The restricted interfaces answer only to a request with the header `admin-key: SECRET`; make that a long
  random text. Shared memory and logging would let a client reach the machine.
- Triton queues requests without a bound, so let the proxy bound how many are in flight.
- `--http-max-input-size` bounds a request (24.10 does not have it; there the proxy must).
- Give the folder and the process to a user who may read it and nothing else.

## Watch it

Readiness stays 200 when a Python model's process is dead, and requests that it would get fail. So a
supervisor must ask for a text{often}:
where none comes, it must start the server again.

    curl --fail --silent --max-time 5 --output /dev/null 127.0.0.1:8000/v2/models/{name}/infer \\
      -d '{_probe()}'
"""


def _probe() -> str:
    """A request with a small white image, as JSON."""
    _, encoded = cv2.imencode(".png", np.full((32, 64), 255, np.uint8))
    data = base64.b64encode(encoded.tobytes()).decode()
    return f'{{"inputs":[{{"name":"image","datatype":"BYTES","shape":[1],"data":["{data}"]}}]}}'
