"""What web pages of others may do: nothing.

A page in a user's browser can send requests to any address that the user's machine reaches, such as a server
on 127.0.0.1 that asks for no token. It cannot read the answers, unless its own name is made to resolve to
127.0.0.1 after it was loaded (DNS rebinding). The first is told by `Sec-Fetch-Site` and `Origin`, as Go's
`http.CrossOriginProtection` does it; the second by `Host`.
"""

from __future__ import annotations

import re

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from crnn_deploy.errors import shortened
from crnn_deploy.serving.problems import problem_response
from crnn_deploy.serving.tokens import is_loopback

__all__ = ["EVERY_ANSWER", "PAGE", "SameOrigin"]

# headers of every answer: it is what it says it is, and no page of another origin may embed it
EVERY_ANSWER = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

# headers of the page and its files
PAGE = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")
_OWN = (b"same-origin", b"none")
_READS = frozenset(
    {"GET", "HEAD", "OPTIONS"}
)  # change nothing; a page of another origin cannot see the answer


class SameOrigin:
    """Refuses what a page of another origin has its visitor's browser send, for servers without tokens.

    loopback: whether the server listens on a loopback address; then `Host` must be one too
    """

    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        self._app, self._loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        hosts, sites, origins = [], [], []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"sec-fetch-site":
                sites.append(value)
            elif name == b"origin":
                origins.append(value)
        if len(hosts) > 1:
            return _refused(scope, 400, "the request has more than one Host header; send one")
        if self._loopback and hosts and not _names_loopback(host := hosts[0].decode("latin-1")):
            return _refused(
                scope,
                421,
                f"this server answers to localhost and 127.0.0.1, and not to {shortened(host)!r}; to serve "
                "other names, give it tokens (--token-file)",
            )
        if scope["method"] in _READS or _by_no_other_page(hosts, sites, origins):
            return None
        return _refused(scope, 403, "a web page of another origin sent this; it may not without a token")


def _names_loopback(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and is_loopback(match[1].strip("[]"))


def _by_no_other_page(hosts: list[bytes], sites: list[bytes], origins: list[bytes]) -> bool:
    """Whether no page sent a request, or one of the server's own."""
    if sites:  # of any browser since 2023
        return all(site in _OWN for site in sites)
    own = [scheme + host for host in hosts for scheme in (b"http://", b"https://")]
    return all(origin in own for origin in origins)


def _refused(scope: Scope, status: int, detail: str) -> Response:
    headers = {} if scope["method"] in _READS else {"Connection": "close"}  # a body that comes is not read
    return problem_response(scope, status, detail, headers)
