"""Reads spans of partitions, outside of any group: what is stored there, in order, and then the end.

What cannot be unpacked is passed over, and known: `TopicReader.met`.
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
"""partition → first offset, and the offset behind the last"""

_POLL_MS: Final = 50
_MAX_RECORDS: Final = 2_000  # at a time: what a caller holds in memory


OnUnreadable = Callable[[UnreadableSpan], None]


def warn(span: UnreadableSpan) -> None:
    """Log a span that is passed over."""
    said = about(Event.RECORDS_UNREADABLE, span.partition, offset=span.first, end=span.end)
    log.warning("%s: passed over", span, extra=said)


def nothing_more(_span: UnreadableSpan) -> None:
    """For who tells of it out of `TopicReader.met`."""


class TopicReader(RecordConsumer):
    """A consumer of no group. `met`: what was passed over or read raw, because it cannot be unpacked."""

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
    """A consumer of no group, which commits nothing, until the block ends.

    `on_unreadable` is told of each span that `portions` and `records` pass over.
    """
    consumer = TopicReader(
        on_unreadable=on_unreadable,
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
    consumer: TopicReader, spans: Spans, on_unreadable: OnUnreadable | None = None
) -> AsyncGenerator[tuple[TopicPartition, Sequence[ConsumerRecord]], None]:
    """All records of the spans and no others, some of one partition at a time; each partition in order.

    What nobody can unpack is passed over, once all records before it were given out; `on_unreadable`, if not
    the reader's own, is told of it. Ends when the reader has come to every end. So an end has to be one that
    it can come to: of a reader of committed records, its own `end_offsets`. Raises OffsetOutOfRangeError
    where a span begins before the first record that is still there.
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
            _pass_over(consumer, consumer.unreadable[partition], waiting[partition], report)
        await _end_those_read(consumer, waiting)


async def _end_those_read(consumer: TopicReader, waiting: dict[TopicPartition, int]) -> None:
    for partition in list(waiting):
        # Past the end that was, not only up to the first transaction that is still open.
        if await consumer.position(partition) >= waiting[partition]:
            del waiting[partition]
            consumer.pause(partition)


def _pass_over(consumer: TopicReader, span: UnreadableSpan, end: int, on_unreadable: OnUnreadable) -> None:
    consumer.pass_over(span)
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
