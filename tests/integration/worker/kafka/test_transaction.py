"""A Kafka transaction, whatever happens to who is in it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from tests.support.subscriber import read_topic
from tests.support.topic_changes import set_option
from tests.support.topic_names import TopicNames
from worker.kafka.leaders import UnknownPartitionError
from worker.kafka.producing.producers import close_producer
from worker.kafka.producing.transaction import Transaction, to_its_end, transaction
from worker.sandbox.servers.services import Services

pytestmark = pytest.mark.guarantee_2

PATIENCE_SECONDS = 20.0
LONG_TRANSACTION_MS = 600_000


class Ground:
    """A partition, and who publishes there."""

    def __init__(self, kafka: str, topic: str) -> None:
        self.kafka, self.place = kafka, TopicPartition(topic, 0)
        self.name = uuid4().hex

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        """One of the same name each time: it ends what the previous one left open after an error."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka,
            transactional_id=self.name,
            transaction_timeout_ms=LONG_TRANSACTION_MS,
            max_request_size=2 * 1024 * 1024,
        )
        await producer.start()
        try:
            yield producer
        finally:
            await close_producer(producer)

    async def send(self, opened: Transaction, value: bytes) -> None:
        await opened.send(self.place, key=b"key", value=value, headers=[("a", None)], timestamp_ms=1_000)

    async def publish(self, value: bytes) -> None:
        async with self.producer() as producer, transaction(producer, PATIENCE_SECONDS) as opened:
            await self.send(opened, value)

    async def shows(self, *expected: bytes) -> None:
        """Wait for that: Kafka acknowledges a commit a moment before it shows."""
        found: list[bytes | None] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while found != list(expected):
            assert time.monotonic() < deadline, found
            messages = await asyncio.to_thread(read_topic, self.kafka, self.place.topic)
            found = [message.value for message in messages]


@pytest.fixture
def ground(services: Services, topics: TopicNames) -> Ground:
    return Ground(services.kafka_bootstrap_servers, topics.order_confirmed)


async def test_what_is_sent_is_committed_at_the_end(ground: Ground):
    await ground.publish(b"1")
    await ground.shows(b"1")


async def test_who_is_cancelled_while_sending_hides_nothing_that_comes_after(ground: Ground):
    async with ground.producer() as producer:
        sent = asyncio.Event()

        async def publish() -> None:
            async with transaction(producer, PATIENCE_SECONDS) as opened:
                await ground.send(opened, b"1")
                await opened.wait_acknowledged()
                sent.set()
                await asyncio.Event().wait()

        publishing = asyncio.create_task(publish())
        await sent.wait()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        ground.name = "another"
        await ground.publish(b"2")
        await ground.shows(b"2")


async def test_who_is_cancelled_while_committing_has_committed(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    async with ground.producer() as producer:
        commit, committing = producer.commit_transaction, asyncio.Event()

        async def noticed() -> None:
            committing.set()
            await commit()

        monkeypatch.setattr(producer, "commit_transaction", noticed)

        async def publish() -> None:
            async with transaction(producer, PATIENCE_SECONDS) as opened:
                await ground.send(opened, b"1")

        publishing = asyncio.create_task(publish())
        await committing.wait()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        await ground.shows(b"1")


async def test_where_one_of_those_sent_is_refused_nothing_is_committed(ground: Ground):
    await asyncio.to_thread(set_option, ground.kafka, ground.place.topic, "max.message.bytes", "4000")

    async def publish(producer: AIOKafkaProducer) -> None:
        async with transaction(producer, PATIENCE_SECONDS) as opened:
            await ground.send(opened, b"1")
            await opened.wait_acknowledged()
            await ground.send(opened, bytes(10_000))

    async with ground.producer() as producer:
        with pytest.raises(MessageSizeTooLargeError):
            await publish(producer)
    await ground.publish(b"2")
    await ground.shows(b"2")


async def test_what_is_not_committed_in_time_is_an_error(ground: Ground):
    async with ground.producer() as producer:
        with pytest.raises(TimeoutError):
            async with transaction(producer, 0.2):
                await asyncio.Event().wait()


async def test_a_partition_that_is_not_there_any_more_is_named_soon(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    """As after its topic was created again, with fewer partitions."""
    monkeypatch.setattr("worker.kafka.producing.producers.CLOSE_TIMEOUT_SECONDS", 0.1)

    async def publish(producer: AIOKafkaProducer) -> None:
        async with transaction(producer, PATIENCE_SECONDS) as opened:
            await ground.send(opened, b"1")

    async with ground.producer() as producer:
        await producer.partitions_for(ground.place.topic)
        ground.place = TopicPartition(ground.place.topic, 99)
        known = producer.client.cluster._partitions[ground.place.topic]
        known[99] = known[0]._replace(partition=99)
        began = time.monotonic()
        with pytest.raises(UnknownPartitionError, match=f"Kafka knows no {ground.place.topic}-99: was"):
            await publish(producer)
    assert time.monotonic() - began < PATIENCE_SECONDS / 2


async def test_a_partition_without_leader_takes_part_in_no_transaction(ground: Ground):
    async with ground.producer() as producer, transaction(producer, PATIENCE_SECONDS) as opened:
        await producer.partitions_for(ground.place.topic)
        known = producer.client.cluster._partitions[ground.place.topic]
        known[0] = known[0]._replace(leader=-1)
        assert not opened.join(ground.place), "Kafka could not end it"
        await ground.send(opened, b"a leader is elected")
        assert opened.join(ground.place)
    await ground.shows(b"a leader is elected")


async def test_a_task_asked_to_stop_ends_its_step_first():
    pending, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def step() -> None:
        pending.set()
        await may_end.wait()
        ended.set()

    running = asyncio.create_task(to_its_end(step()))
    await pending.wait()
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()
