"""Listings page by page: every row once, in a fixed number of statements, and what is no page."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import catalog, values
from db.catalog import ProductOrder
from db.errors import InvalidValueError
from tests.support.little_shop import (
    CHAIR,
    CHAIRS,
    EMPTY,
    LAMP,
    LAMPS,
    TORCH,
    Call,
    CallWith,
    Counting,
    Listing,
    fill,
    new_product,
    refusal,
    with_value,
)

pytestmark = pytest.mark.usefixtures("little_shop")

# What is asked page by page, in one statement a page.
LISTINGS: dict[str, Listing] = {
    "list_users": catalog.list_users,
    "list_categories": catalog.list_categories,
    "list_products_in_category": partial(catalog.list_products_in_category, category_id=EMPTY),
    **{f"list_products-{order}": partial(catalog.list_products, order_by=order) for order in ProductOrder},
    **{
        f"list_products-{order}-{way}": partial(
            catalog.list_products, order_by=order, descending=way == "down"
        )
        for order in ProductOrder
        for way in ("down", "up")
    },
}


async def walk_by_skip(session: AsyncSession, listing: Listing, limit: int) -> list[int]:
    ids: list[int] = []
    while page := await listing(session, skip=len(ids), limit=limit):
        ids += [row.id for row in page]
    return ids


async def walk_by_key(
    session: AsyncSession,
    listing: Listing,
    limit: int,
    key: Callable[[Any], Any],
) -> list[int]:
    ids: list[int] = []
    page = await listing(session, limit=limit)
    while page:
        assert len(page) <= limit
        ids += [row.id for row in page]
        page = await listing(session, limit=limit, after=key(page[-1]))
    return ids


def key_of(listing: str) -> Callable[[Any], Any]:
    """How the listing names the last row of a page."""
    name, _, order = listing.partition("-")
    return ProductOrder(order.split("-")[0]).key if name == "list_products" else lambda row: row.id


def rows_of(listing: str) -> str:
    """The ids that the listing goes through, in its order, in plain SQL."""
    name, *order = listing.split("-")
    down = order[1:] == ["down"] or order == ["created_at"]
    way = "DESC" if down else "ASC"
    return {
        "list_users": "SELECT id FROM users ORDER BY id",
        "list_categories": "SELECT id FROM categories ORDER BY id",
        "list_products_in_category": "SELECT id FROM products WHERE category_id = 3 ORDER BY id",
        "list_products": f"SELECT id FROM products ORDER BY {''.join(order[:1])} {way}, id {way}",
    }[name]


@pytest.mark.parametrize("name", LISTINGS)
async def test_pages_go_through_every_row_once_by_skip_and_by_key(
    session: AsyncSession, subtests: pytest.Subtests, name: str
):
    await fill(session, 40)
    expected = (await session.scalars(text(rows_of(name)))).all()
    assert len(expected) >= 40
    for limit in (1, 7, len(expected), 1_000):
        with subtests.test(limit=limit):
            assert await walk_by_skip(session, LISTINGS[name], limit) == expected
            assert await walk_by_key(session, LISTINGS[name], limit, key_of(name)) == expected


@pytest.mark.parametrize("order", ProductOrder)
async def test_a_page_continues_after_a_product_that_was_deleted_meanwhile(
    session: AsyncSession, engine: AsyncEngine, order: ProductOrder
):
    await fill(session, 40)
    everything = (await session.scalars(text(rows_of(f"list_products-{order}")))).all()
    page = await catalog.list_products(session, order, limit=20)
    after = order.key(page[-1])
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM products WHERE id = :id"), {"id": page[-1].id})
    rest = await catalog.list_products(session, order, after=after)
    assert [p.id for p in [*page, *rest]] == everything


async def test_a_page_continues_where_the_price_shown_was_when_it_changed_meanwhile(session: AsyncSession):
    await fill(session, 40)
    page = await catalog.list_products(session, ProductOrder.PRICE, limit=20)
    after = ProductOrder.PRICE.key(page[-1])
    await catalog.update_product_price(session, page[-1].id, Decimal("0.01"))
    rest = await catalog.list_products(session, ProductOrder.PRICE, after=after)
    assert sorted(p.id for p in [*page, *rest]) == list(range(1, 44))


async def test_pages_by_stock_continue_after_the_largest_stock_there_is(session: AsyncSession):
    full = await new_product(session, CHAIRS, stock_quantity=values.MAX_STOCK)
    await catalog.adjust_stock_for_category(session, CHAIRS, 1)
    fuller = await new_product(session, CHAIRS, stock_quantity=values.MAX_STOCK)
    await catalog.adjust_stock_for_category(session, CHAIRS, 1)
    walked = await walk_by_key(session, LISTINGS["list_products-stock_quantity"], 1, ProductOrder.STOCK.key)
    assert walked == [TORCH, CHAIR, LAMP, fuller.id, full.id]


async def test_a_listing_may_be_sorted_by_the_name_of_the_order(session: AsyncSession):
    listed = await catalog.list_products(session, "price")  # type: ignore[arg-type]
    assert [p.id for p in listed] == [LAMP, TORCH, CHAIR]


@pytest.mark.parametrize("rows", [1, 3, 700])
@pytest.mark.parametrize("name", LISTINGS)
async def test_a_listing_asks_the_same_number_of_statements_for_few_rows_and_for_many(
    session: AsyncSession, count_statements: Counting, name: str, rows: int
):
    await fill(session, rows)
    with count_statements() as sent:
        listed = await LISTINGS[name](session, limit=1_000)
        shown = [(row.id, getattr(row, "email", None), getattr(row, "description", None)) for row in listed]
    assert len(sent) == 1
    assert len(shown) >= rows


@pytest.mark.parametrize("rows", [1, 700])
async def test_ids_and_prices_are_listed_in_one_statement_each(
    session: AsyncSession, count_statements: Counting, rows: int
):
    await fill(session, rows)
    with count_statements() as sent:
        assert await catalog.list_user_ids(session, rows + 1) == list(range(1, rows + 2))
        prices = await catalog.list_prices(session, rows + 2)
    assert len(sent) == 2
    assert len(prices) == rows + 2
    assert prices[:2] == [(LAMP, Decimal("2.50")), (TORCH, Decimal("4.00"))]


@pytest.mark.parametrize("listing", [catalog.list_user_ids, catalog.list_prices])
async def test_a_number_of_ids_that_there_cannot_be_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, listing: CallWith
):
    for limit in (0, -1, 2**63, True, "7", 1.5, None):
        with subtests.test(limit=limit):
            error = await refusal(session, engine, with_value(listing, limit), InvalidValueError)
            assert str(error).startswith("limit must be an integer from 1 to 9,223,372,036,854,775,807: ")


async def test_an_empty_page_of_a_category_is_empty(session: AsyncSession):
    assert list(await catalog.list_products_in_category(session, EMPTY)) == []
    assert list(await catalog.list_products_in_category(session, LAMPS, skip=2)) == []
    assert list(await catalog.list_products_in_category(session, LAMPS, after=TORCH)) == []


@pytest.mark.parametrize("name", LISTINGS)
async def test_a_page_beyond_every_row_is_empty(session: AsyncSession, name: str):
    assert list(await LISTINGS[name](session, skip=values.MAX_ID)) == []


BAD_PAGES: list[tuple[dict[str, Any], str]] = [
    ({"skip": -1}, "skip must be an integer from 0 to 9,223,372,036,854,775,807: -1"),
    ({"skip": 2**63}, "skip must be an integer from 0 to 9,223,372,036,854,775,807: 9223372036854775808"),
    ({"skip": True}, "skip must be an integer from 0 to 9,223,372,036,854,775,807: True"),
    ({"skip": "1"}, "skip must be an integer from 0 to 9,223,372,036,854,775,807: '1'"),
    ({"limit": 0}, "limit must be an integer from 1 to 1,000: 0"),
    ({"limit": -1}, "limit must be an integer from 1 to 1,000: -1"),
    ({"limit": 1_001}, "limit must be an integer from 1 to 1,000: 1001"),
    ({"limit": None}, "limit must be an integer from 1 to 1,000: None"),
    ({"skip": 1, "after": 1}, "skip must be 0 where after is given: 1"),
    ({"skip": 1, "after": 0}, "skip must be 0 where after is given: 1"),
]


@pytest.mark.parametrize("name", LISTINGS)
async def test_a_bad_page_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, name: str
):
    for page, message in BAD_PAGES:
        with subtests.test(page=page):
            error = await refusal(session, engine, partial(LISTINGS[name], **page), InvalidValueError)
            assert str(error) == message


@pytest.mark.parametrize("name", ["list_users", "list_categories", "list_products_in_category"])
async def test_a_wrong_last_id_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, name: str
):
    for after in (-1, 2**63, 2**80, True, "7", 1.0, (1,), (1, 2)):
        with subtests.test(after=after):
            error = await refusal(session, engine, partial(LISTINGS[name], after=after), InvalidValueError)
            assert str(error).startswith("after must be an integer from 0 to 9,223,372,036,854,775,807: ")


@pytest.mark.parametrize("order", ProductOrder)
async def test_a_key_that_is_no_pair_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, order: ProductOrder
):
    pairs: list[Any] = [7, "ab", [1, 2], (), (1,), (1, 2, 3), {"id": 1}]
    for after in pairs:
        with subtests.test(after=after):
            call: Call = partial(catalog.list_products, order_by=order, after=after)
            error = await refusal(session, engine, call, InvalidValueError)
            assert str(error).startswith(f"after must be ({order}, id) of the last product before: ")


@pytest.mark.parametrize(
    ("order", "keys"),
    [
        (ProductOrder.ID, [("7", 7), (-1, 7), (1, None)]),
        (ProductOrder.NAME, [(7, 7), ("nul\0", 7), ("\ud800", 7), ("Lamp", -1)]),
        (ProductOrder.PRICE, [(2.5, 7), ("2.50", 7), (Decimal("NaN"), 7), (Decimal(1), "7")]),
        (ProductOrder.STOCK, [(True, 7), (-1, 7), (2**80, 7), (1, 2**63)]),
        (ProductOrder.NEWEST, [(datetime(2026, 11, 23), 7), ("2026-11-23", 7), (1, 7)]),  # noqa: DTZ001
    ],
)
async def test_a_key_that_no_product_can_have_is_refused(
    session: AsyncSession,
    engine: AsyncEngine,
    subtests: pytest.Subtests,
    order: ProductOrder,
    keys: list[tuple[Any, Any]],
):
    for after in keys:
        with subtests.test(after=ascii(after)):
            call: Call = partial(catalog.list_products, order_by=order, after=after)
            error = await refusal(session, engine, call, InvalidValueError)
            assert str(error).startswith("after must be ")


async def test_an_order_that_products_do_not_have_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests
):
    for order_by in ("rating", "ID", "id; DROP TABLE users", "", None, 1, ["id"]):
        with subtests.test(order_by=order_by):
            error = await refusal(
                session, engine, with_value(catalog.list_products, order_by), InvalidValueError
            )
            names = "id, name, price, stock_quantity, created_at"
            assert str(error) == f"order_by must be one of {names}: {order_by!r}"


async def test_the_newest_products_come_first_and_those_of_one_moment_by_id(session: AsyncSession):
    await session.commit()
    first, second = [await new_product(session, name=name) for name in ("first", "second")]
    await session.commit()
    third = await new_product(session, name="third")
    assert first.created_at == second.created_at < third.created_at
    newest = [third.id, second.id, first.id, CHAIR, TORCH, LAMP]
    listed = await catalog.list_products(session, ProductOrder.NEWEST)
    assert [p.id for p in listed] == newest
    again = await catalog.list_products(session, ProductOrder.NEWEST, descending=True)
    assert [p.id for p in again] == newest
    oldest = await catalog.list_products(session, ProductOrder.NEWEST, descending=False, limit=2)
    assert [p.id for p in oldest] == [LAMP, TORCH]


async def test_the_dearest_products_come_first_where_descending(session: AsyncSession):
    listed = await catalog.list_products(session, ProductOrder.PRICE, descending=True)
    assert [p.id for p in listed] == [CHAIR, TORCH, LAMP]


async def test_a_wrong_direction_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests
):
    directions: list[Any] = [1, 0, "yes", "", []]
    for descending in directions:
        with subtests.test(descending=descending):
            call: Call = partial(catalog.list_products, descending=descending)
            error = await refusal(session, engine, call, InvalidValueError)
            assert str(error) == f"descending must be True or False: {descending!r}"


async def products_read(session: AsyncSession) -> int:
    """By the statements of this transaction, whether they were shown or not."""
    read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'products'"
    return int((await session.execute(text(read))).scalar_one())


@pytest.mark.parametrize("newest", [100, 3_000])
async def test_a_page_of_a_category_reads_no_product_of_another(session: AsyncSession, newest: int):
    for category_id, rows in ((LAMPS, 3_000), (EMPTY, newest)):
        await session.execute(
            text(
                "INSERT INTO products (name, price, category_id)"
                " SELECT 'New', 1, :category_id FROM generate_series(1, :rows)"
            ),
            {"category_id": category_id, "rows": rows},
        )
    await session.execute(text("ANALYZE products"))
    for after in (None, 3_010):
        before = await products_read(session)
        assert len(await catalog.list_products_in_category(session, EMPTY, limit=50, after=after)) == 50
        assert await products_read(session) - before <= 100
