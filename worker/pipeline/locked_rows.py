"""Rows that another session keeps locked: only the partitions whose orders need them wait.

The first batch waits for a row until `lock_timeout`, and all its partitions wait with it. Then the rows that
are locked are found and remembered. Until they are free, no batch waits for them again: the partitions whose
orders need them are left out.
"""

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import stock
from db.bulk import orders
from worker.core.triage import Arrivals
from worker.error_texts import sqlstate
from worker.failures import LockedRowsError

_LOCK_TIMEOUT: Final = "55P03"
_NAMED: Final = 3


@dataclass(slots=True)
class LockedRows:
    """Users and products for which a batch has waited until the timeout, as long as they are locked."""

    user_ids: set[int] = field(default_factory=set)
    product_ids: set[int] = field(default_factory=set)

    @asynccontextmanager
    async def waited_for(
        self, sessions: async_sessionmaker[AsyncSession], arrivals: Arrivals, timeout_seconds: float
    ) -> AsyncIterator[None]:
        """Raise LockedRowsError at once for rows that are known and still locked, without running the block;
        or after the block, if it has waited for a lock until the timeout."""
        users, products = self.user_ids & arrivals.user_ids, self.product_ids & arrivals.product_ids
        if users or products:
            async with asyncio.timeout(timeout_seconds), sessions() as session:
                await self._look(session, arrivals, users, products)
        try:
            yield
        except Exception as error:
            if sqlstate(error) != _LOCK_TIMEOUT:
                raise
            async with asyncio.timeout(timeout_seconds), sessions() as session:
                await self._look(session, arrivals, arrivals.user_ids, arrivals.product_ids)
            raise  # nothing of it is locked any more, or something else is

    async def _look(
        self,
        session: AsyncSession,
        arrivals: Arrivals,
        user_ids: AbstractSet[int],
        product_ids: AbstractSet[int],
    ) -> None:
        await stock.acquire_stock_lock(session)
        products = await stock.find_locked(session, product_ids)
        users = await orders.find_locked_users(session, user_ids)
        self.user_ids = self.user_ids - user_ids | users
        self.product_ids = self.product_ids - product_ids | products
        waiting = {
            TopicPartition(record.topic, record.partition)
            for order, _, record in arrivals.all
            if order.user_id in users or any(item[0] in products for item in order.items)
        }
        if waiting:
            rows = [_named("user", users), _named("product", products)]
            raise LockedRowsError(" and ".join(filter(None, rows)), waiting)


def _named(noun: str, ids: AbstractSet[int]) -> str:
    """By the first few ids; empty if there is none."""
    plural = "s" if len(ids) > 1 else ""
    listed = ", ".join(map(str, sorted(ids)[:_NAMED]))
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return f"{noun}{plural} {listed}{more}" if ids else ""
