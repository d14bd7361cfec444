"""From status to status on real PostgreSQL: what is allowed, what is not, and where the stock goes."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.engine import session_factory
from db.errors import (
    IllegalStatusChangeError,
    InvalidValueError,
    NotFoundError,
)
from db.models import Order
from db.orders import (
    cancel_order,
    complete_order,
    create_order,
    delete_order,
    get_order,
    list_orders,
    list_orders_with_items,
)
from db.statuses import OrderStatus
from tests.support.order_stories import CANCELLED, COMPLETED, LINES, PENDING, an_order, books, rows, whole
from tests.support.shop import Shop

TAKEN, GIVEN_BACK, GONE = ({1: (7, 10), 2: (9, 10)}, {1: (10, 10), 2: (10, 10)}, {1: (7, 7), 2: (9, 9)})
ALLOWED = [
    (PENDING, complete_order, [COMPLETED], TAKEN),
    (PENDING, cancel_order, [CANCELLED], GIVEN_BACK),
    (PENDING, delete_order, [], GIVEN_BACK),
    (COMPLETED, delete_order, [], GONE),
    (CANCELLED, delete_order, [], GIVEN_BACK),
]
FORBIDDEN = [
    (COMPLETED, complete_order, COMPLETED, TAKEN),
    (COMPLETED, cancel_order, CANCELLED, TAKEN),
    (CANCELLED, complete_order, COMPLETED, GIVEN_BACK),
    (CANCELLED, cancel_order, CANCELLED, GIVEN_BACK),
]


def test_the_tables_speak_of_every_status_and_verb_once():
    pairs = [(status, verb) for status, verb, *_ in [*ALLOWED, *FORBIDDEN]]
    verbs = (complete_order, cancel_order, delete_order)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(status, verb) for status in OrderStatus for verb in verbs}


@pytest.mark.parametrize(("status", "verb", "left", "expected"), ALLOWED)
async def test_a_verb_that_is_allowed_leaves_status_and_stock_as_the_table_says(
    session: AsyncSession,
    engine: AsyncEngine,
    stocked: Shop,
    status: OrderStatus,
    verb: Callable[..., Awaitable[Order | None]],
    left: list[OrderStatus],
    expected: dict[int, tuple[int, int]],
):
    order = await an_order(session, *LINES, status=status)
    done = await verb(session, order.id)
    await session.commit()
    assert [row[0] for row in stocked.sql("SELECT status FROM orders")] == left
    assert stocked.value("SELECT count(*) FROM order_items") == len(LINES) * len(left)
    assert books(stocked) == {**expected, 3: (10, 10)}
    async with session_factory(engine)() as other:
        found = await list_orders_with_items(other, 1)
        assert [whole(one) for one in found] == [whole(one) for one in [done] if one]


@pytest.mark.parametrize(("status", "verb", "wanted", "expected"), FORBIDDEN)
async def test_a_verb_that_is_forbidden_changes_nothing_and_the_transaction_continues(
    session: AsyncSession,
    stocked: Shop,
    status: OrderStatus,
    verb: Callable[..., Awaitable[Order]],
    wanted: OrderStatus,
    expected: dict[int, tuple[int, int]],
):
    order = await an_order(session, *LINES, status=status)
    with pytest.raises(IllegalStatusChangeError) as caught:
        await verb(session, order.id)
    assert (caught.value.order_id, caught.value.current, caught.value.wanted) == (order.id, status, wanted)
    assert (await get_order(session, order.id)).status is status
    await session.commit()
    assert [row[0] for row in stocked.sql("SELECT status FROM orders")] == [status]
    assert books(stocked) == {**expected, 3: (10, 10)}


async def test_a_deleted_order_is_gone_for_the_session_that_deleted_it(session: AsyncSession):
    order = await an_order(session, *LINES)
    await delete_order(session, order.id)
    with pytest.raises(NotFoundError):
        await get_order(session, order.id)
    assert await list_orders(session) == []


@pytest.mark.parametrize("verb", [get_order, complete_order, cancel_order, delete_order])
async def test_an_order_that_is_not_there_is_named_and_the_text_of_an_id_is_none(
    session: AsyncSession, verb: Callable[..., Awaitable[Any]]
):
    order_id = uuid4()
    with pytest.raises(NotFoundError) as caught:
        await verb(session, order_id)
    assert (caught.value.what, caught.value.field, caught.value.value) == ("order", "id", order_id)
    order = await an_order(session)
    with pytest.raises(InvalidValueError) as invalid:
        await verb(session, str(order.id))
    assert invalid.value.field == "order_id"
    assert (await get_order(session, order.id)).status is PENDING, "the transaction is usable"


@pytest.mark.parametrize(
    "act",
    [
        lambda session, _: create_order(session, 1, LINES),
        complete_order,
        cancel_order,
        delete_order,
    ],
    ids=["create_order", "complete_order", "cancel_order", "delete_order"],
)
async def test_everything_is_sent_and_nothing_committed_when_a_function_returns(
    session: AsyncSession, stocked: Shop, act: Callable[..., Awaitable[Any]]
):
    order = await an_order(session, *LINES)
    before = rows(stocked)
    await act(session, order.id)
    assert not [*session.new, *session.dirty, *session.deleted]
    assert rows(stocked) == before
    await session.rollback()
    assert rows(stocked) == before
