"""Mends what the looks at the group have found, in a task of its own: it may wait for the batch in hand."""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from db.worker import positions, silent_sessions, skips
from db.worker.skips import SkippedSpan
from worker.failures import describe
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.offset_mark import idle_mark, may_be_a_strangers
from worker.observability.events import Event, about
from worker.observability.health import Health, is_refusal
from worker.observability.metrics import Metrics
from worker.pipeline.flow import Flow
from worker.pipeline.idle import IdlePartitions
from worker.pipeline.input import Input
from worker.pipeline.partition import Partitions
from worker.pipeline.resume import database_lost
from worker.pipeline.watch import Watch

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 0.5
# Asked less often: whether PostgreSQL still knows all that was committed, and whether a worker is frozen.
DATABASE_INTERVAL_SECONDS: Final = 10.0
# Of the time that a supervisor gives a worker to stop.
LOOK_BACK_SECONDS: Final = 2.0


@dataclass(eq=False, kw_only=True, slots=True)
class Mender:
    """Does for one worker's partitions what no record would bring about."""

    group: ConsumerGroup
    watch: Watch
    source: Input
    partitions: Partitions
    flow: Flow
    idle: IdlePartitions
    health: Health
    metrics: Metrics
    batch_timeout_seconds: float
    _asked_database_at: float = float("-inf")  # monotonic seconds
    _looked_for_silent_at: float = float("-inf")  # monotonic seconds

    async def run(self) -> None:
        """Until cancelled: mend what the looks have found. What fails is found again by the next look.

        Raises FetchStoppedError: this process gets no records any more, and has to be started again.
        """
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            consumer = self.source.consumer
            if consumer is None:
                continue
            consumer.require_fetching()
            try:
                await self._mend(consumer)
            except Exception as error:
                if is_refusal(error):
                    log.info("looking after the group: %s", describe(error), extra=about(Event.LOOK_FAILED))
                else:
                    said = about(Event.UNFORESEEN, error=type(error).__name__)
                    log.exception("unforeseen error while looking after the group", extra=said)

    async def _mend(self, consumer: RecordConsumer) -> None:
        for partition, published_to in self.watch.seen.lost.items():
            committed = self.watch.seen.commits[partition]
            await self.idle.recover_lost_commit(
                partition, published_to, None if committed is None else committed.offset
            )
        await self._pass_over_skipped(consumer)
        moved = self._moved_by_others(consumer)
        if outside := {*consumer.out_of_range, *self.idle.lacking_records(), *moved}:
            await self.idle.take_over(outside)
        await self._go_on_behind_markers(consumer)
        await self._look_at_database()
        await self._end_silent_workers()

    def _moved_by_others(self, consumer: RecordConsumer) -> set[TopicPartition]:
        """Where somebody else has committed: perhaps past orders, so that no record makes us take it over."""
        return {
            partition
            for partition in consumer.assignment() - self.flow.in_hand()
            if (commit := self.watch.seen.commits.get(partition)) is not None
            and may_be_a_strangers(commit.metadata)
            and self.partitions[partition].ownership is None
        }

    async def _end_silent_workers(self) -> None:
        """Where a batch waits, it may be for a worker that was frozen in the middle of its own."""
        now = time.monotonic()
        if not self.health.troubles() or now - self._looked_for_silent_at < DATABASE_INTERVAL_SECONDS:
            return
        self._looked_for_silent_at = now
        async with self.group.sessions() as session:
            for pid in await silent_sessions.end_silent_copies(session, self.batch_timeout_seconds):
                log.warning(
                    "ended session %d of a worker that stood still in the middle of a COPY for %g s or more",
                    *(pid, self.batch_timeout_seconds),
                    extra=about(Event.SESSION_ENDED, server="database", seconds=self.batch_timeout_seconds),
                )

    async def _pass_over_skipped(self, consumer: RecordConsumer) -> None:
        """Go on behind what nobody can unpack, or Kafka cannot serve, and an operator has given up."""
        heads = {p: span.first for p, span in consumer.unreadable.items()}
        heads |= {p: at for p in consumer.refused if (at := consumer.settled_position(p)) is not None}
        if not heads:
            return
        async with self.group.sessions() as session:
            given_up = [s for s in await skips.list_skips(session, self.group.topic) if s.kind == "skipped"]
        for partition, first in heads.items():
            skip = next((s for s in given_up if _covers(s, partition, first)), None)
            if skip and await self.idle.go_on_behind_skipped(partition, first, skip.to_offset):
                skipped = self.metrics.skipped_offsets.labels(str(partition.partition))
                skipped.inc(skip.to_offset - first)
                log.warning(
                    "passed over offsets %d to %d of %s-%d, as %s asked: %s",
                    *(first, skip.to_offset - 1, partition.topic, partition.partition),
                    *(skip.requested_by, skip.note),
                    extra=about(Event.RECORDS_SKIPPED, partition, offset=first, end=skip.to_offset),
                )
        self.watch.report_unreadable(consumer)

    async def _go_on_behind_markers(self, consumer: RecordConsumer) -> None:
        """Let the committed offset reach the end where only markers are left: other tools take it for lag."""
        for partition in consumer.assignment() - self.flow.in_hand():
            position = consumer.settled_position(partition)
            commit = self.watch.seen.commits.get(partition)
            published = self.partitions.published_to().get(partition, commit.offset if commit else None)
            if position is None or partition not in self.watch.seen.commits:
                continue
            if published is None:
                begins = await self.idle.commit_beginning(partition)
                if begins is not None:
                    self.watch.seen.commits[partition] = OffsetAndMetadata(begins, idle_mark(None))
            elif published < position:
                await self.idle.go_on_behind_markers(partition)

    async def _look_at_database(self) -> None:
        """PostgreSQL may be that of a backup also where no orders come that would show it."""
        commits, now = self.watch.seen.commits, time.monotonic()
        if not commits or now - self._asked_database_at < DATABASE_INTERVAL_SECONDS:
            return
        self._asked_database_at = now
        async with self.group.sessions() as session:
            pending = await positions.list_pending(session, self.group.id, self.group.topic)
        if lost := database_lost(self.group.topic, commits, pending):
            if self.health.failed("ledger", lost):
                log.error("%s", lost, extra=about(Event.DATABASE_BEHIND, server="database"))
        else:
            self.health.answered("ledger")

    async def look_back(self) -> None:
        """Before the group is left: commit behind what holds nothing to decide. What fails costs nothing."""
        consumer = self.source.consumer
        with suppress(Exception):
            async with asyncio.timeout(LOOK_BACK_SECONDS):
                await self.watch.look()
                if consumer is not None:
                    await self._go_on_behind_markers(consumer)


def _covers(skip: SkippedSpan, partition: TopicPartition, offset: int) -> bool:
    return skip.partition == partition.partition and skip.from_offset <= offset < skip.to_offset
