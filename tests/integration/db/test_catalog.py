"""What the functions of db.catalog have in common: when others see it, and what none of them takes."""

import inspect
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import catalog, values
from db.engine import session_factory
from db.errors import (
    InvalidValueError,
    NotFoundError,
)
from tests.support.little_shop import (
    ANN,
    BOB,
    CHAIR,
    CHAIRS,
    EMPTY,
    LAMP,
    LAMPS,
    NOBODY,
    PRICES,
    Call,
    CallWith,
    content,
    new_category,
    new_product,
    new_product_of_lamps,
    new_user,
    refusal,
    with_value,
)

pytestmark = pytest.mark.usefixtures("little_shop")


WRITES: dict[str, Call] = {
    "create_user": new_user,
    "update_user": lambda s: catalog.update_user(s, ANN, full_name="Anna"),
    "delete_user": lambda s: catalog.delete_user(s, BOB),
    "create_category": new_category,
    "update_category": lambda s: catalog.update_category(s, LAMPS, name="Lights", description="bright"),
    "delete_category": lambda s: catalog.delete_category(s, EMPTY),
    "create_product": new_product,
    "create_product_in_category": new_product_of_lamps,
    "update_product": lambda s: catalog.update_product(s, LAMP, name="Light", category_id=CHAIRS),
    "adjust_stock": lambda s: catalog.adjust_stock(s, LAMP, -1),
    "update_product_price": lambda s: catalog.update_product_price(s, LAMP, Decimal("9.99")),
    "adjust_stock_for_category": lambda s: catalog.adjust_stock_for_category(s, LAMPS, -1),
    "delete_product": lambda s: catalog.delete_product(s, CHAIR),
}

BY_ID: dict[str, tuple[str, CallWith]] = {
    "get_user_by_id": ("user", catalog.get_user_by_id),
    "update_user": ("user", lambda s, i: catalog.update_user(s, i, full_name="Anna")),
    "update_user-email": ("user", lambda s, i: catalog.update_user(s, i, email="anna@example.org")),
    "update_user-unchanged": ("user", catalog.update_user),
    "delete_user": ("user", catalog.delete_user),
    "get_category_with_products": ("category", catalog.get_category_with_products),
    "get_category_by_id": ("category", catalog.get_category_by_id),
    "update_category": ("category", lambda s, i: catalog.update_category(s, i, description="bright")),
    "update_category-name": ("category", lambda s, i: catalog.update_category(s, i, name="Lights")),
    "update_category-unchanged": ("category", catalog.update_category),
    "delete_category": ("category", catalog.delete_category),
    "create_product": ("category", new_product),
    "list_products_in_category": ("category", catalog.list_products_in_category),
    "adjust_stock_for_category": ("category", lambda s, i: catalog.adjust_stock_for_category(s, i, 1)),
    "get_product_by_id": ("product", catalog.get_product_by_id),
    "update_product": ("product", lambda s, i: catalog.update_product(s, i, name="Light")),
    "update_product-unchanged": ("product", catalog.update_product),
    "adjust_stock": ("product", lambda s, i: catalog.adjust_stock(s, i, 1)),
    "update_product_price": ("product", lambda s, i: catalog.update_product_price(s, i, Decimal(1))),
    "delete_product": ("product", catalog.delete_product),
}

FILLED_TEXTS: dict[str, tuple[str, CallWith]] = {
    "create_user-email": ("email", lambda s, v: new_user(s, email=v)),
    "create_user-full_name": ("full_name", lambda s, v: new_user(s, full_name=v)),
    "update_user-email": ("email", lambda s, v: catalog.update_user(s, ANN, email=v, full_name="Anna")),
    "update_user-full_name": ("full_name", lambda s, v: catalog.update_user(s, ANN, email="a", full_name=v)),
    "create_category-name": ("name", new_category),
    "update_category-name": ("name", lambda s, v: catalog.update_category(s, LAMPS, name=v)),
    "update_product-name": ("name", lambda s, v: catalog.update_product(s, LAMP, name=v)),
    "create_product-name": ("name", lambda s, v: new_product(s, name=v)),
    "create_product_in_category-name": ("name", new_product_of_lamps),
}

TEXTS: dict[str, tuple[str, CallWith]] = FILLED_TEXTS | {
    "get_user_by_email-email": ("email", catalog.get_user_by_email),
    "get_category_by_name-name": ("name", catalog.get_category_by_name),
    "update_category-description": (
        "description",
        lambda s, v: catalog.update_category(s, LAMPS, description=v),
    ),
    "update_product-description": (
        "description",
        lambda s, v: catalog.update_product(s, LAMP, description=v),
    ),
    "create_category-description": ("description", lambda s, v: new_category(s, description=v)),
    "create_product-description": ("description", lambda s, v: new_product(s, description=v)),
    "create_product_in_category-description": (
        "description",
        lambda s, v: new_product_of_lamps(s, description=v),
    ),
}

QUANTITIES: dict[str, tuple[str, CallWith]] = {
    "create_product": ("stock_quantity", lambda s, v: new_product(s, stock_quantity=v)),
    "create_product_in_category": ("stock_quantity", lambda s, v: new_product_of_lamps(s, stock_quantity=v)),
    "adjust_stock": ("change", lambda s, v: catalog.adjust_stock(s, LAMP, v)),
    "adjust_stock_for_category": ("change", lambda s, v: catalog.adjust_stock_for_category(s, LAMPS, v)),
}


# What every function that writes has in common


def test_every_function_that_writes_is_tested_for_hidden_commits():
    verbs = ("create_", "update_", "delete_", "adjust_")
    own = [name for name, _ in inspect.getmembers(catalog, inspect.iscoroutinefunction)]
    assert {name for name in own if name.startswith(verbs)} == set(WRITES)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_other_sessions_see_nothing_before_the_commit(
    session: AsyncSession, engine: AsyncEngine, write: Call
):
    async with session_factory(engine)() as other:
        before = await content(other)
        await write(session)
        written = await content(session)
        assert written != before
        assert await content(other) == before
        await session.commit()
        assert await content(other) == written


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_rollback_leaves_nothing_of_what_was_written(session: AsyncSession, write: Call):
    before = await content(session)
    await write(session)
    await session.rollback()
    assert await content(session) == before


# What every function refuses


@pytest.mark.parametrize(("what", "call"), BY_ID.values(), ids=BY_ID)
async def test_an_id_that_no_row_has_is_not_found(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, what: str, call: CallWith
):
    for row_id in (0, -1, NOBODY, 2**63 - 1, 2**63, 2**80):
        with subtests.test(row_id=row_id):
            error = await refusal(session, engine, with_value(call, row_id), NotFoundError)
            assert str(error) == f"there is no {what} with id {row_id}"
            assert (error.what, error.field, error.value) == (what, "id", row_id)


@pytest.mark.parametrize("call", [call for _, call in BY_ID.values()], ids=BY_ID)
async def test_an_id_that_is_no_integer_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, call: CallWith
):
    for row_id, shown in ((True, "True"), ("7", "'7'"), (1.0, "1.0"), (Decimal(1), "1"), (None, "None")):
        with subtests.test(row_id=row_id):
            error = await refusal(session, engine, with_value(call, row_id), InvalidValueError)
            assert str(error) == f"id must be an integer: {shown}"


async def test_an_id_too_long_to_be_written_down_is_not_found(session: AsyncSession, engine: AsyncEngine):
    call = with_value(catalog.get_user_by_id, 10**5_000)
    error = await refusal(session, engine, call, NotFoundError)
    assert str(error).startswith("there is no user with id ")


@pytest.mark.parametrize(("field", "call"), TEXTS.values(), ids=TEXTS)
async def test_text_that_postgresql_cannot_hold_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, field: str, call: CallWith
):
    for value, reason in (
        ("nul\0", "must be UTF-8 without NUL"),
        ("\ud800", "must be UTF-8 without NUL"),
        ("tail \udfff", "must be UTF-8 without NUL"),
        (7, "must be text"),
        (b"bytes", "must be text"),
    ):
        with subtests.test(value=ascii(value)):
            error = await refusal(session, engine, with_value(call, value), InvalidValueError)
            assert str(error).startswith(f"{field} {reason}: ")
            assert str(error).isprintable()


@pytest.mark.parametrize(("field", "call"), FILLED_TEXTS.values(), ids=FILLED_TEXTS)
async def test_a_name_that_is_empty_or_fits_no_index_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, field: str, call: CallWith
):
    for value, reason in (
        ("", "must not be empty: ''"),
        (" \t\n", r"must not be empty: ' \t\n'"),
        ("x" * 2_001, "must not be longer than 2,000 bytes: 'xxx"),
        ("é" * 1_001, "must not be longer than 2,000 bytes: 'ééé"),
    ):
        with subtests.test(value=value[:5]):
            error = await refusal(session, engine, with_value(call, value), InvalidValueError)
            assert str(error).startswith(f"{field} {reason}")
            assert len(str(error)) < 200


# For an update, None means to leave the field as it is.
@pytest.mark.parametrize("name", [name for name in TEXTS if not name.startswith("update_")])
async def test_none_is_no_text(session: AsyncSession, engine: AsyncEngine, name: str):
    field, call = TEXTS[name]
    error = await refusal(session, engine, with_value(call, None), InvalidValueError)
    assert str(error) == f"{field} must be text: None"


async def test_an_email_that_grows_beyond_the_index_in_lower_case_is_refused(
    session: AsyncSession, engine: AsyncEngine
):
    error = await refusal(session, engine, with_value(new_user, "Ⱥ" * 1_000), InvalidValueError)
    assert str(error).startswith("email must not be longer than 2,000 bytes in lower case: 'ȺȺ")


@pytest.mark.parametrize("call", PRICES.values(), ids=PRICES)
async def test_a_price_that_money_cannot_be_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, call: CallWith
):
    for price, reason in (
        (2.5, "must be a Decimal: 2.5"),
        (2, "must be a Decimal: 2"),
        ("2.50", "must be a Decimal: '2.50'"),
        (Decimal("NaN"), "must be from 0 to 99999999.99: NaN"),
        (Decimal("sNaN"), "must be from 0 to 99999999.99: sNaN"),
        (Decimal("Infinity"), "must be from 0 to 99999999.99: Infinity"),
        (Decimal("-0.01"), "must be from 0 to 99999999.99: -0.01"),
        (Decimal("100000000"), "must be from 0 to 99999999.99: 100000000"),
        (Decimal("99999999.991"), "must be from 0 to 99999999.99: 99999999.991"),
        (Decimal("1E+1000000"), "must be from 0 to 99999999.99: 1E+1000000"),
        (Decimal("1.005"), "must have at most 2 decimals: 1.005"),
        (Decimal("1E-1000000"), "must have at most 2 decimals: 1E-1000000"),
    ):
        with subtests.test(price=price):
            error = await refusal(session, engine, with_value(call, price), InvalidValueError)
            assert str(error) == f"price {reason}"


# For an update of several fields, None means to leave the price as it is.
@pytest.mark.parametrize("name", [name for name in PRICES if name != "update_product"])
async def test_none_is_no_price(session: AsyncSession, engine: AsyncEngine, name: str):
    error = await refusal(session, engine, with_value(PRICES[name], None), InvalidValueError)
    assert str(error) == "price must be a Decimal: None"


@pytest.mark.parametrize(
    "price",
    [Decimal("1.5" + "0" * 20_000), Decimal("0E-20000"), Decimal("0E+1000000")],
    ids=["1.50000", "0E-20000", "0E+1000000"],
)
@pytest.mark.parametrize("call", PRICES.values(), ids=PRICES)
async def test_a_price_of_countless_zeros_is_stored_or_refused_by_its_name(
    session: AsyncSession, call: CallWith, price: Decimal
):
    try:
        product = await call(session, price)
    except InvalidValueError as error:
        assert error.field == "price"  # noqa: PT017 (that it is stored is as good)
    else:
        stored = await session.scalar(text("SELECT price FROM products WHERE id = :id"), {"id": product.id})
        assert stored == price
    await new_user(session)
    await session.commit()


@pytest.mark.parametrize(("field", "call"), QUANTITIES.values(), ids=QUANTITIES)
async def test_a_quantity_that_stock_cannot_be_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, field: str, call: CallWith
):
    for quantity in (True, "7", 1.0, None, values.MAX_STOCK + 1, -values.MAX_STOCK - 1, 2**80):
        with subtests.test(quantity=quantity):
            error = await refusal(session, engine, with_value(call, quantity), InvalidValueError)
            assert str(error).startswith(f"{field} must be an integer from ")
            assert str(error).endswith(f" to 1,000,000,000,000,000,000: {quantity!r}")


async def test_the_first_stock_is_never_negative(session: AsyncSession, engine: AsyncEngine):
    call = with_value(QUANTITIES["create_product"][1], -1)
    error = await refusal(session, engine, call, InvalidValueError)
    assert str(error) == "stock_quantity must be an integer from 0 to 1,000,000,000,000,000,000: -1"
