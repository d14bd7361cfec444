"""Reports the partitions whose records cannot be read, each with its reason and with what to do."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.observability.events import Event, about
from worker.observability.health import Health
from worker.observability.metrics import Metrics

log = logging.getLogger(__name__)

RIGHT_TO_READ: Final = "grant the worker's user READ on it, as deploy/kafka/acls.sh does"
# While publishers commit, the last stable offset moves. A transaction that holds it for longer is forgotten,
# or its publisher is in trouble.
HIDDEN_FOR_SECONDS: Final = 60.0

Reason = tuple[str, dict[str, Any]]
"""the sentence, and the fields of its log line"""


@dataclass(eq=False, slots=True)
class UnreadPartitions:
    """What cannot be read in the partitions of one worker, in health, metrics and log."""

    health: Health
    metrics: Metrics
    _reported: frozenset[TopicPartition] = frozenset()
    # The end that can be read where records are hidden behind it, and since when (monotonic seconds).
    _stable_since: dict[TopicPartition, tuple[int, float]] = field(default_factory=dict)

    def report(self, consumer: RecordConsumer) -> None:
        """Report what cannot be read now, and no longer what can be read again. Sends no request."""
        assigned = consumer.assignment()
        self.metrics.unreadable.clear()
        for partition in assigned:
            self.metrics.unreadable.labels(str(partition.partition)).set(0)
        reasons = {p: self._hidden(consumer, p) for p in assigned}
        reasons |= {p: _leaderless(p) for p in consumer.without_leader(assigned)}
        reasons |= {p: _refused(p, why) for p, why in consumer.refused.items()}
        reasons |= {p: _unreadable(span) for p, span in consumer.unreadable.items()}
        for partition, span in consumer.unreadable.items():
            self.metrics.unreadable.labels(str(partition.partition)).set(span.end - span.first)
        standing = {p: reason for p, reason in reasons.items() if reason}
        for partition in self._reported - standing.keys():
            self.health.is_read(partition)
        self._reported = frozenset(standing)
        for partition, (why, extra) in standing.items():
            if self.health.unread(partition, why):
                log.error("%s-%d: %s", partition.topic, partition.partition, why, extra=extra)

    def _hidden(self, consumer: RecordConsumer, partition: TopicPartition) -> Reason | None:
        """Why records wait that an open transaction hides; None: they do not, or not for long yet."""
        high, stable = consumer.highwater(partition), consumer.last_stable_offset(partition)
        hidden = 0 if high is None or stable is None else max(0, high - stable)
        self.metrics.hidden.labels(str(partition.partition)).set(hidden)
        position = consumer.accepted_position(partition)
        if not hidden or position is None or position < (stable or 0):
            self._stable_since.pop(partition, None)
            return None
        now = time.monotonic()
        before, since = self._stable_since.get(partition, (None, now))
        self._stable_since[partition] = stable or 0, since if before == stable else now
        if before != stable or now - since < HIDDEN_FOR_SECONDS:
            return None
        why = (
            f"a transaction of a publisher is open from offset {stable} on: the records behind it wait until"
            " that publisher ends it, or `kafka-transactions.sh abort` does"
        )
        return why, about(Event.TROUBLE, partition, offset=stable)


def _leaderless(partition: TopicPartition) -> Reason:
    why = "no broker leads it: start one of those that hold its copies"
    return why, about(Event.PARTITION_REFUSED, partition)


def _refused(partition: TopicPartition, error: str) -> Reason:
    right = f": {RIGHT_TO_READ}" if error == TopicAuthorizationFailedError.__name__ else ""
    return f"Kafka refuses to serve it: {error}{right}", about(Event.PARTITION_REFUSED, partition)


def _unreadable(span: UnreadableSpan) -> Reason:
    name = f"{span.partition.topic}-{span.partition.partition}"
    place = f"{span.partition.topic}:{span.partition.partition}:{span.first}"
    why = (
        f"offsets {span.first} to {span.end - 1} of {name} cannot be unpacked ({span.why}): orders behind"
        f" them wait; to skip them: `order-worker skip {place} --by … --note …`"
    )
    return why, about(Event.RECORDS_UNREADABLE, span.partition, offset=span.first, end=span.end)
