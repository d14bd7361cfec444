"""Where a worker continues in a partition that it takes over, on real Kafka and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import session_factory
from db.worker import leases, ledger, positions, skips
from db.worker.leases import Holder
from db.worker.positions import PendingBatch, Sentinel
from tests.support.deadline import eventually
from tests.support.group_offsets import remember_wrongly
from tests.support.publishing import publish
from tests.support.subscriber import read_topic
from tests.support.topic_changes import delete_records, recreate_topic, unverified_transactions
from tests.support.topic_names import PARTITIONS, TopicNames
from worker.core.results import Publication
from worker.core.steps import nothing_happens
from worker.failures import WaitsForOperatorError
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.consuming.reading import reader, records
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.offset_mark import idle_mark
from worker.kafka.producing.lease import Leases
from worker.kafka.published import sentinel_of
from worker.observability.metrics import Metrics
from worker.pipeline.partition import Ownership
from worker.pipeline.publisher import Outgoing, Publisher
from worker.pipeline.takeover import LogCutError, Takeover
from worker.sandbox.servers.services import Services

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]

TIMESTAMP_MS = 1_700_000_000_000


class Ground:
    """The test's topics, with ten records in partition 0 of the input, and a group that takes it over."""

    def __init__(self, kafka: str, topics: TopicNames, engine: AsyncEngine) -> None:
        self.kafka, self.topics, self.group_id = kafka, topics, f"group-{uuid4()}"
        self.first, self.other = (TopicPartition(topics.order_placed, n) for n in (0, 1))
        self.sessions, self.metrics = session_factory(engine), Metrics()
        self.outputs = (topics.order_confirmed, topics.order_rejected, topics.dead_letter)
        self.publisher = Publisher(self.group_id, OutputLimits(()), nothing_happens)
        self.processes: list[Leases] = []
        self.takeover = self.taking_over()

    @property
    def leases(self) -> Leases:
        """Of the last process."""
        return self.processes[-1]

    def taking_over(self, cut_for_seconds: float = 0.0) -> Takeover:
        """By another process."""
        group = ConsumerGroup(self.group_id, self.topics.order_placed, self.sessions)
        self.processes.append(
            Leases(
                group,
                client_options={"bootstrap_servers": self.kafka},
                topics=self.outputs,
                transaction_timeout_ms=20_000,
            )
        )
        return Takeover(group, self.leases, self.publisher, self.metrics, cut_for_seconds)

    async def take_over(self, takeover: Takeover | None = None) -> Ownership | Exception:
        """As a worker does, that asks a group coordinator again which is not there yet."""
        everything = [TopicPartition(self.topics.order_placed, n) for n in range(PARTITIONS)]
        async with asyncio.timeout(30):
            while True:
                results = await (takeover or self.takeover).take_over([self.first], everything)
                if not isinstance(results[self.first], GroupCoordinatorNotAvailableError):
                    return results[self.first]

    async def owned(self) -> Ownership:
        result = await self.take_over()
        assert isinstance(result, Ownership), result
        return result

    async def place(self, count: int, partition: int = 0) -> None:
        topic = self.topics.order_placed
        await asyncio.to_thread(publish, self.kafka, topic, [b"{}"] * count, partition=partition)

    async def last_timestamp_ms(self, offset: int) -> int:
        async with reader({"bootstrap_servers": self.kafka}) as consumer:
            async for record in records(consumer, {self.first: (offset, offset + 1)}):
                return int(record.timestamp)
        raise AssertionError(f"no record at {offset}")

    async def decided(
        self,
        to: int,
        *,
        timestamp_ms: int | None = None,
        partition: int = 0,
        after: int = 0,
        sentinel: Sentinel | None = None,
    ) -> None:
        """PostgreSQL remembers a batch up to there, by default one with nothing to publish."""
        stamp = await self.last_timestamp_ms(to - 1) if timestamp_ms is None else timestamp_ms
        place = (self.topics.order_placed, partition)
        async with self.sessions.begin() as session:
            epoch = await leases.start_epoch(session, self.group_id, *place)
            await positions.record_pending(
                session, self.group_id, {place: (epoch.number, PendingBatch(after, to, stamp, sentinel))}
            )

    async def committed(self, offset: int, partition: int = 0) -> None:
        """Kafka says that a worker has committed it."""
        offsets = {partition: offset}
        await asyncio.to_thread(
            remember_wrongly, self.kafka, self.group_id, self.topics.order_placed, offsets
        )

    async def commit_now(self) -> Any:
        return (await self.leases.committed_offsets([self.first]))[self.first]

    async def holder(self) -> Holder:
        async with self.sessions() as session:
            found = await leases.find_holders(session, self.group_id, self.first.topic, [0])
        return found[0]

    async def until_shown(self, topic: str, values: list[bytes]) -> None:
        """Kafka acknowledges a commit before everybody can read what was published."""

        def is_shown() -> bool:
            return [message.value for message in read_topic(self.kafka, topic)] == values

        await asyncio.to_thread(eventually, is_shown)

    async def skipped(self) -> list[tuple[str, int, int]]:
        async with self.sessions() as session:
            found = await skips.list_skips(session, self.topics.order_placed)
        return [(skip.kind, skip.from_offset, skip.to_offset) for skip in found]


@pytest.fixture
async def ground(services: Services, topics: TopicNames, engine: AsyncEngine) -> AsyncIterator[Ground]:
    ground = Ground(services.kafka_bootstrap_servers, topics, engine)
    await ground.place(10)
    yield ground
    for process in ground.processes:
        await process.producers.close()


async def test_of_a_group_that_never_committed_the_first_record_at_hand_counts(ground: Ground):
    assert (await ground.owned()).published_to is None


async def test_it_continues_at_the_committed_offset(ground: Ground):
    await ground.decided(6)
    await ground.committed(6)
    owned = await ground.owned()
    assert (owned.published_to, owned.pending_to) == (6, 6)


async def test_the_offset_is_read_when_no_owner_before_can_move_it_any_more(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    before, late = await ground.owned(), ground.leases
    ground.takeover = ground.taking_over()
    take = ground.leases.take

    async def take_after_a_late_commit(partitions: Collection[TopicPartition]) -> Any:
        await late.commit({before.lease: OffsetAndMetadata(6, "")})
        return await take(partitions)

    monkeypatch.setattr(ground.leases, "take", take_after_a_late_commit)
    assert (await ground.owned()).published_to == 6


async def test_what_kafka_has_forgotten_postgresql_knows(ground: Ground):
    await ground.decided(6)
    assert (await ground.owned()).published_to == 6
    assert (await ground.commit_now()).offset == 6


async def test_an_offset_behind_markers_is_not_forgotten_where_the_next_batch_failed(
    ground: Ground, caplog: pytest.LogCaptureFixture
):
    """The next batch is to follow the batch before the markers in `positions`, as without the failure."""
    await ground.decided(6)
    offsets = {0: 8}
    args = (ground.kafka, ground.group_id, ground.topics.order_placed, offsets)
    await asyncio.to_thread(remember_wrongly, *args, metadata=idle_mark(6))
    sentinel = Sentinel(ground.topics.order_confirmed, TIMESTAMP_MS, b"never published", 0, 0)
    await ground.decided(10, after=6, sentinel=sentinel)
    owned = await ground.owned()
    assert (owned.published_to, owned.skipped_from) == (8, 6)
    assert (await ground.commit_now()).offset == 8
    assert "Kafka has" not in caplog.text


async def test_an_offset_beyond_the_end_leads_to_the_first_record_in_silence(ground: Ground):
    await ground.decided(1_000, timestamp_ms=TIMESTAMP_MS)
    await ground.committed(1_000)
    owned = await ground.owned()
    assert owned.published_to == 0
    assert [(r.from_offset, r.to_offset) for r in owned.replays] == [(0, 1_000)]
    assert (await ground.commit_now()).offset == 0
    assert ground.metrics.other_logs._value.get() == 1


async def test_a_log_that_seems_truncated_is_read_again_first(ground: Ground):
    await ground.decided(1_000, timestamp_ms=TIMESTAMP_MS)
    await ground.committed(1_000)
    takeover = ground.taking_over(cut_for_seconds=60)
    assert isinstance(await ground.take_over(takeover), LogCutError)
    assert (await ground.commit_now()).offset == 1_000


async def test_a_recreated_topic_is_read_from_its_first_record(ground: Ground):
    await ground.decided(6)
    await ground.committed(6)
    await asyncio.to_thread(recreate_topic, ground.kafka, ground.topics.order_placed)
    await ground.place(20)
    owned = await ground.owned()
    assert owned.published_to == 0
    assert [(r.from_offset, r.to_offset) for r in owned.replays] == [(0, 6)]


async def test_a_transaction_marker_at_the_last_decided_offset_is_another_log(ground: Ground):
    producer = AIOKafkaProducer(bootstrap_servers=ground.kafka, transactional_id=f"upstream-{uuid4()}")
    async with producer, producer.transaction():
        await producer.send_and_wait(ground.topics.order_placed, b"{}", partition=0)
    await ground.decided(12, timestamp_ms=TIMESTAMP_MS)
    await ground.committed(12)
    assert (await ground.owned()).published_to == 0


async def test_it_continues_in_the_new_log_where_the_owner_before_was_killed(ground: Ground):
    """Between its first batch there and the next: what is decided stays silent for every later owner."""
    await ground.decided(1_000, timestamp_ms=TIMESTAMP_MS)
    await ground.committed(1_000)
    await ground.owned()
    await ground.decided(4)
    await ground.committed(4)
    owned = await ground.owned()
    assert owned.published_to == 4
    assert [(r.from_offset, r.to_offset) for r in owned.replays] == [(0, 1_000)]


async def test_an_owner_has_only_those_replays_that_concern_what_it_will_read(ground: Ground):
    """Each order is compared with all of them, and their rows stay for good."""
    await ground.decided(4)
    await ground.committed(4)
    for end in (3, 4, 5):
        async with ground.sessions.begin() as session:
            await ledger.add_replays(session, ground.first.topic, {0: (0, end)})
    assert [(r.from_offset, r.to_offset) for r in (await ground.owned()).replays] == [(0, 5)]


async def test_what_retention_deleted_before_it_was_decided_leaves_a_lasting_note(ground: Ground):
    await ground.decided(4)
    await ground.committed(4)
    await asyncio.to_thread(delete_records, ground.kafka, ground.topics.order_placed, {0: 7})
    owned = await ground.owned()
    assert owned.published_to == 7
    assert await ground.skipped() == [("deleted", 4, 7)]
    commit = await ground.commit_now()
    assert (commit.offset, commit.metadata) == (7, idle_mark(4))
    assert (await ground.owned()).published_to == 7
    assert await ground.skipped() == [("deleted", 4, 7)]


async def test_what_retention_deleted_after_it_was_decided_is_no_loss(ground: Ground):
    await ground.decided(6)
    await ground.committed(6)
    await asyncio.to_thread(delete_records, ground.kafka, ground.topics.order_placed, {0: 6})
    assert (await ground.owned()).published_to == 6
    assert await ground.skipped() == []


@pytest.mark.parametrize("partition", [0, 1])
async def test_where_postgresql_knows_less_than_was_committed_all_partitions_wait(
    ground: Ground, partition: int
):
    await ground.place(10, partition=1)
    await ground.committed(6, partition)
    result = await ground.take_over()
    assert isinstance(result, WaitsForOperatorError)
    assert f"{ground.topics.order_placed}-{partition} (0, not 6)" in str(result)


async def test_a_new_group_waits_where_another_one_has_decided(ground: Ground):
    await ground.decided(6)
    old, ground.group_id = ground.group_id, f"group-{uuid4()}"
    result = await ground.take_over(ground.taking_over())
    assert isinstance(result, WaitsForOperatorError)
    assert f"replay --from-group {old}" in str(result)


async def test_the_lease_of_what_cannot_be_taken_over_is_released(ground: Ground):
    await ground.committed(6)
    assert isinstance(await ground.take_over(), WaitsForOperatorError)
    assert (await ground.holder()).transactional_id is None


@pytest.mark.parametrize("is_offset_lost", [False, True])
async def test_what_a_dead_owner_left_hanging_is_committed_with_its_offset_or_aborted(
    ground: Ground, is_offset_lost: bool
):
    """As after a restart of Kafka 4.3.1, which may take a transaction for ended and write no marker."""
    owned, confirmed = await ground.owned(), TopicPartition(ground.outputs[0], 0)
    outcome = Publication(confirmed.topic, b"key", b"undone", [], TIMESTAMP_MS)
    async with ground.sessions.begin() as session:
        pending = PendingBatch(0, 6, await ground.last_timestamp_ms(5), sentinel_of(owned.lease, outcome))
        place = (ground.first.topic, 0)
        await positions.record_pending(session, ground.group_id, {place: (owned.lease.epoch, pending)})
    with unverified_transactions(ground.kafka):
        # So the coordinator never hears of this partition, and writes no marker there.
        owned.lease.producer.client._txn_manager._txn_partitions.add(confirmed)
        await ground.publisher.publish([Outgoing(owned.lease, [outcome], 0 if is_offset_lost else 6)])
    assert await asyncio.to_thread(read_topic, ground.kafka, confirmed.topic) == []

    ground.takeover = ground.taking_over()
    owned = await ground.owned()
    assert owned.published_to == (0 if is_offset_lost else 6)
    there = [] if is_offset_lost else [b"undone"]
    await ground.until_shown(confirmed.topic, there)
    await ground.publisher.publish([Outgoing(owned.lease, [outcome], 6)])
    await ground.until_shown(confirmed.topic, [*there, b"undone"])  # nothing hides what comes next
