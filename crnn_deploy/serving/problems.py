"""What a server answers where it cannot do what it was asked: problem details (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from crnn_deploy.errors import CrnnDeployError

__all__ = ["OPEN_INFERENCE", "PROBLEM", "Problem", "file_name_sent", "problem_body", "problem_response"]

PROBLEM = "application/problem+json"  # media type
OPEN_INFERENCE = "/v2"  # what stands before all addresses of the Open Inference Protocol

_LONGEST_PATH = 4096  # characters


class Problem(CrnnDeployError):
    """A request that is answered with a status of 400 or more.

    headers: of the answer
    members: what the problem says beyond its detail
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.headers, self.members = status, dict(headers or {}), dict(members or {})


def file_name_sent(body: bytes) -> str:
    """What stands behind an error where the body is short text and no JSON, as the name of a file is."""
    try:
        text = body[: _LONGEST_PATH + 1].decode()
    except UnicodeDecodeError:
        return ""
    is_name = 0 < len(text) <= _LONGEST_PATH and text.isprintable() and text[0] not in "{["
    return "; is the @ missing in --data-binary @FILE?" if is_name else ""


def problem_body(
    status: int, detail: str, request_id: str | None = None, members: Mapping[str, Any] | None = None
) -> bytes:
    """A problem as JSON."""
    named = {} if request_id is None else {"request_id": request_id}
    title = HTTPStatus(status).phrase
    values = {"type": "about:blank", "title": title, "status": status, "detail": detail, **named}
    return json.dumps({**values, **(members or {})}, ensure_ascii=False).encode(errors="backslashreplace")


def problem_response(
    scope: Scope,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """The answer that says a problem, in the form that the protocol of the request's address has for it.

    The line of the request's log says it too.
    """
    scope.setdefault("state", {}).setdefault("log", {})["error"] = detail
    if scope["path"].startswith(OPEN_INFERENCE):
        return Response(json.dumps({"error": detail}), status, headers, "application/json")
    body = problem_body(status, detail, scope["state"].get("request_id"), members)
    return Response(body, status, headers, PROBLEM)
