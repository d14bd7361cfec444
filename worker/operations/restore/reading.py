"""Reads what a restoration needs: outcomes that are not in the ledger, and the records they came of.

outcomes       each compared with the ledger; what is missing is kept
dead letters   which input records never were an order's first decision
input          the records that missing outcomes came of; committed ones of which nothing is known
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.plain_order import PlainOrder
from db.bulk.rows import LedgerRow
from db.reconciliation import restoration
from db.reconciliation.restoration import DifferingRow, MissingOutcome, SourceRow, UnaccountedRow
from db.statuses import Outcome
from db.worker import ledger, withheld
from db.worker.skips import SkippedSpan, list_skips
from worker.core.decode import Decoded, decode_former
from worker.kafka.consuming.reading import Spans, portions
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of
from worker.kafka.stable_ends import Say
from worker.operations.reconcile.topic_copies import output_spans
from worker.operations.restore.lost_outcomes import (
    Behind,
    Published,
    letter_row,
    may_be_outcome_of,
    missing_outcome,
    published,
    read_event,
)
from worker.operations.screen import progress
from worker.settings import Settings

Keep = Callable[[TopicPartition, Sequence[ConsumerRecord]], Awaitable[None]]

_DIFFERS: Final = "the ledger has other bytes"


@dataclass(slots=True)
class OutcomesRead:
    """What the outcome topics hold, in records; `foreign` are those that no worker wrote."""

    records: int = 0
    in_ledger: int = 0
    missing: int = 0
    foreign: int = 0
    partitions: dict[str, int] = field(default_factory=dict)  # of each topic
    cut: list[str] = field(default_factory=list)  # where the first records are deleted
    withheld: set[UUID] = field(default_factory=set)  # published, and not known to be


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads with one consumer into one session, whose temporary tables are prepared."""

    consumer: AIOKafkaConsumer
    session: AsyncSession
    settings: Settings
    quiet: bool
    say: Say

    async def outcomes(self, start: datetime | None) -> OutcomesRead:
        """Keep what is not in the ledger, of both topics, from the first record since `start` on."""
        read = OutcomesRead()
        for topic, outcome in (
            (self.settings.order_confirmed_topic, Outcome.CONFIRMED),
            (self.settings.order_rejected_topic, Outcome.REJECTED),
        ):
            spans, cut = await output_spans(self.consumer, self.settings, topic, start, self.say)
            read.partitions[topic] = len(spans)
            read.cut += [f"{p.topic}-{p.partition}" for p in sorted(cut)]
            await self._read(spans, self._outcomes_keeper(outcome, read), f"reading {topic}")
        await restoration.keep_first_decisions(self.session)
        await self.session.commit()
        return read

    def _outcomes_keeper(self, outcome: Outcome, read: OutcomesRead) -> Keep:
        async def keep(_: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
            found = [p for record in records if (p := published(record, outcome))]
            known = await ledger.find_outcomes(self.session, {p.order_id for p in found})
            missing = [m for p in found if p.order_id not in known and (m := missing_outcome(p))]
            stored = [p for p in found if p.order_id in known]
            differing = [_differing(p) for p in stored if not _is_same(p, known[p.order_id])]
            await restoration.add_missing(self.session, missing)
            await restoration.add_differing(self.session, differing)
            unpublished = await withheld.find_unpublished(self.session, [p.order_id for p in stored])
            read.withheld |= {row.order_id for row in unpublished}
            read.records += len(records)
            read.in_ledger += len(stored)
            read.missing += len(missing)
            read.foreign += len(records) - len(stored) - len(missing)

        return keep

    async def letters(self) -> None:
        """Keep which input records became dead letters."""
        settings = self.settings
        spans, _ = await output_spans(self.consumer, settings, settings.dead_letter_topic, None, self.say)

        async def keep(_: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
            rows = [letter_row(record, settings.order_placed_topic) for record in records]
            await restoration.add_letters(self.session, [row for row in rows if row])

        await self._read(spans, keep, f"reading {settings.dead_letter_topic}")

    async def inputs(self, waiting: Sequence[Behind], partitions: Mapping[str, int]) -> dict[int, int]:
        """Keep the records that missing outcomes came of, and the committed ones that nothing is known of.

        `partitions`: how many each outcome topic has. Returns, by partition that waits, the timestamp of the
        last record that is committed, if it is still there.
        """
        topic = self.settings.order_placed_topic
        places = await partitions_of(self.consumer, TopicSelection(topic))
        bounds = await bounds_of(self.consumer, places)
        skipped = [s for s in await list_skips(self.session, topic) if s.kind == "skipped"]
        of_each = {b.partition: b for b in waiting}
        inputs = Inputs(self.session, self.settings.message_max_bytes, of_each, partitions, skipped)
        await self._read({p: (b.first, b.end) for p, b in bounds.items()}, inputs.keep, f"reading {topic}")
        return inputs.last_timestamps

    async def _read(self, spans: Spans, keep: Keep, what: str) -> None:
        if not any(start < end for start, end in spans.values()):
            return
        come_to = {partition: start for partition, (start, _) in spans.items()}
        with progress(what, sum(end - start for start, end in spans.values()), quiet=self.quiet) as bar:
            async for partition, records in portions(self.consumer, spans):
                await keep(partition, records)
                # At once: a transaction that lasts keeps old versions of rows from being cleaned up.
                await self.session.commit()
                behind = records[-1].offset + 1
                bar.advance(behind - come_to[partition])
                come_to[partition] = behind


class _Placed(NamedTuple):
    """An input record that is an order."""

    order: PlainOrder
    fingerprint: bytes
    offset: int
    timestamp_ms: int


@dataclass(slots=True)
class Inputs:
    """Keeps what is to be known of the input records of a portion."""

    session: AsyncSession
    max_bytes: int
    waiting: dict[int, Behind]
    partitions: Mapping[str, int]
    skipped: Sequence[SkippedSpan]
    last_timestamps: dict[int, int] = field(default_factory=dict)

    async def keep(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        number = partition.partition
        waits = self.waiting.get(number)
        for record in records:
            if waits and record.offset == waits.committed - 1:
                self.last_timestamps[number] = record.timestamp
        placed = list(self._orders_in(records))
        missing = await restoration.find_missing(self.session, {p.order.order_id for p in placed})
        sources = [p for p in placed if _fits(p.order, missing.get(p.order.order_id))]
        unknown = await self._unknown(placed, missing.keys(), waits)
        dead = await self._dead(number, [*sources, *unknown])
        await restoration.add_sources(
            self.session,
            [self._source(number, p, missing[p.order.order_id]) for p in sources if p.offset not in dead],
        )
        await restoration.add_unaccounted(
            self.session,
            [UnaccountedRow(number, p.offset, p.order.order_id) for p in unknown if p.offset not in dead],
        )

    def _orders_in(self, records: Sequence[ConsumerRecord]) -> Iterator[_Placed]:
        for record in records:
            decoded = decode_former(record.value, self.max_bytes, record.headers)
            if isinstance(decoded, Decoded):
                yield _Placed(decoded.order, decoded.fingerprint, record.offset, record.timestamp)

    async def _unknown(
        self, placed: Sequence[_Placed], missing: Collection[UUID], waits: Behind | None
    ) -> list[_Placed]:
        """Those that a partition's workers would skip, of orders that are nowhere to be found."""
        if waits is None:
            return []
        start, end = waits.span
        skipped = [s for s in self.skipped if s.partition == waits.partition]
        committed = [
            p
            for p in placed
            if start <= p.offset < end
            and p.order.order_id not in missing
            and not any(s.from_offset <= p.offset < s.to_offset for s in skipped)
        ]
        decided = await restoration.find_decided(self.session, {p.order.order_id for p in committed})
        return [p for p in committed if p.order.order_id not in decided]

    def _source(self, partition: int, placed: _Placed, outcome: MissingOutcome) -> SourceRow:
        is_home = partition % self.partitions[outcome.topic] == outcome.partition
        is_rejected = outcome.outcome == Outcome.REJECTED
        return SourceRow(
            *(outcome.order_id, partition, placed.offset, placed.timestamp_ms, placed.fingerprint, is_home),
            placed.order.sorted_fingerprint() if is_rejected else None,
        )

    async def _dead(self, partition: int, placed: Sequence[_Placed]) -> set[int]:
        """The offsets of those that became dead letters."""
        if not placed:
            return set()
        times = {p.offset: p.timestamp_ms for p in placed}
        letters = await restoration.find_letters(self.session, partition, times.keys())
        # Of another time, it is of a record of an earlier topic of this name.
        return {letter.offset for letter in letters if letter.timestamp_ms in (None, times[letter.offset])}


def _fits(order: PlainOrder, outcome: MissingOutcome | None) -> bool:
    event = read_event(outcome.outcome, outcome.event) if outcome else None
    return event is not None and may_be_outcome_of(event, order)


def _is_same(one: Published, row: LedgerRow) -> bool:
    # What was pruned has no event to compare with.
    return one.outcome == row.outcome and (row.event is None or one.value == row.event.encode())


def _differing(one: Published) -> DifferingRow:
    return DifferingRow(one.order_id, one.topic, one.partition, one.offset, _DIFFERS)
