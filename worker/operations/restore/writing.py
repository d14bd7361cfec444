"""Writes what a restoration has found: rows first, in whole orders, and then how far each partition is.

A transaction holds some orders, each with its ledger row, its items and its stock. Ended at any point, the
next run finds those that are left. What somebody else has decided meanwhile stays as it is.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.events import OrderConfirmed
from db import stock
from db.bulk import orders
from db.reconciliation import restoration
from db.reconciliation.restoration import Restorable
from db.worker import decided, leases, positions, withheld
from db.worker.positions import PendingBatch
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.operations.restore.lost_outcomes import Behind, LostRows, read_event
from worker.operations.screen import Bar
from worker.settings import Settings

PORTION: Final = 500
"""outcomes of one transaction"""
_NO_TIMESTAMP: Final = -1
# An order may be decided, or made by a shop, between our look and our writing.
_TRIES: Final = 3


@dataclass(slots=True)
class WrittenOrders:
    """What was written by this run."""

    outcomes: int = 0
    orders: int = 0


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes in transactions of its own. `with_orders`: also orders and items, and takes their stock."""

    session: AsyncSession
    settings: Settings
    with_orders: bool

    async def rows(self, bar: Bar, after_each: Callable[[], None]) -> WrittenOrders:
        """Write all that is missing. `after_each` is called after each commit."""
        written, after = WrittenOrders(), UUID(int=0)
        while page := await restoration.list_restorable(self.session, after, PORTION):
            after = page[-1].order_id
            rows = await self._tried(page, written)
            written.outcomes += len(rows.outcomes)
            written.orders += len(rows.orders)
            bar.advance(len(page))
            after_each()
        await self.session.commit()
        return written

    async def _tried(self, page: Sequence[Restorable], written: WrittenOrders) -> LostRows:
        attempt = 0
        while True:
            attempt += 1
            try:
                rows = await self._write(page)
                await self.session.commit()
                return rows
            except (asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError) as error:
                await self.session.rollback()
                if attempt == _TRIES:
                    raise _ended(written, reason_of(error)) from error
            except _RefusedError as error:
                await self.session.rollback()
                raise _ended(written, str(error)) from None

    async def _write(self, page: Sequence[Restorable]) -> LostRows:
        # The first statement sends BEGIN, without which the COPYs would commit by themselves.
        known = await restoration.find_decided(self.session, [one.order_id for one in page])
        there = await orders.find_order_ids(self.session, [one.order_id for one in page])
        rows = LostRows()
        for one in page:
            event = read_event(one.outcome, one.event)
            if one.order_id in known or event is None:
                continue
            rows.add_outcome(one, event, self.settings.order_placed_topic)
            if self.with_orders and isinstance(event, OrderConfirmed) and one.order_id not in there:
                rows.add_order(event)
        # In the order in which workers lock: users, ledger, orders, the stock lock, products.
        if gone := rows.user_ids - await orders.lock_user_ids(self.session, rows.user_ids):
            raise _RefusedError(f"user {min(gone)} is gone")
        await decided.add_decided(self.session, rows.outcomes, rows.orders, rows.items)
        if rows.sold:
            await stock.acquire_stock_lock(self.session)
            if not await stock.take_sold(self.session, rows.sold):
                raise _RefusedError("a product that these orders need was sold or deleted meanwhile")
        return rows

    async def published(self, order_ids: Collection[UUID]) -> None:
        """Let no worker publish these withheld outcomes: they were, after the backup was made."""
        await withheld.mark_published(self.session, order_ids)
        await self.session.commit()

    async def position(self, waits: Behind, last_timestamp_ms: int | None) -> bool:
        """Let workers continue after what is committed; False if the partition has moved since it was read.

        Its owner at that moment can record nothing any more, and takes it over again.
        """
        place = (self.settings.order_placed_topic, waits.partition)
        epoch = await leases.start_epoch(self.session, self.settings.group_id, *place)
        known = epoch.pending.pending_to if epoch.pending else None
        if known != waits.known:
            await self.session.rollback()
            return False
        timestamp_ms = _NO_TIMESTAMP if last_timestamp_ms is None else last_timestamp_ms
        pending = PendingBatch(waits.committed, waits.committed, timestamp_ms, None)
        await positions.record_pending(self.session, self.settings.group_id, {place: (epoch.number, pending)})
        await self.session.commit()
        return True


class _RefusedError(Exception):
    """Why a portion cannot be written."""


def _ended(written: WrittenOrders, why: str) -> CommandError:
    return CommandError(
        f"{why}; {written.outcomes:,} outcomes and {written.orders:,} orders were written, each whole:"
        " run this again"
    )
