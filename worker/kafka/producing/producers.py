"""What all transactional producers share and aiokafka does not provide."""

import asyncio
from contextlib import suppress

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from worker.kafka.client_internals import end_sender
from worker.kafka.limits.naming import refused
from worker.kafka.limits.topic_limits import TopicLimits

# After a commit the broker answers the next transaction with a retriable error for a moment. With
# aiokafka's default of 100 ms that pause halves the rate of small batches; 5 to 10 ms cost nothing.
RETRY_BACKOFF_MS = 10
CLOSE_TIMEOUT_SECONDS = 5.0
# A topic that was just created need not be known to every broker yet.
TOPIC_TRIES = 8
TOPIC_PAUSE_SECONDS = 0.25


async def output_of(producer: AIOKafkaProducer, topic: str, source: TopicPartition) -> TopicPartition:
    """The output partition for a source partition: the same number, modulo the number of output partitions.

    An order id has one outcome, so there is no order to preserve within a key. Partitioned by key, each batch
    would go to every partition there is, each with a request and a transaction marker of its own.
    """
    return TopicPartition(topic, source.partition % len(await producer.partitions_for(topic)))


async def place_in(producer: AIOKafkaProducer, topic: str, source: TopicPartition) -> TopicPartition:
    """As `output_of`, but RefusedByKafkaError where the topic is not there, or not for us.

    Left alone, aiokafka would ask for it a hundred times a second until its request timeout.
    """
    client = producer.client
    is_refreshed = True
    for tries in range(TOPIC_TRIES):
        if client.cluster.partitions_for_topic(topic) is not None:
            return await output_of(producer, topic, source)
        await asyncio.sleep(TOPIC_PAUSE_SECONDS if tries else 0)
        client.add_topic(topic)
        is_refreshed = await client.force_metadata_update()
        if topic in client.cluster.unauthorized_topics:
            raise refused(TopicAuthorizationFailedError(topic), topic, TopicLimits())
    if not is_refreshed:
        raise KafkaConnectionError(f"no broker knows {topic}")
    raise refused(UnknownTopicOrPartitionError(), topic, TopicLimits())


async def close_producer(producer: AIOKafkaProducer) -> None:
    # Only what is committed counts, so an error does not matter here.
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await producer.stop()
            return
    await end_sender(producer)  # it would try for ever
    with suppress(Exception):
        await producer.client.close()
