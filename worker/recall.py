"""Where to go on in a partition of which the broker tells less than it has acknowledged.

Kafka 4.3.1 forgets committed offsets after a crash, for a moment or until its next restart, and an orderly
restart may undo the last transaction before it, outcomes and offset together (ARCHITECTURE.md, last section).
What was written to PostgreSQL before the last announcements, and the topics themselves, know better.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from db.positions import Begun, Witness
from worker.kafka.unreadable import UnreadableSpan
from worker.reading import reader, records
from worker.resume import WaitsForOperatorError

# How far the clocks of worker and broker may be apart where the broker stamps the records.
_CLOCK_MS: Final = 10_000
_STAMPED_BY_BROKER: Final = 1


def is_forgotten(told: int | None, by_operator: bool, begun: Begun | None) -> bool:
    """Whether the broker tells (None: nothing was committed) less than what is announced for certain.

    An operator may move the offset back, and is believed.
    """
    return begun is not None and not by_operator and (told is None or told < begun.announced_to)


def digest(key: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    """The same for the same key and headers only."""
    return hashlib.sha256(repr((key, [tuple(header) for header in headers])).encode()).digest()


async def recall(
    client_options: Mapping[str, Any],
    producer: AIOKafkaProducer,
    begun: Begun,
    told: int | None,
) -> int:
    """The first offset that is not announced, for certain.

    `told` is what the broker takes for it. The partition's owner before must be fenced, and every transaction
    of its producer must have ended. Raises KafkaError, or TimeoutError while other transactions hide what
    came after them; WaitsForOperatorError where it may lie in what cannot be unpacked.
    """
    before = begun.acknowledged
    # Its offset would have been undone with it.
    may_be_undone = before is not None and (told is None or told <= before.from_offset)
    if before and may_be_undone and not await _is_announced(client_options, producer, before.witness):
        return before.from_offset
    is_announced = await _is_announced(client_options, producer, begun.witness)
    return begun.begun_to if is_announced else begun.announced_to


async def _is_announced(
    client_options: Mapping[str, Any], producer: AIOKafkaProducer, witness: Witness | None
) -> bool:
    """Whether a subscriber sees the witness. A batch without one has nothing to announce."""
    if witness is None:
        return True
    places = [
        TopicPartition(witness.topic, number) for number in await producer.partitions_for(witness.topic)
    ]
    async with reader(client_options, "read_uncommitted") as consumer:
        # Both uncommitted: what another transaction hides has to be waited for, not overlooked.
        starts = await consumer.offsets_for_times(dict.fromkeys(places, witness.timestamp_ms - _CLOCK_MS))
        ends = await consumer.end_offsets(places)
    spans = {p: (start.offset, ends[p]) for p, start in starts.items() if start is not None}
    unreadable: list[UnreadableSpan] = []
    async with reader(client_options, "read_committed", unreadable.append) as consumer:
        async for record in records(consumer, spans):
            if _is_witness(record, witness):
                return True
    if unreadable:
        raise WaitsForOperatorError(
            f"{unreadable[0]}: nobody can tell whether what was decided last was published; look there with"
            " Kafka's own tools, and commit the group's offset before those orders, or behind them"
        )
    return False


def _is_witness(record: ConsumerRecord, witness: Witness) -> bool:
    # Another announcement of the same outcome, before or after a replay, differs in its time only.
    at_that_time = record.timestamp_type == _STAMPED_BY_BROKER or record.timestamp == witness.timestamp_ms
    return at_that_time and digest(record.key, record.headers) == witness.digest
