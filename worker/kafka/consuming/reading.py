"""Reads spans of partitions in order, outside of any consumer group, and ends at their ends.

What cannot be unpacked is skipped and counted in `TopicReader.met`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Literal

from aiokafka import ConsumerRecord, TopicPartition

from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.consuming.unreadable import Unreadables, UnreadableSpan
from worker.observability.events import Event, about

log = logging.getLogger(__name__)

Spans = Mapping[TopicPartition, tuple[int, int]]
"""partition → first offset, and the offset after the last"""

_POLL_MS: Final = 50
_MAX_RECORDS: Final = 2_000  # at a time: what a caller holds in memory


OnUnreadable = Callable[[UnreadableSpan], None]


def warn(span: UnreadableSpan) -> None:
    """Log a span that is skipped."""
    extra = about(Event.RECORDS_UNREADABLE, span.partition, offset=span.first, end=span.end)
    log.warning("%s: skipped", span, extra=extra)


def nothing_more(_span: UnreadableSpan) -> None:
    """Does nothing: for callers that report skipped spans from `TopicReader.met`."""


class TopicReader(RecordConsumer):
    """A consumer without a group. `met`: what was skipped or read raw because it cannot be unpacked."""

    def __init__(self, *, on_unreadable: OnUnreadable, **options: Any) -> None:
        super().__init__(**options)
        self.met = Unreadables()
        self.on_unreadable = on_unreadable


@asynccontextmanager
async def reader(
    client_options: Mapping[str, Any],
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed",
    on_unreadable: OnUnreadable = warn,
) -> AsyncIterator[TopicReader]:
    """A consumer without a group, which commits nothing, until the block ends.

    `on_unreadable` is called with each span that `portions` and `records` skip.
    """
    consumer = TopicReader(
        on_unreadable=on_unreadable,
        **client_options,
        isolation_level=isolation_level,
        enable_auto_commit=False,
        auto_offset_reset="none",
        # With its default of 500 ms, the reader would wait that long at every end, also while it stops.
        fetch_max_wait_ms=_POLL_MS,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await asyncio.shield(consumer.stop())


async def portions(
    consumer: TopicReader, spans: Spans, on_unreadable: OnUnreadable | None = None
) -> AsyncGenerator[tuple[TopicPartition, Sequence[ConsumerRecord]], None]:
    """All records of the spans and no others, in portions of one partition; each partition in order.

    What cannot be unpacked is skipped after all records before it were returned, and reported to
    `on_unreadable` (by default the reader's own). The iteration ends at the ends of the spans, so the reader
    has to be able to reach them: for a reader of committed records, use its own `end_offsets`. Raises
    OffsetOutOfRangeError if a span begins before the first record that still exists, and NoLeaderError.
    """
    waiting = {p: end for p, (start, end) in spans.items() if start < end}
    consumer.assign(list(waiting))
    for partition in waiting:
        consumer.seek(partition, spans[partition][0])
    while waiting:
        found = await consumer.getmany(*waiting, timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
        for partition, records in found.items():
            if wanted := [record for record in records if record.offset < spans[partition][1]]:
                consumer.met.add_records(wanted)
                yield partition, wanted
        for partition in waiting.keys() & consumer.unreadable.keys():
            report = on_unreadable or consumer.on_unreadable
            _skip(consumer, consumer.unreadable[partition], waiting[partition], report)
        await _end_those_read(consumer, waiting)
        if not found and waiting:
            await consumer.require_leaders(waiting)


async def _end_those_read(consumer: TopicReader, waiting: dict[TopicPartition, int]) -> None:
    for partition in list(waiting):
        # Past the end of that time, and not only up to the first open transaction.
        if await consumer.position(partition) >= waiting[partition]:
            del waiting[partition]
            consumer.pause(partition)


def _skip(consumer: TopicReader, span: UnreadableSpan, end: int, on_unreadable: OnUnreadable) -> None:
    consumer.skip_span(span)
    if span.first < end:
        within = replace(span, end=min(span.end, end))
        consumer.met.add_span(within)
        on_unreadable(within)


async def records(
    consumer: TopicReader, spans: Spans, on_unreadable: OnUnreadable | None = None
) -> AsyncIterator[ConsumerRecord]:
    """As `portions`, one record at a time."""
    async for _, of_one in portions(consumer, spans, on_unreadable):
        for record in of_one:
            yield record
