"""Leases of partitions: only the holder of a partition's lease can publish for it.

All leases of a process belong to its one transactional producer, so that a batch is one transaction whatever
the number of its partitions. PostgreSQL names the producer of each lease (`db.worker.leases`). A released
lease is simply taken. Otherwise the producer that the row names is fenced first: Kafka aborts that producer's
open transaction, and refuses what it still sends. aiokafka lacks KIP-447, which would fence by the group's
generation (docs/decisions/0002-leases.md).
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import uuid4

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from db.worker import leases as lease_rows
from db.worker.leases import Epoch, Holder
from db.worker.positions import PendingBatch
from worker.core.steps import Reached, Step, nothing_happens
from worker.error_texts import describe
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.ends import end_offsets
from worker.kafka.leaders import leaderless
from worker.kafka.producing.lease_producers import LeaseProducer, LeaseProducers, LeastInSync, not_known
from worker.kafka.producing.producers import place_in
from worker.observability.events import Event, about

log = logging.getLogger(__name__)

# How often others may take a partition while we do; then it is tried again after a pause.
_TRIES: Final = 3
# A rebalance waits for a release. One that takes longer is given up: the next owner fences this producer.
_RELEASE_SECONDS: Final = 5.0


class LeaseTakenError(KafkaError):  # type: ignore[misc]
    """Another worker took the lease first, at each attempt."""


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """The right to publish and commit for one partition, until another worker takes it or `producer` breaks.

    `epoch`: of the partition's row in `positions`. `places`: by topic, the partition to publish to. `ends`:
    by such a partition, its end when the lease was taken, or after our last record; what we publish next
    comes after it. Where no broker led such a partition, it is missing, and nothing can be published there.
    Only the publisher changes `ends`.
    """

    partition: TopicPartition
    epoch: int
    producer: LeaseProducer
    places: Mapping[str, TopicPartition]
    ends: dict[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Taken:
    """A lease that was just taken.

    `pending`: the last batch of previous owners in PostgreSQL. `is_released`: the previous owner released it,
    or is this process. `is_published`: it released it, and so had published everything it had begun.
    """

    lease: Lease
    pending: PendingBatch | None
    is_released: bool
    is_published: bool


class _Row(NamedTuple):
    """The row of a partition whose lease was just taken."""

    epoch: Epoch
    before: Holder


class Leases:
    """Takes and releases leases of one group's partitions, for one process."""

    def __init__(
        self,
        group: ConsumerGroup,
        *,
        client_options: dict[str, Any],
        topics: Sequence[str],
        transaction_timeout_ms: int,
        least_in_sync: LeastInSync = not_known,
        reached: Reached = nothing_happens,
    ) -> None:
        """`topics`: those that are published to."""
        self.client_options = client_options
        self.producers = LeaseProducers(
            f"{group.id}.{group.topic}.{uuid4()}",
            client_options=client_options,
            topics=topics,
            transaction_timeout_ms=transaction_timeout_ms,
            least_in_sync=least_in_sync,
        )
        self._group = group
        self._topics = topics
        self._reached = reached

    async def take(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Taken | Exception]:
        """The lease of each partition, or the error that prevented it. Previous owners can publish no more.

        Call it only while this process publishes nothing. Raises KafkaError, OSError, TimeoutError or what
        PostgreSQL raises; then no lease is held.
        """
        async with asyncio.timeout(self.producers.timeout_seconds):
            producer = await self.producers.own()
            rows: dict[TopicPartition, _Row | Exception] = {}
            left = sorted(partitions)
            for _ in range(_TRIES):
                rows |= await self._take_rows(producer, left)
                left = [p for p in left if isinstance(rows[p], LeaseTakenError)]
                if not left:
                    break
            self._reached(Step.TAKEOVER_FENCED)
            return await self._taken(producer, rows)

    async def release(self, leases: Iterable[Lease]) -> None:
        """Release these, so that their next owners need not fence this process. Raises nothing.

        Call it only while nothing is being published, for partitions of which all that was begun is: the next
        owner relies on it where retention has deleted what would show it. If it fails, the next owner fences
        this process's producer, and this process takes all its leases again.
        """
        held = [lease for lease in leases if not lease.producer.is_broken]
        if not held:
            return
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                # Before that, others may read older offsets than those committed last.
                await held[0].producer.complete(held[0].places.values())
                async with self._group.sessions() as session:
                    await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
                    epochs = {lease.partition.partition: lease.epoch for lease in held}
                    await lease_rows.release(session, self._group.id, self._group.topic, epochs)
        except Exception as error:
            log.info(
                "leases were not released, the next owners will fence this worker: %s",
                describe(error),
                extra=about(Event.LEASES_NOT_RELEASED, error=type(error).__name__),
            )

    async def commit(self, offsets: Mapping[Lease, OffsetAndMetadata]) -> None:
        """Commit these offsets, all or none, if the leases still hold.

        Raises KafkaError or TimeoutError: then it is unknown whether they were committed.
        """
        if not offsets:
            return
        async with next(iter(offsets)).producer.transaction() as opened:
            # No output partition joins: what Kafka may have left open there, the next owner ends.
            opened.commit_offsets(self._group.id, {one.partition: to for one, to in offsets.items()})

    async def committed_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """The group's committed offset; None only if Kafka says that there is none.

        aiokafka's consumer also returns None while the group's coordinator loads or has moved: that error
        belongs to the whole answer, and aiokafka reads only those of partitions
        (`tests.faults.upstream.no_offset`). Its admin client leaves the partition out then.
        """
        admin = AIOKafkaAdminClient(**self.client_options)
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(self._group.id, partitions=list(partitions))
        finally:
            await admin.close()
        if any(p not in found for p in partitions):
            raise GroupCoordinatorNotAvailableError(
                f"the coordinator of {self._group.id} knows no offsets yet"
            )
        return {p: None if found[p].offset < 0 else found[p] for p in partitions}

    async def _take_rows(
        self, producer: LeaseProducer, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, _Row | Exception]:
        group_id, topic, own_id = self._group.id, self._group.topic, self.producers.own_id
        async with self._group.sessions() as session:
            # Each commits by itself: two workers that take several in different order could deadlock.
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            holders = await lease_rows.find_holders(
                session, group_id, topic, [p.partition for p in partitions]
            )
            unfenced = await self._fence(producer, holders.values(), partitions)
            results: dict[TopicPartition, _Row | Exception] = {}
            for partition in partitions:
                number, holder = partition.partition, holders[partition.partition]
                if why := unfenced.get(holder.transactional_id or ""):
                    results[partition] = why
                elif epoch := await lease_rows.take(session, group_id, topic, number, holder, own_id):
                    results[partition] = _Row(epoch, holder)
                else:
                    results[partition] = LeaseTakenError(f"another worker has just taken {topic}-{number}")
        return results

    async def _taken(
        self, producer: LeaseProducer, rows: Mapping[TopicPartition, _Row | Exception]
    ) -> dict[TopicPartition, Taken | Exception]:
        places = {p: await self._places(producer, p) for p in rows}
        outputs = {place for of_one in places.values() for place in of_one.values()}
        outputs -= await leaderless(producer.client.client, outputs)
        ends = await end_offsets(producer.client, outputs)
        taken: dict[TopicPartition, Taken | Exception] = {}
        for partition, row in rows.items():
            if isinstance(row, Exception):
                taken[partition] = row
                continue
            of_one = places[partition]
            known_ends = {place: ends[place] for place in of_one.values() if place in ends}
            lease = Lease(partition, row.epoch.number, producer, of_one, known_ends)
            is_released = row.before.transactional_id in (None, self.producers.own_id)
            is_published = row.before.transactional_id is None
            taken[partition] = Taken(lease, row.epoch.pending, is_released, is_published)
        return taken

    async def _fence(
        self, producer: LeaseProducer, holders: Iterable[Holder], partitions: Sequence[TopicPartition]
    ) -> dict[str, Exception]:
        ids, own_id = {one.transactional_id for one in holders if one.transactional_id}, self.producers.own_id
        if own_id in ids:
            # Ours: starting the producer has ended an open transaction of its predecessor. This producer's
            # last transaction is committed, but others may not see its offsets yet.
            await producer.complete((await self._places(producer, partitions[0])).values())
        return await self.producers.fence(ids - {own_id})

    async def _places(self, producer: LeaseProducer, partition: TopicPartition) -> dict[str, TopicPartition]:
        return {topic: await place_in(producer.client, topic, partition) for topic in self._topics}
