"""Turns an operator's arguments (topics, times, durations) into partitions and offsets."""

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from contracts.fields import parse_order_id
from worker.error_texts import reason_of
from worker.errors import CommandError, UsageError
from worker.kafka.client_internals import partitions_of_topic
from worker.kafka.clients import quiet_aiokafka, require_topics
from worker.kafka.consuming.reading import TopicReader, nothing_more, reader
from worker.kafka.leaders import NoLeaderError
from worker.settings import Settings

_TOPIC: Final = re.compile(r"(?P<topic>[a-zA-Z0-9._-]{1,249})(:(?P<numbers>[0-9]{1,9}(,[0-9]{1,9})*))?")
_DURATION: Final = re.compile(
    r"P(?=.)((?P<days>[0-9]{1,6})D)?(T(?=.)((?P<hours>[0-9]{1,6})H)?((?P<minutes>[0-9]{1,6})M)?"
    r"((?P<seconds>[0-9]{1,9}(\.[0-9]{1,6})?)S)?)?"
)


@dataclass(frozen=True, slots=True)
class TopicSelection:
    """A topic, or some of its partitions (empty: all of them)."""

    topic: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What can be read of a partition: offsets from `first` up to, not including, `end`.

    `end` is that of a reader of committed records: before the first transaction that is still open.
    """

    first: int
    end: int


def parse_topic(text: str) -> TopicSelection:
    """`topic` or `topic:0,1`, as Kafka's own tools take it; UsageError otherwise."""
    found = _TOPIC.fullmatch(text)
    if found is None:
        raise UsageError(f"--topic {text}: write a topic, or some of its partitions as topic:0,1,2")
    return TopicSelection(
        found["topic"], tuple(sorted({int(n) for n in (found["numbers"] or "").split(",") if n}))
    )


def parse_time(text: str, option: str) -> datetime:
    """An aware time in UTC. Raises UsageError for a time without zone, because the zone is not guessed."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: write a time like 2026-11-23T10:00:00Z") from None
    if time.tzinfo is None:
        raise UsageError(
            f"{option} {text}: the time zone is missing; write {time.isoformat()}Z for UTC, or +01:00 and the"
            " like"
        )
    utc: datetime | None = None
    with suppress(OverflowError):
        utc = time.astimezone(UTC)
    if utc is None or utc.year < 2:  # what is read begins a little before the time
        raise UsageError(f"{option} {text}: write a time between the years 2 and 9998")
    return utc


def parse_duration(text: str, option: str) -> timedelta:
    """ISO 8601 without months and years, as Kafka's own tools take it: PnDTnHnMnS."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"{option} {text}: write a duration like PT2H, PT30M or P1DT12H")
    return timedelta(**{unit: float(number) for unit, number in found.groupdict().items() if number})


def read_order_id(text: str, option: str = "") -> UUID:
    """An order's id in the form in which events have it; UsageError otherwise."""
    order_id = parse_order_id(text)
    if order_id is None:
        named = f"{option} {text}".lstrip()
        raise UsageError(f"{named} is no order id: write a UUID like 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f")
    return order_id


def milliseconds(time: datetime) -> int:
    """Since 1970, as Kafka counts."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@asynccontextmanager
async def topic_reader(settings: Settings, *topics: str) -> AsyncIterator[TopicReader]:
    """A reader of committed records. Errors of Kafka are raised as CommandError, also for a missing topic.

    What cannot be unpacked is listed in its `met`, for the command to report.
    """
    await require_topics(settings, *topics)
    with quiet_aiokafka() as last_error:
        try:
            async with reader(settings.kafka_client_options(), on_unreadable=nothing_more) as consumer:
                yield consumer
        except OffsetOutOfRangeError as error:
            raise CommandError(
                f"records were deleted while they were read (retention): {reason_of(error)}; begin later"
            ) from error
        except (KafkaError, OSError) as error:
            why = reading_failed_by(error, last_error)
            raise CommandError(f"Kafka does not let us read: {why}; try again") from error


def reading_failed_by(error: BaseException, last_error: Mapping[str, str]) -> str:
    """The reason, for people. `last_error` of aiokafka's log may be those of another connection."""
    return (not isinstance(error, NoLeaderError) and last_error.get("reason")) or reason_of(error)


async def partitions_of(consumer: AIOKafkaConsumer, selected: TopicSelection) -> list[TopicPartition]:
    """Those selected, in order. Raises UsageError that names a partition which the topic does not have."""
    known = await partitions_of_topic(consumer, selected.topic)
    if unknown := [str(n) for n in selected.numbers if n not in known]:
        raise UsageError(
            f"{selected.topic} has no partition {', '.join(unknown)}: it has 0 to {max(known, default=0)}"
        )
    return [TopicPartition(selected.topic, number) for number in selected.numbers or sorted(known)]


async def bounds_of(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, Bounds]:
    """The readable offsets of each partition now."""
    if not partitions:
        return {}
    first = await consumer.beginning_offsets(list(partitions))
    ends = await consumer.end_offsets(list(partitions))
    return {p: Bounds(first[p], max(first[p], ends[p])) for p in partitions}


async def offsets_at(
    consumer: AIOKafkaConsumer, bounds: Mapping[TopicPartition, Bounds], time: datetime
) -> dict[TopicPartition, int]:
    """The first record of each partition that is not older than `time`, by its timestamp; else the end."""
    if not bounds:
        return {}
    found = await consumer.offsets_for_times(dict.fromkeys(bounds, max(0, milliseconds(time))))
    return {p: min(at.offset, bounds[p].end) if (at := found[p]) else bounds[p].end for p in bounds}


async def window(
    consumer: AIOKafkaConsumer,
    partitions: Sequence[TopicPartition],
    start: datetime | None,
    end: datetime | None,
) -> dict[TopicPartition, tuple[int, int]]:
    """The spans of the records from `start` up to, not including, `end`; None: from the first, to the end."""
    bounds = await bounds_of(consumer, partitions)
    starts = await offsets_at(consumer, bounds, start) if start else {p: b.first for p, b in bounds.items()}
    ends = await offsets_at(consumer, bounds, end) if end else {p: b.end for p, b in bounds.items()}
    return {p: (starts[p], max(starts[p], ends[p])) for p in bounds}
