"""What a server takes from its start until it is ready, and until its first image is read.

    python -m benchmarks.serving.start [--rounds 7] [--workers 1,2] [--models latin] [--json FILE]

CPU time is that of all its processes. --models takes names of shipped models, or networks of
`benchmarks.common`. The script needs the extras [cpu,serve], and [export] for networks.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks.common import Network, export_networks, measured, options, write
from benchmarks.serving.clients import Target, closed_loop
from benchmarks.serving.processes import crnn_deploy_server
from benchmarks.serving.wire import post, raw
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.models import shipped

__all__ = ["main"]


def start(model: str | Path, workers: int, image: bytes, folder: Path) -> dict[str, float]:
    """One start; milliseconds, and MB when ready."""
    with crnn_deploy_server(model, folder / "log", "--workers", workers) as server:
        found = {"cpu": server.cpu_to_ready * 1e3, "clock": server.seconds_to_ready * 1e3}
        found["pss"], _ = server.memory()
        outcome = closed_loop(Target(server.port, [post("/v1/read", raw(image))]), 1, 1)
        if outcome.statuses != {200: 1}:
            raise RuntimeError(f"the first image is answered {dict(outcome.statuses)}")
        found["first_image"] = outcome.accepted[0] * 1e3
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--workers", default="1,2", help="Start servers with these numbers of workers.")
    parser.add_argument("--models", default="latin", help="Serve these models.")
    given = parser.parse_args(arguments)
    models: dict[str, str | Path] = {name: name for name in given.models.split(",") if name in shipped()}
    networks = [name for name in given.models.split(",") if name not in models]
    models |= {str(name): path for name, path in export_networks(cast(list[Network], networks)).items()}
    [image] = (bytes(word) for word in draw_images("words", 1))
    todo = {
        f"{name}, {workers} workers": (model, int(workers))
        for name, model in models.items()
        for workers in given.workers.split(",")
    }
    runs: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in todo}
    with tempfile.TemporaryDirectory() as folder:
        for at in range(given.rounds + 1):  # the first one warms up
            for name, (model, workers) in todo.items():
                found = start(model, workers, image, Path(folder))
                for key, value in found.items() if at else ():
                    runs[name][key].append(value)
    units: dict[str, Any] = {"cpu": "CPU ms", "clock": "ms", "pss": "MB", "first_image": "ms"}
    rows = {
        name: {key: measured(values, units[key]) for key, values in found.items()}
        for name, found in runs.items()
    }
    for name, row in rows.items():
        said = ", ".join(f"{key} {row[key]['median']:.4g} {unit}" for key, unit in units.items())
        print(f"{name}: {said}", flush=True)
    write("serving_start", rows, given.json)


if __name__ == "__main__":
    main()
