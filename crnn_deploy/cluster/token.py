"""Whether a Ray cluster asks for a token.

A driver that has one connects without a word to a cluster that asks for none, so the cluster is asked first.
Ray reads its settings once, when it is imported, so a process of its own asks.
"""

from __future__ import annotations

import os
import subprocess
import sys

from crnn_deploy.errors import CrnnDeployError

__all__ = ["ClusterOpen", "ClusterUnreachable", "TokenRefused", "check_token"]

_ASKING = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1])
except AuthenticationError:
    print("refused")
except Exception as error:
    print(f"unreachable {error}".splitlines()[0])
else:
    print("answered")
"""
_SETTINGS = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_gcs_rpc_server_connect_timeout_s": "5",
    "RAY_gcs_server_request_timeout_seconds": "5",
}
_PATIENCE = 60.0  # seconds


class ClusterOpen(CrnnDeployError, PermissionError):
    """A Ray cluster that asks for no token."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"the Ray cluster at {address} asks for no token, so anyone who reaches its ports can run code "
            "on it; start all of its nodes with RAY_AUTH_MODE=token (docs/cluster.md), or use it as it is "
            "with --without-token if nobody else reaches its network"
        )


class TokenRefused(CrnnDeployError, PermissionError):
    """A Ray cluster that asks for another token."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"the Ray cluster at {address} refused the token of this command, or the command has none; set "
            "RAY_AUTH_TOKEN to the cluster's token, or RAY_AUTH_TOKEN_PATH to the file that holds it"
        )


class ClusterUnreachable(CrnnDeployError, ConnectionError):
    """No Ray cluster that answers."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"no Ray cluster answers at {address}: {reason}; start one (ray start --head), give another "
            "--address, or leave --address out to use this machine alone"
        )


def check_token(address: str) -> None:
    """Refuse a cluster that asks for no token, or for another one than this process has.

    address: HOST:PORT. Raises ClusterOpen, TokenRefused, ClusterUnreachable.
    """
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    answer = _ask(address, {**without, "RAY_AUTH_MODE": "disabled"})
    if answer == "answered":
        raise ClusterOpen(address)
    if answer == "refused":
        answer = _ask(address, {**os.environ, "RAY_AUTH_MODE": "token"})
    if answer == "refused":
        raise TokenRefused(address)
    if answer != "answered":
        raise ClusterUnreachable(address, answer.removeprefix("unreachable ") or "it does not answer")


def _ask(address: str, environment: dict[str, str]) -> str:
    try:
        run = subprocess.run(
            [sys.executable, "-c", _ASKING, address],
            env={**environment, **_SETTINGS},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return run.stdout.strip()
