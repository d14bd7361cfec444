"""Where outcomes go, in how many parts, and where a transaction ends, on real Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from confluent_kafka.admin import NewPartitions
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.events import DeadLetterCode
from tests.support.deadline import eventually
from tests.support.kafka_topics import admin_client, wait_until_known
from tests.support.subscriber import Message, read_topic
from tests.support.taking_over import leases_of, take_lease
from tests.support.topic_changes import set_option, unverified_transactions
from tests.support.topic_names import PARTITIONS, TopicNames
from worker.core.dead_letter import dead_letter_headers
from worker.core.results import Publication
from worker.core.steps import Step
from worker.core.triage import Source
from worker.kafka.clients import read_topic_limits
from worker.kafka.limits.output_limits import OutputLimits, ReadLimits, nothing_to_read
from worker.kafka.limits.refusals import AdaptedError, RefusedByKafkaError
from worker.kafka.limits.topic_limits import TopicLimits
from worker.kafka.producing.lease import Lease
from worker.kafka.published import sentinel_of
from worker.pipeline.publisher import OutcomesRefusedError, Outgoing, Publisher
from worker.sandbox.servers.services import Services
from worker.settings import Settings

PUBLISHED_MS: Final = int(time.time() * 1_000)


def outcome(topic: str, *, key: bytes = b"key", value: bytes = b"value") -> Publication:
    return Publication(topic, key, value, [("ce_id", b"1"), ("tracestate", None)], PUBLISHED_MS)


def letter(
    topic: str,
    *,
    key: bytes | None = b"key",
    value: bytes = b"value",
    own: list[tuple[str, bytes | None]] | None = None,
    timestamp_ms: int = PUBLISHED_MS,
) -> Publication:
    source = Source("order-placed", 1, 42)
    failed_at = datetime.fromtimestamp(PUBLISHED_MS / 1_000, UTC)
    headers = dead_letter_headers(DeadLetterCode.NOT_JSON, "no", "", source, 7, failed_at, own or [])
    return Publication(topic, key, value, headers, timestamp_ms)


class Ground:
    """A publisher to the test's topics."""

    def __init__(
        self,
        kafka: str,
        topics: TopicNames,
        engine: AsyncEngine,
        read_limits: ReadLimits = nothing_to_read,
    ) -> None:
        self.kafka, self.topics = kafka, topics
        self.steps: list[Step] = []
        names = (topics.order_confirmed, topics.order_rejected, topics.dead_letter)
        group_id = f"group-{uuid4()}"
        self.leases = leases_of(
            engine, kafka, topics.order_placed, names, group_id=group_id, reached=self.steps.append
        )
        limits = OutputLimits(names, read_limits)
        self.publisher = Publisher(group_id, limits, self.steps.append)

    def source(self, number: int = 1) -> TopicPartition:
        return TopicPartition(self.topics.order_placed, number)

    async def take_lease(self, number: int = 1) -> Lease:
        return await take_lease(self.leases, self.source(number))

    async def publish_only(self, lease: Lease, publications: list[Publication], next_offset: int = 1) -> None:
        await self.publisher.publish([Outgoing(lease, publications, next_offset)])

    async def publish_with(self, lease: Lease, publications: list[Publication], next_offset: int = 1) -> None:
        """And wait until everybody can read it, which need not be so when Kafka acknowledges the commit."""
        await self.publish_only(lease, publications, next_offset)
        await lease.producer.complete(list(lease.places.values()))

    async def publish(self, publications: list[Publication], next_offset: int = 1) -> list[str]:
        """As the worker does: what was adapted is tried again with a new owner. Returns what was adapted."""
        adapted: list[str] = []
        while True:
            lease = await self.take_lease()
            try:
                await self.publish_with(lease, list(publications), next_offset)
                return adapted
            except AdaptedError as error:
                adapted.append(error.reason)
                assert len(adapted) < 20

    async def set(self, topic: str, **options: str | int) -> None:
        """Settings of a topic, `_` for `.`, in force."""
        for name, value in options.items():
            await asyncio.to_thread(set_option, self.kafka, topic, name.replace("_", "."), str(value))

    async def published(self, topic: str) -> list[Message]:
        """What a subscriber of committed records sees."""
        return await asyncio.to_thread(read_topic, self.kafka, topic)

    async def until_published(self, topic: str, keys: list[bytes]) -> None:
        """Wait until a subscriber sees these."""

        def are_published() -> bool:
            return [message.key for message in read_topic(self.kafka, topic)] == keys

        await asyncio.to_thread(eventually, are_published)

    async def add_source_partitions(self, count: int) -> None:
        def add() -> None:
            admin, topic = admin_client(self.kafka), self.topics.order_placed
            admin.create_partitions([NewPartitions(topic, count)])[topic].result(10)
            wait_until_known(self.kafka, {topic: count})

        await asyncio.to_thread(add)

    async def publish_by_another(self, output: TopicPartition, key: bytes) -> None:
        other = AIOKafkaProducer(bootstrap_servers=self.kafka, transactional_id=f"another-{uuid4()}")
        async with other, other.transaction():
            await other.send_and_wait(output.topic, b"value", key=key, partition=output.partition)


@pytest.fixture
async def ground(services: Services, topics: TopicNames, engine: AsyncEngine) -> AsyncIterator[Ground]:
    ground = Ground(services.kafka_bootstrap_servers, topics, engine)
    yield ground
    await ground.leases.producers.close()


async def test_what_comes_next_is_remembered_by_where_its_partition_ends(ground: Ground):
    topic = ground.topics.order_confirmed
    await ground.publish_by_another(TopicPartition(topic, 1), b"key")
    lease = await ground.take_lease()
    published_to = 1  # behind the other's record
    for next_offset in (1, 2):
        sentinel = sentinel_of(lease, outcome(topic))
        await ground.publish_with(lease, [outcome(topic)] * 3, next_offset)
        last = [m.offset for m in await ground.published(topic) if m.partition == sentinel.partition][-3:]
        assert sentinel.from_offset is not None
        # Between them lie markers, which Kafka may write a moment after it acknowledged the commit.
        assert published_to <= sentinel.from_offset <= last[0]
        published_to = last[-1] + 1


async def no_rights(_topics: Iterable[str]) -> dict[str, TopicLimits]:
    """The settings may not be read."""
    return {}


@pytest.fixture(params=["settings may be read", "settings may not be read"])
async def strict(
    request: pytest.FixtureRequest, services: Services, topics: TopicNames, engine: AsyncEngine
) -> AsyncIterator[Ground]:
    """A worker that may read the topics' settings, and one that may not."""
    settings = Settings(kafka_bootstrap_servers=services.kafka_bootstrap_servers)
    read = partial(read_topic_limits, settings) if request.param == "settings may be read" else no_rights
    ground = Ground(services.kafka_bootstrap_servers, topics, engine, read)
    await ground.publisher.limits.read()
    yield ground
    await ground.leases.producers.close()


@pytest.mark.parametrize("number", [PARTITIONS - 1, PARTITIONS + 1])
async def test_outcomes_go_to_the_source_partition_number_modulo_their_partitions(
    ground: Ground, number: int
):
    await ground.add_source_partitions(PARTITIONS + 2)
    topics = (ground.topics.order_confirmed, ground.topics.order_rejected, ground.topics.dead_letter)
    lease = await ground.take_lease(number)
    keys = [str(uuid4()).encode() for _ in range(8)]
    await ground.publish_with(lease, [outcome(t, key=key) for key in keys for t in topics], 8)
    for topic in topics:
        published = await ground.published(topic)
        assert [message.key for message in published] == keys
        assert {message.partition for message in published} == {number % PARTITIONS}


async def test_more_outcomes_than_fit_in_one_part_arrive_in_order(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.pipeline.publisher.MAX_BATCH_BYTES", 1_000)
    values = [b"%03d" % number + b"x" * 100 for number in range(60)]
    values[30] += b"x" * 5_000
    lease = await ground.take_lease()
    outcomes = [outcome(ground.topics.order_confirmed, value=value) for value in values]
    headers = tuple(outcomes[0].headers)
    await ground.publish_with(lease, outcomes, 60)
    assert outcomes == [], "what is packed is not kept beside it"
    published = await ground.published(ground.topics.order_confirmed)
    assert [message.value for message in published] == values
    assert {(message.timestamp, tuple(message.headers)) for message in published} == {(PUBLISHED_MS, headers)}
    assert ground.steps.count(Step.AFTER_SEND) > 6


async def test_a_transaction_ends_also_if_the_previous_one_wrote_and_it_does_not(ground: Ground):
    """As after a restart of Kafka 4.3.1, which may take a transaction for ended and write no marker."""
    confirmed = TopicPartition(ground.topics.order_confirmed, 1)
    lease = await ground.take_lease()
    with unverified_transactions(ground.kafka):
        # So the coordinator never hears of this partition, and writes no marker there.
        lease.producer.client._txn_manager._txn_partitions.add(confirmed)
        await ground.publish_only(lease, [outcome(confirmed.topic, key=b"undone")], 1)
    await ground.publish_by_another(confirmed, b"hidden behind it")
    assert await ground.published(confirmed.topic) == []

    await ground.publish_only(lease, [outcome(ground.topics.order_rejected)], 2)
    await ground.until_published(confirmed.topic, [b"undone", b"hidden behind it"])


async def test_a_transaction_ends_also_if_it_and_the_previous_one_were_undone(ground: Ground):
    """As after two restarts with one transaction between them."""
    confirmed = TopicPartition(ground.topics.order_confirmed, 1)
    rejected = TopicPartition(ground.topics.order_rejected, 1)
    lease = await ground.take_lease()
    with unverified_transactions(ground.kafka):
        # So the coordinator never hears of these partitions, and writes no markers there.
        lease.producer.client._txn_manager._txn_partitions.add(confirmed)
        await ground.publish_only(lease, [outcome(confirmed.topic)], 1)
        lease.producer.client._txn_manager._txn_partitions.update({confirmed, rejected})
        await ground.publish_only(lease, [outcome(rejected.topic)], 2)
    await ground.publish_by_another(confirmed, b"hidden behind it")

    await ground.publish_only(lease, [outcome(rejected.topic)], 3)
    await ground.publish_only(lease, [outcome(rejected.topic)], 4)
    await ground.until_published(confirmed.topic, [b"key", b"hidden behind it"])


async def test_batches_fit_a_topic_whose_limit_was_lowered(strict: Ground):
    topic = strict.topics.order_confirmed
    await strict.set(topic, max_message_bytes=20_000)
    outcomes = [outcome(topic, value=b"%04d" % number + b"x" * 300) for number in range(1_000)]
    adapted = await strict.publish(outcomes)
    assert [message.value for message in await strict.published(topic)] == [one.value for one in outcomes]
    assert set(adapted) == {"MESSAGE_TOO_LARGE"}
    assert await strict.publish([outcome(topic)], 2) == [], "what was learned is kept"


async def test_a_limit_that_was_known_at_the_start_is_never_met(
    services: Services, topics: TopicNames, engine: AsyncEngine
):
    settings = Settings(kafka_bootstrap_servers=services.kafka_bootstrap_servers)
    ground = Ground(services.kafka_bootstrap_servers, topics, engine, partial(read_topic_limits, settings))
    await ground.set(topics.order_confirmed, max_message_bytes=20_000)
    await ground.publisher.limits.read()
    outcomes = [outcome(topics.order_confirmed, value=b"x" * 300)] * 1_000
    assert await ground.publish(outcomes) == []
    await ground.leases.producers.close()


async def test_an_outcome_larger_than_its_topic_takes_is_named_with_what_to_do(strict: Ground):
    topic = strict.topics.order_confirmed
    await strict.set(topic, max_message_bytes=2_000)
    with pytest.raises(OutcomesRefusedError) as caught:
        await strict.publish([outcome(topic), outcome(topic, key=b"order 7", value=b"x" * 5_000)])
    ((_, refused, _, error),) = caught.value.refusals
    assert refused.key == b"order 7"
    assert (error.topic, error.order_id, error.setting) == (topic, "order 7", "max.message.bytes")
    assert f"raise max.message.bytes of {topic} to 5" in str(error)
    assert await strict.published(topic) == []


async def test_a_letter_is_cut_until_its_topic_takes_it(strict: Ground):
    topic = strict.topics.dead_letter
    await strict.set(topic, max_message_bytes=2_000)
    own: list[tuple[str, bytes | None]] = [("\u20ac" * 900, b"y" * 900)]
    await strict.publish([letter(topic, value=b"x" * 9_000, key=b"k" * 9_000, own=own), letter(topic)])
    cut, whole = await strict.published(topic)
    assert (cut.header("value.cut_from_bytes"), cut.header("key.cut_from_bytes")) == ("9000", "9000")
    assert (cut.header("source.offset"), cut.header("headers.cut")) == ("42", "1")
    assert (whole.key, whole.value) == (b"key", b"value")


async def test_a_letter_that_cannot_be_small_enough_is_named(strict: Ground):
    topic = strict.topics.dead_letter
    await strict.set(topic, max_message_bytes=100)
    with pytest.raises(RefusedByKafkaError) as caught:
        await strict.publish([letter(topic, value=b"x" * 500)])
    assert (caught.value.place, caught.value.setting) == ("order-placed-1@42", "max.message.bytes")


@pytest.mark.parametrize("days", [-30, 30])
async def test_a_time_that_the_topic_refuses_becomes_that_of_publishing(strict: Ground, days: int):
    times = {"message_timestamp_before_max_ms": 60_000, "message_timestamp_after_max_ms": 60_000}
    letters, confirmed = strict.topics.dead_letter, strict.topics.order_confirmed
    await strict.set(letters, **times)
    await strict.set(confirmed, **times)
    odd_ms = PUBLISHED_MS + days * 86_400_000
    await strict.publish(
        [letter(letters, timestamp_ms=odd_ms), outcome(confirmed)._replace(timestamp_ms=odd_ms)]
    )
    (published,) = await strict.published(letters)
    assert abs(published.timestamp - time.time() * 1_000) < 60_000
    assert published.header("source.timestamp") == "7"
    (published,) = await strict.published(confirmed)
    assert abs(published.timestamp - time.time() * 1_000) < 60_000


async def test_a_time_that_is_refused_whatever_it_is_is_named(
    strict: Ground, monkeypatch: pytest.MonkeyPatch
):
    topic = strict.topics.order_confirmed
    await strict.set(topic, message_timestamp_after_max_ms=60_000)
    real = time.time
    monkeypatch.setattr("worker.pipeline.publisher.time.time", lambda: real() + 7_200)
    with pytest.raises(RefusedByKafkaError) as caught:
        await strict.publish([outcome(topic)._replace(timestamp_ms=PUBLISHED_MS + 7_200_000)])
    assert caught.value.reason == "INVALID_TIMESTAMP"
    assert "clocks" in caught.value.what_to_do


async def test_a_letter_without_key_gets_one_where_the_topic_is_compacted(strict: Ground):
    topic = strict.topics.dead_letter
    await strict.set(topic, cleanup_policy="compact")
    await strict.publish([letter(topic), letter(topic, key=None)])
    with_key, without = await strict.published(topic)
    assert (with_key.key, with_key.header("key.made_up")) == (b"key", None)
    assert (without.key, without.header("key.made_up")) == (b"order-placed-1-42", "true")


async def test_a_topic_that_is_not_there_is_named(
    services: Services, topics: TopicNames, engine: AsyncEngine
):
    elsewhere = replace(topics, order_rejected="nowhere")
    ground = Ground(services.kafka_bootstrap_servers, elsewhere, engine)
    with pytest.raises(RefusedByKafkaError) as caught:
        await ground.take_lease()
    assert caught.value.topic == "nowhere"
    assert "topics create" in caught.value.what_to_do
    await ground.leases.producers.close()
