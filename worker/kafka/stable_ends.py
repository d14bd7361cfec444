"""Finds ends up to which a topic can be read without an open transaction hiding committed records."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from worker.errors import CommandError
from worker.kafka.consuming.reading import reader
from worker.kafka.offsets import Bounds
from worker.settings import Settings

Say = Callable[[str], None]
"""called with a sentence about what is waited for"""

_ASK_AGAIN_SECONDS: Final = 0.1
_SAY_SO_SECONDS: Final = 2.0
_SLACK_SECONDS: Final = 15.0  # the coordinator looks for transactions past their time every ten seconds


async def stable_bounds(
    consumer: AIOKafkaConsumer,
    settings: Settings,
    partitions: Sequence[TopicPartition],
    say: Say,
) -> dict[TopicPartition, Bounds]:
    """The ends of the partitions now, when all committed records before them can be read.

    If several sources share a partition, an open transaction of one hides committed records of another, which
    must not count as missing. Waits until such a transaction would have timed out; then raises a CommandError
    that names the partition where it is still open.
    """
    async with reader(settings.kafka_client_options(), "read_uncommitted") as uncommitted:
        ends = await uncommitted.end_offsets(list(partitions))
    began, said = time.monotonic(), False
    while hidden := await _hidden(consumer, ends):
        names = ", ".join(f"{p.topic}-{p.partition} from offset {offset} on" for p, offset in hidden.items())
        waited = time.monotonic() - began
        if waited > settings.transaction_timeout_ms / 1_000 + _SLACK_SECONDS:
            raise CommandError(
                f"a transaction that is still open hides {names}: end it (`kafka-transactions.sh"
                " find-hanging`, then `abort`) and run this again"
            )
        if waited > _SAY_SO_SECONDS and not said:
            say(f"waiting for an open transaction to end: it hides {names}")
            said = True
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
    first = await consumer.beginning_offsets(list(partitions))
    return {p: Bounds(first[p], max(first[p], ends[p])) for p in partitions}


async def _hidden(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
    """The partitions in which committed records may be hidden, and from which offset on."""
    seen = await consumer.end_offsets(list(ends))
    return {p: seen[p] for p, end in ends.items() if seen[p] < end}
