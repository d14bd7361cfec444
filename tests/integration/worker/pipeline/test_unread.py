"""What of a partition cannot be read is reported, on real Kafka."""

import asyncio
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from confluent_kafka import Producer

from tests.support.topic_names import TopicNames
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.pipeline.unread import UnreadPartitions
from worker.sandbox.servers.services import Services

pytestmark = pytest.mark.guarantee_3

PATIENCE_SECONDS = 20


async def test_a_transaction_that_stays_open_is_named_until_it_ends(
    services: Services, topics: TopicNames, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.pipeline.unread.HIDDEN_FOR_SECONDS", 0.1)
    kafka, partition = services.kafka_bootstrap_servers, TopicPartition(topics.order_placed, 0)
    publisher = Producer({"bootstrap.servers": kafka, "transactional.id": f"upstream-{uuid4()}"})
    health = Health()
    health.started()
    unread = UnreadPartitions(health, Metrics())

    async def until(is_named: bool) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while ("transaction" in health.troubles().get(f"{topics.order_placed}-0", "")) != is_named:
                await consumer.getmany(timeout_ms=50)
                unread.report(consumer)

    def begin() -> None:
        publisher.init_transactions(PATIENCE_SECONDS)
        publisher.begin_transaction()
        publisher.produce(topics.order_placed, b"hidden", partition=0)
        publisher.flush(PATIENCE_SECONDS)

    async with RecordConsumer(bootstrap_servers=kafka, isolation_level="read_committed") as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 0)
        await asyncio.to_thread(begin)
        await until(is_named=True)
        assert "open from offset 0 on" in health.troubles()[f"{topics.order_placed}-0"]
        await asyncio.to_thread(publisher.abort_transaction, PATIENCE_SECONDS)
        await until(is_named=False)
    assert health.troubles() == {}


async def test_a_partition_that_no_broker_leads_is_named_until_one_does(
    services: Services, topics: TopicNames
):
    partition, name = TopicPartition(topics.order_placed, 0), f"{topics.order_placed}-0"
    health = Health()
    health.started()
    unread = UnreadPartitions(health, Metrics())
    async with RecordConsumer(bootstrap_servers=services.kafka_bootstrap_servers) as consumer:
        consumer.assign([partition])
        await consumer.end_offsets([partition])
        unread.report(consumer)
        assert health.troubles() == {}
        known = consumer._client.cluster._partitions[partition.topic]
        known[partition.partition] = known[partition.partition]._replace(leader=-1)
        unread.report(consumer)
        assert "no broker leads it" in health.troubles()[name]
        await consumer._client.force_metadata_update()
        unread.report(consumer)
    assert health.troubles() == {}
