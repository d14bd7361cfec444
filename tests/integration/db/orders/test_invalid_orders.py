"""What is no order, on real PostgreSQL: refused by its name, before anything is taken."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from db import values
from db.errors import InvalidValueError
from db.orders import OrderLine, create_order, list_orders, list_orders_with_items
from tests.support.order_stories import NAIVE, SEEN, books, line
from tests.support.shop import Shop

FIRST = datetime.min.replace(tzinfo=UTC)  # would come back as infinity, without a zone

any_line: Any = OrderLine  # with whatever a caller may hand in
NO_LINES: list[Any] = [None, 7, {1: 2}, {"product_id": 1}, line(), set()]
INVALID: dict[str, tuple[str, dict[str, Any]]] = {
    "no line": ("lines", {"lines": []}),
    **{f"lines {lines!r}": ("lines", {"lines": lines}) for lines in NO_LINES},
    "lines of an iterator": ("lines", {"lines": iter([line()])}),
    **{
        f"line {wrong!r}": ("line 2", {"lines": [line(), wrong]})
        for wrong in ({"product_id": 1, "quantity": 1}, (1, 1), [1, 1], None, "1", 1, OrderLine)
    },
    "lines as text": ("line 1", {"lines": "lines"}),
    "1,001 lines": ("lines", {"lines": [line()] * 1_001}),
    **{
        f"quantity {quantity!r}": ("line 2: quantity", {"lines": [line(), any_line(2, quantity)]})
        for quantity in (0, -1, 1_000_001, True, 1.0, "1", None)
    },
    **{
        f"product {product_id!r}": ("line 1: product_id", {"lines": [any_line(product_id, 1)]})
        for product_id in (0, -1, 2**63, True, "1", None)
    },
    **{
        f"price {price!r}": ("line 1: unit_price", {"lines": [any_line(1, 1, price)]})
        for price in (2.5, "2.50", 2, Decimal("-0.01"), Decimal("2.505"), Decimal("1e8"), Decimal("NaN"))
    },
    **{f"user {user_id!r}": ("user_id", {"user_id": user_id}) for user_id in (0, 2**63, True, "1", None)},
    **{f"placed at {at!r}": ("placed_at", {"placed_at": at}) for at in (NAIVE, SEEN.isoformat(), 0, FIRST)},
    **{f"id {order_id!r}": ("order_id", {"order_id": order_id}) for order_id in (str(UUID(int=1)), 1, "")},
}


@pytest.mark.parametrize(("field", "fields"), INVALID.values(), ids=INVALID)
async def test_what_no_column_takes_is_refused_by_its_name_before_the_database_is_asked(
    nowhere: AsyncSession, field: str, fields: dict[str, Any]
):
    with pytest.raises(InvalidValueError) as caught:
        await create_order(nowhere, **{"user_id": 1, "lines": [line()], **fields})
    assert caught.value.field == field


async def test_the_largest_order_the_contract_allows_is_taken(session: AsyncSession, stocked: Shop):
    stocked.stock_up({4: 10**9}, price="0.01")
    order = await create_order(session, 1, [line(4, 1_000_000)] * 1_000)
    await session.commit()
    assert (len(order.items), str(order.total_amount)) == (1_000, "10000000.00")
    assert books(stocked)[4] == (0, 10**9)


async def test_a_total_up_to_the_last_cent_of_its_column_is_taken_and_one_above_refused(
    session: AsyncSession, stocked: Shop
):
    stocked.stock_up({4: 10**9}, price="99999999.99")
    stocked.stock_up({5: 10**9}, price="99.99")
    stocked.stock_up({6: 10**9}, price="0.01")
    most = [line(4, 10_000), line(5, 1)]
    with pytest.raises(InvalidValueError) as caught:
        await create_order(session, 1, [*most, line(6, 1)])
    assert (caught.value.field, caught.value.value) == ("total_amount", Decimal("1000000000000.00"))
    order = await create_order(session, 1, most)
    await session.commit()
    assert order.total_amount == values.MAX_TOTAL
    assert {i: stock for i, (stock, _) in books(stocked).items() if i in (4, 5, 6)} == {
        4: 10**9 - 10_000,
        5: 10**9 - 1,
        6: 10**9,
    }


@pytest.mark.parametrize(
    "beyond",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
    ids=["after the year 9999", "before the year 1"],
)
@pytest.mark.parametrize(
    ("field", "ask"),
    [
        ("placed_at", lambda session, at: create_order(session, 1, [line()], placed_at=at)),
        ("after", lambda session, at: list_orders(session, after=(at, uuid4()))),
        ("after", lambda session, at: list_orders_with_items(session, 1, after=(at, uuid4()))),
    ],
    ids=["create_order", "list_orders", "list_orders_with_items"],
)
async def test_a_time_that_lies_beyond_all_time_in_utc_is_refused_by_its_name(
    session: AsyncSession, field: str, ask: Callable[..., Awaitable[Any]], beyond: datetime
):
    with pytest.raises(InvalidValueError) as caught:
        await ask(session, beyond)
    assert caught.value.field == field
