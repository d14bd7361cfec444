"""`skip`: skips a place of the input that nobody can read, on record. Workers may run meanwhile.

    refuse    what is decided, deleted, not there yet or skipped already
    read      the place, and what is before and behind it, as a worker would
    record    in PostgreSQL; the worker that waits there looks for it and continues after it

Without `execute` nothing is recorded.
"""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import session_factory
from db.worker.skips import add_skip, list_skips
from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError, UsageError
from worker.failures import DATABASE_ERRORS
from worker.kafka import group
from worker.kafka.clients import KAFKA_ERRORS, kafka_admin, require_topics
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.offsets import Bounds, TopicSelection, bounds_of, partitions_of
from worker.operations.skip.plan import SkipPlan, SkipRequest, refusal
from worker.settings import Settings

# Kafka answers in milliseconds; a consumer reads again where an answer was lost on its way.
NOT_SERVED_SECONDS: Final = 15.0
_POLL_MS: Final = 50
_MAX_RECORDS: Final = 2_000
# How far before the place one begins to read, to find where the unreadable batch that holds it begins: a
# batch has seldom more records.
_REACHES: Final = (0, 1_000, 100_000)


@dataclass(frozen=True, slots=True)
class NotServed:
    """From `offset` on Kafka gives nothing: neither records nor anything that cannot be unpacked."""

    offset: int
    why: str


Found = Sequence[ConsumerRecord] | UnreadableSpan | NotServed


async def skip(settings: Settings, asked: SkipRequest, *, execute: bool = False) -> SkipPlan:
    """Rehearse the skip and, with `execute`, record it, with `requested_by` and `note`.

    Raises CommandError where there is nothing that only a skip can pass, and nothing is recorded then.
    """
    topic = settings.order_placed_topic
    if asked.place.topic != topic:
        raise UsageError(f"{asked.place}: only places of the input topic, {topic}, can be skipped")
    await require_topics(settings, topic)
    try:
        async with database_engine(settings, "order-worker skip") as engine:
            await require_database(engine, settings)
            plan = await _plan(settings, engine, asked)
            return await _record(engine, plan) if execute else plan
    except DATABASE_ERRORS as error:
        raise CommandError(f"PostgreSQL ended it: {reason_of(error)}; run it again") from error
    except KAFKA_ERRORS as error:
        raise CommandError(f"Kafka ended it: {reason_of(error)}; run it again") from error


async def _plan(settings: Settings, engine: AsyncEngine, asked: SkipRequest) -> SkipPlan:
    place = asked.place
    async with kafka_admin(settings) as admin, _consumer(settings) as consumer:
        (partition,) = await partitions_of(consumer, TopicSelection(place.topic, (place.partition,)))
        committed = (await group.committed(admin, settings.group_id, [partition]))[partition]
        bounds = (await bounds_of(consumer, [partition]))[partition]
        async with session_factory(engine)() as session:
            skips = await list_skips(session, place.topic, place.partition)
        if why := refusal(asked, bounds, committed, skips):
            raise CommandError(why)
        floor = max(bounds.first, committed or 0)
        span = await _find_span(consumer, partition, asked, floor, bounds)
    return SkipPlan(
        topic=place.topic,
        group_id=settings.group_id,
        partition=place.partition,
        from_offset=span.first,
        to_offset=span.end,
        why=span.why,
        committed=committed,
        end=bounds.end,
        requested_by=asked.requested_by,
        note=asked.note,
    )


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[RecordConsumer]:
    consumer = RecordConsumer(
        **settings.kafka_client_options(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        report_out_of_range=True,
        fetch_max_wait_ms=_POLL_MS,
    )
    # What it logs of the place, the plan says.
    logger, null_handler = logging.getLogger("worker.kafka"), logging.NullHandler()
    logger.propagate = False
    logger.addHandler(null_handler)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()
        logger.removeHandler(null_handler)
        logger.propagate = True


async def _find_span(
    consumer: RecordConsumer, partition: TopicPartition, asked: SkipRequest, floor: int, bounds: Bounds
) -> UnreadableSpan:
    """What is to be skipped, from its first offset on; CommandError where something can be read."""
    found = await _whole_span(consumer, partition, floor, asked.place.offset)
    if found is None:
        raise CommandError(
            f"{asked.place} can be read, and is no case for a skip: a worker decides it, or writes a dead"
            " letter of it; `order-worker lag` says who owns the partition"
        )
    if asked.through is not None:
        return await _span_through(consumer, partition, asked, found, bounds)
    if isinstance(found, NotServed):
        raise CommandError(
            f"Kafka gives nothing from {partition.topic}:{partition.partition}:{found.offset} on"
            f" ({found.why}): if that stays so, say with --through which offset is the last to skip"
        )
    return found


async def _whole_span(
    consumer: RecordConsumer, partition: TopicPartition, floor: int, offset: int
) -> UnreadableSpan | NotServed | None:
    """What keeps the offset from being read, from its first offset on; None: it can be read, or is none."""
    found: UnreadableSpan | NotServed | None = None
    for reach in (*_REACHES, offset):
        start = max(floor, offset - reach)
        found = await _obstacle(consumer, partition, start, offset)
        # Where reading began within it, it may begin before.
        if not isinstance(found, UnreadableSpan) or found.first > start or start == floor:
            break
    return found


async def _obstacle(
    consumer: RecordConsumer, partition: TopicPartition, start: int, offset: int
) -> UnreadableSpan | NotServed | None:
    async with aclosing(_read(consumer, partition, start, offset + 1)) as found:
        async for each in found:
            if isinstance(each, NotServed) or (isinstance(each, UnreadableSpan) and offset < each.end):
                return each
    return None


async def _span_through(
    consumer: RecordConsumer,
    partition: TopicPartition,
    asked: SkipRequest,
    found: UnreadableSpan | NotServed,
    bounds: Bounds,
) -> UnreadableSpan:
    """From there through the offset that was asked for, if nothing in between can be read."""
    first = found.first if isinstance(found, UnreadableSpan) else asked.place.offset
    end = (asked.through or 0) + 1
    async with aclosing(_read(consumer, partition, first, bounds.end)) as places:
        async for each in places:
            if isinstance(each, NotServed):
                await _require_served_behind(consumer, partition, end, bounds, each)
                break
            if isinstance(each, UnreadableSpan):
                end = max(end, each.end) if each.first < end else end
                continue
            if each[0].offset < end:
                raise CommandError(f"offset {each[0].offset} can be read: --through has to end before it")
            break
    return UnreadableSpan(partition, first, end, found.why)


async def _require_served_behind(
    consumer: RecordConsumer, partition: TopicPartition, end: int, bounds: Bounds, not_served: NotServed
) -> None:
    """A broker that gives nothing of a partition is an outage, and no place to skip."""
    if end >= bounds.end:
        return
    async with aclosing(_read(consumer, partition, end, end + 1)) as behind:
        async for each in behind:
            if isinstance(each, NotServed):
                raise CommandError(
                    f"Kafka gives nothing from offset {not_served.offset} on ({not_served.why}), and nothing"
                    f" from {end} on ({each.why}): look after the broker first, or name a later --through"
                )


async def _read(
    consumer: RecordConsumer, partition: TopicPartition, start: int, end: int
) -> AsyncGenerator[Found, None]:
    """What lies there, in order; markers of transactions are nothing. Ends with NotServed, or at the end."""
    consumer.assign([partition])
    consumer.seek(partition, start)
    at, deadline = start, time.monotonic() + NOT_SERVED_SECONDS
    while at < end:
        records = (await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)).get(partition)
        span = consumer.unreadable.get(partition)
        if records:
            yield records
        elif span is not None:
            yield span
            consumer.skip_span(span)
        elif time.monotonic() > deadline:
            yield NotServed(at, consumer.refused.get(partition, "no answer in time"))
            return
        come_to = await consumer.position(partition)
        if come_to > at:
            at, deadline = come_to, time.monotonic() + NOT_SERVED_SECONDS


async def _record(engine: AsyncEngine, plan: SkipPlan) -> SkipPlan:
    assert plan.requested_by is not None
    assert plan.note is not None
    async with session_factory(engine).begin() as session:
        added = await add_skip(
            session,
            plan.topic,
            plan.partition,
            plan.from_offset,
            plan.to_offset,
            requested_by=plan.requested_by,
            note=plan.note,
        )
    if not added:
        raise CommandError("somebody else has skipped it just now: `order-worker lag` shows who")
    return replace(plan, executed=True)
