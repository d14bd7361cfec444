"""A producer whose brokers have stopped answering is closed, and leaves nothing that still runs."""

import asyncio
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from tests.faults.proxy import Proxy
from tests.support.topic_names import TopicNames
from worker.kafka.producing import producers
from worker.sandbox.servers.services import Services


@pytest.fixture(scope="session")
def services(on_own_kafka: Services) -> Services:
    return on_own_kafka


async def test_each_of_its_tasks_ends(
    kafka_network: Proxy, topics: TopicNames, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(producers, "CLOSE_TIMEOUT_SECONDS", 0.2)
    before = asyncio.all_tasks()
    producer = AIOKafkaProducer(
        bootstrap_servers=f"127.0.0.1:{kafka_network.port}", transactional_id=f"silent-{uuid4()}"
    )
    await producer.start()
    await producer.begin_transaction()
    await producer.partitions_for(topics.order_confirmed)
    kafka_network.stall()
    await producer.send(topics.order_confirmed, b"", partition=0)
    await producers.close_producer(producer)
    async with asyncio.timeout(5):
        await asyncio.gather(*asyncio.all_tasks() - before, return_exceptions=True)
