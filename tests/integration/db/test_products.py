"""Categories and products on real PostgreSQL: what each function does, and how it says that it cannot."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import catalog
from db.decision import InsufficientStock
from db.engine import session_factory
from db.errors import (
    InvalidValueError,
    NotEnoughStockError,
    NotFoundError,
    StillReferencedError,
)
from db.models import Category, Product
from db.stock import acquire_stock_lock
from tests.support.little_shop import (
    ANN,
    CHAIR,
    CHAIRS,
    EMPTY,
    LAMP,
    LAMPS,
    PRICES,
    TORCH,
    Call,
    CallWith,
    Counting,
    content,
    fill,
    new_category,
    new_product,
    new_product_of_lamps,
    new_user,
    refusal,
    somebody_waits_for,
    stock,
)

pytestmark = pytest.mark.usefixtures("little_shop")


# Categories and their products


async def test_a_new_category_has_no_products_and_asks_nobody_for_them(
    session: AsyncSession, count_statements: Counting
):
    with count_statements() as sent:
        category = await catalog.create_category(session, "Sofas", "to lie on")
        assert (category.name, category.description, category.products) == ("Sofas", "to lie on", [])
    assert len(sent) == 1
    assert (await new_category(session, "Beds")).description == ""


@pytest.mark.parametrize("number", [0, 3, 700])
async def test_a_category_comes_with_all_its_products_in_two_statements(
    session: AsyncSession, count_statements: Counting, number: int
):
    await fill(session, number)
    with count_statements() as sent:
        category = await catalog.get_category_with_products(session, EMPTY)
        assert [p.id for p in category.products] == list(range(CHAIR + 1, CHAIR + 1 + number))
        assert all(p.category is category for p in category.products)
    assert len(sent) == 2


async def test_a_category_that_was_loaded_before_shows_the_products_others_added(
    session: AsyncSession, engine: AsyncEngine
):
    category = await catalog.get_category_with_products(session, LAMPS)
    assert [p.price for p in category.products] == [Decimal("2.50"), Decimal("4.00")]
    async with session_factory(engine)() as other:
        await new_product(other, LAMPS)
        await catalog.update_product_price(other, LAMP, Decimal("3.00"))
        await other.commit()
    assert await catalog.get_category_with_products(session, LAMPS) is category
    assert [p.price for p in category.products] == [Decimal("3.00"), Decimal("4.00"), Decimal("1.00")]


@pytest.mark.parametrize("create", [new_product, new_product_of_lamps])
async def test_a_new_product_is_stored_with_its_first_stock_received(
    session: AsyncSession, engine: AsyncEngine, create: Callable[..., Awaitable[Product]]
):
    product = await create(
        session, name="Sun", price=Decimal("99999999.99"), stock_quantity=7, description="bright"
    )
    await session.commit()
    async with session_factory(engine)() as other:
        stored = (await content(other))["products"][-1]
    expected = ("Sun", "bright", Decimal("99999999.99"), 7, 7, LAMPS)
    for shown in (product, stored):
        assert (
            shown.name,
            shown.description,
            shown.price,
            shown.stock_quantity,
            shown.received_quantity,
            shown.category_id,
        ) == expected
    assert (stored.id, product.id) == (CHAIR + 1, CHAIR + 1)


async def test_a_new_product_has_no_stock_and_no_description_unless_given(session: AsyncSession):
    product = await new_product(session)
    assert (product.stock_quantity, product.received_quantity, product.description) == (0, 0, "")


@pytest.mark.parametrize(
    ("price", "stored"),
    [("0", "0.00"), ("-0.00", "0.00"), ("2.5", "2.50"), ("1E+2", "100.00"), ("1.5000", "1.50")],
)
@pytest.mark.parametrize("call", PRICES.values(), ids=PRICES)
async def test_a_price_is_stored_to_the_cent_however_it_is_written(
    session: AsyncSession, call: CallWith, price: str, stored: str
):
    product = await call(session, Decimal(price))
    query = text("SELECT price::text FROM products WHERE id = :id")
    assert await session.scalar(query, {"id": product.id}) == stored
    assert product.price == Decimal(stored)


async def test_a_product_created_in_a_loaded_category_is_in_its_products(
    session: AsyncSession, count_statements: Counting
):
    lamps = await catalog.get_category_with_products(session, LAMPS)
    with count_statements() as sent:
        product = await catalog.create_product_in_category(session, lamps, "New", Decimal("1.00"))
        assert product.category is lamps
        assert [p.id for p in lamps.products] == [LAMP, TORCH, product.id]
    assert len(sent) == 1
    await session.commit()
    assert [p.id for p in (await catalog.get_category_with_products(session, LAMPS)).products] == [
        LAMP,
        TORCH,
        product.id,
    ]


async def test_a_product_can_be_created_in_a_category_created_just_before(session: AsyncSession):
    sofas = await new_category(session, "Sofas")
    product = await catalog.create_product_in_category(session, sofas, "Sofa", Decimal("1.00"))
    await session.commit()
    assert (product.category_id, sofas.products) == (sofas.id, [product])


async def test_a_product_created_in_a_category_whose_products_are_not_loaded_loads_none(
    session: AsyncSession, count_statements: Counting
):
    lamps = await session.get_one(Category, LAMPS)
    with count_statements() as sent:
        product = await catalog.create_product_in_category(session, lamps, "New", Decimal("1.00"))
        assert product.category is lamps
        with pytest.raises(InvalidRequestError, match="raise_on_sql"):
            len(lamps.products)
    assert len(sent) == 1


async def test_products_continue_being_created_in_a_category_of_which_one_was_deleted(session: AsyncSession):
    chairs = await catalog.get_category_with_products(session, CHAIRS)
    await catalog.delete_product(session, CHAIR)
    product = await catalog.create_product_in_category(session, chairs, "Stool", Decimal("1.00"))
    await session.commit()
    assert (await catalog.get_category_with_products(session, CHAIRS)).products == [product]


async def test_a_category_of_another_session_is_refused(session: AsyncSession, engine: AsyncEngine):
    async with session_factory(engine)() as other:
        lamps = await catalog.get_category_with_products(other, LAMPS)
        error = await refusal(
            session,
            engine,
            lambda s: catalog.create_product_in_category(s, lamps, "New", Decimal("1.00")),
            InvalidValueError,
        )
        assert [p.id for p in lamps.products] == [LAMP, TORCH]
    assert str(error) == "category must be an object that this session has loaded or created: 'Lamps'"


async def test_a_category_of_no_session_is_refused_and_not_created(
    session: AsyncSession, engine: AsyncEngine
):
    category = Category(name="Sofas")
    error = await refusal(
        session,
        engine,
        lambda s: catalog.create_product_in_category(s, category, "New", Decimal("1.00")),
        InvalidValueError,
    )
    assert str(error) == "category must be an object that this session has loaded or created: 'Sofas'"


async def test_a_bad_product_leaves_the_loaded_category_as_it_was(session: AsyncSession, engine: AsyncEngine):
    lamps = await catalog.get_category_with_products(session, LAMPS)
    await refusal(
        session,
        engine,
        lambda s: catalog.create_product_in_category(s, lamps, "New", Decimal("0.001")),
        InvalidValueError,
    )
    assert [p.id for p in lamps.products] == [LAMP, TORCH]


async def test_a_category_deleted_meanwhile_is_not_found_and_loaded_rows_stay_readable(
    session: AsyncSession, engine: AsyncEngine
):
    empty = await catalog.get_category_with_products(session, EMPTY)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM categories WHERE id = :id"), {"id": EMPTY})
    error = await refusal(
        session,
        engine,
        lambda s: catalog.create_product_in_category(s, empty, "New", Decimal("1.00")),
        NotFoundError,
    )
    assert str(error) == "there is no category with id 3"
    assert (empty.name, empty.products) == ("Empty", [])


async def test_a_category_from_before_a_rollback_takes_a_product(session: AsyncSession):
    lamps = await catalog.get_category_with_products(session, LAMPS)
    await session.rollback()  # whatever was loaded is now read again at its next use
    product = await catalog.create_product_in_category(session, lamps, "New", Decimal("1.00"))
    assert product.category_id == LAMPS


# Prices, stock, and products that go


async def test_a_new_price_is_shown_by_what_was_loaded_and_orders_keep_the_old(
    session: AsyncSession, count_statements: Counting
):
    lamp = await catalog.get_product_by_id(session, LAMP)
    with count_statements() as sent:
        assert await catalog.update_product_price(session, LAMP, Decimal("3.75")) is lamp
        assert (lamp.price, lamp.name, lamp.stock_quantity) == (Decimal("3.75"), "Lamp", 10)
    assert len(sent) == 2, "the turn, and the price"
    stored = {row.id: row.price for row in (await content(session))["products"]}
    assert stored == {LAMP: Decimal("3.75"), TORCH: Decimal("4.00"), CHAIR: Decimal("19.99")}
    sold_at = await session.scalars(text("SELECT DISTINCT unit_price FROM order_items WHERE product_id = 1"))
    assert sold_at.all() == [Decimal("2.50")]


@pytest.mark.parametrize("change", [5, 0, -1, -3])
async def test_an_adjustment_moves_stock_and_what_was_received_alike(session: AsyncSession, change: int):
    assert await catalog.adjust_stock_for_category(session, LAMPS, change) == 2
    assert await stock(session) == {
        LAMP: (10 + change, 14 + change),
        TORCH: (3 + change, 4 + change),
        CHAIR: (5, 5),
    }
    sold = await session.execute(
        text("SELECT product_id, sum(quantity) FROM order_items GROUP BY product_id")
    )
    received = await stock(session)
    assert {i: received[i][1] - received[i][0] for i in (LAMP, TORCH)} == {
        row.product_id: row.sum for row in sold
    }


async def test_products_that_were_loaded_show_the_adjusted_stock(
    session: AsyncSession, count_statements: Counting
):
    lamps = await catalog.get_category_with_products(session, LAMPS)
    chair = await catalog.get_product_by_id(session, CHAIR)
    await catalog.adjust_stock_for_category(session, LAMPS, -2)
    with count_statements() as sent:
        shown = {p.id: (p.stock_quantity, p.received_quantity) for p in [*lamps.products, chair]}
    assert len(sent) == 0
    assert shown == await stock(session)


async def test_products_that_were_loaded_before_others_sold_some_show_what_is_left(
    session: AsyncSession, engine: AsyncEngine
):
    lamp = await catalog.get_product_by_id(session, LAMP)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE products SET stock_quantity = 7 WHERE id = :id"), {"id": LAMP})
    await catalog.adjust_stock_for_category(session, LAMPS, 5)
    assert (await stock(session))[LAMP] == (12, 19)
    assert (lamp.stock_quantity, lamp.received_quantity) == (12, 19)


@pytest.mark.parametrize(
    ("change", "short"),
    [
        (-4, [InsufficientStock(TORCH, 4, 3)]),
        (-11, [InsufficientStock(LAMP, 11, 10), InsufficientStock(TORCH, 11, 3)]),
    ],
)
async def test_taking_more_than_there_is_changes_nothing_and_names_every_short_product(
    session: AsyncSession, engine: AsyncEngine, change: int, short: list[InsufficientStock]
):
    lamps = await catalog.get_category_with_products(session, LAMPS)
    error = await refusal(
        session, engine, lambda s: catalog.adjust_stock_for_category(s, LAMPS, change), NotEnoughStockError
    )
    assert error.short == tuple(short)
    assert str(error) == "; ".join(
        f"product {s.product_id}: {s.requested} requested, {s.available} available" for s in short
    )
    assert [p.stock_quantity for p in lamps.products] == [10, 3]


async def test_stock_that_no_column_holds_is_refused(session: AsyncSession, engine: AsyncEngine):
    almost_full = "UPDATE products SET stock_quantity = :stock, received_quantity = :stock WHERE id = :id"
    await session.execute(text(almost_full), {"stock": 2**63 - 6, "id": LAMP})
    error = await refusal(
        session, engine, lambda s: catalog.adjust_stock_for_category(s, LAMPS, 6), InvalidValueError
    )
    assert str(error) == "change is refused (bigint out of range): 6"
    # The chain of causes leads to PostgreSQL's own error, not back to this one.
    assert error.__cause__ is not None
    assert error.__cause__ is not error


async def test_a_category_without_products_has_nothing_to_adjust(session: AsyncSession):
    before = await content(session)
    assert await catalog.adjust_stock_for_category(session, EMPTY, -5) == 0
    assert await content(session) == before


async def test_two_adjustments_take_turns_and_both_count(session: AsyncSession, engine: AsyncEngine):
    async with session_factory(engine)() as second:
        await catalog.adjust_stock_for_category(session, LAMPS, 5)
        adjusting = asyncio.create_task(catalog.adjust_stock_for_category(second, LAMPS, -8))
        await somebody_waits_for(session, engine)
        await session.commit()
        # The Torch has 8 only since the first commit.
        assert await adjusting == 2
        await second.commit()
    assert await stock(session) == {LAMP: (7, 11), TORCH: (0, 1), CHAIR: (5, 5)}


async def test_an_adjustment_waits_until_the_worker_whose_turn_it_is_has_ended(
    session: AsyncSession, engine: AsyncEngine
):
    async with session_factory(engine)() as second:
        await acquire_stock_lock(session)
        adjusting = asyncio.create_task(catalog.adjust_stock_for_category(second, LAMPS, 1))
        await somebody_waits_for(session, engine)
        await session.rollback()
        assert await adjusting == 2


async def test_a_deleted_product_is_not_found(session: AsyncSession):
    await catalog.get_product_by_id(session, CHAIR)
    await catalog.delete_product(session, CHAIR)
    with pytest.raises(NotFoundError, match="there is no product with id 3"):
        await catalog.get_product_by_id(session, CHAIR)
    await session.commit()
    assert [row.id for row in (await content(session))["products"]] == [LAMP, TORCH]


@pytest.mark.parametrize(
    ("product_id", "orders", "message"),
    [
        (TORCH, 1, "product 2 cannot be deleted: 1 order needs it"),
        (LAMP, 2, "product 1 cannot be deleted: 2 orders need it"),
    ],
)
async def test_a_product_that_was_ordered_is_not_deleted_and_each_order_counts_once(
    session: AsyncSession, engine: AsyncEngine, product_id: int, orders: int, message: str
):
    product = await catalog.get_product_by_id(session, product_id)
    error = await refusal(
        session, engine, lambda s: catalog.delete_product(s, product_id), StillReferencedError
    )
    assert str(error) == message
    assert (error.what, error.id, error.orders) == ("product", product_id, orders)
    assert product.id == product_id
    assert await catalog.get_product_by_id(session, product_id) is product


# What no query loaded


UNLOADED: dict[str, tuple[Call, str]] = {
    "found user": (lambda s: catalog.get_user_by_id(s, ANN), "orders"),
    "new user": (new_user, "orders"),
    "found category": (lambda s: s.get_one(Category, LAMPS), "products"),
    "found product": (lambda s: catalog.get_product_by_id(s, LAMP), "category"),
    "ordered product": (lambda s: catalog.get_product_by_id(s, LAMP), "order_items"),
    "new product": (new_product, "category"),
    "updated product": (lambda s: catalog.update_product_price(s, LAMP, Decimal("9.99")), "category"),
}


@pytest.mark.parametrize(("load", "relationship"), UNLOADED.values(), ids=UNLOADED)
async def test_a_relationship_that_no_query_loaded_raises_and_asks_nothing(
    session: AsyncSession, count_statements: Counting, load: Call, relationship: str
):
    loaded = await load(session)
    with (
        count_statements() as sent,
        pytest.raises(InvalidRequestError, match=rf"\.{relationship}' is not available due to lazy='raise"),
    ):
        getattr(loaded, relationship)
    assert len(sent) == 0
