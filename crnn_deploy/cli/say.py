"""What commands say to people: on stdout, on stderr and in progress bars.

Names of files and of weights, alphabets and texts come from strangers: whatever is said goes through here,
without what a terminal would obey.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import click

from crnn_deploy.errors import CrnnDeployError, printable, printable_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "StreamClosed",
    "bars_are_hidden",
    "check_stdout",
    "plain_json",
    "progress_bar",
    "put",
    "say",
    "say_json",
    "say_over_bar",
    "stdin_bytes",
    "stdout_is_terminal",
    "working",
]

_CLEAR_LINE = "\r\033[K"


class StreamClosed(CrnnDeployError, ValueError):
    """A standard stream that is needed and was closed when the command began."""

    def __init__(self, name: str) -> None:
        remedy = "have the result written to a file" if name == "stdout" else "name files"
        super().__init__(f"{name} is closed; give the command one, or {remedy}")


def check_stdout() -> None:
    """Raises StreamClosed where stdout was closed when the command began."""
    if _is_closed(sys.stdout):
        raise StreamClosed("stdout")


def say(message: str, *, err: bool = False) -> None:
    """Print lines for people; on a stream that was closed when the command began they are lost.

    Raises OutputUnwritable where stdout takes them no more.
    """
    _print(printable(message), err)


def say_json(value: Any, *, indent: int | None = None) -> None:
    """Print JSON, in which NaN and infinity are null. Raises OutputUnwritable."""
    text = printable_json(plain_json(value, indent=indent, ensure_ascii=False))
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = plain_json(value, indent=indent)
    _print(text, err=False)


def plain_json(value: Any, **options: Any) -> str:
    """JSON as its standard has it: without NaN and infinity, for which there is null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), **options)


def say_over_bar(message: str) -> None:
    """Print a line on stderr in the place of a progress bar, which comes again below it."""
    _print(f"{'' if bars_are_hidden() else _CLEAR_LINE}{printable(message)}", err=True)


def put(data: bytes) -> None:
    """Write to stdout what is not for people. Raises StreamClosed, BrokenPipeError, OutputUnwritable."""
    check_stdout()
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        _give_up(sys.stdout, error)


def stdin_bytes() -> BinaryIO:
    """Stdin, as bytes. Raises StreamClosed."""
    if _is_closed(sys.stdin, os.O_WRONLY):
        raise StreamClosed("stdin")
    return sys.stdin.buffer


def stdout_is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout is not None and sys.stdout.isatty()


def bars_are_hidden() -> bool:
    """Whether no progress bar is shown: stderr is no terminal."""
    return sys.stderr is None or not sys.stderr.isatty()


def progress_bar(length: int | None, label: str = "", **options: Any) -> Any:
    """A progress bar on stderr when that is a terminal: how much is done, the time left and the rate.

    It counts things; where its length is none, as with show_pos=False, it has no rate.
    """
    given: dict[str, Any] = {"file": sys.stderr, "show_pos": True, "hidden": bars_are_hidden(), **options}
    bar: Any = click.progressbar(length=length, label=label, **given)
    if bar.show_pos and bar.item_show_func is None:
        bar.item_show_func = lambda _: _rate(bar.pos, time.time() - bar.start)
    return bar


def _rate(count: int, seconds: float) -> str | None:
    """Such as `12/s`, with two digits at least; None before the first."""
    if not count or seconds <= 0:
        return None
    rate = count / seconds
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on stderr, when that is a terminal, what is done now, where there is nothing to count.

    The line goes when it is done.
    """
    if bars_are_hidden():
        yield
        return
    click.echo(f"{printable(what)} ...", file=sys.stderr, nl=False)
    try:
        yield
    finally:
        click.echo(_CLEAR_LINE, file=sys.stderr, nl=False)


def _print(message: str, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    if _is_closed(stream):
        return
    encoding = stream.encoding or "utf-8"
    message = message.encode(encoding, "backslashreplace").decode(encoding)
    try:
        click.echo(message, file=stream)
    except OSError as error:
        _give_up(stream, error)


def _is_closed(stream: IO[str] | None, unusable: int = os.O_RDONLY) -> bool:
    """Whether a standard stream was closed when the command began.

    unusable: how it is open then; `crnn_deploy.__main__` opens it the wrong way round
    """
    if stream is None or fcntl is None:
        return stream is None
    try:
        return fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == unusable
    except (OSError, ValueError):  # it is in memory
        return False


def _give_up(stream: IO[str], error: OSError) -> None:
    """Raise the error; where it is not that a reader has gone, so that Python's exit does not try again."""
    if isinstance(error, BrokenPipeError):
        raise error
    from crnn_deploy.files import OutputUnwritable

    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    name = "stdout" if stream is sys.stdout else "stderr"
    raise OutputUnwritable(Path(name), error.strerror or str(error)) from None
