"""`republish`: publishes stored outcomes again, each in the ledger's bytes and under its own event id.

    selected    by the filters, out of what was decided before the first start: it does not grow afterwards
    published   some hundred outcomes a Kafka transaction, with how far that is (`progress`)
    finished    marked by the last transaction

Whatever ends a run, the next one of the same selection continues after the last transaction committed.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.bulk.rows import LedgerRow
from db.engine import session_factory
from db.statuses import Outcome
from db.worker import ledger
from db.worker.ledger import OutcomeFilter
from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS
from worker.kafka.clients import KAFKA_ERRORS, kafka_admin, require_topics
from worker.kafka.producing.exclusive_producer import is_fenced
from worker.operations import screen
from worker.operations.republish.progress import Progress, find_progress
from worker.operations.republish.send import Republisher, progress_place, republisher
from worker.operations.throttle import Throttle
from worker.settings import Settings

MOST_AT_ONCE: Final = 500  # outcomes of one transaction, and of one page of the ledger
_GOES_ON: Final = "run the same command again, it continues where this one came to"
_DATABASE_ERRORS: Final = (*DATABASE_ERRORS, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Portion:
    """The selected outcomes of one kind that came from one partition, and where they are published."""

    outcome: str
    topic: str
    source_topic: str
    source_partition: int
    outcomes: int


@dataclass(frozen=True, slots=True)
class Decided:
    """An order, and when it was decided."""

    order_id: UUID
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be published. `progress`: how far an earlier run of the same selection has come."""

    decided_by: datetime
    total: int
    portions: list[Portion]
    first: Decided
    last: Decided
    undecided: list[UUID]  # asked for by id, and not in the ledger
    progress: Progress | None
    pruned: int = 0  # selected, and without an event: left out


@dataclass(frozen=True, slots=True)
class Republished:
    """What was published: by this run, and in `progress` by all runs of the selection."""

    confirmed: int
    rejected: int
    seconds: float
    progress: Progress
    undecided: list[UUID] = field(default_factory=list)
    finished_before: bool = False  # nothing was left to do


async def preview(settings: Settings, wanted: OutcomeFilter) -> Preview:
    """What a run would publish; nothing is sent. Raises CommandError where that is nothing."""
    async with _sessions(settings) as sessions:
        before = await _progress(settings, wanted)
        with _database("before anything was sent"):
            async with sessions() as session:
                now = await ledger.database_time(session)
                bound = before.frozen_at if before and not before.finished_at else now
                frozen = replace(wanted, decided_by=bound)
                counts = await ledger.list_outcome_counts(session, frozen)
                ends = await ledger.find_first_and_last(session, frozen)
                undecided = await _undecided(session, wanted.order_ids)
                pruned = await ledger.count_pruned(session, frozen)
    if ends is None:
        raise _nothing_selected(undecided, pruned)
    target = settings.topics.of_outcome
    portions = [Portion(kind, target(kind), topic, number, n) for kind, topic, number, n in counts]
    first, last = (Decided(*end) for end in ends)
    total = sum(p.outcomes for p in portions)
    return Preview(bound, total, portions, first, last, undecided, before, pruned)


async def republish(
    settings: Settings,
    wanted: OutcomeFilter,
    *,
    rate: float | None = None,
    again: bool = False,
    quiet: bool = False,
) -> Republished:
    """Publish the selected outcomes, each of them once however often the run had to be repeated.

    A selection that was finished is published once more only if `again`. Raises CommandError when a server
    fails on the way or another run takes over: the next run of the same selection continues from there.
    """
    name = selection_name(settings, wanted)
    async with _sessions(settings) as sessions, republisher(settings, name) as publishing:
        # Only now: before, the transaction of another run could still move it.
        before = await _progress(settings, wanted)
        if before and before.finished_at and not again:
            return Republished(0, 0, 0.0, before, finished_before=True)
        with _database("before anything was sent"):
            async with sessions() as session:
                undecided = await _undecided(session, wanted.order_ids)
                unfinished = before if before and not before.finished_at else None
                start = unfinished or await _freeze(session, wanted)
                pruned = 0 if start.total else await ledger.count_pruned(session, wanted)
        if not start.total:
            raise _nothing_selected(undecided, pruned)
        run, started = _Run(sessions, publishing, wanted, start), time.monotonic()
        with screen.progress("publishing", start.total, quiet=quiet) as bar:
            await run.to_the_end(Throttle(rate), bar)
        published, seconds = run.published, time.monotonic() - started
    return Republished(
        published[Outcome.CONFIRMED], published[Outcome.REJECTED], seconds, run.progress, undecided
    )


def selection_name(settings: Settings, wanted: OutcomeFilter) -> str:
    """The same for the same selection: its transactional id, and the group that keeps its progress."""
    where = (settings.database_schema, *settings.topics.outcomes)
    what = replace(wanted, order_ids=tuple(sorted(set(wanted.order_ids))))
    return f"{settings.group_id}.republish.{sha256(to_json((where, what))).hexdigest()[:16]}"


@dataclass(slots=True)
class _Run:
    """One run. `progress` and `published` are what is committed for certain."""

    sessions: async_sessionmaker[AsyncSession]
    republisher: Republisher
    wanted: OutcomeFilter
    progress: Progress
    published: Counter[str] = field(default_factory=Counter)

    async def to_the_end(self, throttle: Throttle, bar: screen.Bar) -> None:
        bar.to(self.progress.done)
        async for rows in self._portions(throttle.at_once(MOST_AT_ONCE)):
            await asyncio.sleep(throttle.pause(len(rows), time.monotonic()))
            await self._publish(rows, self.progress.behind(rows[-1].order_id, len(rows)))
            bar.to(self.progress.done)
        with _database(self._so_far()):
            async with self.sessions() as session:
                now = await ledger.database_time(session)
        await self._publish([], replace(self.progress, finished_at=now))

    async def _portions(self, size: int) -> AsyncIterator[list[LedgerRow]]:
        """What is left, by order id. No database transaction stays open in between: a run may take hours."""
        frozen = replace(self.wanted, decided_by=self.progress.frozen_at)
        last = self.progress.last
        while True:
            with _database(self._so_far()):
                async with self.sessions() as session:
                    rows = await ledger.list_outcomes(session, frozen, after=last, limit=MOST_AT_ONCE)
            for start in range(0, len(rows), size):
                yield rows[start : start + size]
            if len(rows) < MOST_AT_ONCE:
                return
            last = rows[-1].order_id

    async def _publish(self, rows: Sequence[LedgerRow], reached: Progress) -> None:
        with _kafka(self._so_far()):
            await self.republisher.publish(rows, reached)
        self.progress = reached
        self.published.update(row.outcome for row in rows)

    def _so_far(self) -> str:
        return f"after {self.progress.done:,} of {self.progress.total:,} outcomes"


@asynccontextmanager
async def _sessions(settings: Settings) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions of a database of this version; and Kafka has both topics of outcomes."""
    async with database_engine(settings, "order-worker republish") as engine:
        await require_database(engine, settings)
        await require_topics(settings, *settings.topics.outcomes)
        yield session_factory(engine)


async def _progress(settings: Settings, wanted: OutcomeFilter) -> Progress | None:
    async with kafka_admin(settings) as admin:
        return await find_progress(admin, selection_name(settings, wanted), progress_place(settings))


async def _freeze(session: AsyncSession, wanted: OutcomeFilter) -> Progress:
    """A beginning: of all that is decided by now, and of nothing that is decided later."""
    now = await ledger.database_time(session)
    counts = await ledger.list_outcome_counts(session, replace(wanted, decided_by=now))
    return Progress(now, sum(one.rows for one in counts))


async def _undecided(session: AsyncSession, order_ids: Sequence[UUID]) -> list[UUID]:
    decided = await ledger.find_outcomes(session, order_ids) if order_ids else {}
    return [order_id for order_id in order_ids if order_id not in decided]


def _nothing_selected(undecided: Sequence[UUID], pruned: int) -> CommandError:
    if pruned:
        return CommandError(
            f"the events of {pruned:,} such outcomes were pruned (`ledger prune`), and there is no other one;"
            " nothing to publish"
        )
    if undecided:
        return CommandError(f"not decided yet: {', '.join(map(str, undecided))}; nothing to publish")
    return CommandError("the ledger holds no such outcome; nothing to publish")


@contextmanager
def _database(when: str) -> Iterator[None]:
    try:
        yield
    except _DATABASE_ERRORS as error:
        why = reason_of(error)
        raise CommandError(f"PostgreSQL stopped answering {when} ({why}): {_GOES_ON}") from error


@contextmanager
def _kafka(when: str) -> Iterator[None]:
    try:
        yield
    except KAFKA_ERRORS as error:
        if is_fenced(error):
            raise CommandError(
                f"another run of the same selection took over {when}; it continues there"
            ) from error
        why = reason_of(error)
        raise CommandError(f"Kafka stopped taking outcomes {when} ({why}): {_GOES_ON}") from error
