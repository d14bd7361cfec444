"""Finds out how far a partition is published if Kafka reports a lower offset than it has acknowledged.

Kafka 4.3.1 may forget committed offsets after a crash, for a moment or until its next restart, and an orderly
restart may undo the last transaction, outcomes and offset together (docs/kafka-limits.md). So PostgreSQL
records each batch before it is published, and the output topics show whether it was.
"""

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from db.worker.positions import PendingBatch, Sentinel
from worker.core.results import Publication
from worker.failures import WaitsForOperatorError
from worker.kafka.consuming.reading import reader, records
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.ends import end_offsets
from worker.kafka.limits.adapted import identity
from worker.kafka.producing.lease import Lease, Leases

# How far the clocks of worker and broker may be apart where an earlier version has remembered no place: then
# the record is looked for by its time.
_CLOCK_MS: Final = 60 * 60 * 1_000
_STAMPED_BY_BROKER: Final = 1
# Some 100,000 records a second are read; and the transaction of others that hides what came after it ends by
# its timeout.
_FIND_SECONDS: Final = 300.0


class SentinelDeletedError(WaitsForOperatorError):
    """Retention has deleted the records among which the sentinel would be: nobody can say if it was there."""


def is_offset_lost(committed: int | None, pending: PendingBatch) -> bool:
    """Whether a worker's offset (None: nothing was committed) is lower than what is published for certain."""
    return committed is None or committed < pending.published_to


def digest(key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    """A digest that identifies a publication; a dead letter also after it was cut or keyed for its topic."""
    return hashlib.sha256(repr(identity(key, headers)).encode()).digest()


def publishers(pending: PendingBatch) -> set[str]:
    """The transactional ids with which the latest batches were published."""
    before = pending.acknowledged
    return {one for one in (pending.published_by, before and before.published_by) if one}


async def published_to(leases: Leases, lease: Lease, pending: PendingBatch, committed: int | None) -> int:
    """The offset below which everything is published for certain; `committed` is Kafka's offset.

    Raises as `find_published_to` does.
    """
    async with asyncio.timeout(leases.producers.timeout_seconds):
        await leases.producers.end_hanging_transactions(publishers(pending))
        return await find_published_to(leases.client_options, lease.producer.client, pending, committed)


async def find_published_to(
    client_options: Mapping[str, Any],
    producer: AIOKafkaProducer,
    pending: PendingBatch,
    committed: int | None,
    *,
    is_presumed: bool = False,
) -> int:
    """As `published_to`; every transaction of the partition's owners must have ended.

    `is_presumed`: the latest batch counts as published if retention deleted the records that would show it.

    Raises KafkaError, or TimeoutError while other open transactions hide later records; WaitsForOperatorError
    if the sentinel may be among records that cannot be unpacked, or that were deleted.
    """
    before = pending.acknowledged
    # If Kafka had undone that batch, it would also have undone its offset.
    may_be_undone = before is not None and (committed is None or committed <= before.from_offset)
    if before and may_be_undone:
        try:
            is_there = await _is_published(client_options, producer, before.sentinel)
        except SentinelDeletedError:
            is_there = True  # Kafka had acknowledged it
        if not is_there:
            return before.from_offset
    try:
        is_published = await _is_published(client_options, producer, pending.sentinel)
    except SentinelDeletedError:
        # Kafka has neither forgotten nor undone anything, if it says where that batch begins.
        if not is_presumed and committed != pending.published_to:
            raise
        is_published = is_presumed
    return pending.pending_to if is_published else pending.published_to


async def _is_published(
    client_options: Mapping[str, Any], producer: AIOKafkaProducer, sentinel: Sentinel | None
) -> bool:
    """Whether a subscriber sees the sentinel. A batch without one has nothing to publish.

    Raises SentinelDeletedError where it may have been seen once.
    """
    if sentinel is None:
        return True
    numbers = await producer.partitions_for(sentinel.topic)
    places = [TopicPartition(sentinel.topic, number) for number in numbers]
    own = [place for place in places if place.partition == sentinel.partition]
    async with reader(client_options, "read_uncommitted") as consumer:
        # The uncommitted ends: the search waits for records that an open transaction of others hides.
        ends = await consumer.end_offsets(own)
        if sentinel.from_offset is None or sentinel.from_offset > max(ends.values(), default=-1):
            # It may be in any partition. Asked only then: one without a leader would delay other partitions.
            ends = await consumer.end_offsets(places)
        starts = await _starts(consumer, sentinel, ends)
    spans = {place: (start, ends[place]) for place, start in starts.items()}
    unreadable: list[UnreadableSpan] = []
    async with reader(client_options, "read_committed", unreadable.append) as consumer:
        async for record in records(consumer, spans):
            if _is_sentinel(record, sentinel):
                return True
    if unreadable:
        raise WaitsForOperatorError(
            f"{unreadable[0]}: so it is unknown whether the last batch was published; look there with"
            " Kafka's own tools, and commit the group's offset before those orders, or behind them"
        )
    for place, start in starts.items():
        if place.partition == sentinel.partition and start > (sentinel.from_offset or 0):
            raise SentinelDeletedError(
                f"{place.topic}-{place.partition} begins at {start} by now, and the latest batch would lie"
                f" at {sentinel.from_offset} or behind: nobody can tell whether it was published; ask a"
                " subscriber for its orders, and commit the group's offset before them, or behind them"
            )
    return False


async def find_published(
    client_options: Mapping[str, Any],
    producer: AIOKafkaProducer,
    place: TopicPartition,
    start: int,
    digests: Collection[bytes],
) -> dict[bytes, int]:
    """By `digest`, the last offset of each publication that a subscriber sees in a partition from `start` on.

    Raises KafkaError, or TimeoutError while other open transactions hide later records.
    """
    found: dict[bytes, int] = {}
    async with asyncio.timeout(_FIND_SECONDS):
        end = (await end_offsets(producer, [place]))[place]
        async with reader(client_options, "read_committed") as consumer:
            first = (await consumer.beginning_offsets([place]))[place]
            async for record in records(consumer, {place: (max(start, first), end)}):
                if (seen := digest(record.key, record.headers)) in digests:
                    found[seen] = record.offset
    return found


async def _starts(
    consumer: AIOKafkaConsumer, sentinel: Sentinel, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The offset to search from, in each partition that may hold the sentinel."""
    if sentinel.partition is None or sentinel.from_offset is None:
        return await _starts_by_time(consumer, sentinel, ends.keys())
    place = TopicPartition(sentinel.topic, sentinel.partition)
    if sentinel.from_offset > ends.get(place, -1):
        # The offset does not exist: the topic was recreated, or its broker has lost the records before it.
        return await _starts_by_time(consumer, sentinel, ends.keys())
    return {place: max(sentinel.from_offset, (await consumer.beginning_offsets([place]))[place])}


async def _starts_by_time(
    consumer: AIOKafkaConsumer, sentinel: Sentinel, places: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    since = dict.fromkeys(places, max(0, sentinel.timestamp_ms - _CLOCK_MS))
    starts = await consumer.offsets_for_times(since)
    return {place: start.offset for place, start in starts.items() if start is not None}


def _is_sentinel(record: ConsumerRecord, sentinel: Sentinel) -> bool:
    if digest(record.key, record.headers) != sentinel.digest:
        return False
    # From that offset on there is no other publication of the outcome. Without that offset only the time
    # distinguishes it from another one, from before or after a replay.
    has_place = sentinel.from_offset is not None
    is_stamped = record.timestamp_type == _STAMPED_BY_BROKER
    return has_place or is_stamped or bool(record.timestamp == sentinel.timestamp_ms)


def sentinel_of(lease: Lease, seen: Publication) -> Sentinel:
    """The sentinel to store of a batch that is published next, to find out later whether it was published."""
    place = lease.places.get(seen.topic)
    where = (place.partition, lease.ends.get(place)) if place else (None, None)
    return Sentinel(seen.topic, seen.timestamp_ms, digest(seen.key, seen.headers), *where)
