"""A Debian of another architecture, arm64, whose programs run here in qemu-user."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from container.build import HANDED_DOWN, environment

__all__ = ["QEMU", "Guest", "cpuinfo", "features", "packages_missing", "understood"]

QEMU = "qemu-aarch64-static"
PROGRAMS = {"debootstrap": "debootstrap", QEMU: "qemu-user-static"}  # and the packages that have them
PACKAGES = "python3,python3-venv,ca-certificates"
# what pip needs to know of this machine
GIVEN = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")

BINFMT = Path("/proc/sys/fs/binfmt_misc")
RULE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")  # of qemu's package

# the bits of AT_HWCAP and AT_HWCAP2 as Linux names them in /proc/cpuinfo (arch/arm64/kernel/cpuinfo.c)
HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop "
    "sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 "
    "i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 smef16f32 smeb16f32 "
    "smef32f32 smefa64"
)
CPU = """processor\t: {number}
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x00
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0x000
CPU revision\t: 0

"""

# $1: the root, $2: a /proc/cpuinfo or nothing; the rest is run
ENTER = """
set -e
root="$1"; told="$2"; shift 2
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --bind /dev "$root/dev"
if [ -n "$told" ]; then mount --bind "$told" "$root/proc/cpuinfo"; fi
exec chroot "$root" "$@"
"""


def packages_missing() -> list[str]:
    """Debian's packages whose programs are not here."""
    return sorted(package for program, package in PROGRAMS.items() if shutil.which(program) is None)


@contextmanager
def understood() -> Iterator[None]:
    """The kernel hands programs of arm64 to qemu: by its rule where one is there, else by the package's own.

    A rule that was not there before is taken away again, and so is the file system that takes it.
    """
    mounted = not (BINFMT / "register").exists()
    if mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True)
    rule = BINFMT / "qemu-aarch64"
    registered = not rule.exists()
    try:
        if registered:
            (BINFMT / "register").write_bytes(RULE.read_bytes().strip())
        yield
    finally:
        if registered and rule.exists():
            rule.write_text("-1")
        if mounted:
            subprocess.run(["umount", str(BINFMT)], check=True)


def features(vector: bytes) -> list[str]:
    """What a CPU of arm64 has, by a process's auxiliary vector: pairs of 64 bits, a key and a value."""
    told = dict(struct.iter_unpack("<QQ", vector))
    names = {16: HWCAP.split(), 26: HWCAP2.split()}
    return [name for key in names for bit, name in enumerate(names[key]) if told.get(key, 0) >> bit & 1]


def cpuinfo(features: Sequence[str], cpus: int) -> str:
    """/proc/cpuinfo of such CPUs, of no known maker."""
    return "".join(CPU.format(number=number, features=" ".join(features)) for number in range(cpus))


class Guest:
    """The root file system of an arm64 Debian in a folder, and programs that run in it.

    cpu: the CPU that qemu is asked for (`qemu-aarch64-static -cpu help`)
    """

    def __init__(self, root: Path, cpu: str = "max") -> None:
        self.root, self.cpu = root, cpu
        self._told: Path | None = None

    def make(self, suite: str) -> None:
        """Debian, unless it is there already, and the files that pip needs."""
        if not self.root.exists():
            made = self.root.with_name(f"{self.root.name}.part")
            shutil.rmtree(made, ignore_errors=True)
            command = ["debootstrap", "--arch=arm64", "--variant=minbase", f"--include={PACKAGES}"]
            subprocess.run([*command, suite, str(made)], check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(made / "var/cache/apt/archives", ignore_errors=True)
            made.rename(self.root)
        for path in map(Path, GIVEN):
            place = self.root / path.relative_to("/")
            if path.exists():
                shutil.copyfile(path, place)

    def tell_cpu(self, place: Path, cpus: int) -> None:
        """Write the /proc/cpuinfo that Linux would have for the emulated CPU, and show it from now on.

        qemu 7.2 shows this machine's own, with which ONNX Runtime crashes.
        """
        vector = self.run(["cat", "/proc/self/auxv"])
        place.write_text(cpuinfo(features(vector.stdout), cpus), encoding="ascii")
        self._told = place

    def run(
        self, command: Sequence[str], settings: Mapping[str, str] | None = None, *, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """A command inside, in a view of its own of processes and mounts; check: whether it must succeed."""
        handed_down = {name: value for name, value in os.environ.items() if HANDED_DOWN.fullmatch(name)}
        own = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "QEMU_CPU": self.cpu}
        inside = environment({**handed_down, **own, **(settings or {})})
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        line = [*unshare, "sh", "-c", ENTER, "sh", str(self.root), str(self._told or ""), *inside, *command]
        done = subprocess.run(line, capture_output=True)
        if check and done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode} inside:\n{said}")
        return done
