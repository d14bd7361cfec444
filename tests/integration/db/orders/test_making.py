"""Making an order on real PostgreSQL: all of it, or nothing and every reason why."""

import random
from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.catalog import (
    get_product_by_id,
    update_product_price,
)
from db.decision import (
    Confirmed,
    Decision,
    InsufficientStock,
    PriceChanged,
    Refusal,
    Rejected,
    UnknownProduct,
    UnknownUser,
    decide_batch,
)
from db.engine import session_factory
from db.errors import (
    NotEnoughStockError,
    NotFoundError,
    PriceChangedError,
    RefusedError,
    UnknownNameError,
)
from db.orders import OrderLine, create_order, get_order, list_orders
from db.stock import StockLevel
from db.worker.ledger import database_time
from tests.support.order_stories import (
    PENDING,
    SEEN,
    Counting,
    an_order,
    books,
    in_a_transaction,
    line,
    whole,
)
from tests.support.shop import Shop


async def test_an_order_takes_its_stock_and_costs_the_prices_in_force(session: AsyncSession, stocked: Shop):
    order = await create_order(session, 4, [line(1, 2), line(3, 1), line(1, 1)])
    await session.commit()
    assert (order.user_id, order.status, str(order.total_amount)) == (4, PENDING, "8.49")
    assert [(i.line_number, i.product_id, i.quantity, str(i.unit_price)) for i in order.items] == [
        (1, 1, 2, "2.50"),
        (2, 3, 1, "0.99"),
        (3, 1, 1, "2.50"),
    ]
    assert books(stocked) == {1: (7, 10), 2: (10, 10), 3: (9, 10)}


async def test_an_order_comes_back_whole_and_is_what_any_other_session_reads(
    session: AsyncSession, engine: AsyncEngine, count_statements: Counting
):
    lines = [line(2, 3), line(1, 1, "2.5"), line(2, 1)]
    order = await create_order(session, 4, lines, order_id=UUID(int=4), placed_at=SEEN)
    await session.commit()
    with count_statements() as sent:
        answer = whole(order)
    assert not sent
    assert (order.id, order.placed_at) == (UUID(int=4), SEEN)
    async with session_factory(engine)() as other:
        assert whole(await get_order(other, order.id)) == answer


async def test_an_order_is_placed_and_made_now_by_the_database_by_default(
    session: AsyncSession, stocked: Shop
):
    began = await database_time(session)
    one = await create_order(session, 1, [line()])
    other = await create_order(session, 1, [line()], placed_at=SEEN)
    assert one.placed_at == one.created_at
    assert other.placed_at == SEEN
    times = [began, one.created_at, other.created_at, stocked.value("SELECT clock_timestamp()")]
    assert times == sorted(set(times)), "also the orders of one transaction follow each other"
    assert await list_orders(session) == [other, one]


async def test_an_order_keeps_the_price_it_was_sold_at(session: AsyncSession, engine: AsyncEngine):
    order = await an_order(session, line(1, 2))
    await update_product_price(session, 1, Decimal("9.99"))
    await session.commit()
    later = await an_order(session, line(1, 1))
    async with session_factory(engine)() as other:
        first, second = [await get_order(other, one.id) for one in (order, later)]
    assert (str(first.items[0].unit_price), str(first.total_amount)) == ("2.50", "5.00")
    assert (str(second.items[0].unit_price), str(second.total_amount)) == ("9.99", "9.99")
    assert str(first.items[0].product.price) == "9.99"


async def test_the_second_order_of_a_transaction_meets_what_the_first_left(session: AsyncSession):
    await create_order(session, 1, [line(1, 8)])
    with pytest.raises(NotEnoughStockError) as caught:
        await create_order(session, 1, [line(1, 3)])
    assert caught.value.short == (InsufficientStock(1, 3, 2),)
    await create_order(session, 1, [line(1, 2)])
    await session.commit()


async def test_an_order_meets_current_stock_and_price_also_if_the_session_read_earlier(
    session: AsyncSession, engine: AsyncEngine, stocked: Shop
):
    known = await get_product_by_id(session, 1)
    await session.commit()
    await in_a_transaction(engine, lambda other: create_order(other, 2, [line(1, 8)]))
    await in_a_transaction(engine, lambda other: update_product_price(other, 1, Decimal("3.00")))
    with pytest.raises(NotEnoughStockError) as caught:
        await create_order(session, 1, [line(1, 3)])
    assert caught.value.short == (InsufficientStock(1, 3, 2),)
    order = await create_order(session, 1, [line(1, 2)])
    await session.commit()
    assert str(order.total_amount) == "6.00"
    assert (known.stock_quantity, books(stocked)[1]) == (0, (0, 10))


SEEN_AT_2 = PriceChanged(1, Decimal("2.00"), Decimal("2.50"))
REFUSED: dict[str, tuple[int, list[OrderLine], type[RefusedError], list[Refusal]]] = {
    "one of two items is short": (
        1,
        [line(2, 5), line(1, 11)],
        NotEnoughStockError,
        [InsufficientStock(1, 11, 10)],
    ),
    "every short item is listed": (
        1,
        [line(3, 12), line(2, 10), line(1, 11)],
        NotEnoughStockError,
        [InsufficientStock(3, 12, 10), InsufficientStock(1, 11, 10)],
    ),
    "two lines of one product are one demand": (
        1,
        [line(1, 6), line(2, 1), line(1, 5)],
        NotEnoughStockError,
        [InsufficientStock(1, 11, 10)],
    ),
    "unknown user": (99, [line(1, 1)], UnknownNameError, [UnknownUser()]),
    "unknown products": (
        1,
        [line(98), line(1), line(97, 2), line(98)],
        UnknownNameError,
        [UnknownProduct(98), UnknownProduct(97)],
    ),
    "the price the buyer saw": (1, [line(1, 1, "2.00")], PriceChangedError, [SEEN_AT_2]),
    "a price outweighs stock": (
        1,
        [line(2, 11), line(1, 11, "2.00")],
        PriceChangedError,
        [InsufficientStock(2, 11, 10), SEEN_AT_2, InsufficientStock(1, 11, 10)],
    ),
    "an unknown name outweighs all": (
        99,
        [line(1, 11, "2.00"), line(98)],
        UnknownNameError,
        [UnknownUser(), SEEN_AT_2, InsufficientStock(1, 11, 10), UnknownProduct(98)],
    ),
}


@pytest.mark.parametrize(("user_id", "lines", "error", "refusals"), REFUSED.values(), ids=REFUSED)
async def test_an_order_that_does_not_fit_is_refused_whole_with_every_reason(
    session: AsyncSession,
    stocked: Shop,
    user_id: int,
    lines: list[OrderLine],
    error: type[RefusedError],
    refusals: list[Refusal],
):
    order_id = uuid4()
    with pytest.raises(error) as caught:
        await create_order(session, user_id, lines, order_id=order_id)
    assert (type(caught.value), list(caught.value.refusals)) == (error, refusals)
    untouched = await create_order(session, 1, [line(1, 10), line(2, 10), line(3, 10)], order_id=order_id)
    assert await list_orders(session) == [untouched], "the refused order left nothing in the session"
    await session.commit()
    assert [row[0] for row in stocked.sql("SELECT id FROM orders")] == [order_id]


async def test_a_missing_name_is_caught_as_not_found_and_missing_stock_is_not(session: AsyncSession):
    with pytest.raises(NotFoundError) as user:
        await create_order(session, 99, [line(98)])
    assert (user.value.what, user.value.field, user.value.value) == ("user", "id", 99)
    with pytest.raises(NotFoundError) as product:
        await create_order(session, 1, [line(1), line(98), line(97)])
    assert (product.value.what, product.value.field, product.value.value) == ("product", "id", 98)
    with pytest.raises(NotEnoughStockError) as short:
        await create_order(session, 1, [line(1, 11)])
    assert not isinstance(short.value, NotFoundError)


async def as_decided(session: AsyncSession, user_id: int, lines: list[OrderLine]) -> Decision:
    """What became of an order, in the words of the rule."""
    try:
        order = await create_order(session, user_id, lines)
    except RefusedError as error:
        return Rejected(error.refusals)
    return Confirmed(int(order.total_amount * 100), [str(item.unit_price) for item in order.items])


@pytest.mark.parametrize("seed", range(3))
async def test_an_order_is_confirmed_or_refused_exactly_as_a_worker_would(session: AsyncSession, seed: int):
    chance = random.Random(seed)
    asked = [
        SimpleNamespace(
            user_id=chance.choice([1, 2, 3, 4, 5, 99]),
            items=[
                line(
                    chance.choice([1, 2, 3, 2, 1, 98]),
                    chance.randint(1, 3),
                    chance.choice([None, None, None, "2.50", "0.99"]),
                )
                for _ in range(chance.randint(1, 4))
            ],
        )
        for _ in range(60)
    ]
    levels = {i: StockLevel.of(Decimal(price), 10) for i, price in {1: "2.50", 2: "2.50", 3: "0.99"}.items()}
    plain = [
        SimpleNamespace(
            user_id=one.user_id,
            items=[(i.product_id, i.quantity, i.unit_price and str(i.unit_price)) for i in one.items],
        )
        for one in asked
    ]
    decided = decide_batch(plain, set(range(1, 11)), levels).decisions
    assert [await as_decided(session, one.user_id, one.items) for one in asked] == list(decided)
    assert {type(decision) for decision in decided} == {Confirmed, Rejected}
    await session.commit()
