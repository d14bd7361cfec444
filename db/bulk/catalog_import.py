"""Writes the plan of `db.bulk.catalog_plan` into users, categories and products.

For each part, in the order of the foreign keys: `lock_changing`, `plan`, check the plan, `write_planned`. A
rehearsal only plans, without locks that others would wait for.
"""

from typing import Any, Final

from sqlalchemy import Select, Text, Uuid, cast, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.catalog_plan import STOCK, StockMode, differs, overwritten
from db.bulk.catalog_staging import ID, PRODUCTS, Part, Staged, compared
from db.models import Product
from db.stock import acquire_stock_lock

_RECEIVED: Final = "received_quantity"


async def acquire_import_lock(session: AsyncSession) -> None:
    """Wait for any other import into this schema, and keep others waiting until the transaction ends.

    Two at a time could add the same rows.
    """
    key = func.hashtext("order-worker.catalog"), func.hashtext(func.current_schema())
    await session.execute(select(func.pg_advisory_xact_lock(*key)))


async def has_products(session: AsyncSession) -> bool:
    """Whether there is any product yet."""
    return bool(await session.scalar(select(select(Product.id).exists())))


async def lock_changing(session: AsyncSession, staged: Staged, mode: StockMode) -> None:
    """Lock the rows that this import changes, until the transaction ends.

    Rows that need no change are not locked. Locks are taken in the order of ids, those of products after the
    stock lock, for which workers queue before they take stock.
    """
    if staged.part is PRODUCTS:
        await acquire_stock_lock(session)
    target, source = staged.part.target, staged.part.staged
    rows = (
        select(target.c[ID])
        .join(source, source.c[ID] == target.c[ID])
        .where(differs(staged, mode))
        .order_by(target.c[ID])
        # Workers hold users as a foreign key does, and an e-mail changes under the stronger lock alone. It is
        # taken here, by id: the update would take it in any order.
        .with_for_update(of=target, key_share=staged.unique is None)
    )
    await session.execute(select(func.count()).select_from(rows.subquery()))


async def write_planned(session: AsyncSession, staged: Staged, mode: StockMode) -> None:
    """Write what was planned, and move the id sequence past it.

    Stock moves by increments, and `received_quantity` by the same ones, so that received − sold in orders not
    cancelled = stock stays true whatever is sold meanwhile.
    """
    part = staged.part
    if staged.unique is not None:
        await session.execute(_release(part, staged.unique))
    if values := _new_values(staged, mode):
        await session.execute(_update(part, values))
    await session.execute(_insert(staged))
    largest = await session.scalar(select(func.coalesce(func.max(part.staged.c[ID]), 0)))
    await session.execute(_MOVE_SEQUENCE, {"table": part.name, "largest": largest})


# Never backwards: ids below the largest imported one may have been given out already.
_MOVE_SEQUENCE: Final = text(
    "SELECT setval(sequence, CAST(:largest AS bigint))"
    " FROM CAST(pg_get_serial_sequence(:table, 'id') AS regclass) AS sequence"
    " WHERE CAST(:largest AS bigint) > coalesce(pg_sequence_last_value(sequence), 0)"
)


def _new_values(staged: Staged, mode: StockMode) -> dict[str, Any]:
    """Of a row that exists."""
    source, target, planned = staged.part.staged.c, staged.part.target.c, staged.part.planned.c
    values: dict[str, Any] = {name: source[name] for name in overwritten(staged)}
    if staged.part is PRODUCTS and mode is not StockMode.KEEP:
        values |= {name: target[name] + planned.stock_change for name in (STOCK, _RECEIVED)}
    return values


def _update(part: Part, values: dict[str, Any]) -> Any:
    source, target, planned = part.staged.c, part.target.c, part.planned.c
    changing = (target[ID] == source[ID], planned.id == source[ID], ~planned.is_new)
    return update(part.target).where(*changing).values(values)


def _insert(staged: Staged) -> Any:
    part = staged.part
    names, values = list(staged.columns), [part.staged.c[name] for name in staged.columns]
    if part is PRODUCTS:
        names, values = [*names, _RECEIVED], [*values, part.staged.c[STOCK]]
    rows: Select[Any] = (
        select(*values)
        .join(part.planned, part.planned.c[ID] == part.staged.c[ID])
        .where(part.planned.c.is_new)
        .order_by(part.staged.c[ID])
    )
    return insert(part.target).from_select(names, rows, include_defaults=False)


def _release(part: Part, unique: str) -> Any:
    """First clear unique values that move to another row of the import.

    A unique index is checked row by row: without this, swapping two e-mails would fail halfway.
    """
    target, own, taker = part.target, part.staged, part.staged.alias()
    giving_up = (
        select(target.c[ID])
        .join(own, own.c[ID] == target.c[ID])
        .join(taker, compared(taker.c[unique]) == compared(target.c[unique]))
        .where(compared(own.c[unique]) != compared(target.c[unique]))
    )
    placeholder = cast(cast(func.gen_random_uuid(), Uuid), Text)
    return update(target).where(target.c[ID].in_(giving_up)).values({unique: placeholder})
