"""`ledger restore`: rebuilds what was published and is no longer in PostgreSQL, from the topics.

    committed offsets, positions    in this order: PostgreSQL knows of a batch before Kafka does
    read                            outcomes, dead letters, input → what is missing, and what it came of
    rehearse                        what would be written, and what stands against it
    write                           ledger rows, orders, items and stock, in whole orders
    positions                       last, and only where everything that is committed is there

The group's workers may be running: they wait, and decide nothing, as long as one partition is behind. A
partition that is not is not touched.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer
from sqlalchemy.ext.asyncio import AsyncSession

from db.reconciliation import restoration
from db.reconciliation.restoration import DifferingRow, MissingCount, Shortage
from db.statuses import Outcome
from db.worker import positions
from worker.kafka import group
from worker.kafka.clients import kafka_admin
from worker.kafka.offsets import TopicSelection, partitions_of, topic_reader
from worker.kafka.stable_ends import Say
from worker.operations.one_session import one_session
from worker.operations.restore.lost_outcomes import Behind, behind
from worker.operations.restore.reading import OutcomesRead, Reader
from worker.operations.restore.writing import Writer, WrittenOrders
from worker.operations.screen import progress
from worker.settings import Settings

_LISTED: Final = 1_000  # discrepancies


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What an operator asks for. `start` is aware; None: from the first outcome there is."""

    start: datetime | None = None
    orders: bool = True
    execute: bool = False
    quiet: bool = False
    """no progress bars"""


@dataclass(slots=True)
class WaitingPartition:
    """A partition that is behind. `unaccounted`: committed records of which nothing is known."""

    behind: Behind
    unaccounted: int = 0
    first_unaccounted: int | None = None
    moved: bool | None = None  # None: not tried


@dataclass(slots=True)
class Restoration:
    """What was found, and what was done. `shortages`, `users_gone`: what stands against writing orders."""

    asked: RestoreRequest
    read: OutcomesRead
    missing: Mapping[str, MissingCount]
    waiting: list[WaitingPartition]
    sold: tuple[int, int] = (0, 0)  # products, and pieces of them, of orders that would be written
    shortages: list[Shortage] = field(default_factory=list)
    users_gone: list[int] = field(default_factory=list)
    differing_count: int = 0
    differing: list[DifferingRow] = field(default_factory=list)
    written: WrittenOrders | None = None
    seconds: float = 0.0

    @property
    def is_refused(self) -> bool:
        """Whether anything stands against writing what is asked for."""
        return self.asked.orders and bool(self.shortages or self.users_gone)

    @property
    def missing_orders(self) -> int:
        """Confirmed outcomes that are missing in the ledger and in `orders`."""
        confirmed = self.missing.get(Outcome.CONFIRMED)
        return confirmed.orders - confirmed.with_order if confirmed else 0


async def restore(
    settings: Settings,
    asked: RestoreRequest,
    say: Say,
    *,
    written: Callable[[], None] = lambda: None,
) -> Restoration:
    """Rehearse the restoration and, with `execute`, do it. Ended at any point, it can be run again.

    `written` is called after each transaction that wrote rows. Nothing is written where `is_refused`. Raises
    CommandError where a server does not let us.
    """
    began = time.monotonic()
    async with one_session(settings, "ledger restore", restoration.prepare) as session:
        async with topic_reader(settings, *settings.topics.all) as consumer:
            waiting = await _waiting(settings, session, consumer)
            reader = Reader(consumer, session, settings, asked.quiet, say)
            read = await reader.outcomes(asked.start)
            timestamps: Mapping[int, int] = {}
            if read.missing or waiting:
                await reader.letters()
                timestamps = await reader.inputs(waiting, read.partitions)
        found = await _found(session, asked, read, waiting)
        if asked.execute and not found.is_refused:
            writer = Writer(session, settings, asked.orders)
            total = sum(one.orders for one in found.missing.values())
            with progress("writing", total, quiet=asked.quiet) as bar:
                found.written = await writer.rows(bar, written)
            if found.waiting:
                await writer.published(read.withheld)
            for one in found.waiting:
                if not one.unaccounted:
                    one.moved = await writer.position(one.behind, timestamps.get(one.behind.partition))
    found.seconds = time.monotonic() - began
    return found


async def _waiting(settings: Settings, session: AsyncSession, consumer: AIOKafkaConsumer) -> list[Behind]:
    """The partitions of which PostgreSQL knows less than the group has committed."""
    places = await partitions_of(consumer, TopicSelection(settings.order_placed_topic))
    async with kafka_admin(settings) as admin:
        commits = await group.commits(admin, settings.group_id, places)
    # Only then: workers write their position before they commit.
    pending = await positions.list_pending(session, settings.group_id, settings.order_placed_topic)
    await session.commit()
    return behind(
        {place.partition: commit for place, commit in commits.items()},
        {partition: one.pending_to for partition, one in pending.items()},
    )


async def _found(
    session: AsyncSession, asked: RestoreRequest, read: OutcomesRead, waiting: list[Behind]
) -> Restoration:
    unaccounted = await restoration.count_unaccounted(session)
    found = Restoration(
        asked,
        read,
        {one.outcome: one for one in await restoration.count_missing(session)},
        [WaitingPartition(one, *unaccounted.get(one.partition, (0, None))) for one in waiting],
        differing_count=await restoration.count_differing(session),
        differing=await restoration.list_differing(session, _LISTED),
    )
    if found.missing_orders:
        found.sold = await restoration.count_sold(session)
        found.shortages = await restoration.list_shortages(session)
        found.users_gone = await restoration.list_users_gone(session)
    await session.commit()
    return found
