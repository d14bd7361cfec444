"""Where a worker continues in a partition whose committed offset the broker has forgotten, on real Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from confluent_kafka import TopicPartition as Offset
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.envelope import REPUBLISHED
from db.worker.positions import Acknowledged, PendingBatch, Sentinel
from tests.support.kafka_topics import admin_client
from tests.support.publishing import publish
from tests.support.subscriber import read_topic
from tests.support.taking_over import leases_of, take_lease
from tests.support.topic_changes import set_option, unverified_transactions
from tests.support.topic_names import TopicNames
from worker.kafka.ends import end_offsets
from worker.kafka.published import digest, find_published_to, is_offset_lost, published_to
from worker.sandbox.servers.services import Services

pytestmark = pytest.mark.guarantee_2

PUBLISHED_MS: Final = int(time.time() * 1_000)
HEADERS: Final = [("ce_id", b"1"), ("tracestate", None), ("traceparent", b"\xff")]


def pending(sentinel: Sentinel | None = None) -> PendingBatch:
    return PendingBatch(2, 5, 0, sentinel)


class TestOffsetLost:
    @pytest.mark.parametrize("answer", [2, 4, 5, 6])
    def test_an_offset_behind_what_is_published_is_true(self, answer: int) -> None:
        assert not is_offset_lost(answer, pending())

    @pytest.mark.parametrize("answer", [None, 0, 1])
    def test_less_than_what_is_published_is_not(self, answer: int | None) -> None:
        assert is_offset_lost(answer, pending())


class Ground:
    """The test's topics, with five records in partition 1 of the input."""

    def __init__(self, kafka: str, topics: TopicNames) -> None:
        self.kafka, self.topics = kafka, topics
        self.source = TopicPartition(topics.order_placed, 1)

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, transactional_id=f"search-{uuid4()}")
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def publish(
        self,
        key: bytes | None = b"key",
        *,
        commit: bool = True,
        headers: Sequence[tuple[str, bytes | None]] = HEADERS,
        timestamp_ms: int = PUBLISHED_MS,
    ) -> None:
        """An outcome, in a transaction of its own."""
        topic = self.topics.order_confirmed
        async with self.producer() as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(
                topic, b"value", key=key, headers=headers, timestamp_ms=timestamp_ms, partition=0
            )
            await (producer.commit_transaction() if commit else producer.abort_transaction())

    def sentinel(self, key: bytes | None = b"key") -> Sentinel:
        """As an earlier version remembers it: by its time."""
        return Sentinel(self.topics.order_confirmed, PUBLISHED_MS, digest(key, HEADERS))

    async def placed_sentinel(self, key: bytes | None = b"key") -> Sentinel:
        """As it is remembered now: by where the partition ends. Its time is that of a clock gone wrong."""
        place = TopicPartition(self.topics.order_confirmed, 0)
        async with self.producer() as producer:
            end = (await end_offsets(producer, [place]))[place]
        wrong_ms = PUBLISHED_MS + 86_400_000
        return Sentinel(place.topic, wrong_ms, digest(key, HEADERS), place.partition, end)

    async def pending(
        self, key: bytes | None = b"key", acknowledged: Acknowledged | None = None
    ) -> PendingBatch:
        """What is remembered of the publication of an outcome, whether it came to its end or not."""
        return replace(pending(self.sentinel(key)), acknowledged=acknowledged)

    async def published_to(self, remembered: PendingBatch, answer: int | None = 0) -> int:
        async with self.producer() as producer, asyncio.timeout(20):
            return await find_published_to({"bootstrap_servers": self.kafka}, producer, remembered, answer)


@pytest.fixture
async def ground(services: Services, topics: TopicNames) -> Ground:
    kafka = services.kafka_bootstrap_servers
    await asyncio.to_thread(publish, kafka, topics.order_placed, [b"{}"] * 5, partition=1)
    return Ground(kafka, topics)


@pytest.mark.parametrize(("commit", "resumes_at"), [(True, 5), (False, 2)])
async def test_it_continues_behind_what_is_published_and_before_what_is_not(
    ground: Ground, commit: bool, resumes_at: int
):
    await ground.publish(b"another key")
    await ground.publish(commit=commit)
    assert await ground.published_to(await ground.pending()) == resumes_at


@pytest.mark.parametrize("answer", [None, 0, 1])
@pytest.mark.parametrize(("commit", "resumes_at"), [(True, 2), (False, 1)])
async def test_the_acknowledged_previous_batch_is_looked_for_as_well(
    ground: Ground, commit: bool, resumes_at: int, answer: int | None
):
    await ground.publish(b"before", commit=commit)
    before = Acknowledged(1, ground.sentinel(b"before"))
    assert await ground.published_to(await ground.pending(acknowledged=before), answer) == resumes_at


async def test_the_batch_before_holds_where_its_offset_does_and_where_it_published_nothing(ground: Ground):
    unseen = Acknowledged(0, ground.sentinel(b"before"))
    assert await ground.published_to(await ground.pending(acknowledged=unseen), answer=1) == 2
    assert await ground.published_to(await ground.pending(acknowledged=Acknowledged(1, None)), answer=1) == 2


@pytest.mark.parametrize(
    "another",
    [
        {"timestamp_ms": PUBLISHED_MS - 1},
        {"headers": [*HEADERS, ("failed_at", b"earlier")]},
        {"headers": [*HEADERS, REPUBLISHED]},
    ],
    ids=["outcome", "dead letter", "republished"],
)
async def test_another_publication_of_the_same_does_not_count(ground: Ground, another: dict[str, Any]):
    await ground.publish(**another)
    assert await ground.published_to(await ground.pending()) == 2


@pytest.mark.parametrize("key", [None, b"", b"\xff\x00"])
async def test_a_record_with_an_odd_key_is_known_again(ground: Ground, key: bytes | None):
    await ground.publish(key)
    assert await ground.published_to(await ground.pending(key)) == 5


async def test_where_the_broker_stamps_the_records_theirs_is_another_time(ground: Ground):
    topic = ground.topics.order_confirmed
    await asyncio.to_thread(set_option, ground.kafka, topic, "message.timestamp.type", "LogAppendTime")
    await ground.publish()
    assert await ground.published_to(await ground.pending()) == 5


@pytest.mark.parametrize("stamp", ["CreateTime", "LogAppendTime"])
@pytest.mark.parametrize(("commit", "resumes_at"), [(True, 5), (False, 2)])
async def test_no_clock_has_to_be_right_to_find_what_is_published(
    ground: Ground, stamp: str, commit: bool, resumes_at: int
):
    topic = ground.topics.order_confirmed
    await asyncio.to_thread(set_option, ground.kafka, topic, "message.timestamp.type", stamp)
    await ground.publish(b"another key")
    remembered = replace(await ground.pending(), sentinel=await ground.placed_sentinel())
    await ground.publish(commit=commit, timestamp_ms=PUBLISHED_MS - 86_400_000)
    await ground.publish(b"another key")
    assert await ground.published_to(remembered) == resumes_at


async def test_the_same_published_before_does_not_count(ground: Ground):
    await ground.publish()
    remembered = replace(await ground.pending(), sentinel=await ground.placed_sentinel())
    assert await ground.published_to(remembered) == 2


async def test_where_the_place_is_gone_the_time_has_to_do(ground: Ground):
    """As after an unclean election, or in a new topic of the same name."""
    beyond = replace(ground.sentinel(), partition=0, from_offset=1_000)
    remembered = replace(await ground.pending(), sentinel=beyond)
    assert await ground.published_to(remembered) == 2
    await ground.publish()
    assert await ground.published_to(remembered) == 5


async def test_what_retention_has_deleted_before_it_is_no_hindrance(ground: Ground):
    await ground.publish(b"another key")
    remembered = replace(
        await ground.pending(), sentinel=replace(await ground.placed_sentinel(), from_offset=0)
    )
    await ground.publish()
    up_to = Offset(ground.topics.order_confirmed, 0, 2)
    await asyncio.to_thread(lambda: admin_client(ground.kafka).delete_records([up_to])[up_to].result(10))
    assert await ground.published_to(remembered) == 5


async def test_a_letter_is_known_again_however_it_was_cut(ground: Ground):
    source = [
        ("source.topic", b"t"),
        ("source.partition", b"1"),
        ("source.offset", b"7"),
        ("failed_at", b"now"),
    ]
    whole, cut = [("mine", b"x"), *source], [*source, ("headers.cut", b"1")]
    sentinel = replace(await ground.placed_sentinel(), digest=digest(None, whole))
    remembered = replace(await ground.pending(), sentinel=sentinel)
    await ground.publish(b"made up", headers=[*source[:3], ("failed_at", b"before")])
    assert await ground.published_to(remembered) == 2
    await ground.publish(b"made up", headers=cut)
    assert await ground.published_to(remembered) == 5


async def test_a_batch_with_nothing_to_publish_is_behind(ground: Ground):
    assert await ground.published_to(pending()) == 5


async def test_while_another_transaction_hides_what_comes_after_it_nobody_knows(ground: Ground):
    remembered = await ground.pending()
    async with ground.producer() as other:
        await other.begin_transaction()
        partitions = await other.partitions_for(ground.topics.order_confirmed)
        for partition in partitions:
            await other.send_and_wait(ground.topics.order_confirmed, b"value", partition=partition)
        await ground.publish()
        async with ground.producer() as producer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await find_published_to({"bootstrap_servers": ground.kafka}, producer, remembered, 0)
        await other.abort_transaction()
    assert await ground.published_to(remembered) == 5


async def test_a_transaction_that_kafka_has_left_open_is_ended_by_the_next_owner(
    ground: Ground, services: Services, engine: AsyncEngine
):
    """As after a restart of Kafka 4.3.1, which may take a transaction for ended and write no marker."""
    confirmed = TopicPartition(ground.topics.order_confirmed, 0)
    outputs, group_id = (ground.topics.order_confirmed, ground.topics.order_rejected), f"group-{uuid4()}"
    one, next_one = (
        leases_of(engine, ground.kafka, ground.source.topic, outputs, group_id=group_id) for _ in range(2)
    )
    before = Acknowledged(1, ground.sentinel(), one.producers.own_id)
    remembered = await ground.pending(b"another", before)
    try:
        lease = await take_lease(one, ground.source)
        client = lease.producer.client
        with unverified_transactions(ground.kafka):
            await client.begin_transaction()
            await client.send_and_wait(ground.topics.order_rejected, b"value")
            # So the coordinator never hears of this partition, and writes no marker there.
            client._txn_manager._txn_partitions.add(confirmed)
            await client.send_and_wait(
                confirmed.topic, b"value", key=b"key", headers=HEADERS, timestamp_ms=PUBLISHED_MS, partition=0
            )
            await client.commit_transaction()
        await ground.publish(b"hidden behind it")
        assert await asyncio.to_thread(read_topic, ground.kafka, confirmed.topic) == []

        lease = await take_lease(next_one, ground.source)
        assert await published_to(next_one, lease, remembered, committed=0) == 1
        seen = await asyncio.to_thread(read_topic, ground.kafka, confirmed.topic)
        assert [message.key for message in seen] == [b"hidden behind it"]
    finally:
        await one.producers.close()
        await next_one.producers.close()
