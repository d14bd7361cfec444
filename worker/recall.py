"""Where to go on in a partition of which the broker tells less than it has acknowledged.

Kafka 4.3.1 forgets committed offsets after a crash, for a moment or until its next restart, and an orderly
restart may undo the last transaction before it, outcomes and offset together (ARCHITECTURE.md, last section).
What was written to PostgreSQL before the last announcements, and the topics themselves, know better.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from db.positions import Begun, Witness

# How far the clocks of worker and broker may be apart where the broker stamps the records.
_CLOCK_MS: Final = 10_000
_STAMPED_BY_BROKER: Final = 1
_POLL_MS: Final = 50


def is_forgotten(told: int | None, by_operator: bool, begun: Begun | None) -> bool:
    """Whether the broker tells (None: nothing was committed) less than what is announced for certain.

    An operator may move the offset back, and is believed.
    """
    return begun is not None and not by_operator and (told is None or told < begun.announced_to)


def digest(key: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    """The same for the same key and headers only."""
    return hashlib.sha256(repr((key, [tuple(header) for header in headers])).encode()).digest()


async def recall(
    client_options: Mapping[str, Any],
    producer: AIOKafkaProducer,
    partition: TopicPartition,
    begun: Begun,
    told: int | None,
) -> int | None:
    """The first offset that is not announced, for certain; None if the topic is a new one of the same name.

    `told` is what the broker takes for it. The partition's owner before must be fenced, and every transaction
    of its producer must have ended. Raises KafkaError, or TimeoutError while other transactions hide what
    came after them.
    """
    async with _reader(client_options, "read_uncommitted") as reader:
        if not await _is_the_same_topic(reader, partition, begun):
            return None
    before = begun.acknowledged
    # Its offset would have been undone with it.
    may_be_undone = before is not None and (told is None or told <= before.from_offset)
    if before and may_be_undone and not await _is_announced(client_options, producer, before.witness):
        return before.from_offset
    is_announced = await _is_announced(client_options, producer, begun.witness)
    return begun.begun_to if is_announced else begun.announced_to


async def _is_announced(
    client_options: Mapping[str, Any], producer: AIOKafkaProducer, witness: Witness | None
) -> bool:
    """Whether a subscriber sees the witness. A batch without one has nothing to announce."""
    if witness is None:
        return True
    places = [
        TopicPartition(witness.topic, number) for number in await producer.partitions_for(witness.topic)
    ]
    async with _reader(client_options, "read_uncommitted") as reader:
        # Both uncommitted: what another transaction hides has to be waited for, not overlooked.
        starts = await reader.offsets_for_times(dict.fromkeys(places, witness.timestamp_ms - _CLOCK_MS))
        ends = await reader.end_offsets(places)
    spans = {p: (start.offset, ends[p]) for p, start in starts.items() if start is not None}
    async with _reader(client_options, "read_committed") as reader:
        async for record in _records(reader, spans):
            if _is_witness(record, witness):
                return True
    return False


async def _is_the_same_topic(reader: AIOKafkaConsumer, partition: TopicPartition, begun: Begun) -> bool:
    """Whether the last record that was decided is still what it was, or gone with all those before it."""
    last = begun.begun_to - 1
    if last < (await reader.beginning_offsets([partition]))[partition]:
        return True
    if last >= (await reader.end_offsets([partition]))[partition]:
        return False
    # What is there may be no record, but the marker of a transaction, or a gap.
    async for record in _records(reader, {partition: (last, last + 1)}):
        if record.offset == last:
            return bool(record.timestamp == begun.last_timestamp_ms)
    return False


async def _records(
    reader: AIOKafkaConsumer, spans: Mapping[TopicPartition, tuple[int, int]]
) -> AsyncIterator[ConsumerRecord]:
    """The records of each (start, end), and maybe more; ends when the reader has come to every end."""
    waiting = {p: end for p, (start, end) in spans.items() if start < end}
    reader.assign(list(waiting))
    for p in waiting:
        reader.seek(p, spans[p][0])
    while waiting:
        for records in (await reader.getmany(timeout_ms=_POLL_MS)).values():
            for record in records:
                yield record
        for p in list(waiting):
            # Past the end that was, not only up to the first transaction that is still open.
            if await reader.position(p) >= waiting[p]:
                del waiting[p]


def _is_witness(record: ConsumerRecord, witness: Witness) -> bool:
    # Another announcement of the same outcome, before or after a replay, differs in its time only.
    at_that_time = record.timestamp_type == _STAMPED_BY_BROKER or record.timestamp == witness.timestamp_ms
    return at_that_time and digest(record.key, record.headers) == witness.digest


@asynccontextmanager
async def _reader(client_options: Mapping[str, Any], isolation_level: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **client_options,
        isolation_level=isolation_level,
        enable_auto_commit=False,
        auto_offset_reset="none",
        # Its default of 500 ms is waited for at every end, also while the reader is stopped.
        fetch_max_wait_ms=_POLL_MS,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await asyncio.shield(consumer.stop())
