"""Runs a command as on a CPU that has AVX2 and nothing later: without AVX-512, VNNI, bf16 and AMX.

    python -m benchmarks.speed.avx2_alone COMMAND [ARGUMENT ...]
    python -m benchmarks.speed.avx2_alone python -m benchmarks.speed.shipped_models --images 400

In the command and in what it starts, CPUID does not name the later instructions, and neither does
/proc/cpuinfo. So all libraries take the ways through their code that they take on such a CPU. The speed is
that of this machine with AVX2, which other CPUs need not have. The exit code is the command's; it is 128 + N
if signal N ended it.

The script needs Linux, an Intel CPU that can forbid CPUID (`cpuid_fault` in /proc/cpuinfo), a C compiler, and
`unshare` and `mount` of util-linux.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
SOURCE = Path(__file__).with_name("hide_avx512.c")
HIDDEN = ("avx512", "avx_vnni", "avx_ifma", "avx10", "amx_")  # how names of flags begin
UNNAMED = "-AVX512F,-AVX512CD,-AVX512BW,-AVX512DQ,-AVX512VL"  # by the C library, which asks before all others


def with_avx2_alone(cpuinfo: str) -> str:
    """The text of /proc/cpuinfo without the later instructions."""
    lines = []
    for line in cpuinfo.splitlines():
        name, colon, flags = line.partition(":")
        if name.strip() == "flags":
            line = f"{name}{colon} {' '.join(flag for flag in flags.split() if not flag.startswith(HIDDEN))}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def missing() -> str | None:
    """Why this machine cannot do it, if it cannot."""
    if not CPUINFO.exists() or "cpuid_fault" not in CPUINFO.read_text(encoding="utf-8").split():
        return "this CPU or its virtual machine cannot forbid CPUID (/proc/cpuinfo has no cpuid_fault)"
    for program in ("cc", "unshare", "mount"):
        if shutil.which(program) is None:
            return f"{program} is missing; apt-get install gcc libc6-dev util-linux brings it"
    return None


def hidden(command: Sequence[str], folder: Path) -> list[str]:
    """The command with AVX2 alone; what it needs is written to the folder.

    Raises subprocess.CalledProcessError where the library cannot be compiled.
    """
    library, cpuinfo = folder / "hide_avx512.so", folder / "cpuinfo"
    compiling = ("cc", "-O2", "-Wall", "-shared", "-fPIC", "-Wl,-z,initfirst")  # before other libraries ask
    subprocess.run([*compiling, "-o", library, SOURCE], check=True)
    cpuinfo.write_text(with_avx2_alone(CPUINFO.read_text(encoding="utf-8")), encoding="utf-8")
    preloaded = " ".join(filter(None, (str(library), os.environ.get("LD_PRELOAD"))))
    settings = (f"LD_PRELOAD={preloaded}", f"GLIBC_TUNABLES=glibc.cpu.hwcaps={UNNAMED}")
    own = () if os.geteuid() == 0 else ("--map-root-user",)
    then = f'mount --bind "$0" {CPUINFO} && exec env "$@"'
    return ["unshare", "--mount", *own, "sh", "-c", then, str(cpuinfo), *settings, *command]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="What to run, and its arguments.")
    given = parser.parse_args(arguments)
    if not given.command:
        parser.error("give a command")
    if reason := missing():
        parser.error(reason)
    with tempfile.TemporaryDirectory() as folder:
        code = subprocess.run(hidden(given.command, Path(folder))).returncode
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
