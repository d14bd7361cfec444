"""Deletions, new e-mails and orders beside workers: nobody waits for a row with the stock lock in hand."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.catalog import (
    adjust_stock,
    delete_category,
    delete_product,
    delete_user,
    update_category,
    update_product,
    update_user,
)
from db.engine import session_factory
from db.errors import LockedError, NotFoundError, ShopError, StillReferencedError
from db.models import Category, Order, Product, User
from db.orders import cancel_order, create_order
from db.stock import acquire_stock_lock, lock_alone
from tests.support import builders
from tests.support.deadline import eventually
from tests.support.order_stories import (
    Act,
    Counting,
    a_worker,
    an_order,
    in_a_transaction,
    in_this_order,
    kinds,
    line,
)
from tests.support.shop import Shop

# What needs a row for itself alone, and how somebody who refers to that row holds it.
ALONE: dict[str, tuple[Callable[..., Awaitable[Any]], str]] = {
    "delete_user": (delete_user, "users"),
    "update_user": (lambda s, i: update_user(s, i, email="new@example.com"), "users"),
    "delete_product": (delete_product, "products"),
    "delete_category": (delete_category, "categories"),
    "update_category": (lambda s, i: update_category(s, i, name="New"), "categories"),
}
alone = pytest.mark.parametrize(("act", "table"), ALONE.values(), ids=ALONE)


@pytest.fixture
def stocked(stocked: Shop) -> Shop:
    """With a user, a product and a category of id 7 that nobody refers to yet."""
    stocked.stock_up({7: 10})
    stocked.sql("INSERT INTO categories (id, name) VALUES (7, 'Spare')")
    return stocked


async def hold(session: AsyncSession, table: str) -> None:
    """Lock row 7 as somebody does who writes a row that refers to it."""
    await session.execute(text(f"SELECT 1 FROM {table} WHERE id = 7 FOR KEY SHARE"))


async def until_somebody_looks_again(shop: Shop) -> None:
    """Somebody found a row in use, and has let go of the stock lock."""
    pausing = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state = 'idle in transaction'"
        " AND query LIKE 'SELECT EXISTS (SELECT FROM pg_locks%'"
    )
    database = shop.database_url.rpartition("/")[2]
    await asyncio.to_thread(eventually, lambda: shop.value(pausing, database), 20.0)


@alone
async def test_who_has_taken_stock_is_refused_a_row_in_use_and_continues(
    session: AsyncSession, engine: AsyncEngine, act: Callable[..., Awaitable[Any]], table: str
):
    async with session_factory(engine)() as user_of_it:
        await hold(user_of_it, table)
        order = await create_order(session, 1, [line(1, 2)])
        with pytest.raises(LockedError) as caught:
            await act(session, 7)
        assert (caught.value.id, caught.value.what) == (7, {"categories": "category"}.get(table, table[:-1]))
        assert order.items[0].product.stock_quantity == 8, "what was read stays readable"
        await create_order(session, 1, [line(2)])
        await user_of_it.rollback()
        await act(session, 7)
        await session.commit()


@alone
async def test_who_waits_for_a_row_leaves_the_stock_lock_to_others(
    engine: AsyncEngine, stocked: Shop, act: Callable[..., Awaitable[Any]], table: str
):
    async with session_factory(engine)() as user_of_it:
        await hold(user_of_it, table)
        acting = asyncio.create_task(in_a_transaction(engine, lambda session: act(session, 7)))
        await until_somebody_looks_again(stocked)
        innocent = await asyncio.wait_for(
            in_a_transaction(engine, lambda session: create_order(session, 1, [line(1)])), 10
        )
        assert isinstance(innocent, Order)
        # As a worker does: its rows first, and then the turn to take their stock.
        await acquire_stock_lock(user_of_it)
        await user_of_it.commit()
    assert not isinstance(await acting, BaseException)


@alone
async def test_a_row_that_was_taken_alone_and_stock_are_held_until_the_end(
    engine: AsyncEngine, stocked: Shop, act: Callable[..., Awaitable[Any]], table: str
):
    _, made = await in_this_order(
        engine,
        stocked,
        lambda session: act(session, 7),
        lambda session: create_order(session, 1, [line(1)]),
    )
    assert isinstance(made, Order)


@pytest.mark.parametrize("model", [User, Category, Product])
async def test_a_row_that_is_free_is_taken_with_two_statements(
    session: AsyncSession, count_statements: Counting, model: Any
):
    with count_statements() as sent:
        assert await lock_alone(session, model, "row", 7)
    assert len(sent) == 2
    with count_statements() as sent:
        assert not await lock_alone(session, model, "row", 4711)
    assert len(sent) == 3


async def test_a_row_that_goes_while_somebody_waits_for_it_is_not_found(engine: AsyncEngine, stocked: Shop):
    async with session_factory(engine)() as other:
        await other.execute(text("DELETE FROM users WHERE id = 7"))
        deleting = asyncio.create_task(in_a_transaction(engine, lambda session: delete_user(session, 7)))
        await until_somebody_looks_again(stocked)
        await other.commit()
    assert isinstance(await deleting, NotFoundError)


async def test_what_others_refer_to_is_refused_without_a_lock(
    session: AsyncSession, engine: AsyncEngine, stocked: Shop
):
    await an_order(session, line(1))
    async with session_factory(engine)() as holder:
        await acquire_stock_lock(holder)
        for act in (
            lambda s: delete_user(s, 1),
            lambda s: delete_product(s, 1),
            lambda s: delete_category(s, 1),
        ):
            refused = await asyncio.wait_for(in_a_transaction(engine, act), 10)
            assert isinstance(refused, StillReferencedError)


async def test_a_shop_that_orders_deletes_and_changes_beside_workers_meets_no_deadlock(
    engine: AsyncEngine, stocked: Shop
):
    """As a shop did in which 36 of those who only ordered were ended by PostgreSQL within ten seconds."""
    stocked.stock_up(dict.fromkeys(range(11, 17), 100_000))
    chance = random.Random(3)
    workers = [a_worker(engine) for _ in range(3)]
    shopping = True
    decided = 0

    def some() -> list[int]:
        return chance.sample(range(11, 17), 3)

    async def decide(number: int) -> None:
        nonlocal decided
        while shopping:
            # Few orders: then their items' products are locked as well, as foreign keys do.
            values = [
                builders.order_value(*(builders.line(p) for p in some()), user_id=chance.randint(1, 5))
                for _ in range(chance.choice([3, 40]))
            ]
            records = [builders.record(v, partition=number, offset=decided + n) for n, v in enumerate(values)]
            await workers[number].decide(records, {})
            decided += len(records)

    async def order_and_delete(session: AsyncSession) -> None:
        await create_order(session, 1, [line(some()[0])])
        await delete_user(session, chance.randint(1, 6))

    async def delete_and_order(session: AsyncSession) -> None:
        await update_user(session, chance.randint(1, 5), email=f"{uuid4()}@example.com")
        await create_order(session, chance.randint(1, 5), [line(p) for p in some()])
        await create_order(session, chance.randint(1, 5), [line(p) for p in some()])

    async def order_and_change(session: AsyncSession) -> None:
        order = await create_order(session, chance.randint(1, 5), [line(p) for p in some()])
        await update_product(session, chance.choice(some()), description="once more")
        await adjust_stock(session, chance.choice(some()), 1)
        await cancel_order(session, order.id)

    acts: list[Act] = [
        lambda s: create_order(s, chance.randint(1, 5), [line(p) for p in some()]),
        lambda s: create_order(s, chance.randint(1, 5), [line(p) for p in some()]),
        order_and_delete,
        delete_and_order,
        order_and_change,
        lambda s: delete_user(s, chance.randint(1, 6)),
        lambda s: delete_product(s, chance.choice(some())),
        lambda s: update_category(s, 1, name=f"{uuid4()}"),
    ]

    async def go_shopping() -> list[Any]:
        return [await in_a_transaction(engine, chance.choice(acts)) for _ in range(20)]

    deciding = [asyncio.create_task(decide(number)) for number in range(3)]
    results = [r for some in await asyncio.gather(*(go_shopping() for _ in range(8))) for r in some]
    shopping = False
    await asyncio.gather(*deciding)
    assert [r for r in results if isinstance(r, Exception) and not isinstance(r, ShopError)] == []
    assert kinds(results)[Order] > 10
    samples = [s for w in workers for m in w.metrics.reruns.collect() for s in m.samples]
    reruns = {s.labels["why"] for s in samples if s.name.endswith("_total") and s.value}
    assert "DeadlockDetectedError" not in reruns, "nor did a worker"
    assert decided > 0
