"""Which instructions the CPU has, and so how fast a network runs, and in which formats."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache

__all__ = ["described", "has_bf16", "kind", "kind_of", "saturates"]

_FIELDS = ("model name", "flags", "CPU part", "Features")  # of /proc/cpuinfo, on x86 and on ARM


@cache
def described() -> dict[str, str]:
    """What /proc/cpuinfo says of the first CPU, which stands for all; empty on other systems than Linux."""
    found: dict[str, str] = {}
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                break
            name, _, value = line.partition(":")
            if name.strip() in _FIELDS:
                found[name.strip()] = value.strip()
    return found


def kind() -> str:
    """The kind of this CPU, such as avx2, avx512-vnni-bf16 or arm64-dotprod-i8mm.

    Results of one kind say nothing about another one: a CPU with VNNI multiplies bytes natively, and one with
    bf16 has products of bfloat16.
    """
    return kind_of(platform.machine(), _flags())


def kind_of(machine: str, flags: frozenset[str]) -> str:
    """The kind of a CPU.

    machine: as `platform.machine` has it
    flags: its features as Linux names them; where there are none, the kind is the machine's name alone
    """
    machine = machine.lower()
    if machine in ("aarch64", "arm64"):
        more = {"dotprod": "asimddp" in flags, "i8mm": "i8mm" in flags, "bf16": "bf16" in flags}
        return "-".join(["arm64", *(name for name, there in more.items() if there)])
    if machine not in ("x86_64", "amd64") or not flags:
        return machine or "unknown"
    vectors = {"avx512": "avx512f", "avx2": "avx2", "avx": "avx"}
    widest = next((name for name, flag in vectors.items() if flag in flags), "sse")
    more = {"vnni": _vnni(flags), "bf16": _bf16(flags), "amx": "amx_int8" in flags}
    return "-".join([widest, *(name for name, there in more.items() if there)])


def saturates() -> bool:
    """Whether sums of two products of 8-bit integers are held in 16 bits: x86 without VNNI."""
    flags = _flags()
    return bool(flags) and platform.machine().lower() in ("x86_64", "amd64") and not _vnni(flags)


def has_bf16() -> bool:
    """Whether it has products of bfloat16."""
    flags = _flags()
    return _bf16(flags) or "bf16" in flags


def _flags() -> frozenset[str]:
    told = described()
    return frozenset(told.get("flags", told.get("Features", "")).split())


def _vnni(flags: frozenset[str]) -> bool:
    return bool(flags & {"avx512_vnni", "avx_vnni"})


def _bf16(flags: frozenset[str]) -> bool:
    return bool(flags & {"avx512_bf16", "amx_bf16"})
