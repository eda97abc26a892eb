"""KenLM in a process of its own.

KenLM's binary files are images of its memory, without checksums: a damaged one makes it read beyond its
arrays, when it is loaded or at any later question. A crash ends the other process and is one line here.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from crnn_deploy.errors import LibraryMissing
from crnn_deploy.files import parse_json

__all__ = ["Context", "KenlmFailed", "KenlmProcess"]

_SECONDS = 300  # for an answer; a large model is read from a slow disk first
_NO_ANSWER = "KenLM gives answers that are none: it is damaged; build it again"
_MOST_ANSWER = 2**26  # bytes
_MEMORY = 2**30, 32  # bytes of the process, and times the file's size; compressed ones are unpacked

# words before, as far as the model minds them, and the log10 probability that the text ends after them
Context = tuple[tuple[str, ...], float]

# Run by another Python that finds nothing but its own library and kenlm. A question is a line: a list of the
# words before and a word; its answer is, for each, the words before the next one, the log10 probability of
# ending there and that of the word.
_PROGRAM = """
import json, sys
from functools import lru_cache
sys.path.append(sys.argv[2])
limit = int(sys.argv[3])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, OSError, ValueError):
    pass
answers = sys.stdout
sys.stdout = sys.stderr
try:
    import kenlm
    settings = kenlm.Config()
    settings.show_progress, settings.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    model = kenlm.Model(sys.argv[1], settings)
    order = model.order
except Exception as error:
    answers.write(json.dumps({"error": str(error)}) + "\\n")
    raise SystemExit

@lru_cache(2 ** 16)
def state_of(context):
    state = kenlm.State()
    if context[:1] == ("<s>",):
        model.BeginSentenceWrite(state)
        context = context[1:]
    else:
        model.NullContextWrite(state)
    for word in context:
        after = kenlm.State()
        model.BaseScore(state, word, after)
        state = after
    return state

def shortened(context, state):
    context = context[-(order - 1):] if order > 1 else ()
    while context and state_of(context[1:]) == state:
        context = context[1:]
    return context

def answer(context, word):
    after = kenlm.State()
    weight = model.BaseScore(state_of(context), word, after)
    return shortened((*context, word), after), model.BaseScore(after, "</s>", kenlm.State()), weight

begin = kenlm.State()
model.BeginSentenceWrite(begin)
end = model.BaseScore(begin, "</s>", kenlm.State())
answers.write(json.dumps({"start": [shortened(("<s>",), begin), end]}) + "\\n")
answers.flush()
for line in sys.stdin:
    answers.write(json.dumps([answer(tuple(context), word) for context, word in json.loads(line)]) + "\\n")
    answers.flush()
"""


class KenlmFailed(Exception):
    """KenLM cannot read a file, or ends while it does; the message says which."""


class KenlmProcess:
    """A model that another process has loaded; safe to ask from several threads.

    Raises LibraryMissing, KenlmFailed.
    """

    def __init__(self, path: Path, size: int) -> None:
        """size: of the file, in bytes."""
        try:
            spec = find_spec("kenlm")
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            raise LibraryMissing(f"{path.name}", "kenlm", "kenlm")
        limit = _MEMORY[0] + _MEMORY[1] * size
        self._command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROGRAM]
        self._command += [os.path.abspath(path), os.path.dirname(spec.origin), str(limit)]
        self._lock = threading.Lock()
        self.start = self._open()

    def ask(self, questions: Sequence[tuple[tuple[str, ...], str]]) -> list[tuple[Context, float]]:
        """For each words before and word the context after it, and the log10 probability of the word.

        Raises KenlmFailed.
        """
        with self._lock:
            if self._owner != os.getpid():  # the parent's process would answer both
                self._open()
            left = memoryview(json.dumps(questions).encode() + b"\n")
            with contextlib.suppress(BrokenPipeError):  # the answer says why
                while left:
                    left = left[self._stdin.write(left) :]
            answers = self._answer()
        try:
            found = [((tuple(map(str, words)), float(end)), float(word)) for words, end, word in answers]
        except (TypeError, ValueError):
            raise KenlmFailed(_NO_ANSWER) from None
        if len(found) != len(questions) or not all(end <= 0 and word <= 0 for (_, end), word in found):
            raise KenlmFailed("KenLM gives weights that are no probabilities: it is damaged; build it again")
        return found

    def _open(self) -> Context:
        """Start the other process; the context before the first word."""
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for this process, which ends the other
            )
        except OSError as error:
            raise KenlmFailed(f"no process for KenLM can be started: {error.strerror}") from None
        assert process.stdin is not None and process.stdout is not None
        self._owner, self._process = os.getpid(), process
        self._stdin, self._stdout = process.stdin, process.stdout
        weakref.finalize(self, _end, process, self._owner)
        match self._answer():
            case {"start": [list(words), float(end)]} if end <= 0:
                return tuple(map(str, words)), end
            case {"error": str(reason)}:
                raise KenlmFailed(f"KenLM cannot read it: {reason[:300]}")
        raise KenlmFailed(_NO_ANSWER)

    def _answer(self) -> Any:
        """The next line of the other process."""
        line = b""
        while not line.endswith(b"\n"):
            if not _readable(self._stdout):
                self._process.kill()
                raise KenlmFailed(
                    f"KenLM gives no answer within {_SECONDS} seconds; it is damaged or too large"
                )
            read = self._stdout.read(2**20)
            if not read:
                code = self._process.wait()
                how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
                raise KenlmFailed(f"KenLM {how} while it read it: it is damaged or too large; build it again")
            line += read
            if len(line) > _MOST_ANSWER:
                self._process.kill()
                raise KenlmFailed(_NO_ANSWER)
        try:
            return parse_json(line)
        except ValueError:
            raise KenlmFailed(_NO_ANSWER) from None


def _readable(pipe: IO[bytes]) -> bool:
    """Whether it has something to read, or ends, within the time that an answer may take."""
    if not hasattr(select, "poll"):  # Windows: a read waits
        return True
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(_SECONDS * 1000))


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Close the pipes, at which the other process ends, and see it end."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    if os.getpid() == owner:
        process.kill()
        process.wait()
