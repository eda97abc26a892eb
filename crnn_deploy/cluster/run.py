"""A whole run: the plan, what of it is missing, the reading, and the proof."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from crnn_deploy.cluster.begin import RunDamaged, begin
from crnn_deploy.cluster.parquet import ParquetInvalid
from crnn_deploy.cluster.plan import RUN, Plan, part_of
from crnn_deploy.cluster.ray_nodes import Nodes, connected, read_chunks, workers_that_fit
from crnn_deploy.cluster.reader import Receipt
from crnn_deploy.cluster.reconcile import reconcile
from crnn_deploy.cluster.reconciliation import Reconciliation
from crnn_deploy.cluster.task import Task
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.run_record import RunRecord
from crnn_deploy.stores.store import Store, StoreMissing

__all__ = ["MANIFEST", "NodeUnfit", "RunOutcome", "infer_cluster", "run_digest"]

MANIFEST = f"{RUN}/manifest.json"
_SCHEMA = "crnn-deploy/cluster-run/1"


class NodeUnfit(CrnnDeployError, RuntimeError):
    """A node that cannot read: the model does not open on it, or another version is installed."""

    exit_code = 1

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(
            f"the node {node} cannot read images: {reason}; repair the node, or take it out of the cluster, "
            "and go on with --resume"
        )


@dataclass
class RunOutcome:
    """What came of a run."""

    counts: Reconciliation
    read: int = 0  # chunks that this run has read
    failures: int = 0  # times that a chunk could not be read
    cpu_seconds: float = 0.0  # of the workers' processes, in chunks that were read
    seconds: float = 0.0  # of the workers, by the clock, in chunks that were read
    by_node: dict[str, int] = field(default_factory=dict)  # images

    def to_plain(self) -> dict[str, Any]:
        return {
            **self.counts.to_plain(),
            "this_run": {
                "chunks": self.read,
                "failures": self.failures,
                "worker_cpu_seconds": round(self.cpu_seconds, 3),
                "worker_seconds": round(self.seconds, 3),
                "images_by_node": self.by_node,
            },
        }

    def add(self, receipt: Receipt) -> None:
        if receipt.failed:
            self.failures += 1
            return
        self.read += 1
        self.cpu_seconds += receipt.cpu_seconds
        self.seconds += receipt.seconds
        self.by_node[receipt.node] = self.by_node.get(receipt.node, 0) + receipt.inputs


def run_digest(record: RunRecord) -> str:
    """What tells the rows of one run from those of another: SHA-256 of its settings."""
    return hashlib.sha256(json.dumps(record.settings, sort_keys=True).encode()).hexdigest()


def infer_cluster(
    inputs: Sequence[str],
    task: Task,
    record: RunRecord,
    nodes: Nodes,
    *,
    rows_per_file: int,
    column: str | None,
    listed: Iterable[bytes],
    resume: bool,
    check: Callable[[], None],
    until: Callable[[Iterable[Receipt]], Iterable[Receipt]],
    told: Callable[[str], None],
    begun: Callable[[int, int], None],
    read: Callable[[Receipt], None],
) -> RunOutcome:
    """Read every image of the inputs into the task's output, and prove it.

    record: what decides about the rows; a run that goes on must have the same
    listed: lines of the input `-`
    check: called now and then; what it raises ends the run
    until: passes receipts on, until the run is to end; `check` raises then
    told: called with a line about what was assumed and what went wrong
    begun: called with the numbers of chunks to read and of all chunks
    read: called with the receipt of each chunk
    Raises NodeUnfit, and what `begin`, `connected`, `workers_that_fit` and a Store raise.
    """
    outcome = RunOutcome(Reconciliation(0))
    store = task.output_store()
    with ExitStack() as stack:
        if nodes.address is not None:  # before a long listing
            stack.enter_context(connected(nodes.address, without_token=nodes.without_token))
        plan = begin(
            store,
            inputs,
            task,
            record,
            rows_per_file=rows_per_file,
            column=column,
            listed=listed,
            resume=resume,
            check=check,
            told=told,
        )
        left = set(range(len(plan)))
        if resume:
            left = set(_proof(store, plan, task, check).to_do)
        begun(len(left), len(plan))
        if left:
            store.delete(MANIFEST)  # of an earlier run, which is no proof of this one's rows
            if nodes.address is None:
                stack.enter_context(connected(None))
            check()
            for receipt in until(_receipts(plan, left, task, nodes, _workers(nodes, len(left)))):
                outcome.add(receipt)
                read(receipt)
                if receipt.failed:
                    told(_failure(receipt))
            check()
    outcome.counts = _proof(store, plan, task, check)
    manifest = {"schema": _SCHEMA, "settings": record.settings, "about": record.about, **outcome.to_plain()}
    store.write(MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return outcome


def _proof(store: Store, plan: Plan, task: Task, check: Callable[[], None]) -> Reconciliation:
    """Raises RunDamaged where a file of the plan is lost or torn, and what a Store raises."""
    try:
        return reconcile(store, plan, task.run, progress=lambda files: check())
    except (StoreMissing, ParquetInvalid) as error:
        raise RunDamaged(store.uri, str(error)) from error


def _workers(nodes: Nodes, chunks: int) -> int:
    """How many workers read. Raises NodesMissing."""
    workers = nodes.workers
    if workers is None or nodes.address is None:  # a cluster may grow for those that are asked for
        fit = workers_that_fit(nodes.cpus, nodes.gpus)
        workers = min(workers or fit, fit)
    return min(workers, chunks)


def _failure(receipt: Receipt) -> str:
    by = f" by node {receipt.node}" if receipt.node else ""
    return f"file {part_of(receipt.chunk)} was not written{by}: {receipt.failed}"


def _receipts(plan: Plan, left: set[int], task: Task, nodes: Nodes, workers: int) -> Iterator[Receipt]:
    """Receipts of the chunks that are left, which leave it when they are read.

    Chunks that could not be read are given out again as long as others can be. Where nothing can be, as
    with a full disk, it ends soon. One without a receipt has ended its worker again and again, and is not
    given out again. Raises NodeUnfit.
    """
    progress = True
    while left and progress:
        progress, in_a_row, silent = False, 0, set(left)
        for receipt in read_chunks(
            task,
            [plan[number] for number in sorted(left)],
            workers=workers,
            cpus=nodes.cpus,
            gpus=nodes.gpus,
        ):
            silent.discard(receipt.chunk)
            if receipt.hopeless:
                raise NodeUnfit(receipt.node, receipt.failed)
            if receipt.failed:
                in_a_row += 1
            else:
                left.discard(receipt.chunk)
                progress, in_a_row = True, 0
            yield receipt
            if in_a_row > 2 * workers:
                return
        for number in sorted(silent):
            left.discard(number)
            yield Receipt(
                number, failed="it ends each worker that reads it: no memory, or a fault in native code"
            )
