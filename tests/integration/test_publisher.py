"""Where outcomes go, in how many parts, and where a transaction ends, on real Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError
from confluent_kafka.admin import NewPartitions

from tests.subscriber import Message, admin_client, read_topic, unverified_transactions, wait_until_known
from tests.topic_names import PARTITIONS, TopicNames
from worker.local.services import Services
from worker.publisher import OwnedPartition, Publisher
from worker.settlement import Publication
from worker.steps import Step

ANNOUNCED_MS: Final = int(time.time() * 1_000)


def outcome(topic: str, *, key: bytes = b"key", value: bytes = b"value") -> Publication:
    return Publication(topic, key, value, [("ce_id", b"1"), ("tracestate", None)], ANNOUNCED_MS)


class Ground:
    """A publisher to the test's topics."""

    def __init__(self, kafka: str, topics: TopicNames) -> None:
        self.kafka, self.topics = kafka, topics
        self.steps: list[Step] = []
        self.publisher = Publisher(
            group_id=f"group-{uuid4()}",
            client_options={"bootstrap_servers": kafka},
            topics=(topics.order_confirmed, topics.order_rejected, topics.dead_letter),
            transaction_timeout_ms=20_000,
            reached=self.steps.append,
        )

    def source(self, number: int = 1) -> TopicPartition:
        return TopicPartition(self.topics.order_placed, number)

    async def take_over(self, source: TopicPartition) -> OwnedPartition:
        """As the worker does: a group coordinator that is not there yet is asked again."""
        async with asyncio.timeout(30):
            while True:
                with suppress(GroupCoordinatorNotAvailableError):
                    return await self.publisher.take_over(source)

    async def told(self, topic: str) -> list[Message]:
        """What a subscriber of committed records sees."""
        return await asyncio.to_thread(read_topic, self.kafka, topic)

    async def add_source_partitions(self, count: int) -> None:
        def add() -> None:
            admin, topic = admin_client(self.kafka), self.topics.order_placed
            admin.create_partitions([NewPartitions(topic, count)])[topic].result(10)
            wait_until_known(self.kafka, {topic: count})

        await asyncio.to_thread(add)

    async def tell_by_another(self, output: TopicPartition, key: bytes) -> None:
        other = AIOKafkaProducer(bootstrap_servers=self.kafka, transactional_id=f"another-{uuid4()}")
        async with other, other.transaction():
            await other.send_and_wait(output.topic, b"value", key=key, partition=output.partition)


@pytest.fixture
async def ground(services: Services, topics: TopicNames) -> AsyncIterator[Ground]:
    ground = Ground(services.kafka_bootstrap_servers, topics)
    yield ground
    await ground.publisher.closed()


@pytest.mark.parametrize("number", [PARTITIONS - 1, PARTITIONS + 1])
async def test_outcomes_go_to_the_partition_of_their_sources_number_modulo_how_many_there_are(
    ground: Ground, number: int
):
    await ground.add_source_partitions(PARTITIONS + 2)
    topics = (ground.topics.order_confirmed, ground.topics.order_rejected, ground.topics.dead_letter)
    owned = await ground.take_over(ground.source(number))
    keys = [str(uuid4()).encode() for _ in range(8)]
    await ground.publisher.publish(owned, [outcome(t, key=key) for key in keys for t in topics], 8)
    ground.publisher.put_away(owned.producer)
    for topic in topics:
        told = await ground.told(topic)
        assert [message.key for message in told] == keys
        assert {message.partition for message in told} == {number % PARTITIONS}


async def test_more_outcomes_than_fit_in_one_part_arrive_in_order_and_one_larger_than_a_part_too(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.publisher.MAX_BATCH_BYTES", 1_000)
    values = [b"%03d" % number + b"x" * 100 for number in range(60)]
    values[30] += b"x" * 5_000
    owned = await ground.take_over(ground.source())
    outcomes = [outcome(ground.topics.order_confirmed, value=value) for value in values]
    headers = tuple(outcomes[0].headers)
    await ground.publisher.publish(owned, outcomes, 60)
    assert outcomes == [], "what is packed is not kept beside it"
    ground.publisher.put_away(owned.producer)
    told = await ground.told(ground.topics.order_confirmed)
    assert [message.value for message in told] == values
    assert {(message.timestamp, tuple(message.headers)) for message in told} == {(ANNOUNCED_MS, headers)}
    assert ground.steps.count(Step.AFTER_SEND) > 6


@pytest.mark.parametrize("next_owner", [False, True])
async def test_a_transaction_ends_also_where_the_one_before_wrote_and_it_does_not(
    ground: Ground, next_owner: bool
):
    """As after a restart of Kafka 4.3.1, which may take a transaction for ended and write no marker."""
    confirmed = TopicPartition(ground.topics.order_confirmed, 1)
    owned = await ground.take_over(ground.source())
    with unverified_transactions(ground.kafka):
        # So the coordinator never hears of this partition, and writes no marker there.
        owned.producer._txn_manager._txn_partitions.add(confirmed)
        await ground.publisher.publish(owned, [outcome(confirmed.topic, key=b"undone")], 1)
    await ground.tell_by_another(confirmed, b"hidden behind it")
    assert await ground.told(confirmed.topic) == []

    if next_owner:
        ground.publisher.put_away(owned.producer)
        owned = await ground.take_over(ground.source())
    await ground.publisher.publish(owned, [outcome(ground.topics.order_rejected)], 2)
    ground.publisher.put_away(owned.producer)
    told = await ground.told(confirmed.topic)
    assert [message.key for message in told] == [b"undone", b"hidden behind it"]


async def test_a_transaction_ends_also_where_the_one_before_was_to_end_and_both_were_undone(ground: Ground):
    """As after two restarts with one transaction between them."""
    confirmed = TopicPartition(ground.topics.order_confirmed, 1)
    rejected = TopicPartition(ground.topics.order_rejected, 1)
    owned = await ground.take_over(ground.source())
    with unverified_transactions(ground.kafka):
        # So the coordinator never hears of these partitions, and writes no markers there.
        owned.producer._txn_manager._txn_partitions.add(confirmed)
        await ground.publisher.publish(owned, [outcome(confirmed.topic)], 1)
        owned.producer._txn_manager._txn_partitions.update({confirmed, rejected})
        await ground.publisher.publish(owned, [outcome(rejected.topic)], 2)
    await ground.tell_by_another(confirmed, b"hidden behind it")

    await ground.publisher.publish(owned, [outcome(rejected.topic)], 3)
    await ground.publisher.publish(owned, [outcome(rejected.topic)], 4)
    ground.publisher.put_away(owned.producer)
    assert [message.key for message in await ground.told(confirmed.topic)] == [b"key", b"hidden behind it"]
