"""Rewinds failed partitions after a pause that grows with each failure; health, metrics and log say why."""

import asyncio
import gc
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ProducerFenced

from worker.error_texts import describe
from worker.failures import LockedRowsError, WaitsForOperatorError, backoff_seconds, is_outage
from worker.kafka.limits.refusals import AdaptedError, RefusedByKafkaError
from worker.kafka.records import names
from worker.observability.events import Event, about, places
from worker.observability.health import Health
from worker.observability.metrics import Cause, Metrics, Server
from worker.pipeline.input import Input
from worker.pipeline.partition import Partitions

log = logging.getLogger(__name__)

# What Kafka refused and is sent differently next needs no pause. Halving a batch down to a single record
# takes ten attempts.
ADAPTED_AT_ONCE: Final = 20
# About what it takes to make dead letters of 50 orders that PostgreSQL refuses.
LATER_SECONDS: Final = 1.0
# Short: a product that a shop locks again and again may be free for moments only, and checking takes some
# milliseconds.
LOCKED_SECONDS: Final = 0.5

Offsets = Mapping[TopicPartition, int | None]
"""the offset to read again from, by partition; None: not known yet, the take-over finds it out"""


class DatabaseReplacedError(Exception):
    """PostgreSQL does not hold what this worker wrote last: it was restored from a backup, is a standby, or
    the reply to that write was lost. Taking the partitions over again finds out which."""


class Pauses:
    """Pauses partitions of the running consumer, and resumes each when its pause is over.

    One timer for all. A partition that is revoked and assigned again is not paused any more.
    """

    def __init__(
        self, consumer: Callable[[], AIOKafkaConsumer | None], now: Callable[[], float] | None = None
    ) -> None:
        """`now`: seconds of the event loop's clock, which is asked by default."""
        self._consumer = consumer
        self._now = now
        self._until: dict[TopicPartition, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def pause(self, partitions: Collection[TopicPartition], seconds: float) -> None:
        """Fetch nothing of these for at least so long: a longer pause that already runs is not cut short."""
        until = self._clock() + seconds
        consumer = self._consumer()
        if consumer is None:
            return
        for partition in partitions:
            if partition in consumer.assignment():
                consumer.pause(partition)
                self._until[partition] = max(until, self._until.get(partition, until))
        self._set_timer()

    def is_paused(self, partition: TopicPartition) -> bool:
        return partition in self._until

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """They are revoked; if they are assigned again, they start without a pause."""
        for partition in partitions:
            self._until.pop(partition, None)

    def resume_due(self) -> None:
        """Resume the partitions whose pause is over."""
        # SQLAlchemy's errors are cycles that hold a whole failed batch, and the collector runs rarely.
        gc.collect()
        now, consumer = self._clock(), self._consumer()
        due = [p for p, until in self._until.items() if until <= now]
        self.forget(due)
        if consumer is not None:
            consumer.resume(*(p for p in due if p in consumer.assignment()))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        first = min(self._until.values(), default=None)
        # The event loop may run a timer a moment early.
        self._timer = (
            None if first is None else loop.call_later(max(0.001, first - self._clock()), self.resume_due)
        )

    def _clock(self) -> float:
        return asyncio.get_running_loop().time() if self._now is None else self._now()


@dataclass(eq=False, kw_only=True, slots=True)
class Retries:
    """Rewinds partitions of one worker."""

    source: Input
    partitions: Partitions
    pauses: Pauses
    health: Health
    metrics: Metrics
    max_seconds: float
    database_failures: int = 0
    """in a row, of the database transaction that all partitions share"""

    def rewind(
        self, firsts: Offsets, error: BaseException, server: Server, *, of_all: bool | None = None
    ) -> None:
        """Rewind: read these partitions again from the given offsets, after a pause.

        `of_all`: the others pause too. By default they do if PostgreSQL failed, which all of them share.
        """
        if isinstance(error, asyncio.CancelledError):
            raise error
        if self.source.consumer is None:
            return  # stopping: the next owner of the partition reads again what is not committed
        self.read_again(firsts)
        of_all = server == "database" if of_all is None else of_all
        if of_all:
            attempt, waiting = self.database_failures, self.source.assignment()
            self.database_failures += 1
        else:
            attempt, waiting = self.partitions.failed(firsts), set(firsts)
        if isinstance(error, AdaptedError):
            attempt = max(0, attempt - ADAPTED_AT_ONCE)
        is_locked = isinstance(error, LockedRowsError)
        longest_seconds = min(LOCKED_SECONDS, self.max_seconds) if is_locked else self.max_seconds
        self.pauses.pause(waiting, backoff_seconds(attempt, longest_seconds))
        self.metrics.retries.labels(server).inc()
        self.metrics.retry_causes.labels(cause_of(error)).inc()
        self._report(firsts, error, server, of_all=of_all)

    def leave_for_later(self, partition: TopicPartition, offset: int) -> None:
        """Read it again from that offset after a pause, in which the others are decided. Nothing failed."""
        self.read_again({partition: offset})
        self.pauses.pause([partition], LATER_SECONDS)

    def read_from(self, partition: TopicPartition, offset: int) -> None:
        """Seek to that offset. Later records that were polled before, and not handled yet, are read again."""
        if self.source.seek(partition, offset):
            self.partitions[partition].rewound_to = offset

    def read_again(self, firsts: Offsets) -> None:
        """Read these records, which were not handled, again. For records that failed: `rewind`."""
        for partition, first in firsts.items():
            one = self.partitions[partition]
            if first is None:
                one.lacks_records = True
            else:
                self.read_from(partition, one.rewind(first))

    def _report(self, firsts: Offsets, error: BaseException, server: Server, *, of_all: bool) -> None:
        if isinstance(error, WaitsForOperatorError | LockedRowsError):
            new = [self.health.waits(p, str(error)) for p in firsts]
            if any(new):
                extra = about(Event.PARTITIONS_WAIT, partitions=places(firsts), error=type(error).__name__)
                level = logging.ERROR if isinstance(error, WaitsForOperatorError) else logging.WARNING
                log.log(level, "%s wait: %s", names(firsts), error, extra=extra)
            self.health.tried(alive=True)
            return
        if isinstance(error, AdaptedError):
            extra = about(Event.BATCH_ADAPTED, partitions=places(firsts))
            log.warning("%s; %s will be tried again at once", error, names(firsts), extra=extra)
            self.health.tried(alive=True)
            return
        why = f"{server}: {describe(error)}"
        fields = {"partitions": places(firsts), "server": server, "error": type(error).__name__}
        if isinstance(error, ProducerFenced):
            # As `record_pending` sees it, a lost reply to the last write looks the same.
            log.warning(
                "fenced: another worker has taken over some of %s, or a reply was lost; taking over again",
                names(firsts),
                extra=about(Event.FENCED, **fields),
            )
        elif is_outage(error) or isinstance(error, DatabaseReplacedError):
            extra = about(Event.BATCH_REWOUND, **fields)
            log.warning("%s; %s will be tried again", why, names(firsts), extra=extra)
        else:
            extra = about(Event.UNFORESEEN, **fields)
            log.error("unforeseen error; %s will be tried again", names(firsts), exc_info=error, extra=extra)
        if of_all:
            self.health.all_wait(why, alive=is_outage(error))
            return
        for partition in firsts:
            self.health.waits(partition, f"rewound: {why}")
        self.health.tried(alive=is_outage(error))


def cause_of(error: BaseException) -> Cause:
    """As the metrics name it."""
    if isinstance(error, AdaptedError):
        return "refused"
    if isinstance(error, WaitsForOperatorError | RefusedByKafkaError):
        return "operator"
    if isinstance(error, DatabaseReplacedError):
        return "database_replaced"
    if isinstance(error, ProducerFenced):
        return "fenced"
    return "outage" if is_outage(error) else "unforeseen"
