"""Repairs what `worker.pipeline.watch` has found, in its own task, which may wait for the batch in flight."""

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
from worker.error_texts import describe
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.offset_mark import idle_mark, is_unmarked
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
# A part of the time that a supervisor gives a worker to stop.
LOOK_BACK_SECONDS: Final = 2.0


@dataclass(eq=False, kw_only=True, slots=True)
class Maintenance:
    """Does for one worker's partitions what no incoming record would trigger."""

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
        """Repair what the watch has found, until cancelled. What fails is found again by the next check.

        Raises FetchStoppedError if this process gets no records any more and has to be restarted.
        """
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            consumer = self.source.consumer
            if consumer is None:
                continue
            consumer.require_fetching()
            try:
                await self._repair(consumer)
            except Exception as error:
                if is_refusal(error):
                    log.info("looking after the group: %s", describe(error), extra=about(Event.LOOK_FAILED))
                else:
                    extra = about(Event.UNFORESEEN, error=type(error).__name__)
                    log.exception("unforeseen error while looking after the group", extra=extra)

    async def _repair(self, consumer: RecordConsumer) -> None:
        for partition, published_to in self.watch.seen.lost.items():
            committed = self.watch.seen.commits[partition]
            await self.idle.recover_lost_commit(
                partition, published_to, None if committed is None else committed.offset
            )
        await self._skip_as_asked(consumer)
        moved = self._moved_by_others(consumer)
        if outside := {*consumer.out_of_range, *self.idle.lacking_records(), *moved}:
            await self.idle.take_over(outside)
        await self._commit_past_markers(consumer)
        await self._look_at_database()
        await self._end_silent_workers()

    def _moved_by_others(self, consumer: RecordConsumer) -> set[TopicPartition]:
        """Partitions where another client has committed. If it was past all orders, no record would arrive
        that makes this worker take the partition over."""
        return {
            partition
            for partition in consumer.assignment() - self.flow.in_hand()
            if (commit := self.watch.seen.commits.get(partition)) is not None
            and is_unmarked(commit.metadata)
            and self.partitions[partition].ownership is None
        }

    async def _end_silent_workers(self) -> None:
        """End the session of a worker that froze in a statement, if a batch waits for its locks."""
        now = time.monotonic()
        if not self.health.troubles() or now - self._looked_for_silent_at < DATABASE_INTERVAL_SECONDS:
            return
        self._looked_for_silent_at = now
        async with self.group.sessions() as session:
            for pid in await silent_sessions.end_silent_sessions(session, self.batch_timeout_seconds):
                log.warning(
                    "ended session %d of a worker that was frozen in a statement for %g s or more",
                    *(pid, self.batch_timeout_seconds),
                    extra=about(Event.SESSION_ENDED, server="database", seconds=self.batch_timeout_seconds),
                )

    async def _skip_as_asked(self, consumer: RecordConsumer) -> None:
        """Continue after offsets that cannot be read and that an operator has decided to skip."""
        heads = {p: span.first for p, span in consumer.unreadable.items()}
        heads |= {p: at for p in consumer.refused if (at := consumer.accepted_position(p)) is not None}
        if not heads:
            return
        async with self.group.sessions() as session:
            given_up = [s for s in await skips.list_skips(session, self.group.topic) if s.kind == "skipped"]
        for partition, first in heads.items():
            skip = next((s for s in given_up if _covers(s, partition, first)), None)
            if skip and await self.idle.continue_after_skipped(partition, first, skip.to_offset):
                skipped = self.metrics.skipped_offsets.labels(str(partition.partition))
                skipped.inc(skip.to_offset - first)
                log.warning(
                    "skipped offsets %d to %d of %s-%d, as %s asked: %s",
                    *(first, skip.to_offset - 1, partition.topic, partition.partition),
                    *(skip.requested_by, skip.note),
                    extra=about(Event.RECORDS_SKIPPED, partition, offset=first, end=skip.to_offset),
                )
        self.watch.unread.report(consumer)

    async def _commit_past_markers(self, consumer: RecordConsumer) -> None:
        """Commit the log's end if only transaction markers are left: other tools would report them as lag."""
        # Once, and not for each: it takes time in proportion to them. Each commit looks again.
        published_to = self.partitions.published_to()
        for partition in consumer.assignment() - self.flow.in_hand():
            position = consumer.accepted_position(partition)
            commit = self.watch.seen.commits.get(partition)
            published = published_to.get(partition, commit.offset if commit else None)
            if position is None or partition not in self.watch.seen.commits:
                continue
            if published is None:
                begins = await self.idle.commit_beginning(partition)
                if begins is not None:
                    self.watch.seen.commits[partition] = OffsetAndMetadata(begins, idle_mark(None))
            elif published < position:
                await self.idle.commit_past_markers(partition)

    async def _look_at_database(self) -> None:
        """Check that PostgreSQL was not restored from a backup, also while no orders arrive."""
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
        """Before leaving the group, commit past offsets with nothing to decide. A failure is harmless."""
        consumer = self.source.consumer
        with suppress(Exception):
            async with asyncio.timeout(LOOK_BACK_SECONDS):
                await self.watch.look()
                if consumer is not None:
                    await self._commit_past_markers(consumer)


def _covers(skip: SkippedSpan, partition: TopicPartition, offset: int) -> bool:
    return skip.partition == partition.partition and skip.from_offset <= offset < skip.to_offset
