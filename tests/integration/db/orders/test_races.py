"""Orders against each other, and beside the workers: real transactions at the same time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.catalog import (
    adjust_stock_for_category,
    delete_product,
    delete_user,
    update_product_price,
)
from db.decision import (
    InsufficientStock,
    PriceChanged,
)
from db.errors import (
    AlreadyExistsError,
    IllegalStatusChangeError,
    NotEnoughStockError,
    NotFoundError,
    StillReferencedError,
    UnknownNameError,
)
from db.models import Order
from db.orders import (
    cancel_order,
    complete_order,
    create_order,
    delete_order,
)
from tests.support.order_stories import (
    LINES,
    Act,
    an_order,
    at_once,
    books,
    in_a_transaction,
    in_this_order,
    kinds,
    line,
    until_somebody_waits,
)
from tests.support.shop import Shop

pytestmark = pytest.mark.guarantee_1


async def test_fifty_buyers_of_the_last_piece_get_it_once(engine: AsyncEngine, stocked: Shop):
    stocked.stock_up({4: 1})
    results = await at_once(engine, *[lambda session: create_order(session, 1, [line(4)])] * 50)
    assert kinds(results) == {Order: 1, NotEnoughStockError: 49}
    assert {r.short for r in results if isinstance(r, NotEnoughStockError)} == {(InsufficientStock(4, 1, 0),)}
    assert books(stocked)[4] == (0, 1)


async def test_ten_who_cancel_one_order_give_its_stock_back_once(
    session: AsyncSession, engine: AsyncEngine, stocked: Shop
):
    order = await an_order(session, *LINES)
    results = await at_once(engine, *[lambda session: cancel_order(session, order.id)] * 10)
    assert kinds(results) == {Order: 1, IllegalStatusChangeError: 9}
    assert books(stocked)[1] == (10, 10)


async def test_ten_who_delete_one_order_give_its_stock_back_once(
    session: AsyncSession, engine: AsyncEngine, stocked: Shop
):
    order = await an_order(session, *LINES)
    results = await at_once(engine, *[lambda session: delete_order(session, order.id)] * 10)
    assert kinds(results) == {type(None): 1, NotFoundError: 9}
    assert books(stocked)[1] == (10, 10)


async def test_twenty_tries_with_one_id_make_one_order(engine: AsyncEngine, stocked: Shop):
    order_id = uuid4()
    results = await at_once(
        engine, *[lambda session: create_order(session, 1, [line(1, 2)], order_id=order_id)] * 20
    )
    assert kinds(results) == {Order: 1, AlreadyExistsError: 19}
    assert books(stocked)[1] == (8, 10)


async def test_of_those_who_complete_and_those_who_cancel_an_order_exactly_one_wins(
    session: AsyncSession, engine: AsyncEngine, stocked: Shop
):
    orders = [await an_order(session, line(2)) for _ in range(5)]
    results = await at_once(
        engine,
        *(
            lambda session, verb=verb, order_id=order.id: verb(session, order_id)
            for order in orders
            for verb in (complete_order, cancel_order)
        ),
    )
    for completing, cancelling in zip(results[::2], results[1::2], strict=True):
        assert kinds([completing, cancelling]) == {Order: 1, IllegalStatusChangeError: 1}
    completed = sum(isinstance(result, Order) for result in results[::2])
    assert books(stocked)[2] == (10 - completed, 10)


async def test_those_who_want_two_products_in_opposite_orders_never_wait_for_each_other(
    session: AsyncSession, engine: AsyncEngine, stocked: Shop
):
    stocked.stock_up({4: 50, 5: 50})
    both_ways = [[line(4), line(5)], [line(5), line(4)]]
    there = [await an_order(session, *both_ways[n % 2]) for n in range(10)]
    results = await at_once(
        engine,
        *(lambda session, n=n: create_order(session, 1, both_ways[n % 2]) for n in range(40)),
        *(lambda session, order_id=order.id: cancel_order(session, order_id) for order in there),
    )
    assert kinds(results) == {Order: 50}
    assert (books(stocked)[4], books(stocked)[5]) == ((10, 50), (10, 50))


DELETIONS: dict[str, tuple[Callable[..., Awaitable[None]], Callable[..., Awaitable[Order]]]] = {
    "product": (delete_product, lambda session, row_id: create_order(session, 1, [line(1), line(row_id)])),
    "user": (delete_user, lambda session, row_id: create_order(session, row_id, [line(1)])),
}
deletions = pytest.mark.parametrize(("delete", "order"), DELETIONS.values(), ids=DELETIONS)


@deletions
async def test_a_row_is_either_deleted_or_ordered(
    engine: AsyncEngine,
    stocked: Shop,
    delete: Callable[..., Awaitable[None]],
    order: Callable[..., Awaitable[Order]],
):
    stocked.stock_up(dict.fromkeys(range(101, 111), 1))
    stocked.sql("INSERT INTO users SELECT i, i::text, '' FROM generate_series(101, 110) i")
    results = await at_once(
        engine,
        *(
            lambda session, act=act, row_id=row_id: act(session, row_id)
            for row_id in range(101, 111)
            for act in (delete, order)
        ),
    )
    pairs = {(type(deleted), type(made)) for deleted, made in zip(results[::2], results[1::2], strict=True)}
    assert pairs <= {(type(None), UnknownNameError), (StillReferencedError, Order)}


@deletions
async def test_an_order_waits_for_a_deletion_and_a_deletion_for_an_order(
    engine: AsyncEngine,
    stocked: Shop,
    delete: Callable[..., Awaitable[None]],
    order: Callable[..., Awaitable[Order]],
):
    made, kept = await in_this_order(
        engine, stocked, lambda session: order(session, 2), lambda session: delete(session, 2)
    )
    assert (type(made), type(kept), kept.orders) == (Order, StillReferencedError, 1)
    gone, refused = await in_this_order(
        engine, stocked, lambda session: delete(session, 3), lambda session: order(session, 3)
    )
    assert (gone, type(refused), refused.value) == (None, UnknownNameError, 3)


async def test_an_order_waits_for_a_price_and_a_price_for_an_order(engine: AsyncEngine, stocked: Shop):
    def reprice(session: AsyncSession) -> Awaitable[Any]:
        return update_product_price(session, 1, Decimal("3.00"))

    def cheap(session: AsyncSession) -> Awaitable[Order]:
        return create_order(session, 1, [line(1, 1, "2.50")])

    sold, _ = await in_this_order(engine, stocked, cheap, reprice)
    assert str(sold.total_amount) == "2.50"
    stocked.sql("UPDATE products SET price = 2.50 WHERE id = 1")
    _, refused = await in_this_order(engine, stocked, reprice, cheap)
    assert refused.refusals == (PriceChanged(1, Decimal("2.50"), Decimal("3.00")),)
    stocked.sql("UPDATE products SET price = 2.50 WHERE id = 1")
    _, dear = await in_this_order(engine, stocked, reprice, lambda s: create_order(s, 1, [line(1)]))
    assert str(dear.total_amount) == "3.00"


async def test_an_order_that_waited_for_its_turn_is_dated_from_then_on(
    session: AsyncSession, engine: AsyncEngine, stocked: Shop
):
    await create_order(session, 1, [line()])
    second = asyncio.create_task(in_a_transaction(engine, lambda other: create_order(other, 1, [line()])))
    await until_somebody_waits(stocked)
    waiting = stocked.value("SELECT clock_timestamp()")
    await session.commit()
    assert (await second).created_at > waiting


async def test_everything_at_once_raises_nothing_but_errors_of_the_shop(
    session: AsyncSession, engine: AsyncEngine, stocked: Shop
):
    stocked.stock_up({4: 100, 5: 100, 6: 100})
    chance = random.Random(1)
    there = [(await an_order(session, line(chance.randint(1, 3)), line(1))).id for _ in range(4)]
    verbs: list[Act] = [
        lambda session: create_order(session, 1, [line(n, 2) for n in chance.sample([4, 5, 6], 3)]),
        lambda session: cancel_order(session, chance.choice(there)),
        lambda session: complete_order(session, chance.choice(there)),
        lambda session: delete_order(session, chance.choice(there)),
        lambda session: adjust_stock_for_category(session, 1, 1),
        lambda session: adjust_stock_for_category(session, 1, -1),
    ]
    results = await at_once(engine, *chance.choices(verbs, k=50))
    assert {Order, int} <= set(kinds(results)), "something worked"
