"""Runs one fuzz target under atheris (libFuzzer): python tests/fuzz/NAME.py [--seconds N] [FILE...].

A target takes bytes and returns, or raises CrnnDeployError with one line. Everything else is a finding:
another exception, a crash, more than 10 seconds or more than 2 GiB of memory for an input. libFuzzer then
writes that input into the current folder and ends with an exit code other than 0; FILE runs such an input
again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import atheris

__all__ = ["fuzz", "guided"]

_SECONDS_AN_INPUT, _MEGABYTES = 10, 2048


def guided() -> AbstractContextManager[None]:
    """Modules of the package that are imported inside tell the fuzzer what an input covers."""
    instrumented: AbstractContextManager[None] = atheris.instrument_imports(include=["crnn_deploy"])
    return instrumented


def fuzz(target: Callable[[bytes], object], seeds: Iterable[bytes]) -> None:
    """Run a target on mutations of its seeds until the time is over or something is found."""
    from crnn_deploy.errors import CrnnDeployError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="keeps the inputs that cover more")
    parser.add_argument("files", metavar="FILE", nargs="*", help="run these inputs and no others")
    given = parser.parse_args()

    def once(data: bytes) -> None:
        try:
            target(data)
        except CrnnDeployError as error:
            assert len(str(error).splitlines()) == 1, f"not one line: {error}"

    with tempfile.TemporaryDirectory() as folder:
        corpus = given.corpus or Path(folder)
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (corpus / f"seed{number}").write_bytes(seed)
        limits = [f"-timeout={_SECONDS_AN_INPUT}", f"-rss_limit_mb={_MEGABYTES}"]
        limits += ["-print_final_stats=1", "-max_len=1000000", "-verbosity=1"]
        inputs = given.files or [str(corpus), f"-max_total_time={given.seconds}"]
        atheris.Setup([sys.argv[0], *inputs, *limits], once)
        atheris.Fuzz()  # ends the process
