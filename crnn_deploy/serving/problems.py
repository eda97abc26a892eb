"""What a server answers where it cannot do what it was asked: problem details (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from crnn_deploy.errors import CrnnDeployError

__all__ = ["PROBLEM", "Problem", "problem_body"]

PROBLEM = "application/problem+json"  # media type


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


def problem_body(
    status: int, detail: str, request_id: str | None = None, members: Mapping[str, Any] | None = None
) -> bytes:
    """A problem as JSON."""
    named = {} if request_id is None else {"request_id": request_id}
    title = HTTPStatus(status).phrase
    values = {"type": "about:blank", "title": title, "status": status, "detail": detail, **named}
    return json.dumps({**values, **(members or {})}, ensure_ascii=False).encode(errors="backslashreplace")
