"""An OrderConsumer among stand-ins: the test says how long a transaction takes and whether it fails."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, cast

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from contracts.topics import Topics
from db.worker import leases
from tests.support.builders import line, order_value, record
from worker.core.results import RecordResult
from worker.core.steps import nothing_happens
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.producing.lease import Lease
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.pipeline.batch import BatchProcessor, BeforeCommit, Guard
from worker.pipeline.consumer import OrderConsumer
from worker.pipeline.flow import Flow
from worker.pipeline.idle import IdlePartitions
from worker.pipeline.input import Input
from worker.pipeline.owner import Owner
from worker.pipeline.partition import Ownership, Partitions
from worker.pipeline.publisher import Outgoing
from worker.pipeline.retries import Pauses, Retries

FIRST, OTHER = (TopicPartition("order-placed", number) for number in (0, 1))
RECORDS: Final = 6  # in each partition
POLLED: Final = 2  # of each partition, by one poll
BATCH_MAX_RECORDS: Final = 10
PATIENCE_SECONDS: Final = 20.0


class FakeConsumer:
    """Stands in for AIOKafkaConsumer: hands each record over once, until it is sought again."""

    def __init__(self, records: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        self.records = dict(records)
        self.position = dict.fromkeys(records, 0)
        self.sought: list[tuple[TopicPartition, int]] = []
        self.fetched_since = False
        """whether a poll during a batch returns records"""
        self.rebalance: asyncio.Future[None] | None = None
        """until it has ended, no record is returned (aiokafka waits for the assignment)"""
        self.accepted = 0
        """how often the consumer accepted what it had polled"""
        self.asked_for: list[int] = []
        """how many records each such poll asked for"""
        self.committed: dict[TopicPartition, int] = {}
        """what was committed outside of a transaction"""
        self._paused: set[TopicPartition] = set()
        self._fetcher = SimpleNamespace(_max_partition_fetch_bytes=0)

    @property
    def fetched_of_a_partition_bytes(self) -> int:
        return int(self._fetcher._max_partition_fetch_bytes)

    def accept(self) -> set[TopicPartition]:
        self.accepted += 1
        return set(self.records)

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {p.partition for p in self.records}

    def assignment(self) -> set[TopicPartition]:
        return set(self.records)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.position[partition] = offset
        self.sought.append((partition, offset))

    def accepted_position(self, partition: TopicPartition) -> int:
        return self.position[partition]

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        self.committed |= {partition: offset for partition, (offset, _) in offsets.items()}

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused.difference_update(partitions)

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        self.asked_for.append(max_records)
        if self.rebalance is not None:
            await self.rebalance
        polled = self.poll() if self.fetched_since else []
        return {p: [r for r in polled if r.partition == p.partition] for p in self.records}

    def poll(self) -> list[ConsumerRecord]:
        """The next records; where those were deleted, the earliest there are, as with `auto_offset_reset`."""
        polled: list[ConsumerRecord] = []
        for partition, records in self.records.items():
            ahead = [r for r in records if r.offset >= self.position[partition]][:POLLED]
            if ahead and partition not in self._paused:
                self.position[partition] = ahead[-1].offset + 1
                polled += ahead
        return polled


class FakeProducer:
    """Stands in for LeaseProducer."""

    def __init__(self) -> None:
        self.is_broken = False


class HeldPublisher:
    """Stands in for Publisher and Leases: publishes at once, or, if the test holds it, on release."""

    def __init__(self) -> None:
        self.committed: dict[TopicPartition, int | None] = {FIRST: None, OTHER: None}
        self.published: dict[TopicPartition, list[str]] = defaultdict(list)
        self.attempts: dict[TopicPartition, list[int]] = defaultdict(list)
        """the offset after each batch whose publication began, whether or not it succeeded"""
        self.waits: dict[TopicPartition, asyncio.Event] = {}
        """set once the held transaction of a partition waits"""
        self.released: list[TopicPartition] = []
        self._producer = FakeProducer()
        self._held: dict[TopicPartition, asyncio.Future[None]] = {}

    def hold(self, partition: TopicPartition) -> asyncio.Future[None]:
        """The partition's next transaction waits for this future, and fails with its exception."""
        self._held[partition] = held = asyncio.get_running_loop().create_future()
        self.waits[partition] = asyncio.Event()
        return held

    async def committed_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        return {p: self.committed[p] for p in partitions}

    def producer(self) -> FakeProducer:
        """Another one, if the previous one is broken."""
        if self._producer.is_broken:
            self._producer = FakeProducer()
        return self._producer

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        for one in batch:
            if one.publications:
                self.attempts[one.lease.partition].append(one.next_offset)
        try:
            for one in batch:
                if held := self._held.pop(one.lease.partition, None):
                    self.waits[one.lease.partition].set()
                    await held
        except BaseException:
            cast("FakeProducer", batch[0].lease.producer).is_broken = True
            raise
        for one in batch:
            partition = one.lease.partition
            self.published[partition] += [(p.key or b"").decode() for p in one.publications]
            self.committed[partition] = one.next_offset

    async def release(self, leases: Iterable[Lease]) -> None:
        self.released += [lease.partition for lease in leases]


class HeldTakeover:
    """Stands in for Takeover: continues where the publisher committed, or, where the test says so, waits.

    What failed is never published here, so that a lost commit is found again by `positions` alone.
    """

    def __init__(self, publisher: HeldPublisher, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.topics_tell = True
        self.fails: Exception | None = None
        """why nothing can be taken over"""
        self.taken: list[TopicPartition] = []
        """those whose take-over has begun"""
        self._publisher = publisher
        self._sessions = sessions
        self._held: dict[TopicPartition, asyncio.Future[None]] = {}

    def hold(self, partition: TopicPartition) -> asyncio.Future[None]:
        """The next owner of the partition waits for this future."""
        self._held[partition] = held = asyncio.get_running_loop().create_future()
        return held

    async def take_over(
        self, partitions: Sequence[TopicPartition], all_partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Ownership | Exception]:
        return {p: self.fails or await self._take_over(p) for p in partitions}

    async def _take_over(self, partition: TopicPartition) -> Ownership:
        self.taken.append(partition)
        if held := self._held.pop(partition, None):
            await held
        async with self._sessions.begin() as session:
            epoch = await leases.start_epoch(session, "group", partition.topic, partition.partition)
        producer = cast("Any", self._publisher.producer())
        lease = Lease(partition, epoch.number, producer, {}, {})
        owned = Ownership(lease, self._publisher.committed[partition])
        if epoch.pending:
            owned.pending_to = epoch.pending.pending_to
            if self.topics_tell:
                owned.published_to = max(owned.published_to or 0, epoch.pending.published_to)
        return owned


class WatchedProcessor:
    """The real one, which signals when it has decided a batch, and fails where the test says so."""

    def __init__(self, real: BatchProcessor) -> None:
        self.committed: asyncio.Queue[int] = asyncio.Queue()
        self._real = real
        self._fails: asyncio.Future[None] | None = None
        self._last_statement: asyncio.Future[None] | None = None
        self.decided = asyncio.Event()
        """Set once a batch is decided, and its transaction not committed."""
        self.pending_before_commit: int | None = None
        """What `positions` says of the first partition just before the last transaction is committed."""

    def fail(self) -> asyncio.Future[None]:
        """The next batch waits for this future, and fails with its exception."""
        self._fails = asyncio.get_running_loop().create_future()
        return self._fails

    def hold_decisions(self) -> asyncio.Future[None]:
        """The next transaction that decides a whole batch waits for this future before its last statement."""
        self._last_statement = held = asyncio.get_running_loop().create_future()
        return held

    async def decide(
        self,
        records: Sequence[ConsumerRecord],
        replays: Mapping[Any, Any],
        guard: Guard,
        before_commit: BeforeCommit,
    ) -> list[RecordResult]:
        fails, self._fails = self._fails, None
        if fails is not None:
            await fails
        held, self._last_statement = self._last_statement, None

        async def held_back(session: AsyncSession, results: list[RecordResult]) -> None:
            self.decided.set()
            if held is not None:
                await held
            await before_commit(session, results)
            query = text("SELECT begun_to FROM positions WHERE partition = 0")
            self.pending_before_commit = await session.scalar(query)

        results = await self._real.decide(records, replays, guard, held_back)
        # A test that awaits this continues when the consumer has run to the point where it has to wait.
        self.committed.put_nowait(len(results))
        return results


async def _unaltered(*, at_once: bool) -> None:
    """Stands in for the checks of the tables."""


class Stage:
    """Six orders in each of two partitions, of which nothing was ever committed.

    `sessions` are best of one connection only: what a test asks then is answered behind what is under way.
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        batch_max_bytes: int,
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics = metrics or Metrics()
        topics = Topics("placed", "confirmed", "rejected", "dead")
        self.health = Health()
        self.health.started()
        records = {
            p: [record(order_value(line(1)), offset=o, partition=p.partition) for o in range(RECORDS)]
            for p in (FIRST, OTHER)
        }
        self.placed = {p: [json.loads(r.value)["order_id"] for r in of_one] for p, of_one in records.items()}
        self.input, self.publisher = FakeConsumer(records), HeldPublisher()
        self.takeover = HeldTakeover(self.publisher, sessions)
        self.processor = WatchedProcessor(
            BatchProcessor(sessions, topics, metrics, nothing_happens, 256 * 1024, PATIENCE_SECONDS)
        )
        group = ConsumerGroup("group", "order-placed", sessions)
        # However busy the machine is, the next batch of a test comes at once.
        source = Input(BATCH_MAX_RECORDS, batch_max_bytes, at_once_seconds=PATIENCE_SECONDS)
        source.attach(cast("Any", lambda: self.input))
        self.partitions = partitions = Partitions()
        pauses = Pauses(lambda: self.input)
        retries = Retries(
            source=source,
            partitions=partitions,
            pauses=pauses,
            health=self.health,
            metrics=metrics,
            max_seconds=0.01,
        )
        owner = Owner(
            topic=group.topic,
            source=source,
            partitions=partitions,
            takeover=cast("Any", self.takeover),
            leases=cast("Any", self.publisher),
            retries=retries,
            health=self.health,
        )
        self.flow = Flow(
            group=group,
            source=source,
            partitions=partitions,
            owner=owner,
            retries=retries,
            processor=cast("Any", self.processor),
            publisher=cast("Any", self.publisher),
            tables=cast("Any", SimpleNamespace(require_unaltered=_unaltered)),
            health=self.health,
            metrics=metrics,
            batch_max_bytes=batch_max_bytes,
        )
        self.consumer = OrderConsumer(
            source=source,
            partitions=partitions,
            pauses=pauses,
            owner=owner,
            flow=self.flow,
            retries=retries,
            health=self.health,
            metrics=metrics,
        )
        self.idle = IdlePartitions(
            group=group,
            orders=self.consumer,
            flow=self.flow,
            source=source,
            partitions=partitions,
            pauses=pauses,
            owner=owner,
            leases=cast("Any", self.publisher),
            publisher=cast("Any", self.publisher),
            retries=retries,
            health=self.health,
        )
        self._sessions = sessions

    async def next_batch(self) -> None:
        """Hand the next poll over; returns when it is decided and its last publication has begun."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.consumer.handle_order_placed(self.input.poll())

    async def decided(self, batches: int) -> None:
        """Wait until this many more batches are decided."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(batches):
                await self.processor.committed.get()

    async def publish_the_rest(self, *partitions: TopicPartition) -> None:
        """Hand over what comes until the last offset of these partitions, or all, is committed."""
        wanted = partitions or tuple(self.placed)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(self.publisher.committed[p] != RECORDS for p in wanted):
                if records := self.input.poll():
                    await self.consumer.handle_order_placed(records)
                await asyncio.sleep(0.01)

    async def in_ledger(self, partition: TopicPartition) -> int:
        """How many of the partition's orders the ledger knows."""
        query = "SELECT count(*) FROM order_outcomes WHERE source_partition = :partition"
        return await self._ask(query, partition)

    async def pending(self, partition: TopicPartition) -> int:
        """Up to where PostgreSQL remembers publications that began."""
        return await self._ask("SELECT begun_to FROM positions WHERE partition = :partition", partition)

    async def _ask(self, query: str, partition: TopicPartition) -> int:
        async with self._sessions() as session:
            return int((await session.execute(text(query), {"partition": partition.partition})).scalar_one())
