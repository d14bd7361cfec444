"""Ends up to which nothing that is committed is hidden, on real Kafka."""

import asyncio
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from tests.support.topic_names import TopicNames
from worker.errors import CommandError
from worker.kafka import stable_ends
from worker.kafka.offsets import parse_topic, partitions_of, topic_reader
from worker.sandbox.servers.services import Services
from worker.settings import Settings


async def test_an_open_transaction_that_hides_a_committed_one_is_waited_for_and_then_named(
    services: Services, topics: TopicNames, monkeypatch: pytest.MonkeyPatch
):
    servers, topic = services.kafka_bootstrap_servers, topics.order_confirmed
    settings = Settings(kafka_bootstrap_servers=servers, transaction_timeout_ms=1_000, _env_file=None)
    monkeypatch.setattr(stable_ends, "_SLACK_SECONDS", 0)
    monkeypatch.setattr(stable_ends, "_SAY_SO_SECONDS", 0)
    place = TopicPartition(topic, 0)
    async with (
        AIOKafkaProducer(bootstrap_servers=servers, transactional_id=f"open-{uuid4()}") as slow,
        AIOKafkaProducer(bootstrap_servers=servers, transactional_id=f"done-{uuid4()}") as quick,
        topic_reader(settings, topic) as consumer,
    ):
        await partitions_of(consumer, parse_topic(topic))
        await slow.begin_transaction()
        await slow.send_and_wait(topic, b"open", partition=0)
        async with quick.transaction():
            await quick.send_and_wait(topic, b"committed", partition=0)
        said: list[str] = []
        with pytest.raises(CommandError, match=f"hides {topic}-0 from offset 0 on: end it"):
            await stable_ends.stable_bounds(consumer, settings, [place], said.append)
        assert len(said) == 1
        waiting = asyncio.create_task(stable_ends.stable_bounds(consumer, settings, [place], said.append))
        await slow.commit_transaction()
        bounds = await waiting
        assert bounds[place].first == 0
        assert bounds[place].end >= 3
