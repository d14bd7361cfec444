"""Reads what the decisions of a batch rest on in one statement: round trips are what a small batch costs."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.orders import KEPT_USERS
from db.stock import LEVELS, StockLevel, array_of, usable_levels
from db.worker.ledger import DECIDED


class Found(NamedTuple):
    """`time`: the transaction's, aware UTC. `decided`: how many of the orders the ledger knows.

    `unusable`: what is wrong with each product that is there and has no level.
    """

    time: datetime
    decided: int
    user_ids: set[int]
    levels: Mapping[int, StockLevel]
    unusable: Mapping[int, str] = {}


_levels = LEVELS.subquery()
_LOOK_UP: Final = select(
    func.now(), DECIDED.scalar_subquery(), KEPT_USERS.scalar_subquery(), *_levels.c
).select_from(_levels)


async def look_up(
    session: AsyncSession,
    order_ids: Collection[str],
    user_ids: Collection[int],
    product_ids: Collection[int],
) -> Found:
    """The time, what is decided already, the users as of `lock_user_ids`, and stock as of `list_stock`.

    Ids that name nothing are missing.
    """
    row = await session.execute(
        _LOOK_UP,
        {
            "order_ids": list(order_ids),
            "user_ids": sorted(user_ids),
            "product_ids": array_of(sorted(product_ids)),
        },
    )
    time, decided, users, *levels = row.one()
    return Found(time, decided, set(users or ()), *usable_levels(*levels))
