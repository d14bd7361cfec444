"""Spans of partitions, on real Kafka."""

from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import TopicPartition

from tests.support.publishing import publish
from tests.support.topic_names import TopicNames
from worker.errors import CommandError, UsageError
from worker.kafka.consuming.reading import portions, records
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of, topic_reader, window
from worker.sandbox.servers.services import Services
from worker.settings import Settings


@pytest.fixture
def settings(services: Services) -> Settings:
    return Settings(kafka_bootstrap_servers=services.kafka_bootstrap_servers, _env_file=None)


async def test_a_span_is_read_to_its_end_and_no_further(settings: Settings, topics: TopicNames):
    publish(
        settings.kafka_bootstrap_servers, topics.order_placed, [b"%d" % n for n in range(10)], partition=1
    )
    publish(settings.kafka_bootstrap_servers, topics.order_placed, [b"other"], partition=2)
    one, two = TopicPartition(topics.order_placed, 1), TopicPartition(topics.order_placed, 2)
    async with topic_reader(settings, topics.order_placed) as consumer:
        read = [r.value async for r in records(consumer, {one: (3, 7), two: (0, 0)})]
        assert read == [b"3", b"4", b"5", b"6"]
        # The same reader again, and also what it read past before.
        parts = [(p, len(some)) async for p, some in portions(consumer, {one: (7, 10), two: (0, 1)})]
        assert sorted(parts) == [(one, 3), (two, 1)]


async def test_a_window_of_time_becomes_offsets(settings: Settings, topics: TopicNames):
    publish(settings.kafka_bootstrap_servers, topics.order_placed, [b"1", b"2"], partition=1)
    async with topic_reader(settings, topics.order_placed) as consumer:
        places = await partitions_of(consumer, TopicSelection(topics.order_placed, (1, 3)))
        first, empty = places
        later = datetime.now(UTC) + timedelta(days=1)
        assert await window(consumer, places, None, None) == {first: (0, 2), empty: (0, 0)}
        assert await window(consumer, places, later, None) == {first: (2, 2), empty: (0, 0)}
        assert await window(consumer, places, later - timedelta(days=2), later) == {
            first: (0, 2),
            empty: (0, 0),
        }
        assert (await bounds_of(consumer, places))[first].end == 2


async def test_a_partition_that_is_not_there_is_named(settings: Settings, topics: TopicNames):
    async with topic_reader(settings, topics.order_placed) as consumer:
        with pytest.raises(UsageError, match="has no partition 7, 9: it has 0 to 3"):
            await partitions_of(consumer, TopicSelection(topics.order_placed, (0, 7, 9)))


async def test_a_topic_that_is_not_there_is_named(settings: Settings):
    with pytest.raises(CommandError, match="lacks the topic nowhere"):
        async with topic_reader(settings, "nowhere"):
            pass
