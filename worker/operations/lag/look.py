"""`lag`: measures, again and again, how far the group is behind its topic."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import OffsetOutOfRangeError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import session_factory
from db.worker.skips import list_skips
from db.worker.withheld import list_withheld
from worker.database import database_engine
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS
from worker.kafka import group
from worker.kafka.clients import KAFKA_ERRORS, kafka_admin
from worker.kafka.consuming.reading import TopicReader, reader
from worker.kafka.consuming.unreadable import UnreadableRecord
from worker.kafka.limits.naming import withheld_sentences
from worker.kafka.offsets import Bounds, bounds_of, topic_reader
from worker.operations.lag.measure import (
    GroupLag,
    Look,
    MemberName,
    PartitionSnapshot,
    measure,
    without_leader,
)
from worker.operations.skip.sentences import Skips
from worker.settings import Settings

# Rates are measured over this many looks: a batch may come from one partition, so one second says little.
LOOKS_KEPT: Final = 10
_SKIPS_SECONDS: Final = 2.0
_PROBE_SECONDS: Final = 2.0  # for finding the next record; usually the first answer has it
_PROBE_POLL_MS: Final = 50
# Kafka sends one batch at least. What is in it does not matter here, only whether there is one.
_PROBE_BYTES: Final = 1_024


async def watch_lag(settings: Settings, interval_seconds: float) -> AsyncGenerator[GroupLag, None]:
    """The lag now, and again after each interval, without end. The first one has no paces yet.

    Raises CommandError where Kafka does not answer. Commits nothing and joins no group.
    """
    topic = settings.order_placed_topic
    async with (
        topic_reader(settings, topic) as consumer,
        kafka_admin(settings) as admin,
        group_view(admin, consumer, settings.kafka_client_options(), settings.group_id, topic) as view,
        database_engine(settings, "order-worker lag") as engine,
    ):
        looks: deque[Look] = deque(maxlen=LOOKS_KEPT)
        due = time.monotonic()
        while True:
            looks.append(await _one_look(view))
            yield measure(settings.group_id, topic, looks, *await _notes(engine, topic))
            due = max(due + interval_seconds, time.monotonic())
            await asyncio.sleep(due - time.monotonic())


async def _one_look(view: "GroupView") -> Look:
    try:
        return await view.look()
    except KAFKA_ERRORS as error:
        raise CommandError(
            f"Kafka does not report how far the group {view.group_id} is: {reason_of(error)}; try again"
        ) from error


async def _notes(engine: AsyncEngine, topic: str) -> tuple[Skips, Sequence[str]]:
    """What was skipped or deleted, and what is withheld.

    The lag itself is Kafka's: it is shown without PostgreSQL as well.
    """
    try:
        async with asyncio.timeout(_SKIPS_SECONDS), session_factory(engine)() as session:
            skips = Skips(await list_skips(session, topic))
            rows = await list_withheld(session, topic)
    except ValueError:  # may quote a piece of the password; asyncpg's own is a ValueError as well
        return Skips(trouble="ORDER_WORKER_DATABASE_URL cannot be read"), ()
    except (OSError, TimeoutError, *DATABASE_ERRORS) as error:
        return Skips(trouble=f"PostgreSQL says: {reason_of(error)}"), ()
    return skips, withheld_sentences([row for row in rows if row.published_at is None])


@asynccontextmanager
async def group_view(
    admin: AIOKafkaAdminClient,
    consumer: TopicReader,
    client_options: Mapping[str, Any],
    group_id: str,
    topic: str,
) -> AsyncIterator["GroupView"]:
    """From where the group can be looked at. `consumer` reads committed records, of no group."""
    async with (
        reader({**client_options, "max_partition_fetch_bytes": _PROBE_BYTES}) as prober,
        reader(client_options, "read_uncommitted") as uncommitted,
    ):
        yield GroupView(group_id, topic, admin, consumer, prober, uncommitted)


@dataclass(frozen=True, slots=True)
class GroupView:
    """The clients that it takes to look at a group and its topic."""

    group_id: str
    topic: str
    admin: AIOKafkaAdminClient
    consumer: TopicReader
    prober: TopicReader
    uncommitted: TopicReader

    async def look(self) -> Look:
        """One look. Raises KafkaError, TimeoutError or OSError as Kafka gives them."""
        members = await group.members(self.admin, self.group_id)
        # Each time: the topic may have got more partitions since.
        places = await group.partitions_now(self.admin, self.topic)
        # Before the ends: the other way round, what is decided meanwhile would count as committed past them.
        committed = await group.committed(self.admin, self.group_id, places)
        clock, now = time.monotonic(), datetime.now(UTC)
        led = sorted({*places} - await self.consumer.leaderless(places))
        bounds = await bounds_of(self.consumer, led)
        stored = await self.uncommitted.end_offsets(led)
        coming, unreadable = await _next_records(self.prober, _behind(committed, bounds))
        owners = {p: member.member_id for member in members for p in member.partitions}
        return Look(
            clock,
            now,
            tuple(MemberName(m.member_id, m.client_id, m.host.lstrip("/")) for m in members),
            {
                p.partition: PartitionSnapshot(
                    first=bounds[p].first,
                    end=bounds[p].end,
                    committed=committed[p],
                    next_record=coming.get(p, bounds[p].end),
                    hidden=max(0, stored[p] - bounds[p].end),
                    owner=owners.get(p),
                    unreadable=unreadable.get(p, ""),
                )
                if p in bounds
                else without_leader(committed[p], owners.get(p))
                for p in places
            },
        )


def _behind(
    committed: Mapping[TopicPartition, int | None], bounds: Mapping[TopicPartition, Bounds]
) -> dict[TopicPartition, tuple[int, int]]:
    starts = {p: max(b.first, committed[p] or 0) for p, b in bounds.items()}
    return {p: (start, bounds[p].end) for p, start in starts.items() if start < bounds[p].end}


async def _next_records(
    prober: TopicReader, spans: Mapping[TopicPartition, tuple[int, int]]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, str]]:
    """The offset of the first record of each span; its end where it holds nothing but markers.

    Where that takes too long (many aborted transactions), the offset that was come to. And of those that
    cannot be unpacked, why.
    """
    coming = {p: start for p, (start, _) in spans.items()}
    unreadable: dict[TopicPartition, str] = {}
    if not spans:
        return coming, unreadable
    prober.assign(list(spans))
    for partition, start in coming.items():
        prober.seek(partition, start)
    waiting, deadline = set(spans), time.monotonic() + _PROBE_SECONDS
    while waiting and time.monotonic() < deadline:
        found = {}
        with suppress(OffsetOutOfRangeError):  # deleted just now: the next look finds a later beginning
            found = await prober.getmany(*waiting, timeout_ms=_PROBE_POLL_MS)
        for partition in list(waiting):
            records, end = found.get(partition), spans[partition][1]
            come_to = records[0].offset if records else await prober.position(partition)
            coming[partition] = min(come_to, end)
            if why := _why_unreadable(prober, partition, records):
                unreadable[partition] = why
            if records or why or come_to >= end:
                waiting.discard(partition)
                prober.pause(partition)
    return coming, unreadable


def _why_unreadable(
    prober: TopicReader, partition: TopicPartition, records: Sequence[ConsumerRecord] | None
) -> str:
    if records:
        return records[0].why if isinstance(records[0], UnreadableRecord) else ""
    span = prober.unreadable.get(partition)
    return span.why if span else ""
