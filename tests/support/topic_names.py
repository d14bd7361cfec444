"""A test's own topics."""

from dataclasses import dataclass

PARTITIONS = 4


@dataclass(frozen=True)
class TopicNames:
    """Names that nobody else uses."""

    order_placed: str
    order_confirmed: str
    order_rejected: str
    dead_letter: str
