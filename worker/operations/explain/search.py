"""Looks for the records of one order in the four topics."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from contracts.envelope import REPUBLISHED
from contracts.topics import Topics
from db.bulk.rows import LedgerRow
from db.statuses import Outcome
from worker.core.clocks import CLOCKS_APART_SECONDS
from worker.kafka.consuming.reading import Spans, portions
from worker.kafka.offsets import Bounds, TopicSelection, bounds_of, offsets_at, partitions_of
from worker.operations.explain.facts import Found, sources_of, time_of
from worker.operations.explain.order_facts import Unread
from worker.operations.explain.order_records import OrderRecords, first_of, homes, last_of, places, unread
from worker.operations.screen import Bar
from worker.settings import Settings

Progress = Callable[[str, int], AbstractContextManager[Bar]]

_MOST_SOURCES: Final = 20  # a record each; an order has seldom more than one dead letter
_CLOCKS: Final = timedelta(seconds=CLOCKS_APART_SECONDS)


class Scan(StrEnum):
    """How much of the topics is read."""

    NEAR = "near"  # where the records should be, within bounds
    ALL = "all"  # everything


@dataclass(frozen=True, slots=True)
class Reach:
    """What `near` reads at most: of a topic, and of the input where the record waits somewhere among them.

    `fetch_bytes`: of a partition at a time, which is looked through at once.
    """

    records: int = 100_000
    waiting: int = 1_000_000
    fetch_bytes: int = 1024 * 1024


FAR: Final = Reach()


@dataclass(frozen=True, slots=True)
class OrderSearch:
    """Looks for one order's records in the topics."""

    consumer: AIOKafkaConsumer
    settings: Settings
    order_id: UUID
    progress: Progress
    reach: Reach = FAR

    @property
    def _topics(self) -> Topics:
        return self.settings.topics

    async def partitions(self, topic: str) -> list[TopicPartition]:
        return await partitions_of(self.consumer, TopicSelection(topic))

    async def all(self) -> tuple[Found, tuple[Unread, ...]]:
        """Everything that is in the four topics now."""
        topics = (
            self._topics.placed,
            self._topics.dead_letter,
            *sorted(self._topics.outcomes),
        )
        bounds = {p: b for topic in topics for p, b in (await self._bounds(topic)).items()}
        return await self._read({p: (b.first, b.end) for p, b in bounds.items()}), ()

    async def near(
        self, row: LedgerRow | None, committed: Mapping[TopicPartition, int | None]
    ) -> tuple[Found, tuple[Unread, ...]]:
        """Where its records should be, within bounds; and what is beside them."""
        placed, letters = (
            await self._bounds(self._topics.placed),
            await self._bounds(self._topics.dead_letter),
        )
        if row is None:
            return await self._near_the_end(placed, letters, committed)
        return await self._near_the_decision(row, placed, letters)

    async def _near_the_end(
        self,
        placed: Mapping[TopicPartition, Bounds],
        letters: Mapping[TopicPartition, Bounds],
        committed: Mapping[TopicPartition, int | None],
    ) -> tuple[Found, tuple[Unread, ...]]:
        """What waits to be decided, and the latest dead letters with the records that they were."""
        waiting = {p: (max(b.first, committed[p] or 0), b.end) for p, b in placed.items()}
        spans = {
            **first_of(waiting, self.reach.waiting),
            **last_of({p: (b.first, b.end) for p, b in letters.items()}, self.reach.records),
        }
        found = await self._read(spans)
        found, sources = await self._with_sources(found, placed)
        return found, unread({**placed, **letters}, [spans, *sources])

    async def _with_sources(
        self, found: Found, placed: Mapping[TopicPartition, Bounds]
    ) -> tuple[Found, list[Spans]]:
        """With the records that the dead letters were, and where those lie."""
        sources = places(sources_of(found.dead_letters)[-_MOST_SOURCES:], placed)
        for source in sources:
            found = found + await self._read(source)
        return found, sources

    async def _near_the_decision(
        self,
        row: LedgerRow,
        placed: Mapping[TopicPartition, Bounds],
        letters: Mapping[TopicPartition, Bounds],
    ) -> tuple[Found, tuple[Unread, ...]]:
        """The source by its place and what follows it; outcomes and dead letters from that time on."""
        source = TopicPartition(row.source_topic, row.source_partition)
        behind = {p: (row.source_offset, b.end) for p, b in placed.items() if p == source}
        # Gone, where the topic begins after it; not there, where the topic is a new one of that name.
        there = {p: span for p, span in behind.items() if placed[p].first <= span[0] < span[1]}
        # What follows it, too: a publisher that is not sure repeats an order at once.
        following = first_of(there, self.reach.records)
        found = await self._read(following)
        home, *other_homes = await self._outcome_homes(row)
        at_home = await bounds_of(self.consumer, [home])
        # A letter that an earlier version wrote has the time of its record, which may have waited for long.
        since = min([row.decided_at, *map(time_of, found.inputs[:1])]) - _CLOCKS
        # Of these, what is older needs no look: nothing of this order can be in it.
        since_then = {
            **await self._from(at_home, row.decided_at - _CLOCKS),
            **await self._from(letters, since),
        }
        spans = first_of(since_then, self.reach.records)
        found = found + await self._read(spans)
        elsewhere: Spans = {}
        if all(REPUBLISHED in record.headers or record.value is None for record in found.outcomes):
            bounds = await bounds_of(self.consumer, other_homes)
            elsewhere = await self._from(bounds, row.decided_at - _CLOCKS)
        more = first_of(elsewhere, self.reach.records)
        found, sources = await self._with_sources(found + await self._read(more), placed)
        whole = {**placed, **{p: Bounds(*span) for p, span in {**since_then, **elsewhere}.items()}}
        return found, unread(whole, [following, spans, more, *sources])

    async def _outcome_homes(self, row: LedgerRow) -> list[TopicPartition]:
        """The partition that the outcome goes to, then those it went to while its topic had fewer."""
        topic = self._topics.confirmed if row.outcome == Outcome.CONFIRMED else self._topics.rejected
        return homes(await self.partitions(topic), row.source_partition)

    async def _bounds(self, topic: str) -> dict[TopicPartition, Bounds]:
        return await bounds_of(self.consumer, await self.partitions(topic))

    async def _from(self, bounds: Mapping[TopicPartition, Bounds], time: datetime) -> Spans:
        starts = await offsets_at(self.consumer, bounds, time)
        return {p: (starts[p], bound.end) for p, bound in bounds.items() if starts[p] < bound.end}

    async def _read(self, spans: Spans) -> Found:
        spans = {p: (start, end) for p, (start, end) in spans.items() if start < end}
        if not spans:
            return Found()
        wanted = OrderRecords(
            self.order_id, frozenset(self._topics.outcomes), self.settings.message_max_bytes
        )
        with self.progress("reading", sum(end - start for start, end in spans.values())) as bar:
            records = await _search(self.consumer, spans, wanted, bar)
        return Found(
            inputs=[r for r in records if r.topic == self._topics.placed],
            outcomes=[r for r in records if r.topic in self._topics.outcomes],
            dead_letters=[r for r in records if r.topic == self._topics.dead_letter],
        )


async def _search(
    consumer: AIOKafkaConsumer, spans: Spans, wanted: OrderRecords, bar: Bar
) -> list[ConsumerRecord]:
    """Those of the order in the spans, by topic, partition and offset."""
    found = []
    async for _, records in portions(consumer, spans):
        found += [record for record in records if wanted.is_one(record)]
        bar.advance(len(records))
    return sorted(found, key=lambda record: (record.topic, record.partition, record.offset))
