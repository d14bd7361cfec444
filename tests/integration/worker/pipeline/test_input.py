"""How much one answer of a real broker brings, by the number of partitions."""

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.support.topic_names import TopicNames
from worker.pipeline.input import FETCHED_AHEAD_BYTES, PARTITION_LEAST_BYTES, Input
from worker.sandbox.servers.services import Services

VALUE = b"x" * 4_000
BATCH_BYTES = 64 * 1024
PATIENCE_MS = 20_000


@pytest.fixture
async def consumer(services: Services, topics: TopicNames) -> AsyncIterator[AIOKafkaConsumer]:
    """At the beginning of a partition with twice of what is fetched ahead, in batches of 64 KiB."""
    partition = TopicPartition(topics.order_placed, 0)
    async with AIOKafkaProducer(
        bootstrap_servers=services.kafka_bootstrap_servers, max_batch_size=BATCH_BYTES, linger_ms=50
    ) as producer:
        sent = [
            await producer.send(*partition[:1], VALUE, partition=partition.partition)
            for _ in range(2 * FETCHED_AHEAD_BYTES // len(VALUE))
        ]
        for each in sent:
            await each
    async with AIOKafkaConsumer(
        bootstrap_servers=services.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        fetch_max_bytes=FETCHED_AHEAD_BYTES,
        max_partition_fetch_bytes=1,
    ) as consumer:
        consumer.assign([partition])
        yield consumer


@pytest.mark.parametrize(
    ("partitions", "limit_bytes"),
    [(1, FETCHED_AHEAD_BYTES), (4, FETCHED_AHEAD_BYTES // 4), (100, PARTITION_LEAST_BYTES)],
)
async def test_a_partition_brings_its_share_of_what_is_fetched_ahead(
    consumer: AIOKafkaConsumer, partitions: int, limit_bytes: int
):
    source = Input(1, 1)
    source.attach(lambda: consumer)
    source.share_out(partitions)
    # What the first poll brings may have been asked for before.
    await consumer.getmany(timeout_ms=PATIENCE_MS)
    (records,) = (await consumer.getmany(timeout_ms=PATIENCE_MS)).values()
    brought_bytes = len(records) * len(VALUE)
    assert limit_bytes - 2 * BATCH_BYTES < brought_bytes <= limit_bytes
