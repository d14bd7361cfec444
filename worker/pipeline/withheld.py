"""Publishes withheld outcomes, exactly once, as soon as their topic accepts them.

    set_aside   store an outcome that its topic refuses in PostgreSQL, while we own the partition; the
                partition then continues without it
    look        every few seconds: publish what the topic accepts by now, and check that it is there

An outcome with a row is never published with its batch, so only `look` publishes it. `look` has a producer of
its own for each partition. Starting it aborts an earlier attempt, of any process. Then `look` searches the
topic from where that attempt began, and publishes the outcome only if it is not found.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from db.bulk.rows import LedgerRow
from db.worker import ledger, positions, withheld
from db.worker.withheld import Withheld
from worker.failures import describe
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.ends import end_offsets
from worker.kafka.limits.adapted import MAX_REQUEST_BYTES
from worker.kafka.limits.naming import withheld_sentences
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.producing.lease import Leases
from worker.kafka.producing.producers import RETRY_BACKOFF_MS, close_producer, place_in
from worker.kafka.producing.transaction import end_hanging_transactions, transaction
from worker.kafka.published import digest, find_published
from worker.observability.events import Event, about
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.pipeline.resume import database_lost
from worker.pipeline.set_aside import unpacked_headers

log = logging.getLogger(__name__)

LOOK_INTERVAL_SECONDS: Final = 5.0
_TRANSACTION_TIMEOUT_MS: Final = 20_000
_TRY_TIMEOUT_SECONDS: Final = _TRANSACTION_TIMEOUT_MS / 2_000
_TROUBLE: Final = "withheld"


def producer_id(group_id: str, partition: TopicPartition) -> str:
    """The transactional id with which the withheld outcomes of a partition are published."""
    return f"{group_id}.{partition.topic}.{partition.partition}.withheld"


class WithheldOutcomes:
    """Publishes the withheld outcomes of the partitions that are assigned to this worker."""

    def __init__(
        self,
        *,
        group: ConsumerGroup,
        leases: Leases,
        limits: OutputLimits,
        assigned: Callable[[], Collection[TopicPartition]],
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._group = group
        self._leases = leases
        self._limits = limits
        self._assigned = assigned
        self._health = health
        self._metrics = metrics

    async def run(self) -> None:
        """Call `look` every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_SECONDS)
            try:
                await self.look()
            except Exception as error:
                extra = about(Event.LOOK_FAILED, error=type(error).__name__)
                log.warning("withheld outcomes could not be looked at: %s", describe(error), extra=extra)

    async def look(self) -> None:
        """Publish what the topics accept by now, and report what they still refuse."""
        async with self._group.sessions() as session:
            rows = await withheld.list_withheld(session, self._group.topic)
        if rows:
            await self._publish_due(await self._find_due(rows))
            async with self._group.sessions.begin() as session:
                await withheld.remove_published(session, self._group.id, self._group.topic)
                rows = await withheld.list_withheld(session, self._group.topic)
        self._report([row for row in rows if row.published_at is None])

    async def _find_due(self, rows: Sequence[Withheld]) -> Mapping[TopicPartition, Sequence[UUID]]:
        """The order ids to publish now, by input partition."""
        await self._limits.read()
        mine = {p.partition: p for p in self._assigned()}
        committed = await self._leases.committed_offsets(list(mine.values())) if mine else {}
        async with self._group.sessions() as session:
            pending = await positions.list_pending(session, self._group.id, self._group.topic)
        if database_lost(self._group.topic, committed, pending):
            return {}  # what was published after the backup is not known here; `ledger restore` finds it
        due: dict[TopicPartition, list[UUID]] = defaultdict(list)
        for row in rows:
            partition = mine.get(row.source_partition)
            commit = committed.get(partition) if partition else None
            # Not before the offset of its batch is committed: until then its record is read again.
            if partition and commit and row.source_offset < commit.offset and self._is_due(row):
                due[partition].append(row.order_id)
        return due

    async def _publish_due(self, due: Mapping[TopicPartition, Sequence[UUID]]) -> None:
        for partition, order_ids in due.items():
            try:
                await self._publish(partition, order_ids)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning(
                    "withheld outcomes of %s-%d stay withheld: %s",
                    *(partition.topic, partition.partition, describe(error)),
                    extra=about(Event.OUTCOMES_STAY_WITHHELD, partition, error=type(error).__name__),
                )

    def _is_due(self, row: Withheld) -> bool:
        """Whether it may be published already, by an earlier attempt, or its topic may accept it by now."""
        limits = self._limits.of(row.topic)
        fits = not limits.is_read or limits.fits(row.size_bytes)
        return row.published_at is None and (fits or row.tried_from_offset is not None)

    async def _publish(self, partition: TopicPartition, order_ids: Sequence[UUID]) -> None:
        async with self._producer(partition) as producer:
            # Only after the producer has started: an earlier attempt can publish nothing more.
            rows = await self._without_lost_attempts(producer, partition, await self._rows(order_ids))
            await self._end_hanging_transactions(producer, rows)
            published = await self._mark_published(producer, rows)
            rest = [row for row in rows if row.order_id not in published]
            for portion in self._portions(rest):
                await self._try(producer, partition, portion)
            # What is acknowledged and not visible yet is found by the next look.
            await self._mark_published(producer, await self._rows([row.order_id for row in rest]))

    async def _rows(self, order_ids: Sequence[UUID]) -> list[Withheld]:
        async with self._group.sessions() as session:
            return await withheld.find_unpublished(session, order_ids)

    async def _without_lost_attempts(
        self, producer: AIOKafkaProducer, partition: TopicPartition, rows: Sequence[Withheld]
    ) -> list[Withheld]:
        """The rows, without the attempts in partitions that are gone.

        A topic that is recreated with fewer partitions holds nothing of such an attempt.
        """
        there: dict[str, Collection[int]] = {}
        for topic in {row.topic for row in rows}:
            await place_in(producer, topic, partition)
            if any(row.tried_partition is not None for row in rows):
                await producer.client.force_metadata_update()  # it may have been recreated just now
            there[topic] = await producer.partitions_for(topic)
        return [
            row
            if row.tried_partition is None or row.tried_partition in there[row.topic]
            else replace(row, tried_partition=None, tried_from_offset=None)
            for row in rows
        ]

    def _portions(self, rows: Sequence[Withheld]) -> Iterator[Sequence[Withheld]]:
        """The outcomes of each transaction: together if their topic is known to accept them, else each alone.

        The smallest first: after a refusal the rest waits for the next look, and would be refused as well.
        """
        known: dict[str, list[Withheld]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.size_bytes):
            limits = self._limits.of(row.topic)
            if not limits.is_read:
                yield [row]
            elif limits.fits(row.size_bytes):
                known[row.topic].append(row)
        yield from known.values()

    async def _end_hanging_transactions(self, producer: AIOKafkaProducer, rows: Sequence[Withheld]) -> None:
        """End hanging transactions of earlier attempts: they would hide later records from subscribers."""
        places = {place for row in rows if (place := _place_of(row))}
        if places:
            async with asyncio.timeout(_TRY_TIMEOUT_SECONDS):
                await end_hanging_transactions(producer, places)

    async def _mark_published(self, producer: AIOKafkaProducer, rows: Sequence[Withheld]) -> set[UUID]:
        """Those that a subscriber sees, from any attempt; PostgreSQL records them as published."""
        places: dict[TopicPartition, list[Withheld]] = defaultdict(list)
        for row in rows:
            if place := _place_of(row):
                places[place].append(row)
        found: set[UUID] = set()
        for place, of_one in places.items():
            found |= await self._find_published(producer, place, of_one)
        if found:
            async with self._group.sessions.begin() as session:
                await withheld.mark_published(session, found)
            extra = about(Event.OUTCOMES_PUBLISHED_LATE, count=len(found))
            log.info("%d withheld outcomes are published by now", len(found), extra=extra)
        return found

    async def _find_published(
        self, producer: AIOKafkaProducer, place: TopicPartition, rows: Sequence[Withheld]
    ) -> set[UUID]:
        start = min(row.tried_from_offset or 0 for row in rows)
        wanted = {_digest(row) for row in rows}
        seen = await find_published(self._leases.client_options, producer, place, start, wanted)
        # A record before the attempt is an earlier publication of the same outcome.
        return {row.order_id for row in rows if seen.get(_digest(row), -1) >= (row.tried_from_offset or 0)}

    async def _try(
        self, producer: AIOKafkaProducer, partition: TopicPartition, rows: Sequence[Withheld]
    ) -> None:
        """Publish these, of one topic, in one transaction."""
        async with asyncio.timeout(_TRY_TIMEOUT_SECONDS):
            place = await place_in(producer, rows[0].topic, partition)
            end = (await end_offsets(producer, [place]))[place]
        order_ids = [row.order_id for row in rows]
        async with self._group.sessions.begin() as session:
            events = await ledger.find_outcomes(session, order_ids)
            await withheld.begin_try(session, order_ids, place.partition, end)
        now_ms = int(time.time() * 1_000)
        async with transaction(producer, _TRY_TIMEOUT_SECONDS) as opened:
            for row in rows:
                await opened.send(
                    place,
                    key=str(row.order_id).encode(),
                    value=_event(events[row.order_id]),
                    headers=unpacked_headers(row.headers),
                    timestamp_ms=now_ms,
                )

    @asynccontextmanager
    async def _producer(self, partition: TopicPartition) -> AsyncIterator[AIOKafkaProducer]:
        """The producer of a partition's withheld outcomes: every earlier attempt has ended when it starts."""
        producer = AIOKafkaProducer(
            **self._leases.client_options,
            transactional_id=producer_id(self._group.id, partition),
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=0,  # each record by itself: their topic may take no more
            acks="all",
        )
        try:
            async with asyncio.timeout(_TRY_TIMEOUT_SECONDS):
                await producer.start()
            yield producer
        finally:
            await close_producer(producer)

    def _report(self, rows: Sequence[Withheld]) -> None:
        """Report those of our partitions in metrics, log and readiness."""
        numbers = {p.partition for p in self._assigned()}
        mine = [row for row in rows if row.source_partition in numbers]
        self._metrics.withheld.clear()
        for number in numbers:
            count = sum(row.source_partition == number for row in mine)
            self._metrics.withheld.labels(str(number)).set(count)
        if mine:
            self._health.failed(_TROUBLE, "; ".join(withheld_sentences(mine)), alive=False)
        else:
            self._health.answered(_TROUBLE)


def _place_of(row: Withheld) -> TopicPartition | None:
    """From which offset to search for it; None: its publication was never attempted."""
    return None if row.tried_partition is None else TopicPartition(row.topic, row.tried_partition)


def _digest(row: Withheld) -> bytes:
    return digest(str(row.order_id).encode(), unpacked_headers(row.headers))


def _event(row: LedgerRow) -> bytes:
    assert row.event is not None, "of a withheld outcome nothing is pruned"
    return row.event.encode()
