"""One attempt to publish the withheld outcomes of a partition; any number of attempts publish each once.

    start    the partition's own producer: starting it aborts an earlier attempt, of any process
    find     what earlier attempts have published: the topic is searched from where each began
    try      record where this attempt begins, and publish the rest in a transaction

An attempt may end anywhere: the next one finds out what it has published.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaProducer, TopicPartition

from db.bulk.rows import LedgerRow
from db.worker import ledger, withheld
from db.worker.withheld import Withheld
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.ends import end_offsets
from worker.kafka.limits.adapted import MAX_REQUEST_BYTES
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.producing.producers import RETRY_BACKOFF_MS, close_producer, place_in
from worker.kafka.producing.transaction import end_hanging_transactions, transaction
from worker.kafka.published import digest, find_published
from worker.observability.events import Event, about
from worker.pipeline.set_aside import unpacked_headers

log = logging.getLogger(__name__)

_TRANSACTION_TIMEOUT_MS: Final = 20_000
_TRY_TIMEOUT_SECONDS: Final = _TRANSACTION_TIMEOUT_MS / 2_000


def producer_id(group_id: str, partition: TopicPartition) -> str:
    """The transactional id with which the withheld outcomes of a partition are published."""
    return f"{group_id}.{partition.topic}.{partition.partition}.withheld"


@dataclass(frozen=True, slots=True)
class LatePublication:
    """An attempt for one partition. `producer` is started, so earlier attempts can publish nothing more."""

    partition: TopicPartition
    producer: AIOKafkaProducer
    client_options: Mapping[str, Any]
    group: ConsumerGroup
    limits: OutputLimits

    async def publish(self, order_ids: Sequence[UUID]) -> None:
        """Publish those of these outcomes that are not published yet.

        Raises KafkaError, OSError or TimeoutError; the next attempt finds out what was published.
        """
        rows = await self._without_lost_attempts(await self._rows(order_ids))
        await self._end_hanging_transactions(rows)
        published = await self._mark_published(rows)
        rest = [row for row in rows if row.order_id not in published]
        for portion in _portions(rest, self.limits):
            await self._try(portion)
        # What is acknowledged and not visible yet is found by the next attempt.
        await self._mark_published(await self._rows([row.order_id for row in rest]))

    async def _rows(self, order_ids: Sequence[UUID]) -> list[Withheld]:
        async with self.group.sessions() as session:
            return await withheld.find_unpublished(session, order_ids)

    async def _without_lost_attempts(self, rows: Sequence[Withheld]) -> list[Withheld]:
        """The rows, without the attempts in partitions that are gone.

        A topic that is recreated with fewer partitions holds nothing of such an attempt.
        """
        there: dict[str, Collection[int]] = {}
        for topic in {row.topic for row in rows}:
            await place_in(self.producer, topic, self.partition)
            if any(row.tried_partition is not None for row in rows):
                await self.producer.client.force_metadata_update()  # it may have been recreated just now
            there[topic] = await self.producer.partitions_for(topic)
        return [
            row
            if row.tried_partition is None or row.tried_partition in there[row.topic]
            else replace(row, tried_partition=None, tried_from_offset=None)
            for row in rows
        ]

    async def _end_hanging_transactions(self, rows: Sequence[Withheld]) -> None:
        """End hanging transactions of earlier attempts: they would hide later records from subscribers."""
        places = {place for row in rows if (place := _place_of(row))}
        if places:
            async with asyncio.timeout(_TRY_TIMEOUT_SECONDS):
                await end_hanging_transactions(self.producer, places)

    async def _mark_published(self, rows: Sequence[Withheld]) -> set[UUID]:
        """Mark in PostgreSQL the outcomes that any attempt has published, and return their ids."""
        places: dict[TopicPartition, list[Withheld]] = defaultdict(list)
        for row in rows:
            if place := _place_of(row):
                places[place].append(row)
        found: set[UUID] = set()
        for place, of_one in places.items():
            found |= await self._find_published(place, of_one)
        if found:
            async with self.group.sessions.begin() as session:
                await withheld.mark_published(session, found)
            extra = about(Event.OUTCOMES_PUBLISHED_LATE, count=len(found))
            log.info("%d withheld outcomes are published by now", len(found), extra=extra)
        return found

    async def _find_published(self, place: TopicPartition, rows: Sequence[Withheld]) -> set[UUID]:
        start = min(row.tried_from_offset or 0 for row in rows)
        wanted = {_digest(row) for row in rows}
        seen = await find_published(self.client_options, self.producer, place, start, wanted)
        # A record before the attempt is an earlier publication of the same outcome.
        return {row.order_id for row in rows if seen.get(_digest(row), -1) >= (row.tried_from_offset or 0)}

    async def _try(self, rows: Sequence[Withheld]) -> None:
        """Publish these, of one topic, in one transaction."""
        async with asyncio.timeout(_TRY_TIMEOUT_SECONDS):
            place = await place_in(self.producer, rows[0].topic, self.partition)
            end = (await end_offsets(self.producer, [place]))[place]
        order_ids = [row.order_id for row in rows]
        async with self.group.sessions.begin() as session:
            events = await ledger.find_outcomes(session, order_ids)
            await withheld.begin_try(session, order_ids, place.partition, end)
        now_ms = int(time.time() * 1_000)
        async with transaction(self.producer, _TRY_TIMEOUT_SECONDS) as opened:
            for row in rows:
                await opened.send(
                    place,
                    key=str(row.order_id).encode(),
                    value=_event(events[row.order_id]),
                    headers=unpacked_headers(row.headers),
                    timestamp_ms=now_ms,
                )


@asynccontextmanager
async def late_publication(
    partition: TopicPartition, client_options: Mapping[str, Any], group: ConsumerGroup, limits: OutputLimits
) -> AsyncIterator[LatePublication]:
    """A new attempt: every earlier one of the partition has ended."""
    producer = AIOKafkaProducer(
        **client_options,
        transactional_id=producer_id(group.id, partition),
        transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
        retry_backoff_ms=RETRY_BACKOFF_MS,
        max_request_size=MAX_REQUEST_BYTES,
        max_batch_size=0,  # each record by itself: their topic may take no more
        acks="all",
    )
    try:
        async with asyncio.timeout(_TRY_TIMEOUT_SECONDS):
            await producer.start()
        yield LatePublication(partition, producer, client_options, group, limits)
    finally:
        await close_producer(producer)


def _portions(rows: Sequence[Withheld], limits: OutputLimits) -> Iterator[Sequence[Withheld]]:
    """The outcomes of each transaction: together if their topic is known to accept them, else each alone.

    The smallest first: after a refusal the rest waits for the next look, and would be refused as well.
    """
    known: dict[str, list[Withheld]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.size_bytes):
        of_topic = limits.of(row.topic)
        if not of_topic.is_read:
            yield [row]
        elif of_topic.fits(row.size_bytes):
            known[row.topic].append(row)
    yield from known.values()


def _place_of(row: Withheld) -> TopicPartition | None:
    """From which offset to search for it; None: its publication was never attempted."""
    return None if row.tried_partition is None else TopicPartition(row.topic, row.tried_partition)


def _digest(row: Withheld) -> bytes:
    return digest(str(row.order_id).encode(), unpacked_headers(row.headers))


def _event(row: LedgerRow) -> bytes:
    assert row.event is not None, "of a withheld outcome nothing is pruned"
    return row.event.encode()
