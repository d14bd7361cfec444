"""Orders of a shop beside the workers, on the same products and with the same ids."""

import asyncio
import random
from collections import Counter
from uuid import uuid4

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.bulk.orders import add_orders
from db.bulk.rows import encode_items, encode_order
from db.catalog import get_product_by_id
from db.engine import session_factory
from db.errors import AlreadyExistsError, NotEnoughStockError
from db.models import Order
from db.orders import create_order, list_orders_with_items
from db.stock import acquire_stock_lock
from db.worker.ledger import database_time
from tests.support import builders
from tests.support.order_stories import (
    a_worker,
    at_once,
    books,
    in_a_transaction,
    in_this_order,
    kinds,
    line,
    until_somebody_waits,
)
from tests.support.shop import Shop
from worker.core.results import Fate

pytestmark = pytest.mark.guarantee_1


async def test_shop_and_workers_sell_the_same_products_and_never_one_piece_twice(
    engine: AsyncEngine, stocked: Shop
):
    stocked.stock_up({4: 60, 5: 60, 6: 60})
    chance = random.Random(2)

    def some() -> list[tuple[int, int]]:
        return [(product_id, chance.randint(1, 2)) for product_id in chance.sample([4, 5, 6], 3)]

    batches = [
        [
            builders.record(
                builders.order_value(*(builders.line(*one) for one in some())), offset=n, partition=p
            )
            for n in range(15)
        ]
        for p in range(4)
    ]
    wanted = [[line(*one) for one in some()] for _ in range(40)]
    *results, bought = await asyncio.gather(
        *(a_worker(engine).decide(batch, {}) for batch in batches),
        at_once(engine, *(lambda session, lines=lines: create_order(session, 1, lines) for lines in wanted)),
    )
    fates = Counter(one.fate for batch in results for one in batch)
    assert set(fates) <= {Fate.CONFIRMED, Fate.REJECTED}
    assert set(kinds(bought)) <= {Order, NotEnoughStockError}
    sold = fates[Fate.CONFIRMED] + kinds(bought)[Order]
    assert sold == stocked.value("SELECT count(*) FROM orders")
    assert min(stocked.stock()[product_id] for product_id in (4, 5, 6)) <= 1, "all that fits is sold"


async def test_an_id_written_meanwhile_is_taken_and_the_transaction_continues(
    engine: AsyncEngine, stocked: Shop
):
    order_id = uuid4()

    async def write(session: AsyncSession) -> None:
        now = await database_time(session)
        await add_orders(
            session,
            [encode_order(order_id.bytes, 2, 99, now, now)],
            [encode_items(order_id.bytes, [(3, 1, None)], ["0.99"])],
        )
        product = (await list_orders_with_items(session, 2))[0].items[0].product
        product.stock_quantity -= 1

    async def take_another_id(session: AsyncSession) -> Order:
        wanted = await get_product_by_id(session, 1)
        with pytest.raises(AlreadyExistsError) as caught:
            await create_order(session, 1, [line(1, 3)], order_id=order_id)
        assert (caught.value.value, caught.value.constraint) == (order_id, "pk_orders")
        assert wanted.stock_quantity == 10, "and what the caller had read stays readable"
        return await create_order(session, 1, [line(1, 2)])

    _, order = await in_this_order(engine, stocked, write, take_another_id)
    assert books(stocked) == {1: (8, 10), 2: (10, 10), 3: (9, 10)}
    assert sorted(row[0] for row in stocked.sql("SELECT id FROM orders")) == sorted([order.id, order_id])


async def test_an_id_a_worker_decides_meanwhile_is_a_deadlock_then_taken(engine: AsyncEngine, stocked: Shop):
    order_id = uuid4()

    async def buy(session: AsyncSession) -> Order:
        return await create_order(session, 1, [line(1)], order_id=order_id)

    async with session_factory(engine)() as worker:
        now = await database_time(worker)
        await add_orders(
            worker,
            [encode_order(order_id.bytes, 2, 99, now, now)],
            [encode_items(order_id.bytes, [(3, 1, None)], ["0.99"])],
        )
        buyer = asyncio.create_task(in_a_transaction(engine, buy))
        await until_somebody_waits(stocked)
        # As worker.pipeline.batch does: orders first, and only then comes the turn to take their stock.
        await acquire_stock_lock(worker)
        with pytest.raises(DBAPIError, match="deadlock detected"):
            await buyer
        product = (await list_orders_with_items(worker, 2))[0].items[0].product
        product.stock_quantity -= 1
        await worker.commit()
    assert isinstance(await in_a_transaction(engine, buy), AlreadyExistsError)
    assert books(stocked) == {1: (10, 10), 2: (10, 10), 3: (9, 10)}
