"""Orders by the thousand, as workers find, lock and write them. `db.orders` is the shop's side."""

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Select, Uuid, any_, bindparam, exists, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk import references
from db.bulk.copy import copy_rows
from db.bulk.rows import ITEM_COLUMNS, ORDER_COLUMNS, count_items, require_all
from db.models import Order, OrderItem, OrderOutcome, User

_users = select(User.id).where(User.id == any_(bindparam("user_ids", type_=ARRAY(BigInteger))))


def _as_array(ids: Select[int]) -> Select[Any]:
    """As one row: a row an id took longer to read than the ids."""
    return select(func.array_agg(ids.subquery().c.id))


_USERS: Final = _as_array(_users)
KEPT_USERS: Final = _as_array(_users.with_for_update(read=True, key_share=True))
"""Those of the `user_ids` that name a user, as one array, locked as `lock_user_ids` says."""
_UNLOCKED_USERS: Final = _as_array(_users.with_for_update(read=True, key_share=True, skip_locked=True))
_ORDER_IDS: Final = select(Order.id).where(Order.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
_WITHOUT_OUTCOME: Final = _ORDER_IDS.where(~exists().where(OrderOutcome.order_id == Order.id))


async def find_user_ids(session: AsyncSession, user_ids: Collection[int]) -> set[int]:
    """Those of the ids that name a user."""
    return set(await session.scalar(_USERS, {"user_ids": list(user_ids)}) or ())


async def lock_user_ids(session: AsyncSession, user_ids: Collection[int]) -> set[int]:
    """As `find_user_ids`, and nobody deletes these users until the transaction ends.

    Locked as by a foreign key, which only a change of a key (id, e-mail) waits for as well. The role needs
    UPDATE on `users` for it.
    """
    return set(await session.scalar(KEPT_USERS, {"user_ids": sorted(user_ids)}) or ())


async def find_locked_users(session: AsyncSession, user_ids: Collection[int]) -> set[int]:
    """Those that somebody else has locked, so that `lock_user_ids` would wait; locks the others."""
    unlocked = await session.scalar(_UNLOCKED_USERS, {"user_ids": sorted(user_ids)})
    return await find_user_ids(session, user_ids) - set(unlocked or ())


async def find_order_ids(session: AsyncSession, order_ids: Collection[UUID]) -> set[UUID]:
    """Those of the ids that name an order, whether a worker made it or a shop."""
    return set(await session.scalars(_ORDER_IDS, {"ids": list(order_ids)}))


async def find_orders_without_outcome(session: AsyncSession, order_ids: Collection[UUID | str]) -> set[UUID]:
    """The ids that have an order and no ledger row: no worker can confirm them."""
    return set(await session.scalars(_WITHOUT_OUTCOME, {"ids": list(order_ids)}))


async def add_orders(
    session: AsyncSession,
    orders: Sequence[bytes],
    items: Sequence[bytes],
    *,
    references_hold: bool = False,
) -> None:
    """Write encoded orders and their items by COPY, in the session's transaction, which must have begun.

    `references_hold`: the caller has the users from `lock_user_ids`, and calls `stock.take_stock` for every
    line before it commits, which then finds missing products.

    Raises asyncpg's errors as they are: ForeignKeyViolationError if a user or product is missing.
    RowsNotWrittenError if a trigger left out a row.
    """
    if not orders:
        return
    many = references_hold and len(orders) >= _MANY_ORDERS
    async with references.known_to_hold(session) if many else nullcontext():
        # In the order of their keys, in which neighbours find the same pages of the indexes: of 20 µs that
        # PostgreSQL takes for an order it saves 1. As bytes: they begin alike, and then with the order's id.
        written = await copy_rows(session, Order.__tablename__, ORDER_COLUMNS, sorted(orders))
        require_all(Order.__tablename__, len(orders), written)
        written = await copy_rows(session, OrderItem.__tablename__, ITEM_COLUMNS, sorted(items))
        require_all(OrderItem.__tablename__, sum(map(count_items, items)), written)


# Estimated, not measured: the two statements it takes to spare the checks, some 0.4 ms, cost as much as the
# checks of 20 orders.
_MANY_ORDERS: Final = 50
