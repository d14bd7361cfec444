"""The members of a line of the log with `LOG_FORMAT=json`, as docs/json/log-line.json describes them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from worker.observability.events import Event


@dataclass
class Place:
    topic: str
    partition: int
    offset: int = -1
    """where it is known"""


@dataclass
class LogLine:
    """The fields of a line; those without a default are in every line."""

    time: datetime
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    event: Event
    logger: str
    process: int
    message: str
    topic: str = ""
    partition: int = -1
    offset: int = -1
    end: int = -1
    order_id: UUID | None = None
    partitions: list[Place] = field(default_factory=list)
    server: Literal["kafka", "database", "worker"] = "kafka"
    broker: str = ""
    count: int = 0
    seconds: float = 0.0
    worker: int = 0
    exit_code: int = 0
    url: str = ""
    error: str = ""
    """the type of the error"""
    traceback: str = ""
