"""Copies what the topics hold into the reconciliation's tables, and knows what may be gone from them."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession

from db.reconciliation import copied, tables
from db.worker.skips import SkippedSpan, is_recorded
from worker.kafka.consuming.reading import Spans, TopicReader, portions
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.offsets import (
    Bounds,
    TopicSelection,
    milliseconds,
    offsets_at,
    partitions_of,
)
from worker.kafka.stable_ends import Say, settled_bounds
from worker.operations.reconcile.rows import letter_row, outcome_row, record_row
from worker.operations.screen import progress
from worker.settings import Settings

# How far the clocks of the database, the workers and the brokers may be apart.
CLOCKS_APART: Final = timedelta(minutes=10)
# Dead letters keep the time of their record, which an upstream service's clock gave it.
_UPSTREAM_CLOCKS_APART: Final = timedelta(days=1)
_FOR_EVER: Final = 2**62

Keep = Callable[[TopicPartition, Sequence[ConsumerRecord]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DeletedSpan:
    """Offsets of the input, `to_offset` not included, that were deleted before they were decided."""

    partition: int
    from_offset: int
    to_offset: int


@dataclass(slots=True)
class InputRead:
    """The input's window, as it was read.

    `undecided` by partition: from the committed offset to the first one there is, where that is later.
    `waiting`: the first offset that is not committed, of those partitions in which something waits.
    `unreadable`: what nobody can unpack of the window.
    """

    spans: Spans
    cut: frozenset[int]  # partitions whose earlier records are deleted and would belong to the window
    oldest_ms: dict[int, int] = field(default_factory=dict)
    undecided: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    waiting: Mapping[TopicPartition, int] = field(default_factory=dict)
    unreadable: list[UnreadableSpan] = field(default_factory=list)

    @property
    def earliest_ms(self) -> int | None:
        """The oldest timestamp of all records; None: there are none, or one has none."""
        oldest = min(self.oldest_ms.values(), default=-1)
        return None if oldest < 0 else oldest

    def passed_over(self, skips: Iterable[SkippedSpan]) -> tuple[SkippedSpan, ...]:
        """Those that lie in the window, or before it where its earlier records are deleted."""
        ends = {p.partition: span for p, span in self.spans.items()}
        return tuple(
            skip
            for skip in skips
            if skip.partition in ends
            and skip.from_offset < ends[skip.partition][1]
            and (skip.partition in self.cut or skip.to_offset > ends[skip.partition][0])
        )

    def deleted(self, skips: Sequence[SkippedSpan]) -> tuple[DeletedSpan, ...]:
        """What was deleted before it was decided, and is not among the skips."""
        return tuple(
            DeletedSpan(number, *span)
            for number, span in sorted(self.undecided.items())
            if number in self.cut and not is_recorded(skips, number, *span)
        )


@dataclass(slots=True)
class OutputRead:
    """An output topic as it was read: how far, and what its first records say of those deleted."""

    spans: dict[TopicPartition, tuple[int, int]]
    cut: frozenset[TopicPartition]  # deleted records may belong to the window
    first_ms: dict[TopicPartition, int] = field(default_factory=dict)
    unreadable: list[UnreadableSpan] = field(default_factory=list)

    def home_of(self, source: int) -> TopicPartition | None:
        """Where workers write what comes of an input partition."""
        places = sorted(self.spans)
        return places[source % len(places)] if places else None

    def complete_since_ms(self, source: int) -> int:
        """Outcomes decided before, of this input partition, may be deleted. 0: none is.

        Those of a partition of which not all can be unpacked may lie there, whenever they were decided.
        """
        home = self.home_of(source)
        if self._is_unreadable(home):
            return _FOR_EVER
        if home is None or home not in self.cut:
            return 0
        first = self.first_ms.get(home)
        return _FOR_EVER if first is None else first + int(CLOCKS_APART.total_seconds() * 1_000)

    def _is_unreadable(self, home: TopicPartition | None) -> bool:
        return any(span.partition == home for span in self.unreadable)


@dataclass(slots=True)
class LettersRead(OutputRead):
    """The dead letters' topic as it was read."""

    first_source: dict[int, int] = field(default_factory=dict)  # input partition → offset, at home only
    sourceless: int = 0  # dead letters that name no record of the input

    def complete_from(self, source: int) -> int:
        """Dead letters of lower offsets of this input partition may be deleted. 0: none is.

        Those of higher offsets came later: a rewind writes them again in order, too.
        """
        home = self.home_of(source)
        if self._is_unreadable(home):
            return _FOR_EVER
        return self.first_source.get(source, _FOR_EVER) if home in self.cut else 0


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
    """From the first record since that time (None: that is there) to the settled end; and which are cut."""
    partitions = await partitions_of(consumer, TopicSelection(topic))
    bounds = await settled_bounds(consumer, settings, partitions, say)
    starts = await offsets_at(consumer, bounds, since) if since else {p: b.first for p, b in bounds.items()}
    cut = frozenset(p for p, b in bounds.items() if 0 < b.first == starts[p])
    return {p: (starts[p], bounds[p].end) for p in bounds}, cut


def outcomes_since(first_decision: datetime | None, start: datetime | None) -> datetime | None:
    """No outcome of the window was published before; None: from the first record on.

    Workers decide a partition in its order, and publish after they have decided, each by its own clock.
    """
    if start is None:
        return None
    return (first_decision or start) - CLOCKS_APART


def letters_since(inputs: InputRead, start: datetime | None, now: datetime) -> datetime | None:
    """No dead letter of the window has an earlier time; None: from the first record on."""
    earliest_ms = inputs.earliest_ms
    # A record may claim a time from the future; its letter has the time at which it failed.
    if start is None or earliest_ms is None or earliest_ms > milliseconds(now):
        return None
    return datetime.fromtimestamp(earliest_ms / 1_000, now.tzinfo) - _UPSTREAM_CLOCKS_APART


def judged_spans(
    inputs: InputRead, confirmed: OutputRead, rejected: OutputRead, letters: LettersRead
) -> list[tables.Span]:
    """What is judged, with what of the other topics may be gone."""
    return [
        tables.Span(
            partition=p.partition,
            start=start,
            end=end,
            is_cut=p.partition in inputs.cut,
            oldest_ms=inputs.oldest_ms.get(p.partition),
            letters_from=letters.complete_from(p.partition),
            confirmed_since_ms=confirmed.complete_since_ms(p.partition),
            rejected_since_ms=rejected.complete_since_ms(p.partition),
        )
        for p, (start, end) in inputs.spans.items()
    ]


def input_read(
    bounds: Mapping[TopicPartition, Bounds],
    window: Spans,
    committed: Mapping[TopicPartition, int | None],
    *,
    from_first: bool,
) -> InputRead:
    """The part of the window that is committed: what is not is still on its way, and nobody's loss."""
    spans = {p: (start, max(start, min(end, committed[p] or 0))) for p, (start, end) in window.items()}
    cut = frozenset(
        p.partition for p, b in bounds.items() if b.first > 0 and (from_first or window[p][0] == b.first)
    )
    undecided = {
        p.partition: (offset, b.first)
        for p, b in bounds.items()
        if (offset := committed[p]) is not None and offset < b.first
    }
    waiting = {p: spans[p][1] for p, (_, end) in window.items() if spans[p][1] < end}
    return InputRead(spans, cut, undecided=undecided, waiting=waiting)


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
