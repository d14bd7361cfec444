"""The named steps of a batch, so that a test can stop or kill the worker exactly there."""

from collections.abc import Callable
from enum import StrEnum


class Step(StrEnum):
    """A point between two effects: the first has happened, the second has not begun."""

    TAKEOVER_FENCED = "takeover_fenced"  # the partition is leased, its offset not yet read
    BEFORE_DATABASE_COMMIT = "before_database_commit"
    AFTER_DATABASE_COMMIT = "after_database_commit"
    AFTER_SEND = "after_send"  # one more batch of a topic's outcomes is handed to the producer
    AFTER_SENDS = "after_sends"  # every outcome is acknowledged inside the open Kafka transaction
    BEFORE_KAFKA_COMMIT = "before_kafka_commit"  # the offset is part of it too
    AFTER_KAFKA_COMMIT = "after_kafka_commit"


Reached = Callable[[Step], None]


def nothing_happens(_step: Step) -> None:
    """Does nothing: what a worker does at a step unless a test passes something else."""
