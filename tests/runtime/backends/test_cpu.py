"""The kind of a CPU, from the features that Linux names."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from crnn_deploy.runtime.backends import cpu

HASWELL = "fpu sse sse2 ssse3 sse4_1 sse4_2 avx f16c fma avx2 bmi1 bmi2"
SKYLAKE = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"
CASCADE_LAKE = f"{SKYLAKE} avx512_vnni"
ZEN_4 = f"{CASCADE_LAKE} avx512_bf16 avx512_vbmi2"
SAPPHIRE_RAPIDS = f"{ZEN_4} avx_vnni amx_bf16 amx_tile amx_int8"
ALDER_LAKE = f"{HASWELL} avx_vnni"
CORTEX_A72 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
NEOVERSE_N1 = f"{CORTEX_A72} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp ssbs"
NEOVERSE_V1 = f"{NEOVERSE_N1} sve svei8mm svebf16 i8mm bf16 dgh"


@pytest.mark.parametrize(
    ("machine", "flags", "kind"),
    [
        ("x86_64", "fpu sse sse2 ssse3", "sse"),
        ("x86_64", "sse sse2 avx", "avx"),
        ("x86_64", HASWELL, "avx2"),
        ("x86_64", ALDER_LAKE, "avx2-vnni"),
        ("x86_64", SKYLAKE, "avx512"),
        ("x86_64", CASCADE_LAKE, "avx512-vnni"),
        ("x86_64", ZEN_4, "avx512-vnni-bf16"),
        ("x86_64", SAPPHIRE_RAPIDS, "avx512-vnni-bf16-amx"),
        ("AMD64", "", "amd64"),  # Windows, which names no features
        ("aarch64", CORTEX_A72, "arm64"),
        ("aarch64", NEOVERSE_N1, "arm64-dotprod"),
        ("aarch64", NEOVERSE_V1, "arm64-dotprod-i8mm-bf16"),
        ("arm64", "", "arm64"),  # macOS
        ("ppc64le", "", "ppc64le"),
    ],
)
def test_the_kind_of_known_processors(machine: str, flags: str, kind: str) -> None:
    assert cpu.kind_of(machine, frozenset(flags.split())) == kind


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux names the features in /proc/cpuinfo")
def test_this_cpu_is_what_numpy_finds_by_its_instructions() -> None:
    found = np.show_config(mode="dicts")["SIMD Extensions"]
    there = {*found["baseline"], *found["found"]}
    kind = cpu.kind().split("-")
    if platform.machine() == "x86_64":
        assert ("avx512" in kind) == bool(there & {"AVX512F", "AVX512_SKX", "X86_V4"})
        assert ("avx2" in kind or "avx512" in kind) == bool(there & {"AVX2", "X86_V3", "X86_V4", "AVX512F"})
    else:
        assert kind[0] == "arm64"
    assert cpu.saturates() == (platform.machine() == "x86_64" and "vnni" not in kind)
    assert cpu.has_bf16() == ("bf16" in kind)
