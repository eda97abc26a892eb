"""How a run begins: with the plan of an earlier run, or with one of its own.

Runs that begin at the same time on one output would overwrite each other's plans. So each writes a claim
there before it lists its inputs, and looks before and after it writes the plan whether that is still its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence

from crnn_deploy.cluster.parquet import ParquetInvalid
from crnn_deploy.cluster.plan import NAMES, PLAN, RUN, Plan, read_plan, write_plan
from crnn_deploy.cluster.sources import Planned, plan_of
from crnn_deploy.cluster.task import Task
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import OutputExists
from crnn_deploy.runtime.run_record import RunRecord
from crnn_deploy.stores.address import without_keys
from crnn_deploy.stores.store import Store, StoreMissing

__all__ = ["CLAIM", "RECORD", "InputEmpty", "OutputClaimed", "OutputNotEmpty", "RunDamaged", "begin"]

RECORD, CLAIM = f"{RUN}/run.json", f"{RUN}/claim"
_MOST_RECORD = 2**20  # bytes
_MOST_CLAIM = 64  # bytes


class OutputNotEmpty(CrnnDeployError, FileExistsError):
    """A folder for the output in which something else lies."""

    def __init__(self, output: str) -> None:
        super().__init__(
            f"{output} holds files that no run of infer-cluster has written; name a new folder with -o"
        )


class RunDamaged(CrnnDeployError, ValueError):
    """An output whose plan or record is lost or torn."""

    def __init__(self, output: str, reason: str) -> None:
        super().__init__(f"no run can go on with {output}: {reason}; name a new folder with -o")


class OutputClaimed(CrnnDeployError, FileExistsError):
    """An output on which another run has begun at the same time."""

    def __init__(self, output: str) -> None:
        super().__init__(
            f"another infer-cluster began on {output} at the same time; let that one go on, or name a new "
            "folder with -o"
        )


class InputEmpty(CrnnDeployError, ValueError):
    """Inputs that are there and name no image at all."""

    def __init__(self, inputs: Sequence[str]) -> None:
        super().__init__(f"no image is named in {', '.join(map(without_keys, inputs))}, so nothing was read")


def begin(
    store: Store,
    inputs: Sequence[str],
    task: Task,
    record: RunRecord,
    *,
    rows_per_file: int,
    column: str | None,
    listed: Iterable[bytes],
    resume: bool,
    check: Callable[[], None],
    told: Callable[[str], None],
) -> Plan:
    """The plan that is in an output, or a new one.

    A run that ended before its plan was whole has read nothing, so any other may take its place. The
    arguments are those of `run.infer_cluster`. Raises OutputExists, OutputNotEmpty, RunDamaged,
    OutputClaimed, InputEmpty, RunDiffers, RunRecordInvalid, and what `plan_of` and a Store raise.
    """
    if store.exists(PLAN):
        if not resume:
            raise OutputExists(store.uri)
        told("the images are those that the first run has listed; images that came later are not read")
        return _earlier(store, record)
    if any(not _of_beginning(one.path) for one in store.list()):
        raise OutputNotEmpty(store.uri)
    planned = plan_of(inputs, rows_per_file, column=column, listed=listed, stores=task.stores, told=told)
    claim = secrets.token_hex(16).encode()
    store.write(CLAIM, claim)

    def listed_wholly() -> Iterator[Planned]:
        yield from _checked(planned, inputs, check)
        _check_claim(store, claim)
        if store.exists(PLAN):  # of a run that was done with it before this one claimed the output
            raise OutputClaimed(store.uri)
        store.write(RECORD, record.encoded().encode())

    plan = write_plan(store, listed_wholly())
    _check_claim(store, claim)
    store.delete(CLAIM)
    return plan


def _earlier(store: Store, record: RunRecord) -> Plan:
    try:
        earlier = RunRecord.parsed(store.read(RECORD, limit=_MOST_RECORD), store.name(RECORD))
        plan = read_plan(store)
    except (StoreMissing, ParquetInvalid) as error:
        raise RunDamaged(store.uri, str(error)) from error
    record.compare(earlier, store.uri)
    return plan


def _check_claim(store: Store, claim: bytes) -> None:
    """Raises OutputClaimed."""
    try:
        if store.read(CLAIM, limit=_MOST_CLAIM) == claim:
            return
    except StoreMissing:
        pass
    raise OutputClaimed(store.uri)


def _of_beginning(path: str) -> bool:
    """Whether a run leaves such a file when it ends before its plan is whole; hidden ones are unfinished."""
    hidden = path.rpartition("/")[2].startswith(".")
    return path in (RECORD, CLAIM) or path.startswith(f"{NAMES}/") or (hidden and path.startswith(f"{RUN}/"))


def _checked(
    planned: Iterable[Planned], inputs: Sequence[str], check: Callable[[], None]
) -> Iterator[Planned]:
    """What is planned, as long as the run is not stopped: what a stop has cut short is no plan.

    Raises InputEmpty.
    """
    empty = True
    for one in planned:
        check()
        empty = False
        yield one
    check()
    if empty:
        raise InputEmpty(inputs)
