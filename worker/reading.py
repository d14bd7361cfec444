"""Reads spans of partitions, outside of any group: what is stored there, in order, and then the end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

Spans = Mapping[TopicPartition, tuple[int, int]]
"""partition → first offset, and the offset behind the last"""

_POLL_MS: Final = 50
_MAX_RECORDS: Final = 2_000  # at a time: what a caller holds in memory


@asynccontextmanager
async def reader(
    client_options: Mapping[str, Any],
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group, which commits nothing, until the block ends."""
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


async def portions(
    consumer: AIOKafkaConsumer, spans: Spans
) -> AsyncGenerator[tuple[TopicPartition, Sequence[ConsumerRecord]], None]:
    """All records of the spans and no others, some of one partition at a time; each partition in order.

    Ends when the reader has come to every end. So an end has to be one that it can come to: of a reader of
    committed records, its own `end_offsets`. Raises OffsetOutOfRangeError where a span begins before the
    first record that is still there.
    """
    waiting = {p: end for p, (start, end) in spans.items() if start < end}
    consumer.assign(list(waiting))
    for partition in waiting:
        consumer.seek(partition, spans[partition][0])
    while waiting:
        found = await consumer.getmany(*waiting, timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
        for partition, records in found.items():
            if wanted := [record for record in records if record.offset < spans[partition][1]]:
                yield partition, wanted
        for partition in list(waiting):
            # Past the end that was, not only up to the first transaction that is still open.
            if await consumer.position(partition) >= waiting[partition]:
                del waiting[partition]
                consumer.pause(partition)


async def records(consumer: AIOKafkaConsumer, spans: Spans) -> AsyncIterator[ConsumerRecord]:
    """As `portions`, one record at a time."""
    async for _, of_one in portions(consumer, spans):
        for record in of_one:
            yield record
