"""What the requests of a worker share."""

from __future__ import annotations

from dataclasses import dataclass

from crnn_deploy.runtime.queue import ReadQueue
from crnn_deploy.serving.bodies import Inflow
from crnn_deploy.serving.metrics import Metrics
from crnn_deploy.serving.models import Models
from crnn_deploy.serving.settings import ServerSettings

__all__ = ["ServerState"]


@dataclass
class ServerState:
    """A worker's models, queue and metrics."""

    settings: ServerSettings
    models: Models
    queue: ReadQueue
    inflow: Inflow
    metrics: Metrics
