"""Who may call: bearer tokens, and the rule that an address which others reach needs them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import open_regular
from crnn_deploy.serving.problems import problem_response

__all__ = ["Exposed", "RequireToken", "Tokens", "TokensInvalid", "check_exposure", "is_loopback"]

_SHORTEST, _LONGEST = 16, 1024  # characters of a token
_MOST_TOKENS = 1000
_MOST_BYTES = 2 * _MOST_TOKENS * _LONGEST  # of a file
_TOKEN = re.compile(r"[!-~]+")  # what a header can carry without an encoding
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-~]{1,%d})[ \t]*" % _LONGEST)
_OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
_OPEN_FOLDER = "/page/"


class TokensInvalid(CrnnDeployError, ValueError):
    """A token file that cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot use the token file {path}: {reason}")


class Exposed(CrnnDeployError, ValueError):
    """A server that everybody could call, though nobody said that they may."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"other machines reach {host}, and everybody there could call this server; give --token-file "
            "FILE, or say --no-token"
        )


class Tokens:
    """The tokens of those who may call.

    warning: what is wrong with the file they came from, though it can be used; else None
    """

    def __init__(self, tokens: Iterable[str], warning: str | None = None) -> None:
        self._digests = [hashlib.sha256(token.encode("ascii")).digest() for token in tokens]
        self.warning = warning

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """The tokens of a file, one a line; blank lines and those that begin with # are skipped.

        Raises TokensInvalid.
        """
        try:
            with open_regular(path) as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_MOST_BYTES + 1)
        except (OSError, ValueError) as error:
            raise TokensInvalid(path, getattr(error, "strerror", None) or str(error)) from None
        tokens = [*_tokens_in(path, data)]
        if not tokens:
            raise TokensInvalid(path, "no token is in it; write one a line")
        others = mode & (stat.S_IRGRP | stat.S_IROTH)
        warning = f"other users of this machine can read {path}; run chmod 600 on it" if others else None
        return cls(tokens, warning)

    def allow(self, authorization: bytes | None) -> bool:
        """Whether the value of an Authorization header holds one of the tokens.

        It takes as long for a token that is nearly right as for any other.
        """
        match = _BEARER.fullmatch(authorization or b"")
        digest = hashlib.sha256(match[1] if match else b"").digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found


class RequireToken:
    """Answers 401 where a request has no token that is known.

    Without one anybody may see the page at / and whether the server lives and is ready.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app, self._tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_open(scope):
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and self._tokens.allow(given[0]):
            await self._app(scope, receive, send)
            return
        await _refusal(scope, given)(scope, receive, send)


def check_exposure(host: str, tokens: Tokens | None, no_token: bool) -> None:
    """Raise Exposed where a server would be open to other machines, and nobody said that it should be."""
    if tokens is None and not no_token and not is_loopback(host):
        raise Exposed(host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host: localhost, 127.0.0.0/8 or ::1."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _tokens_in(path: Path, data: bytes) -> Iterable[str]:
    if len(data) > _MOST_BYTES:
        raise TokensInvalid(path, f"it has more than {_MOST_BYTES:,} bytes")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise TokensInvalid(path, "it is no text file") from None
    tokens = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    tokens = [(number, token) for number, token in tokens if token and not token.startswith("#")]
    if len(tokens) > _MOST_TOKENS:
        raise TokensInvalid(path, f"it has more than {_MOST_TOKENS} tokens")
    for number, token in tokens:  # a message never shows the token
        if not _TOKEN.fullmatch(token):
            raise TokensInvalid(path, f"line {number} has characters other than visible ASCII ones")
        if not _SHORTEST <= len(token) <= _LONGEST:
            raise TokensInvalid(
                path,
                f"the token in line {number} has {len(token)} characters; {_SHORTEST} to {_LONGEST} are "
                "taken (openssl rand -hex 32 makes one)",
            )
        yield token


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    reads = scope.get("method") in ("GET", "HEAD")
    return reads and (path in _OPEN or path.startswith(_OPEN_FOLDER))


def _refusal(scope: Scope, given: list[bytes]) -> Response:
    detail = "no token is given; send the header Authorization: Bearer TOKEN"
    headers = {"WWW-Authenticate": "Bearer"}
    if given:
        detail = "the token is not one of those that this server knows; send Authorization: Bearer TOKEN"
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    if scope.get("method") not in ("GET", "HEAD"):
        headers["Connection"] = "close"  # a body that comes is not read
    return problem_response(scope, 401, detail, headers)
