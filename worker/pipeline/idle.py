"""What has to be done for a partition that gets no records; `worker.pipeline.watch` finds out when.

Each method waits until no batch is in flight, and checks the partition's state again after every await.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka import TopicPartition

from db.worker import positions
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.offset_mark import idle_mark
from worker.kafka.producing.lease import Leases
from worker.observability.events import Event, about
from worker.observability.health import Health
from worker.pipeline.consumer import TAKEN_OVER_AT_ONCE, OrderConsumer
from worker.pipeline.flow import Flow
from worker.pipeline.input import Input
from worker.pipeline.owner import Owner
from worker.pipeline.partition import Ownership, Partitions
from worker.pipeline.publisher import Outgoing, Publisher
from worker.pipeline.retries import Pauses, Retries

log = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True, slots=True)
class IdlePartitions:
    """Takes over, and commits for, partitions that get no records."""

    group: ConsumerGroup
    orders: OrderConsumer
    flow: Flow
    source: Input
    partitions: Partitions
    pauses: Pauses
    owner: Owner
    leases: Leases
    publisher: Publisher
    retries: Retries
    health: Health

    def lacking_records(self) -> set[TopicPartition]:
        """Partitions that no record will make this worker take over again."""
        return {p for p in self.partitions.lacking_records() if not self.pauses.is_paused(p)}

    async def take_over(self, partitions: Iterable[TopicPartition]) -> None:
        """Own partitions that get no records: their offset may lie outside of the log."""
        async with self.orders.between_batches():
            mine = self.source.assignment_to_own()
            due = [p for p in partitions if p in mine and not self.pauses.is_paused(p)]
            self.owner.drop(due)
            await self.owner.take_over(dict.fromkeys(due[:TAKEN_OVER_AT_ONCE]))

    async def recover_lost_commit(
        self, partition: TopicPartition, published_to: int, committed: int | None
    ) -> None:
        """Take an idle partition over again if Kafka reports a lower offset than it has acknowledged.

        If orders arrive, the next commit repairs the offset, or fails and so reveals the loss. If none
        arrive, outcomes that Kafka has undone would stay unpublished.
        """
        async with self.orders.between_batches():
            owned = self.partitions[partition].ownership
            if owned is None or owned.published_to != published_to:
                return  # it moved on while Kafka was asked
            log.warning(
                "Kafka says %s of %s-%d, and all before %d was published: taking it over again",
                *(committed, partition.topic, partition.partition, published_to),
                extra=about(Event.COMMIT_UNDONE, partition, offset=published_to),
            )
            self.owner.drop([partition])
            await self.owner.take_over({partition: None})

    async def commit_beginning(self, partition: TopicPartition) -> int | None:
        """Commit the first offset of a partition without a commit, so that a later deletion can be noticed.

        Returns what was committed.
        """
        async with self.orders.between_batches():
            of = self.group
            async with of.sessions() as session:
                pending = await positions.list_pending_to(session, of.id, of.topic)
                others = await positions.list_other_groups(session, of.id, of.topic)
            is_decided = pending.get(partition.partition) is not None or partition.partition in others
            if is_decided or self.partitions[partition].ownership:
                return None
            if (await self.leases.committed_offsets([partition]))[partition] is not None:
                return None  # PostgreSQL has no row of it: it was restored from a backup
            consumer, position = self.source.consumer, self._position(partition)
            if consumer is None or position is None:
                return None
            await consumer.commit({partition: (position, idle_mark(None))})
            return position

    async def commit_past_markers(self, partition: TopicPartition) -> bool:
        """Commit the offset after transaction markers, if no record before it is undecided; True: done."""
        async with self.orders.between_batches():
            position = self._position(partition)
            owned = await self._owned(partition, position)
            position = self._position(partition)
            if owned is None or position is None or (owned.published_to or 0) >= position:
                return False
            return await self._commit(owned, position)

    async def continue_after_skipped(self, partition: TopicPartition, first: int, offset: int) -> bool:
        """Skip from `first`, where the partition waits, to `offset`, as an operator asked; True: done."""
        async with self.orders.between_batches():
            owned = await self._owned(partition, first if self._position(partition) == first else None)
            if owned is None or self._position(partition) != first:
                return False
            if owned.published_to is not None and owned.published_to > first:
                # The offset is committed past this place already; the partition was rewound after that.
                self.source.seek(partition, owned.published_to)
                return False
            if owned.published_to not in (None, first) or not await self._commit(owned, offset):
                return False
            self.source.seek(partition, offset)
            return True

    async def _owned(self, partition: TopicPartition, position: int | None) -> Ownership | None:
        """The partition's ownership; takes it over first if this worker does not own it."""
        if position is not None and self.partitions[partition].ownership is None:
            await self.owner.take_over({partition: position})
        return self.partitions[partition].ownership

    def _position(self, partition: TopicPartition) -> int | None:
        """The offset below which everything that has to be decided is published; None: not known now.

        Records that are polled during an await move the consumer's position, and may still be dropped and
        read again.
        """
        consumer = self.source.consumer
        mine = self.source.assignment_to_own()
        if consumer is None or partition not in mine or self.pauses.is_paused(partition):
            return None
        return None if partition in self.flow.in_hand() else consumer.accepted_position(partition)

    async def _commit(self, owned: Ownership, offset: int) -> bool:
        partition = owned.lease.partition
        try:
            await self.publisher.publish([Outgoing(owned.lease, [], offset, idle_mark(owned.pending_to))])
        except Exception as error:
            self.owner.drop_broken()
            self.retries.rewind({partition: None}, error, "kafka")
            return False
        self.partitions[partition].skipped(offset)
        self.health.resumed(partition)
        return True
