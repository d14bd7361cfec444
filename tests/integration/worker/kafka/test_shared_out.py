"""How one consumer shares polls, memory and requests out among its partitions, on a real broker."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from tests.support.topic_names import PARTITIONS, TopicNames
from worker.kafka.consuming import buffer, unpacked_size
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.internals import ContainedFetcher
from worker.sandbox.servers.services import Services

PATIENCE_SECONDS: Final = 30
KIB: Final = 1024


@pytest.fixture(autouse=True)
def _in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka asks for its partitions in a random order."""
    monkeypatch.setattr("aiokafka.consumer.fetcher.random.shuffle", list.sort)


@pytest.fixture
def topic(topics: TopicNames) -> str:
    return topics.order_placed


async def publish(services: Services, partition: TopicPartition, *values: bytes, **options: Any) -> None:
    """In one batch."""
    async with AIOKafkaProducer(
        bootstrap_servers=services.kafka_bootstrap_servers, max_batch_size=64 * KIB * KIB, **options
    ) as producer:
        batch = producer.create_batch()
        for value in values:
            assert batch.append(key=None, value=value, timestamp=None)
        await (await producer.send_batch(batch, partition.topic, partition=partition.partition))


@asynccontextmanager
async def reading(
    services: Services, topic: str, count: int, **options: Any
) -> AsyncIterator[RecordConsumer]:
    """The first partitions of the topic, from their beginning."""
    partitions = [TopicPartition(topic, number) for number in range(count)]
    async with RecordConsumer(
        bootstrap_servers=services.kafka_bootstrap_servers, auto_offset_reset="earliest", **options
    ) as consumer:
        consumer.assign(partitions)
        yield consumer


async def polls(consumer: RecordConsumer, max_records: int) -> AsyncIterator[dict[int, list[bytes]]]:
    """The values of each poll that brings some, by partition."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = await consumer.getmany(timeout_ms=200, max_records=max_records)
        if found:
            yield {p.partition: [record.value or b"" for record in of_one] for p, of_one in found.items()}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (no event for it)
            await asyncio.sleep(0.01)


async def test_what_a_poll_leaves_of_a_partition_comes_after_the_others(services: Services, topic: str):
    await publish(services, TopicPartition(topic, 0), *[b"of many"] * 40)
    await publish(services, TopicPartition(topic, 1), b"the only one")
    async with reading(services, topic, 2) as consumer:
        seen = []
        async for found in polls(consumer, 10):
            seen.append({number: len(values) for number, values in found.items()})
            if sum(map(sum, (one.values() for one in seen))) == 41:
                break
    assert seen == [{0: 10}, {1: 1, 0: 9}, {0: 10}, {0: 10}, {0: 1}]


async def test_a_poll_ends_when_it_has_its_bytes_however_well_they_were_compressed(
    services: Services, topic: str
):
    await publish(services, TopicPartition(topic, 0), *[b"0" * 100_000] * 100, compression_type="gzip")
    async with reading(services, topic, 1, max_poll_bytes=300_000) as consumer:
        counts: list[int] = []
        async for found in polls(consumer, 100):
            counts.append(len(found[0]))
            if sum(counts) == 100:
                break
    assert max(counts) == 16, "so many are unpacked at a time"


async def test_nothing_more_is_fetched_while_enough_waits_for_a_poll(
    services: Services, topic: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(buffer, "MAX_BUFFERED_BYTES", 100 * KIB)
    looks = 0

    def look(fetcher: ContainedFetcher, assignment: Any) -> tuple[Any, ...]:
        nonlocal looks
        looks += 1
        return decide(fetcher, assignment)

    decide = ContainedFetcher._get_actions_per_node
    monkeypatch.setattr(ContainedFetcher, "_get_actions_per_node", look)
    for number in range(PARTITIONS):
        await publish(services, TopicPartition(topic, number), b"x" * 60 * KIB)
    async with reading(
        services, topic, PARTITIONS, fetch_max_bytes=60 * KIB, fetch_max_wait_ms=50
    ) as consumer:
        kept = consumer._fetcher._records
        await until(lambda: buffer.is_full(kept.values()))
        before = looks
        await until(lambda: looks >= before + 5)
        assert len(kept) == 2
        seen: set[int] = set()
        async for found in polls(consumer, 100):
            seen |= found.keys()
            if len(seen) == PARTITIONS:
                break
    assert seen == set(range(PARTITIONS))


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
async def test_a_small_batch_that_would_fill_the_memory_stops_its_partition_only(
    services: Services, topic: str, monkeypatch: pytest.MonkeyPatch, codec: str
):
    monkeypatch.setattr(unpacked_size, "MAX_UNPACKED_BYTES", 3_000_000)
    bad = TopicPartition(topic, 0)
    await publish(services, bad, b"before")
    await publish(services, bad, *(os.urandom(1_000) * 100 for _ in range(40)), compression_type=codec)
    await publish(services, bad, b"after")
    await publish(services, TopicPartition(topic, 1), b"of the other")
    async with reading(services, topic, 2) as consumer:
        seen: dict[int, list[bytes]] = {0: [], 1: []}
        async for found in polls(consumer, 100):
            for number, values in found.items():
                seen[number] += values
            if all(seen.values()):
                break
        await until_polled(consumer, lambda: bad in consumer.unreadable)
        span = consumer.unreadable[bad]
        assert (span.first, span.end) == (1, 41)
        assert f"bytes of {codec} unpacks to more than" in str(span)
        consumer.skip_span(span)
        async for found in polls(consumer, 100):
            seen[0] += found[0]
            break
    assert seen == {0: [b"before", b"after"], 1: [b"of the other"]}


async def until_polled(consumer: RecordConsumer, condition: Callable[[], bool]) -> None:
    """Polls bring nothing, and move on what is read raw."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            assert not await consumer.getmany(timeout_ms=50)
