"""Categories and products changed field by field, and their stock by what comes and goes."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import catalog, reports
from db.decision import InsufficientStock
from db.engine import session_factory
from db.errors import InvalidValueError, NotEnoughStockError, NotFoundError, StillReferencedError
from db.models import Category, Product
from tests.support.little_shop import (
    CHAIR,
    CHAIRS,
    EMPTY,
    LAMP,
    LAMPS,
    NOBODY,
    TORCH,
    Counting,
    content,
    refusal,
    stock,
)

pytestmark = pytest.mark.usefixtures("little_shop")


# Categories


async def test_a_category_is_got_by_id_and_by_its_exact_name(
    session: AsyncSession, engine: AsyncEngine, count_statements: Counting
):
    with count_statements() as sent:
        lamps = await catalog.get_category_by_name(session, "Lamps")
        assert await catalog.get_category_by_id(session, LAMPS) is lamps
    assert len(sent) == 1, "the second is known by then"
    assert isinstance(lamps.created_at, datetime)
    assert lamps.created_at.tzinfo is not None
    error = await refusal(session, engine, lambda s: catalog.get_category_by_name(s, "lamps"), NotFoundError)
    assert str(error) == "there is no category with name 'lamps'"


@pytest.mark.parametrize(
    "changes", [{}, {"name": "Lights"}, {"description": "bright"}, {"name": "Lights", "description": ""}]
)
async def test_a_category_changes_in_what_is_given_and_what_was_loaded_shows_it(
    session: AsyncSession, engine: AsyncEngine, changes: dict[str, str]
):
    lamps = await catalog.get_category_by_id(session, LAMPS)
    assert await catalog.update_category(session, LAMPS, **changes) is lamps
    await session.commit()
    expected = {"name": "Lamps", "description": ""} | changes
    assert {"name": lamps.name, "description": lamps.description} == expected
    async with session_factory(engine)() as other:
        rows = (await content(other))["categories"]
    assert [(row.name, row.description) for row in rows] == [
        (expected["name"], expected["description"]),
        ("Chairs", ""),
        ("Empty", ""),
    ]


async def test_a_category_may_be_updated_to_the_name_it_has(session: AsyncSession):
    assert (await catalog.update_category(session, LAMPS, name="Lamps")).name == "Lamps"


async def test_a_category_with_products_is_not_deleted(session: AsyncSession, engine: AsyncEngine):
    error = await refusal(session, engine, lambda s: catalog.delete_category(s, LAMPS), StillReferencedError)
    assert str(error) == "category 1 cannot be deleted: 2 products need it"
    assert (error.what, error.id, error.products, error.orders) == ("category", LAMPS, 2, 0)
    error = await refusal(session, engine, lambda s: catalog.delete_category(s, CHAIRS), StillReferencedError)
    assert str(error) == "category 2 cannot be deleted: 1 product needs it"


async def test_a_category_that_is_empty_is_deleted_and_its_name_is_free(session: AsyncSession):
    await catalog.delete_category(session, EMPTY)
    with pytest.raises(NotFoundError):
        await catalog.get_category_by_id(session, EMPTY)
    assert (await catalog.create_category(session, "Empty")).id != EMPTY
    await session.commit()


# Products


FIELDS: dict[str, Any] = {
    "name": "Light",
    "description": "bright",
    "price": Decimal("9.99"),
    "category_id": CHAIRS,
}


@pytest.mark.parametrize("changes", [{}, *({name: value} for name, value in FIELDS.items()), FIELDS], ids=str)
async def test_a_product_changes_in_what_is_given_and_what_was_loaded_shows_it(
    session: AsyncSession, engine: AsyncEngine, changes: dict[str, Any]
):
    lamp = await catalog.get_product_by_id(session, LAMP)
    assert await catalog.update_product(session, LAMP, **changes) is lamp
    await session.commit()
    expected = {"name": "Lamp", "description": "", "price": Decimal("2.50"), "category_id": LAMPS} | changes
    assert {name: getattr(lamp, name) for name in expected} == expected
    async with session_factory(engine)() as other:
        stored = await catalog.get_product_by_id(other, LAMP)
        assert {name: getattr(stored, name) for name in expected} == expected
        assert (stored.stock_quantity, stored.received_quantity) == (10, 14)
        assert (await catalog.get_product_by_id(other, TORCH)).name == "Torch", "and nothing else"


async def test_stock_is_changed_by_what_comes_and_goes_and_not_set(
    session: AsyncSession, engine: AsyncEngine
):
    for field in ("stock_quantity", "received_quantity"):
        for value in (7, 0, "7"):
            change: Any = {"name": "Light", field: value}
            error = await refusal(
                session,
                engine,
                lambda s, change=change: catalog.update_product(s, LAMP, **change),  # type: ignore[misc]
                InvalidValueError,
            )
            assert str(error) == f"{field} is changed by adjust_stock, by what comes or goes: {value!r}"


async def test_a_product_moves_to_no_category_that_there_is_not(session: AsyncSession, engine: AsyncEngine):
    error = await refusal(
        session, engine, lambda s: catalog.update_product(s, LAMP, category_id=NOBODY), NotFoundError
    )
    assert (error.what, error.value) == ("category", NOBODY)
    for wrong, kind in (("1", InvalidValueError), (True, InvalidValueError), (0, NotFoundError)):
        given: Any = wrong
        await refusal(
            session,
            engine,
            lambda s, given=given: catalog.update_product(s, LAMP, category_id=given),  # type: ignore[misc]
            kind,
        )


async def test_a_product_that_moved_shows_no_category_of_before(session: AsyncSession):
    lamps = await catalog.get_category_with_products(session, LAMPS)
    lamp = lamps.products[0]
    assert lamp.category is lamps
    await catalog.update_product(session, LAMP, category_id=CHAIRS)
    with pytest.raises(InvalidRequestError):
        _ = lamp.category
    chairs = await catalog.get_category_with_products(session, CHAIRS)
    assert {p.id for p in chairs.products} == {LAMP, CHAIR}
    assert lamp.category is chairs


@pytest.mark.parametrize("change", [5, 0, -10])
async def test_the_stock_of_one_product_moves_with_what_was_received(
    session: AsyncSession, count_statements: Counting, change: int
):
    lamp = await catalog.get_product_by_id(session, LAMP)
    before = await stock(session)
    with count_statements() as sent:
        assert await catalog.adjust_stock(session, LAMP, change) is lamp
        assert (lamp.stock_quantity, lamp.received_quantity) == (10 + change, 14 + change)
    assert len(sent) == 2
    assert await stock(session) == before | {LAMP: (10 + change, 14 + change)}
    assert await reports.stock_discrepancies(session) == []


async def test_more_than_one_product_holds_is_not_taken_from_it(session: AsyncSession, engine: AsyncEngine):
    error = await refusal(session, engine, lambda s: catalog.adjust_stock(s, LAMP, -11), NotEnoughStockError)
    assert error.short == (InsufficientStock(LAMP, 11, 10),)


async def test_changing_takes_the_same_few_statements_whatever_is_given(
    session: AsyncSession, count_statements: Counting
):
    asked = {}
    with count_statements() as sent:
        await catalog.update_product(session, LAMP, **FIELDS)
    asked["update_product"] = len(sent)
    with count_statements() as sent:
        await catalog.update_category(session, LAMPS, name="Lights", description="bright")
    asked["update_category"] = len(sent)
    with count_statements() as sent:
        await catalog.delete_category(session, EMPTY)
    asked["delete_category"] = len(sent)
    with count_statements() as sent:
        await catalog.list_categories(session)
    asked["list_categories"] = len(sent)
    assert asked == {"update_product": 2, "update_category": 3, "delete_category": 4, "list_categories": 1}


# When


async def test_what_is_created_says_when_without_another_query(
    session: AsyncSession, count_statements: Counting
):
    with count_statements() as sent:
        category = await catalog.create_category(session, "New")
        product = await catalog.create_product(session, category.id, "New", Decimal(1))
        created: list[Category | Product] = [category, product]
        assert all(one.created_at.tzinfo is not None for one in created)
    assert len(sent) == 2
    now = await session.scalar(text("SELECT now()"))
    assert category.created_at == product.created_at == now
