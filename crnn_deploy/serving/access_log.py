from __future__ import annotations

import uuid
from typing import Any

__all__ = ["AccessLog"]


class AccessLog:
    def __init__(self, app: Any, metrics: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["request_id"] = uuid.uuid4().hex
        await self.app(scope, receive, send)
