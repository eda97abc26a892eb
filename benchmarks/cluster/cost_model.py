"""What a run over an archive takes: CPU-seconds, requests, dollars, hours and machines.

    python -m benchmarks.cluster.cost_model [--page docs/cluster-cost.md] [--picture FILE.svg]
    python -m benchmarks.cluster.cost_model --gpu-rate 20000 [--gpu-price 1.00]
    python -m benchmarks.cluster.cost_model --manifest OUTPUT/_run/manifest.json --network latin

- The first command prints the tables. It also puts them into --page and draws --picture, if you name them.
- The second command assumes that GPUs run the network, one in each machine. You give the images a second and
  the dollars an hour that you measured.
- The third command compares the CPU-seconds of a run's workers with the prediction.

The costs of an image come from benchmarks/results. What is assumed stands in the class `Assumed`, with its
sources. The picture needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "HOUR",
    "LAYOUTS",
    "NETWORKS",
    "Assumed",
    "Cost",
    "Layout",
    "Step",
    "image_ms",
    "main",
    "measured_steps",
    "predict",
]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
Layout = Literal["folder", "list", "tars", "local"]
LAYOUTS: dict[Layout, str] = {
    "folder": "objects in folders, which the run lists",
    "list": "objects that a list or a Parquet file names",
    "tars": "tars",
    "local": "files of a local disk",
}
NETWORKS = ("compact", "latin", "paper")
HOUR = 3600.0


@dataclass(frozen=True)
class Assumed:
    """What is not measured here."""

    # an archive
    shard_bytes: float = 256e6  # of a tar; an assumption
    rows_per_file: int = 5000
    # Amazon S3: at least so many requests a second and partitioned prefix; repost.aws/knowledge-center/
    # s3-object-key-naming-pattern, looked up in November 2026
    gets_per_second: float = 5500.0  # and HEAD
    puts_per_second: float = 3500.0
    prefixes: int = 1
    names_per_list: int = 1000
    request_seconds: float = 0.1  # until it is answered; Amazon says 100 to 200 ms for small objects
    # (docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html)
    objects_at_once: int = 32  # that a worker fetches; crnn_deploy.cluster.sources.prefetch
    proofs_at_once: int = 32  # files that the proof reads; crnn_deploy.cluster.reconcile
    bytes_per_request: float = 2.0**22  # of a tar; crnn_deploy.stores.store.BUFFER
    # machines
    vcpus: int = 16  # an assumption
    network_bytes: float = 5e9 / 8  # a second and machine; an assumption
    pipeline_ms: float = (
        0.15  # threads that hand work to each other; docs/performance.md, the compact network
    )
    start_cpu_seconds: float = (
        12.0  # of Ray, for a run; an earlier measurement of Ray Data 2.60 on one machine
    )
    start_seconds: float = 60.0  # until machines that wait have workers; an assumption
    proof_vcpus: float = 1.0  # that the proof keeps busy; benchmarks/results/cluster_reconcile
    proof_requests: int = 5  # for a part: HEAD and GET of it, and of the names in the plan; 2 for a tar's
    # prices, us-east-1, without discounts
    dollars_per_vcpu_hour: float = 0.34 / 8  # c5.2xlarge on demand, as docs.aws.amazon.com/autoscaling/ec2/
    # userguide/weights-spot-price-per-unit-hour-example.html has it for an example
    dollars_per_1000_gets: float = 0.0004  # S3 Standard, GET and HEAD; c3x.dev/blog/s3-request-fees-explained
    dollars_per_1000_puts: float = 0.005  # and LIST; the same
    dollars_per_gb: float = 0.0  # within a region
    dollars_per_gpu_hour: float | None = None  # nothing is assumed


@dataclass(frozen=True)
class Step:
    """What one image costs."""

    image_bytes: float
    row_bytes: float
    requests: float  # to get an object
    fetch_ms: dict[Layout, float]  # CPU, as all of these
    read_ms: float
    recognise_ms: float  # 0 where a GPU does it
    rows_ms: float
    proof_ms: float
    images_per_gpu_second: float | None = None


@dataclass(frozen=True)
class Cost:
    """What a run takes."""

    images: int
    cpu_seconds: dict[str, float]  # of the workers, by step
    proof_cpu_seconds: float
    waiting_seconds: float  # of one worker, for answers to all its requests
    proof_seconds: float  # on one machine, after the workers
    plan_seconds: float  # on one machine, before them
    gpu_seconds: float
    bytes_read: float
    gets: float
    puts: float  # and lists
    assumed: Assumed

    @property
    def dollars(self) -> dict[str, float]:
        """By what is paid for; nothing for GPUs whose price is not given."""
        assumed = self.assumed
        cpu = sum(self.cpu_seconds.values()) + self.proof_cpu_seconds
        requests = self.gets * assumed.dollars_per_1000_gets + self.puts * assumed.dollars_per_1000_puts
        return {
            "machines": cpu / HOUR * assumed.dollars_per_vcpu_hour,
            "requests": requests / 1000,
            "bytes": self.bytes_read / 1e9 * assumed.dollars_per_gb,
            "GPUs": self.gpu_seconds / HOUR * (assumed.dollars_per_gpu_hour or 0.0),
        }

    def seconds(self, machines: float) -> dict[str, float]:
        """By what it would be the limit of the workers' time."""
        assumed = self.assumed
        return {
            "CPU": sum(self.cpu_seconds.values()) / (machines * assumed.vcpus),
            "store": self.gets / (assumed.gets_per_second * assumed.prefixes),
            "network": self.bytes_read / (machines * assumed.network_bytes),
            "GPU": self.gpu_seconds / machines,
            "latency": self.waiting_seconds / (machines * assumed.vcpus),
        }

    @property
    def alone(self) -> float:
        """Seconds that no further machine shortens."""
        return self.plan_seconds + self.assumed.start_seconds + self.proof_seconds

    def hours(self, machines: float) -> float:
        return (self.alone + max(self.seconds(machines).values())) / HOUR

    def machines_within(self, hours: float) -> tuple[int, int] | None:
        """Machines and prefixes that a deadline needs; None where none suffice."""
        left = hours * HOUR - self.alone
        if left <= 0:
            return None
        one = self.seconds(1)
        prefixes = math.ceil(self.gets / self.assumed.gets_per_second / left)
        return math.ceil(max(value for name, value in one.items() if name != "store") / left), max(
            1, prefixes
        )


def predict(step: Step, images: int, layout: Layout, assumed: Assumed) -> Cost:
    """What a run over so many images takes."""
    cpu = {
        "fetch": step.fetch_ms[layout],
        "read": step.read_ms,
        "recognise": step.recognise_ms,
        "write": step.rows_ms,
        "pipeline": assumed.pipeline_ms,
    }
    whole = images * step.image_bytes
    objects = images if layout in ("folder", "list") else 0
    shards = math.ceil(whole / assumed.shard_bytes) if layout == "tars" else 0
    pieces = shards * math.ceil(assumed.shard_bytes / assumed.bytes_per_request)
    listed = {"folder": images, "tars": shards}.get(layout, 0)
    lists = math.ceil(listed / assumed.names_per_list)
    parts = shards or math.ceil(images / assumed.rows_per_file)  # one of each tar
    at_once = assumed.objects_at_once if objects else 1
    fetched = objects * step.requests + shards + pieces
    proving = parts * (assumed.proof_requests if objects else 2) if layout != "local" else 0
    proof = (images * step.proof_ms + proving * step.fetch_ms["list"] / step.requests) / 1e3
    return Cost(
        images,
        {name: images * value / 1e3 for name, value in cpu.items()} | {"start": assumed.start_cpu_seconds},
        proof_cpu_seconds=proof,
        waiting_seconds=fetched * assumed.request_seconds / at_once,
        proof_seconds=max(
            proof / assumed.proof_vcpus, proving * assumed.request_seconds / assumed.proofs_at_once
        ),
        plan_seconds=lists * assumed.request_seconds,
        gpu_seconds=images / step.images_per_gpu_second if step.images_per_gpu_second else 0.0,
        bytes_read=whole,
        gets=fetched + proving,
        puts=parts + lists,
        assumed=assumed,
    )


def measured_steps(kind: str, network: str, suffix: str = "JPEG", gpu_rate: float | None = None) -> Step:
    """From the committed results.

    gpu_rate: images a second of a GPU that recognises in the CPU's place
    """
    rows, proofs = _rows("cluster_per_image"), _rows("cluster_reconcile")
    proof = proofs["10,000,000 inputs, names"]
    member = _ms(rows["fetch: a member of a tar"])
    single = _ms(rows["fetch: an object"])
    return Step(
        image_bytes=rows[f"read: {kind}, {suffix}"]["bytes"],
        row_bytes=rows["rows"]["bytes"],
        requests=rows["fetch: an object"]["requests"],
        fetch_ms={"folder": single, "list": single, "tars": member, "local": 0.0},
        read_ms=_ms(rows[f"read: {kind}, {suffix}"]),
        recognise_ms=0.0 if gpu_rate else _ms(rows[f"recognise: {kind}, {network}"]),
        images_per_gpu_second=gpu_rate,
        rows_ms=_ms(rows["rows"]),
        proof_ms=sorted(proof["cpu_seconds"])[len(proof["cpu_seconds"]) // 2] / proof["inputs"] * 1e3,
    )


def image_ms(step: Step, layout: Layout, assumed: Assumed) -> float:
    """CPU ms of an image."""
    found = predict(step, 10**6, layout, assumed).cpu_seconds
    return (sum(found.values()) - found["start"]) / 1e3


def _rows(suite: str) -> dict[str, Any]:
    text = (RESULTS / f"{suite}--avx2--cpu.json").read_text(encoding="utf-8")
    rows: dict[str, Any] = json.loads(text)["rows"]
    return rows


def _ms(row: dict[str, Any]) -> float:
    return float(row["cpu_per_image"]["median"])


def compared(manifest: Path, step: Step, layout: Layout, assumed: Assumed) -> Iterator[str]:
    """What a run's workers took, beside what was predicted."""
    run = json.loads(manifest.read_text(encoding="utf-8"))["this_run"]
    images = sum(run["images_by_node"].values())
    if not images:
        raise SystemExit(f"{manifest}: this run has read no images; name that of a run that has")
    found = predict(step, images, layout, assumed).cpu_seconds
    predicted = sum(found.values()) - found["start"]
    took = run["worker_cpu_seconds"]
    yield f"images       {images:,}"
    yield f"predicted    {predicted:,.1f} CPU-seconds, {predicted / images * 1e3:.3f} ms an image"
    yield f"measured     {took:,.1f} CPU-seconds, {took / images * 1e3:.3f} ms an image"
    yield f"measured / predicted  {took / predicted:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, help="Put the tables into this page.")
    parser.add_argument("--picture", type=Path, help="Draw the picture to this file.")
    parser.add_argument(
        "--gpu-rate", type=float, help="Assume that a GPU recognises this many images in a second."
    )
    parser.add_argument("--gpu-price", type=float, help="Assume that a GPU costs this many dollars an hour.")
    parser.add_argument(
        "--manifest", type=Path, help="Compare the run that wrote this manifest with the prediction."
    )
    parser.add_argument("--network", choices=NETWORKS, default="latin", help="Predict for this network.")
    parser.add_argument(
        "--kind", choices=("words", "lines"), default="words", help="Predict for images of this kind."
    )
    parser.add_argument(
        "--suffix", choices=("JPEG", "PNG"), default="JPEG", help="Predict for image files of this format."
    )
    parser.add_argument(
        "--layout", choices=LAYOUTS, default="local", help="Predict for images that lie in this way."
    )
    given = parser.parse_args(arguments)
    if given.manifest is not None:
        step = measured_steps(given.kind, given.network, given.suffix)
        print("\n".join(compared(given.manifest, step, given.layout, Assumed())))
        return
    assumed = Assumed(dollars_per_gpu_hour=given.gpu_price)
    from benchmarks.cluster import cost_page

    for name, made in cost_page.TABLES.items():
        print(f"{name}\n\n{made(assumed, given.gpu_rate)}\n")
    if given.page is not None:
        page = given.page.read_text(encoding="utf-8")
        given.page.write_text(cost_page.written(page, assumed), encoding="utf-8")
    if given.picture is not None:
        cost_page.draw(given.picture, assumed)


if __name__ == "__main__":
    main()
