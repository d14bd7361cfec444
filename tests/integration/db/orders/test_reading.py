"""Orders read whole and page by page on real PostgreSQL, and how much is asked for it."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import values
from db.engine import session_factory
from db.errors import (
    InvalidValueError,
    NotFoundError,
    ShopError,
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
from tests.support.order_stories import (
    CANCELLED,
    NAIVE,
    PENDING,
    SEEN,
    Counting,
    Listing,
    a_history,
    an_order,
    by_key,
    in_a_transaction,
    line,
    whole,
)
from tests.support.shop import Shop

# Listing


NEWEST_FIRST: dict[str, Listing] = {
    "list_orders": list_orders,
    "list_orders_with_items": lambda session, **page: list_orders_with_items(session, 1, **page),
}
listings = pytest.mark.parametrize("listing", NEWEST_FIRST.values(), ids=NEWEST_FIRST)


@listings
@pytest.mark.parametrize("limit", [1, 5, 7, 100])
async def test_page_after_page_by_key_every_order_comes_once_and_newest_first(
    session: AsyncSession, stocked: Shop, listing: Listing, limit: int
):
    a_history(stocked, 23)
    seen: list[Order] = []
    while page := await listing(session, limit=limit, after=by_key(seen[-1]) if seen else None):
        assert len(page) == min(limit, 23 - len(seen))
        seen += page
    assert [by_key(order) for order in seen] == sorted(
        ((row["created_at"], row["id"]) for row in stocked.sql("SELECT * FROM orders")), reverse=True
    )


async def test_page_after_page_by_skip_every_order_comes_once_and_newest_first(
    session: AsyncSession, stocked: Shop
):
    a_history(stocked, 23, users=3)
    pages = [await list_orders(session, skip, 5) for skip in range(0, 30, 5)]
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3, 0]
    seen = [order for page in pages for order in page]
    assert [by_key(order) for order in seen] == sorted(
        ((row["created_at"], row["id"]) for row in stocked.sql("SELECT * FROM orders")), reverse=True
    )
    assert all(order.user.email == f"user{order.user_id}@example.com" for order in seen)


@listings
async def test_a_page_continues_where_the_last_order_was_deleted_since(
    session: AsyncSession, stocked: Shop, listing: Listing
):
    a_history(stocked, 9)
    everything = [order.id for order in await listing(session)]
    first = await listing(session, limit=4)
    await delete_order(session, first[-1].id)
    await session.commit()
    assert [order.id for order in await listing(session, after=by_key(first[-1]))] == everything[4:]


NO_KEYS = {
    "text": SEEN.isoformat(),
    "time alone": SEEN,
    "nothing": (),
    "one value": (SEEN,),
    "three values": (SEEN, UUID(int=1), 1),
    "list": [SEEN, UUID(int=1)],
    "naive time": (NAIVE, UUID(int=1)),
    "id as text": (SEEN, str(UUID(int=1))),
    "wrong way round": (UUID(int=1), SEEN),
}


@listings
@pytest.mark.parametrize("after", NO_KEYS.values(), ids=NO_KEYS)
async def test_what_is_no_key_of_an_order_is_refused(nowhere: AsyncSession, listing: Listing, after: Any):
    with pytest.raises(InvalidValueError) as caught:
        await listing(nowhere, after=after)
    assert caught.value.field == "after"


@listings
@pytest.mark.parametrize("limit", [0, -1, 1_001, True, "5"], ids=repr)
async def test_a_page_has_1_to_1000_orders(nowhere: AsyncSession, listing: Listing, limit: Any):
    with pytest.raises(InvalidValueError) as caught:
        await listing(nowhere, limit=limit)
    assert caught.value.field == "limit"


@pytest.mark.parametrize("page", [{"skip": -1}, {"skip": 1, "after": (SEEN, UUID(int=1))}], ids=str)
async def test_skip_is_not_negative_and_stands_alone(nowhere: AsyncSession, page: dict[str, Any]):
    with pytest.raises(InvalidValueError) as caught:
        await list_orders(nowhere, **page)
    assert caught.value.field == "skip"


async def test_a_users_orders_come_with_items_and_products_and_nobody_elses(
    session: AsyncSession, engine: AsyncEngine
):
    mine = [await create_order(session, 2, [line(3, 2), line(1, n), line(3, 1)]) for n in (1, 2)]
    await create_order(session, 3, [line(2, 1)])
    await session.commit()
    async with session_factory(engine)() as other:
        found = await list_orders_with_items(other, 2)
        assert [whole(order) for order in found] == [
            whole(await get_order(other, order.id)) for order in sorted(mine, key=by_key, reverse=True)
        ]


async def test_a_user_without_orders_has_an_empty_list(session: AsyncSession):
    await an_order(session)
    assert await list_orders_with_items(session, 2) == []


@pytest.mark.parametrize(
    ("user_id", "error"),
    [
        *((user_id, NotFoundError) for user_id in (99, 0, -1, 2**63)),
        *((user_id, InvalidValueError) for user_id in ("1", True, 1.0, None)),
    ],
    ids=repr,
)
async def test_the_orders_of_nobody_are_an_error_of_the_caller(
    session: AsyncSession, user_id: Any, error: type[ShopError]
):
    order = await an_order(session)
    with pytest.raises(error):
        await list_orders_with_items(session, user_id)
    assert await list_orders_with_items(session, 1) == [order], "the transaction is usable"


@pytest.mark.parametrize(
    "read",
    [
        lambda session, order_id: get_order(session, order_id),
        lambda session, _: list_orders_with_items(session, 1),
    ],
    ids=["get_order", "list_orders_with_items"],
)
async def test_a_session_that_knows_an_order_reads_what_was_committed_since(
    session: AsyncSession, engine: AsyncEngine, read: Callable[..., Awaitable[Any]]
):
    order = await an_order(session)
    await in_a_transaction(engine, lambda other: cancel_order(other, order.id))
    found = await read(session, order.id)
    assert (found if isinstance(found, Order) else found[0]).status is CANCELLED


# By status and time, with items


def times(stocked: Shop) -> list[datetime]:
    return [row["created_at"] for row in stocked.sql("SELECT DISTINCT created_at FROM orders ORDER BY 1")]


async def test_orders_are_listed_by_status_and_time_page_after_page(session: AsyncSession, stocked: Shop):
    a_history(stocked, 30, orders_a_moment=3)
    stocked.sql("UPDATE orders SET status = 'completed' WHERE id::text < '8'")
    since, until = times(stocked)[2], times(stocked)[8]
    for status in (None, *OrderStatus):
        expected = [
            row["id"]
            for row in stocked.sql(
                "SELECT id FROM orders WHERE created_at >= $1 AND created_at < $2"
                " AND ($3::text IS NULL OR status = $3) ORDER BY created_at DESC, id DESC",
                since,
                until,
                status,
            )
        ]
        seen: list[Order] = []
        while page := await list_orders(
            session,
            limit=4,
            status=status,
            since=since,
            until=until,
            after=by_key(seen[-1]) if seen else None,
        ):
            seen += page
        assert [order.id for order in seen] == expected
    assert len(await list_orders(session, since=since)) + len(await list_orders(session, until=since)) == 30
    assert await list_orders(session, since=until, until=until) == []
    assert await list_orders(session, since=until, until=since) == [], "as in reports"


@pytest.mark.parametrize("orders", [3, 400])
async def test_a_page_with_items_is_one_statement_and_whole(
    session: AsyncSession, stocked: Shop, count_statements: Counting, orders: int
):
    a_history(stocked, orders, users=3)
    with count_statements() as sent:
        page = await list_orders(session, limit=values.MAX_PAGE, status=PENDING, with_items=True)
        shown = [whole(order) for order in page]
    assert len(sent) == 1
    assert len(page) == orders
    assert all([line[1] for line in one["items"]] == [1, 2] for one in shown)
    assert shown[-1] == whole(await get_order(session, page[-1].id))


async def test_a_page_with_items_shows_what_was_committed_since(session: AsyncSession, engine: AsyncEngine):
    order = await an_order(session)
    await in_a_transaction(engine, lambda other: cancel_order(other, order.id))
    (found,) = await list_orders(session, with_items=True)
    assert found.status is CANCELLED
    assert found.items[0].product.stock_quantity == 10


NO_FILTERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "status": ("status", {"status": "lost"}, "status must be one of pending, completed, cancelled: 'lost'"),
    "status as number": ("status", {"status": 1}, "status must be one of pending, completed, cancelled: 1"),
    "naive since": ("since", {"since": NAIVE}, f"since must be a datetime with a zone: {NAIVE}"),
    "naive until": ("until", {"until": NAIVE}, f"until must be a datetime with a zone: {NAIVE}"),
    "since as text": ("since", {"since": "now"}, "since must be a datetime with a zone: 'now'"),
    "until as date": ("until", {"until": SEEN.date()}, "until must be a datetime with a zone: 2026-11-23"),
    "with_items": ("with_items", {"with_items": 1}, "with_items must be True or False: 1"),
}


@pytest.mark.parametrize(("field", "given", "message"), NO_FILTERS.values(), ids=NO_FILTERS)
async def test_what_orders_cannot_be_listed_by_is_refused_by_its_name(
    nowhere: AsyncSession, field: str, given: dict[str, Any], message: str
):
    with pytest.raises(InvalidValueError) as caught:
        await list_orders(nowhere, **given)
    assert (caught.value.field, str(caught.value)) == (field, message)


async def test_a_status_may_be_given_by_its_name(session: AsyncSession, stocked: Shop):
    a_history(stocked, 2)
    assert len(await list_orders(session, status="pending")) == 2  # type: ignore[arg-type]


# How much is asked


@pytest.mark.parametrize("orders", [3, 1_200])
async def test_reading_orders_takes_one_statement_however_many_there_are(
    session: AsyncSession, stocked: Shop, count_statements: Counting, orders: int
):
    a_history(stocked, orders)
    with count_statements() as one:
        page = await list_orders(session, limit=values.MAX_PAGE)
        assert all(order.user.id == 1 for order in page)
    with count_statements() as all_with_items:
        found = await list_orders_with_items(session, 1)
        assert [[i.product.id for i in order.items] for order in found] == [[1, 2]] * orders
    with count_statements() as single:
        assert len((await get_order(session, found[-1].id)).items) == 2
    assert (len(one), len(all_with_items), len(single)) == (1, 1, 1)
    assert len(page) == min(orders, values.MAX_PAGE)


@pytest.mark.parametrize("lines", [1, 200])
async def test_writing_takes_the_same_statements_for_one_line_and_for_two_hundred(
    session: AsyncSession, stocked: Shop, count_statements: Counting, lines: int
):
    stocked.stock_up(dict.fromkeys(range(101, 301), 10))
    wanted = [line(product_id) for product_id in range(101, 101 + lines)]
    asked = {}
    with count_statements() as sent:
        order = await create_order(session, 1, wanted)
    asked["create"] = len(sent)
    with count_statements() as sent:
        named = await create_order(session, 1, wanted, order_id=uuid4())
    asked["create with an id"] = len(sent)
    with count_statements() as sent:
        await cancel_order(session, order.id)
    asked["cancel"] = len(sent)
    with count_statements() as sent:
        await complete_order(session, named.id)
    asked["complete"] = len(sent)
    with count_statements() as sent:
        await delete_order(session, named.id)
    asked["delete"] = len(sent)
    await session.commit()
    assert asked == {"create": 7, "create with an id": 9, "cancel": 5, "complete": 3, "delete": 6}
