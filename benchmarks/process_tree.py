"""A process and all that it has started: CPU time and memory, as Linux counts them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["TICK", "cpu_seconds", "held_mb", "memory_mb", "pids_of"]

TICK = os.sysconf("SC_CLK_TCK")  # of the kernel's CPU times, a second


def _stats() -> dict[int, list[str]]:
    """Fields of /proc/PID/stat from the third one on, by process."""
    found: dict[int, list[str]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(entry)] = text.rpartition(")")[2].split()
    return found


def _family(root: int, stats: Mapping[int, Sequence[str]]) -> set[int]:
    inside = {pid for pid, fields in stats.items() if pid == root or int(fields[3]) == root}
    while more := {pid for pid, fields in stats.items() if int(fields[1]) in inside} - inside:
        inside |= more
    return {pid for pid in inside if stats[pid][0] != "Z"}


def pids_of(root: int) -> set[int]:
    """The living processes of its family."""
    return _family(root, _stats())


def cpu_seconds(root: int) -> float:
    """CPU time of a process and its family so far, that of children that ended included."""
    stats = _stats()
    return sum(sum(map(int, stats[pid][11:15])) for pid in _family(root, stats)) / TICK


def memory_mb(root: int) -> tuple[float, float]:
    """PSS, in which shared pages count in parts, and RSS of a process and its family, both in MB."""
    each = [_memory(pid) for pid in pids_of(root)]
    return _mb(sum(one["Pss"] for one in each)), _mb(sum(one["Rss"] for one in each))


def held_mb(root: int) -> float:
    """RSS of a process, and what its family has beyond that for each member alone, in MB."""
    others = [_memory(pid) for pid in pids_of(root) - {root}]
    return _mb(_memory(root)["Rss"] + sum(one["Private_Clean"] + one["Private_Dirty"] for one in others))


def _memory(pid: int) -> Counter[str]:
    """Kilobytes by kind; none of a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return Counter()
    return Counter({kind: int(size) for kind, size in re.findall(r"^(\w+): +(\d+) kB", text, re.M)})


def _mb(kilobytes: int) -> float:
    return round(kilobytes / 1024, 1)
