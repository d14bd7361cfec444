"""How far a partition is published, where the broker says less than it has acknowledged.

Kafka 4.3.1 forgets committed offsets after a crash, for a moment or until its next restart, and an orderly
restart may undo the last transaction before it, outcomes and offset together (ARCHITECTURE.md, last section).
What was written to PostgreSQL before the last publications, and the topics themselves, know better.
"""

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from db.worker.positions import PendingBatch, Sentinel
from worker.core.settlement import Publication
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
    """Retention has deleted where the sentinel would lie: nobody can tell whether it was there."""


def is_offset_lost(committed: int | None, by_operator: bool, pending: PendingBatch | None) -> bool:
    """Whether the broker says less (None: nothing was committed) than what is published for certain.

    An operator may move the offset back, and is believed.
    """
    return pending is not None and not by_operator and (committed is None or committed < pending.published_to)


def digest(key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    """The same for the same publication only, however a dead letter was cut or keyed for its topic."""
    return hashlib.sha256(repr(identity(key, headers)).encode()).digest()


def publishers(pending: PendingBatch) -> set[str]:
    """The transactional ids with which the latest batches were published."""
    before = pending.acknowledged
    return {one for one in (pending.published_by, before and before.published_by) if one}


async def published_to(leases: Leases, lease: Lease, pending: PendingBatch, committed: int | None) -> int:
    """The offset below which all is published, for certain; `committed` is what the broker says.

    Raises as `find_published_to` does.
    """
    async with asyncio.timeout(leases.producers.timeout_seconds):
        await leases.producers.end_what_hangs(publishers(pending))
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

    `is_presumed`: the latest batch counts as published where retention has deleted what would show it.

    Raises KafkaError, or TimeoutError while other transactions hide what came after them;
    WaitsForOperatorError where it may lie in what cannot be unpacked, or in what is deleted.
    """
    before = pending.acknowledged
    # Its offset would have been undone with it.
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
    async with reader(client_options, "read_uncommitted") as consumer:
        # Both uncommitted: what another transaction hides has to be waited for, not overlooked.
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
            f"{unreadable[0]}: nobody can tell whether what was decided last was published; look there with"
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
    """By `digest`, the last offset of each that a subscriber sees in a partition from `start` on.

    Raises KafkaError, or TimeoutError while other transactions hide what came after them.
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
    """From where on the sentinel is looked for, in each partition where it may be."""
    if sentinel.partition is None or sentinel.from_offset is None:
        return await _starts_by_time(consumer, sentinel, ends.keys())
    place = TopicPartition(sentinel.topic, sentinel.partition)
    if sentinel.from_offset > ends.get(place, -1):
        # The place is gone: the topic is a new one, or its broker has lost what was behind it.
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
    # Behind that place there is no other publication of the same. Without one, before or after a replay,
    # another differs in its time only.
    has_place = sentinel.from_offset is not None
    is_stamped = record.timestamp_type == _STAMPED_BY_BROKER
    return has_place or is_stamped or bool(record.timestamp == sentinel.timestamp_ms)


def sentinel_of(lease: Lease, seen: Publication) -> Sentinel:
    """What to remember of a publication that comes next, to see later whether it happened."""
    place = lease.places.get(seen.topic)
    where = (place.partition, lease.ends[place]) if place else (None, None)
    return Sentinel(seen.topic, seen.timestamp_ms, digest(seen.key, seen.headers), *where)
