"""The events of the log: stable names of what a line is about, and the fields that go with them.

A call names both: `extra=about(Event.RECORDS_SKIPPED, partition, offset=first, end=end)`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from aiokafka import TopicPartition


class Event(StrEnum):
    """A name never changes its meaning; if it is removed, the changelog says so."""

    WORKER_LISTENS = "worker_listens"  # HTTP is served at `url`
    WORKER_REMARKS = "worker_remarks"  # of the set-up: what will hurt before it does
    WORKER_STOPS = "worker_stops"  # asked to: the batch in hand is finished first
    WORKER_STOPPED = "worker_stopped"
    WORKER_FAILS = "worker_fails"  # it ends with `exit_code`, and the message says why
    PROCESS_STARTED = "process_started"  # by the supervisor: `worker` is its number
    PROCESS_ENDED = "process_ended"  # `worker`, `exit_code`; again in `seconds`
    SERVER_REFUSES = "server_refuses"  # `server` takes our credentials for wrong
    CLOCK_DIFFERS = "clock_differs"  # from that of `server`, by `seconds`; positive: ours is ahead
    MEMBER_REPLACED = "member_replaced"  # this worker takes the place of one that was killed
    PARTITIONS_ASSIGNED = "partitions_assigned"
    PARTITION_TAKEN_OVER = "partition_taken_over"  # continues at `offset`
    PARTITIONS_WAIT = "partitions_wait"  # until what the message names is repaired or unlocked
    LEASES_NOT_RELEASED = "leases_not_released"
    BATCH_REWOUND = "batch_set_back"  # read again from `partitions` after a pause; `server`
    BATCH_ADAPTED = "batch_adapted"  # Kafka refused it, and is sent something else at once
    FENCED = "fenced"  # another worker has taken over some of `partitions`
    UNFORESEEN = "unforeseen"  # a fault of the worker, with `traceback`; what it concerns is tried again
    COMMIT_UNDONE = "commit_undone"  # Kafka says less of a partition than it has acknowledged
    OFFSET_NOT_BELIEVED = "offset_not_believed"  # of a client that is no worker; continues at `offset`
    LOG_REPLACED = "log_replaced"  # the partition was cut or recreated; continues at `offset`
    RECORDS_DELETED = "records_deleted"  # `offset` to before `end`, before anybody decided them
    RECORDS_SKIPPED = "records_skipped"  # `offset` to before `end`, as an operator asked
    RECORDS_UNREADABLE = "records_unreadable"  # `offset` to before `end`: no client unpacks them
    PARTITION_REFUSED = "partition_refused"  # Kafka does not serve it
    POSITION_RESTORED = "position_restored"  # reads again from `offset`
    OUTCOME_WITHHELD = "outcome_withheld"  # its topic refuses it; the orders after it are processed
    OUTCOMES_STAY_WITHHELD = "outcomes_stay_withheld"
    OUTCOMES_PUBLISHED_LATE = "outcomes_published_late"  # `count` that were withheld
    SESSION_ENDED = "session_ended"  # of a worker that was frozen in the middle of a COPY
    DATABASE_BEHIND = "database_behind"  # PostgreSQL is that of a backup
    BROKERS_MOVED = "brokers_moved"  # none is at an address that was known
    TROUBLE = "trouble"  # the topic is gone, or files run short
    LOOK_FAILED = "look_failed"  # something that is looked at every few seconds gave no answer
    PAGE_FAILED = "page_failed"  # a part of the operator's page
    LOG_LINES_DROPPED = "log_lines_dropped"  # `count`: standard error did not take them
    KAFKA_CLIENT = "kafka_client"  # what aiokafka says, in our words where it is usual
    LIBRARY = "library"  # what any other library says


RATE_LIMITED = frozenset({Event.LOOK_FAILED, Event.KAFKA_CLIENT, Event.LIBRARY})
"""Logged once in a while, because they are repeated many times a second."""


def about(event: Event, place: TopicPartition | None = None, **fields: Any) -> dict[str, Any]:
    """The `extra` of a line. `place` gives topic and partition; docs/json/log-line.json has all fields."""
    if place is not None:
        fields = {"topic": place.topic, "partition": place.partition, **fields}
    return {"event": event, "fields": {name: value for name, value in fields.items() if value is not None}}


def places(offsets: Mapping[TopicPartition, int | None]) -> list[dict[str, Any]]:
    """The field `partitions`: several partitions, each with its offset if that is known."""
    return [
        {"topic": p.topic, "partition": p.partition, **({} if offset is None else {"offset": offset})}
        for p, offset in offsets.items()
    ]
