"""Reads the ends of partitions through a producer's own connections; aiokafka has no call for that."""

import asyncio
from collections import defaultdict
from collections.abc import Collection
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import LeaderNotAvailableError, NoError, for_code
from aiokafka.protocol.offset import OffsetRequest, OffsetResetStrategy

from worker.kafka.leaders import require_leaders

_PAUSE_SECONDS: Final = 0.2
_ANY_CLIENT: Final = -1
_READ_UNCOMMITTED: Final = 0


async def end_offsets(
    producer: AIOKafkaProducer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offset after the last record of each, also if that belongs to an open transaction.

    Waits for a new leader, within the caller's time limit. Raises KafkaError, and NoLeaderError where none is
    elected.
    """
    await require_leaders(producer.client, partitions)
    ends: dict[TopicPartition, int] = {}
    while missing := set(partitions) - ends.keys():
        for node_id, of_node in _by_leader(producer, missing).items():
            topics = defaultdict(list)
            for partition in of_node:
                topics[partition.topic].append((partition.partition, OffsetResetStrategy.LATEST))
            request = OffsetRequest(_ANY_CLIENT, _READ_UNCOMMITTED, list(topics.items()))
            ends |= _read(await producer.client.send(node_id, request))
        if set(partitions) - ends.keys():
            await asyncio.sleep(_PAUSE_SECONDS)
            await producer.client.force_metadata_update()
    return ends


def _by_leader(
    producer: AIOKafkaProducer, partitions: Collection[TopicPartition]
) -> dict[int, list[TopicPartition]]:
    grouped: dict[int, list[TopicPartition]] = defaultdict(list)
    for partition in partitions:
        leader = producer.client.cluster.leader_for_partition(partition)
        if leader is not None and leader >= 0:
            grouped[leader].append(partition)
    return grouped


def _read(response: Any) -> dict[TopicPartition, int]:
    """The ends that were answered; the other partitions have a new leader."""
    ends: dict[TopicPartition, int] = {}
    for topic, of_topic in response.topics:
        for partition, code, _, offset in of_topic:
            error = for_code(code)
            if error is NoError:
                ends[TopicPartition(topic, partition)] = offset
            elif not error.retriable and not issubclass(error, LeaderNotAvailableError):
                raise error(f"{topic}-{partition}")
    return ends
