"""Copies what the topics hold into the reconciliation's tables, and knows what may be gone from them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession

from db.reconciliation import copied
from worker.kafka.clients import read_topic_limits
from worker.kafka.consuming.reading import Spans, TopicReader, portions
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.offsets import (
    TopicSelection,
    offsets_at,
    partitions_of,
)
from worker.kafka.stable_ends import Say, stable_bounds
from worker.operations.reconcile.rows import letter_row, outcome_row, record_row
from worker.operations.reconcile.spans import InputRead, LettersRead, OutputRead
from worker.operations.screen import progress
from worker.settings import Settings

Keep = Callable[[TopicPartition, Sequence[ConsumerRecord]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The three topics that workers write to, as they were read."""

    confirmed: OutputRead
    rejected: OutputRead
    letters: LettersRead


async def read_inputs(
    consumer: TopicReader,
    session: AsyncSession,
    settings: Settings,
    inputs: InputRead,
    *,
    with_headers: bool,
    quiet: bool,
) -> None:
    """Copy the window of the input."""

    async def keep(partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        oldest = min(record.timestamp for record in records)
        known = inputs.oldest_ms.get(partition.partition, oldest)
        inputs.oldest_ms[partition.partition] = min(known, oldest)
        limit = settings.message_max_bytes
        await copied.add_records(
            session, [record_row(record, limit, with_headers=with_headers) for record in records]
        )

    what = f"reading {settings.order_placed_topic}"
    await _read(consumer, session, inputs.spans, keep, inputs.unreadable, what, quiet)


async def read_outcomes(
    consumer: TopicReader,
    session: AsyncSession,
    topic: str,
    read: OutputRead,
    *,
    is_confirmation: bool,
    quiet: bool,
) -> None:
    """Copy an outcome topic."""

    async def keep(partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        read.first_ms.setdefault(partition, records[0].timestamp)
        rows = [outcome_row(record, is_confirmation=is_confirmation) for record in records]
        await copied.add_outcome_records(session, rows)

    await _read(consumer, session, read.spans, keep, read.unreadable, f"reading {topic}", quiet)


async def read_letters(
    consumer: TopicReader, session: AsyncSession, settings: Settings, read: LettersRead, *, quiet: bool
) -> None:
    """Copy the dead letters."""

    async def keep(partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        rows = [letter_row(record, settings.order_placed_topic) for record in records]
        named = [row for row in rows if row is not None]
        read.sourceless += len(rows) - len(named)
        for row in named:
            if read.home_of(row.partition) == partition:
                read.first_source.setdefault(row.partition, row.offset)
        await copied.add_letters(session, named)

    what = f"reading {settings.dead_letter_topic}"
    await _read(consumer, session, read.spans, keep, read.unreadable, what, quiet)


async def output_spans(
    consumer: TopicReader,
    settings: Settings,
    topic: str,
    since: datetime | None,
    say: Say,
) -> tuple[dict[TopicPartition, tuple[int, int]], frozenset[TopicPartition]]:
    """From the first record since that time (None: that is there) to the stable end; and which are cut."""
    partitions = await partitions_of(consumer, TopicSelection(topic))
    bounds = await stable_bounds(consumer, settings, partitions, say)
    starts = await offsets_at(consumer, bounds, since) if since else {p: b.first for p, b in bounds.items()}
    cut = frozenset(p for p, b in bounds.items() if 0 < b.first == starts[p])
    return {p: (starts[p], bounds[p].end) for p in bounds}, cut


async def compacted_topics(settings: Settings) -> frozenset[str]:
    """The topics that workers write to and that Kafka compacts, without those whose settings we may not read.

    Raises KafkaError, OSError or TimeoutError.
    """
    limits = await read_topic_limits(settings, settings.topics.outputs)
    return frozenset(topic for topic, one in limits.items() if one.compacted)


async def find_blocks(consumer: TopicReader, inputs: InputRead) -> list[UnreadableSpan]:
    """What nobody can unpack, where the group stands: from the first offset of it on, without its end."""
    found: list[UnreadableSpan] = []
    next_ones = {p: (at, at + 1) for p, at in inputs.waiting.items()}
    async for _ in portions(consumer, next_ones, found.append):
        pass
    return found


async def _read(
    consumer: TopicReader,
    session: AsyncSession,
    spans: Spans,
    keep: Keep,
    unreadable: list[UnreadableSpan],
    what: str,
    quiet: bool,
) -> None:
    if not any(start < end for start, end in spans.values()):
        return
    come_to = {partition: start for partition, (start, _) in spans.items()}
    with progress(what, sum(end - start for start, end in spans.values()), quiet=quiet) as bar:
        async for partition, records in portions(consumer, spans, unreadable.append):
            await keep(partition, records)
            # At once: a transaction that lasts keeps old versions of rows from being cleaned up.
            await session.commit()
            behind = records[-1].offset + 1
            bar.advance(behind - come_to[partition])
            come_to[partition] = behind
