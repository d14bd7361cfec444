"""`ledger prune`: deletes the events of decided orders that are not needed any more, and keeps their rows.

    bounds      of each input partition: where its log begins, and up to where everything is published
    rehearse    compare every row of the ledger with them
    prune       in short transactions, each for a span of the table

Workers may run meanwhile: they read and add rows, and never wait for one that is pruned. If a run ends early,
the next one finds what is left.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.engine import session_factory
from db.worker import ledger, positions, pruning
from db.worker.positions import PendingBatch
from db.worker.pruning import PrunableRow, PruneBound, PruneRule, PruneState, StateCount, TableSize
from worker.core.same_order import sorted_fingerprint_of
from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS
from worker.kafka import group
from worker.kafka.clients import KAFKA_ERRORS, describe_limits, kafka_admin
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of, topic_reader
from worker.operations.screen import Bar, progress, shown
from worker.operations.throttle import Throttle
from worker.rights import require_more_rights
from worker.settings import Settings

DEFAULT_RATE: Final = 5_000.0
"""rows a second, beside which a loaded worker decided as many orders as without"""
# With events some 1,800 rows a span, 20 ms of it; without, nine times as many and nothing to do.
PRUNED_BLOCKS: Final = 128
COUNTED_BLOCKS: Final = 2_048
_FOR_EVER: Final = -1
_RIGHTS: Final = {"order_outcomes": ("SELECT", "UPDATE")}
_GOES_ON: Final = "run the same command again, it continues with what is left"


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What an operator asks for. `before` is aware; `rate` in rows a second, None: as fast as it goes."""

    before: datetime
    execute: bool = False
    rate: float | None = DEFAULT_RATE
    quiet: bool = False
    """no progress bars"""


@dataclass(slots=True)
class Pruning:
    """What was found, and what was done. `retention_ms` is the input topic's, -1: for ever.

    `has_committed`: whether the group has committed anything. `pruned`: None, it was a rehearsal.
    """

    asked: PruneRequest
    retention_ms: int
    has_committed: bool
    states: Mapping[PruneState, StateCount]
    size: TableSize
    pruned: int | None = None
    size_after: TableSize | None = None
    seconds: float = 0.0


async def prune(settings: Settings, asked: PruneRequest) -> Pruning:
    """Rehearse the pruning and, with `execute`, do it.

    Raises CommandError where the input topic still keeps records of that time, or a server does not let us.
    """
    retention_ms = await _retention_ms(settings)
    with _database("before anything was pruned"):
        async with database_engine(settings, "order-worker ledger prune") as engine:
            await _require_ready(engine, settings, asked, retention_ms)
            run = _Run(session_factory(engine), await _rule(settings, engine, asked), asked.quiet)
            found = Pruning(
                asked,
                retention_ms,
                any(bound.published_to for bound in run.rule.bounds),
                await run.count(),
                await run.size(),
            )
            prunable = found.states.get(PruneState.PRUNABLE)
            if asked.execute:
                began = time.monotonic()
                await run.prune(Throttle(asked.rate), prunable.rows if prunable else 0)
                found.pruned, found.size_after = run.pruned, await run.size()
                found.seconds = time.monotonic() - began
    return found


async def _retention_ms(settings: Settings) -> int:
    """Of the input topic; -1: for ever."""
    topic = settings.order_placed_topic
    async with kafka_admin(settings) as admin:
        try:
            limits = (await describe_limits(admin, [topic])).get(topic)
        except KAFKA_ERRORS as error:
            raise CommandError(f"cannot read the settings of topic {topic}: {reason_of(error)}") from error
    if limits is None:
        raise CommandError(
            f"cannot read how long topic {topic} keeps its records: it is not there, or DescribeConfigs is"
            " not granted to this user"
        )
    return limits.retention_ms


async def _require_ready(
    engine: AsyncEngine, settings: Settings, asked: PruneRequest, retention_ms: int
) -> None:
    await require_database(engine, settings)
    if asked.execute:  # to rehearse, a role only has to read
        await require_more_rights(engine, settings, _RIGHTS)
    async with session_factory(engine)() as session:
        now = await ledger.database_time(session)
    if asked.before > now:
        raise CommandError(f"--before {shown(asked.before)} is in the future: it is {shown(now)} now")
    if retention_ms != _FOR_EVER and asked.before > (latest := _latest(now, retention_ms)):
        raise CommandError(
            f"--before {shown(asked.before)}: the topic {settings.order_placed_topic} has"
            f" retention.ms={retention_ms}, so {shown(latest)} is the latest time"
        )


def _latest(now: datetime, retention_ms: int) -> datetime:
    try:
        return now - timedelta(milliseconds=retention_ms)
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)


async def _rule(settings: Settings, engine: AsyncEngine, asked: PruneRequest) -> PruneRule:
    """Whatever these bounds say now holds later as well: both only move on, but for a rewind in the topic."""
    topic = settings.order_placed_topic
    async with topic_reader(settings, topic) as consumer, kafka_admin(settings) as admin:
        places = await partitions_of(consumer, TopicSelection(topic))
        logs = await bounds_of(consumer, places)
        committed = await group.committed(admin, settings.group_id, places)
    async with session_factory(engine)() as session:
        pending = await positions.list_pending(session, settings.group_id, topic)
    return PruneRule(
        topic,
        asked.before,
        [
            PruneBound(
                place.partition,
                logs[place].first,
                published_to(committed[place], pending.get(place.partition)),
            )
            for place in places
        ],
    )


def published_to(committed: int | None, pending: PendingBatch | None) -> int:
    """The offset before which all outcomes are published for good, whatever Kafka loses over a crash."""
    if committed is None:
        return 0
    if pending is None:
        return committed
    # Kafka may undo the last batch that it has acknowledged.
    known = pending.acknowledged.from_offset if pending.acknowledged else pending.published_to
    return min(committed, known)


@dataclass(slots=True)
class _Run:
    """One run. `pruned` is what is committed."""

    sessions: async_sessionmaker[AsyncSession]
    rule: PruneRule
    quiet: bool
    pruned: int = 0

    async def count(self) -> dict[PruneState, StateCount]:
        total: dict[PruneState, StateCount] = {}
        blocks = await self._blocks()
        with progress("looking", blocks, quiet=self.quiet) as bar:
            for start, end in _spans(blocks, COUNTED_BLOCKS):
                async with self.sessions() as session:
                    found = await pruning.count_states(session, self.rule, start, end)
                for state, (rows, event_bytes) in found.items():
                    before = total.get(state, StateCount(0, 0))
                    total[state] = StateCount(before.rows + rows, before.event_bytes + event_bytes)
                bar.to(end)
        return total

    async def size(self) -> TableSize:
        async with self.sessions() as session:
            return await pruning.ledger_size(session)

    async def prune(self, throttle: Throttle, total: int) -> None:
        """Prune everything prunable in the blocks that exist now."""
        with progress("pruning", total, quiet=self.quiet) as bar:
            for start, end in _spans(await self._blocks() if total else 0, PRUNED_BLOCKS):
                async with self.sessions() as session:
                    rows = await pruning.list_prunable(session, self.rule, start, end)
                if rows:
                    await asyncio.sleep(throttle.pause(len(rows), time.monotonic()))
                    await self._prune(rows, bar)

    async def _prune(self, rows: list[PrunableRow], bar: Bar) -> None:
        kept = {
            row.order_id: sorted_fingerprint_of(row.fingerprint, row.event) if row.event else None
            for row in rows
        }
        with _database(f"after {self.pruned:,} events were pruned"):
            async with self.sessions.begin() as session:
                pruned = await pruning.prune(session, kept)
        self.pruned += pruned
        bar.to(self.pruned)

    async def _blocks(self) -> int:
        async with self.sessions() as session:
            return await pruning.count_blocks(session)


def _spans(blocks: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(blocks, start + size)) for start in range(0, blocks, size))


@contextmanager
def _database(when: str) -> Iterator[None]:
    try:
        yield
    except DATABASE_ERRORS as error:
        raise CommandError(f"PostgreSQL ended it {when}: {reason_of(error)}; {_GOES_ON}") from error
