"""Users, categories and products on real PostgreSQL: what each function does, and how it says that it cannot.

The shop of these tests: Ann has two orders, Bob none. Lamp and Torch are in the category Lamps and were
ordered (the Lamp by both orders, in one of them twice), the Chair never was; the category Empty is.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from bench.statements import Statements
from db import catalog, values
from db.catalog import ProductOrder
from db.decision import InsufficientStock
from db.engine import session_factory
from db.errors import (
    AlreadyExistsError,
    InvalidValueError,
    NotEnoughStockError,
    NotFoundError,
    ShopError,
    StillReferencedError,
)
from db.models import Category, Product, User
from db.stock import take_turn

Call = Callable[[AsyncSession], Awaitable[Any]]
CallWith = Callable[[AsyncSession, Any], Awaitable[Any]]
Listing = Callable[..., Awaitable[Sequence[Any]]]
Counting = Callable[[], AbstractContextManager[Statements]]
Error = TypeVar("Error", bound=ShopError)

ANN, BOB = 1, 2
LAMPS, CHAIRS, EMPTY = 1, 2, 3
LAMP, TORCH, CHAIR = 1, 2, 3
NOBODY = 999_999

FIRST_ORDER, SECOND_ORDER = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"

pytestmark = pytest.mark.usefixtures("stocked")


@pytest.fixture
async def stocked(engine: AsyncEngine) -> None:
    """The shop that the module describes; what is received and not in stock was sold."""
    async with engine.begin() as connection:
        for statement in (
            "INSERT INTO users (email, full_name) VALUES"
            " ('ann@example.org', 'Ann'), ('bob@example.org', 'Bob')",
            "INSERT INTO categories (name) VALUES ('Lamps'), ('Chairs'), ('Empty')",
            "INSERT INTO products (name, price, stock_quantity, received_quantity, category_id) VALUES"
            " ('Lamp', 2.50, 10, 14, 1), ('Torch', 4.00, 3, 4, 1), ('Chair', 19.99, 5, 5, 2)",
            "INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES"
            f" ('{FIRST_ORDER}', 1, 7.50, now()), ('{SECOND_ORDER}', 1, 6.50, now())",
            "INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price) VALUES"
            f" ('{FIRST_ORDER}', 1, 1, 2, 2.50), ('{FIRST_ORDER}', 2, 1, 1, 2.50),"
            f" ('{SECOND_ORDER}', 1, 1, 1, 2.50), ('{SECOND_ORDER}', 2, 2, 1, 4.00)",
        ):
            await connection.execute(text(statement))


async def new_user(session: AsyncSession, email: Any = "new@example.org", full_name: Any = "New") -> User:
    return await catalog.create_user(session, email, full_name)


async def new_category(session: AsyncSession, name: Any = "New", **given: Any) -> Category:
    return await catalog.create_category(session, name, **given)


async def new_product(
    session: AsyncSession,
    category_id: Any = LAMPS,
    name: Any = "New",
    price: Any = Decimal("1.00"),
    **given: Any,
) -> Product:
    return await catalog.create_product(session, category_id, name, price, **given)


async def new_product_of_lamps(
    session: AsyncSession, name: Any = "New", price: Any = Decimal("1.00"), **given: Any
) -> Product:
    lamps = await session.get_one(Category, LAMPS)
    return await catalog.create_product_in_category(session, lamps, name, price, **given)


async def fill(session: AsyncSession, rows: int, category_id: int = EMPTY) -> None:
    """Users and products, of which many share a name, a price or a stock; names of either case."""
    await session.execute(
        text(
            "INSERT INTO users (email, full_name)"
            " SELECT 'user' || i || '@example.org', 'User' FROM generate_series(1, :rows) i"
        ),
        {"rows": rows},
    )
    await session.execute(
        text(
            "INSERT INTO products (name, price, stock_quantity, received_quantity, category_id)"
            " SELECT (ARRAY['apple', 'Apple', 'Äpfel', 'Zebra', 'a-b', ''])[i % 6 + 1],"
            " i % 3 + 0.5, i % 5, i % 5, :category_id FROM generate_series(1, :rows) i"
        ),
        {"rows": rows, "category_id": category_id},
    )
    await session.commit()


async def content(session: AsyncSession) -> dict[str, Sequence[Any]]:
    """Every row of the catalogue as PostgreSQL has it, past the objects of the session."""
    return {
        table: (await session.execute(text(f"SELECT * FROM {table} ORDER BY id"))).all()
        for table in ("users", "categories", "products")
    }


async def stock(session: AsyncSession) -> dict[int, tuple[int, int]]:
    """Stock and received quantity of every product."""
    return {
        row.id: (row.stock_quantity, row.received_quantity) for row in (await content(session))["products"]
    }


async def refusal(session: AsyncSession, engine: AsyncEngine, call: Call, error: type[Error]) -> Error:
    """The error of the call, which changed nothing and after which the transaction goes on to its commit."""
    await new_user(session, f"earlier-{uuid4()}")
    before = await content(session)
    with pytest.raises(error) as caught:
        await call(session)
    assert type(caught.value) is error
    assert await content(session) == before
    await new_user(session, f"later-{uuid4()}")
    await session.commit()
    async with session_factory(engine)() as other:
        committed = await content(other)
    *users, later = committed["users"]
    assert later.email.startswith("later-")
    assert {**committed, "users": users} == before
    return caught.value


def with_value(call: CallWith, value: Any) -> Call:
    return lambda session: call(session, value)


async def somebody_waits_for(waited_for: AsyncSession, engine: AsyncEngine) -> None:
    pid = await waited_for.scalar(text("SELECT pg_backend_pid()"))
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE :pid = ANY (pg_blocking_pids(pid))")
    async with asyncio.timeout(20), engine.connect() as watcher:
        while not await watcher.scalar(waiting, {"pid": pid}):
            # pg_stat_activity stands still within a transaction.
            await watcher.rollback()
            await asyncio.sleep(0.02)


WRITES: dict[str, Call] = {
    "create_user": new_user,
    "update_user": lambda s: catalog.update_user(s, ANN, full_name="Anna"),
    "delete_user": lambda s: catalog.delete_user(s, BOB),
    "create_category": new_category,
    "create_product": new_product,
    "create_product_in_category": new_product_of_lamps,
    "update_product_price": lambda s: catalog.update_product_price(s, LAMP, Decimal("9.99")),
    "adjust_stock_for_category": lambda s: catalog.adjust_stock_for_category(s, LAMPS, -1),
    "delete_product": lambda s: catalog.delete_product(s, CHAIR),
}

BY_ID: dict[str, tuple[str, CallWith]] = {
    "get_user_by_id": ("user", catalog.get_user_by_id),
    "update_user": ("user", lambda s, i: catalog.update_user(s, i, full_name="Anna")),
    "update_user-unchanged": ("user", catalog.update_user),
    "delete_user": ("user", catalog.delete_user),
    "get_category_with_products": ("category", catalog.get_category_with_products),
    "create_product": ("category", new_product),
    "list_products_in_category": ("category", catalog.list_products_in_category),
    "adjust_stock_for_category": ("category", lambda s, i: catalog.adjust_stock_for_category(s, i, 1)),
    "get_product_by_id": ("product", catalog.get_product_by_id),
    "update_product_price": ("product", lambda s, i: catalog.update_product_price(s, i, Decimal(1))),
    "delete_product": ("product", catalog.delete_product),
}

FILLED_TEXTS: dict[str, tuple[str, CallWith]] = {
    "create_user-email": ("email", lambda s, v: new_user(s, email=v)),
    "create_user-full_name": ("full_name", lambda s, v: new_user(s, full_name=v)),
    "update_user-email": ("email", lambda s, v: catalog.update_user(s, ANN, email=v, full_name="Anna")),
    "update_user-full_name": ("full_name", lambda s, v: catalog.update_user(s, ANN, email="a", full_name=v)),
    "create_category-name": ("name", new_category),
    "create_product-name": ("name", lambda s, v: new_product(s, name=v)),
    "create_product_in_category-name": ("name", new_product_of_lamps),
}

TEXTS: dict[str, tuple[str, CallWith]] = FILLED_TEXTS | {
    "get_user_by_email-email": ("email", catalog.get_user_by_email),
    "create_category-description": ("description", lambda s, v: new_category(s, description=v)),
    "create_product-description": ("description", lambda s, v: new_product(s, description=v)),
    "create_product_in_category-description": (
        "description",
        lambda s, v: new_product_of_lamps(s, description=v),
    ),
}

PRICES: dict[str, CallWith] = {
    "create_product": lambda s, v: new_product(s, price=v),
    "create_product_in_category": lambda s, v: new_product_of_lamps(s, price=v),
    "update_product_price": lambda s, v: catalog.update_product_price(s, LAMP, v),
}

QUANTITIES: dict[str, tuple[str, CallWith]] = {
    "create_product": ("stock_quantity", lambda s, v: new_product(s, stock_quantity=v)),
    "create_product_in_category": ("stock_quantity", lambda s, v: new_product_of_lamps(s, stock_quantity=v)),
    "adjust_stock_for_category": ("change", lambda s, v: catalog.adjust_stock_for_category(s, LAMPS, v)),
}

# What is asked page by page, in one statement a page.
LISTINGS: dict[str, Listing] = {
    "list_users": catalog.list_users,
    "list_products_in_category": partial(catalog.list_products_in_category, category_id=EMPTY),
    **{f"list_products-{order}": partial(catalog.list_products, order_by=order) for order in ProductOrder},
}


# What every function that writes has in common


def test_every_function_that_writes_is_tested_for_hidden_commits():
    verbs = ("create_", "update_", "delete_", "adjust_")
    public = [name for name, _ in inspect.getmembers(catalog, inspect.iscoroutinefunction) if name[0] != "_"]
    assert {name for name in public if name.startswith(verbs)} == set(WRITES)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_nobody_else_sees_what_was_written_before_the_commit(
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
@pytest.mark.parametrize("name", [name for name in TEXTS if not name.startswith("update_user")])
async def test_none_is_no_text(session: AsyncSession, engine: AsyncEngine, name: str):
    field, call = TEXTS[name]
    error = await refusal(session, engine, with_value(call, None), InvalidValueError)
    assert str(error) == f"{field} must be text: None"


@pytest.mark.parametrize("call", PRICES.values(), ids=PRICES)
async def test_a_price_that_money_cannot_be_is_refused(
    session: AsyncSession, engine: AsyncEngine, subtests: pytest.Subtests, call: CallWith
):
    for price, reason in (
        (2.5, "must be a Decimal: 2.5"),
        (2, "must be a Decimal: 2"),
        ("2.50", "must be a Decimal: '2.50'"),
        (None, "must be a Decimal: None"),
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


# Users


async def test_a_new_user_is_readable_without_another_query(
    session: AsyncSession, count_statements: Counting
):
    with count_statements() as sent:
        user = await catalog.create_user(session, "cy@example.org", "Cy")
        shown = (user.email, user.full_name)
        assert user.created_at.tzinfo is not None
    assert len(sent) == 1
    await session.commit()
    assert shown == (user.email, user.full_name) == ("cy@example.org", "Cy")
    assert await catalog.get_user_by_id(session, user.id) is user


@pytest.mark.parametrize(
    "text_given",
    ["".join(chr(0x4E00 + i * 7) for i in range(666)), "x" * 2_000, " padded "],
    ids=["incompressible", "repeated", "padded"],
)
async def test_the_longest_text_fits_the_index_and_comes_back_as_it_was(
    session: AsyncSession, engine: AsyncEngine, text_given: str
):
    user = await new_user(session, text_given, text_given)
    category = await new_category(session, text_given)
    product = await new_product(session, name=text_given)
    await session.commit()
    async with session_factory(engine)() as other:
        assert (await catalog.get_user_by_email(other, text_given)).id == user.id
        assert (await catalog.get_category_with_products(other, category.id)).name == text_given
        assert (await catalog.get_product_by_id(other, product.id)).name == text_given


TAKEN: dict[str, tuple[str, str, str, Call]] = {
    "create_user": ("user", "email", "bob@example.org", lambda s: new_user(s, "bob@example.org")),
    "update_user": (
        "user",
        "email",
        "bob@example.org",
        lambda s: catalog.update_user(s, ANN, email="bob@example.org", full_name="Anna"),
    ),
    "create_category": ("category", "name", "Lamps", lambda s: new_category(s, "Lamps")),
}


@pytest.mark.parametrize(("what", "field", "value", "call"), TAKEN.values(), ids=TAKEN)
async def test_an_email_or_name_that_is_taken_is_refused_and_the_transaction_goes_on(
    session: AsyncSession, engine: AsyncEngine, what: str, field: str, value: str, call: Call
):
    error = await refusal(session, engine, call, AlreadyExistsError)
    assert (error.what, error.field, error.value) == (what, field, value)
    assert error.constraint in {"uq_users_email", "uq_categories_name"}
    assert str(error) == f"{what} with {field} '{value}' exists already ({error.constraint})"


async def test_an_email_taken_earlier_in_the_same_transaction_is_refused(
    session: AsyncSession, engine: AsyncEngine
):
    await new_user(session, "same")
    error = await refusal(session, engine, with_value(new_user, "same"), AlreadyExistsError)
    assert "user with email 'same' exists already" in str(error)


async def test_a_user_whose_new_email_is_taken_still_shows_the_old_one(
    session: AsyncSession, engine: AsyncEngine
):
    ann = await catalog.get_user_by_id(session, ANN)
    await refusal(session, engine, TAKEN["update_user"][-1], AlreadyExistsError)
    assert (ann.email, ann.full_name) == ("ann@example.org", "Ann")


@pytest.mark.parametrize("create", [new_user, new_category])
@pytest.mark.parametrize("first_commits", [True, False], ids=["committed", "rolled-back"])
async def test_of_two_who_create_the_same_the_second_waits_for_the_first(
    session: AsyncSession, engine: AsyncEngine, create: CallWith, first_commits: bool
):
    async with session_factory(engine)() as second:
        await create(session, "same")
        creating = asyncio.ensure_future(create(second, "same"))
        await somebody_waits_for(session, engine)
        assert not creating.done()
        if first_commits:
            await session.commit()
            with pytest.raises(AlreadyExistsError, match="'same' exists already"):
                await creating
        else:
            await session.rollback()
            await creating
        await create(second, "another")
        await second.commit()
    created = await session.scalars(text("SELECT email FROM users UNION ALL SELECT name FROM categories"))
    assert {"same", "another"} < set(created)


async def test_emails_that_differ_in_case_are_two(session: AsyncSession, engine: AsyncEngine):
    upper = await new_user(session, "ANN@example.org")
    assert upper.id != ANN
    assert (await catalog.get_user_by_email(session, "ann@example.org")).id == ANN
    error = await refusal(session, engine, lambda s: catalog.get_user_by_email(s, "Ann@x"), NotFoundError)
    assert str(error) == "there is no user with email 'Ann@x'"


@pytest.mark.parametrize(
    "changes", [{}, {"email": "a@new.org"}, {"full_name": "Anna"}, {"email": "a@new.org", "full_name": "A"}]
)
async def test_an_update_changes_what_is_given_and_what_was_loaded_shows_it(
    session: AsyncSession, engine: AsyncEngine, changes: dict[str, str]
):
    ann = await catalog.get_user_by_id(session, ANN)
    assert await catalog.update_user(session, ANN, **changes) is ann
    await session.commit()
    expected = {"email": "ann@example.org", "full_name": "Ann"} | changes
    assert {"email": ann.email, "full_name": ann.full_name} == expected
    async with session_factory(engine)() as other:
        stored = await content(other)
    assert [(u.email, u.full_name) for u in stored["users"]] == [
        (expected["email"], expected["full_name"]),
        ("bob@example.org", "Bob"),
    ]


async def test_a_user_may_be_updated_to_the_email_it_has(session: AsyncSession):
    updated = await catalog.update_user(session, ANN, email="ann@example.org", full_name="Anna")
    assert (updated.email, updated.full_name) == ("ann@example.org", "Anna")


async def test_a_deleted_user_is_not_found_and_its_email_is_free(session: AsyncSession):
    await catalog.get_user_by_id(session, BOB)
    await catalog.delete_user(session, BOB)
    with pytest.raises(NotFoundError):
        await catalog.get_user_by_id(session, BOB)
    assert (await new_user(session, "bob@example.org")).id != BOB
    await session.commit()


async def test_a_user_with_orders_is_not_deleted(session: AsyncSession, engine: AsyncEngine):
    ann = await catalog.get_user_by_id(session, ANN)
    error = await refusal(session, engine, lambda s: catalog.delete_user(s, ANN), StillReferencedError)
    assert str(error) == "user 1 cannot be deleted: 2 orders need it"
    assert (error.what, error.id, error.orders) == ("user", ANN, 2)
    assert ann.email == "ann@example.org"
    assert await catalog.get_user_by_id(session, ANN) is ann


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


async def test_products_go_on_being_created_in_a_category_of_which_one_was_deleted(session: AsyncSession):
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


async def test_a_category_deleted_meanwhile_is_not_found_and_what_was_loaded_stays_readable(
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
    assert len(sent) == 1
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
    # Whoever follows the chain of causes comes to PostgreSQL's own error, not back to this one.
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
        await take_turn(session)
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
    "updated product": (WRITES["update_product_price"], "category"),
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


# Pages


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
    return ProductOrder(order).key if name == "list_products" else lambda row: row.id


def rows_of(listing: str) -> str:
    """The ids that the listing goes through, in its order, in plain SQL."""
    name, _, order = listing.partition("-")
    return {
        "list_users": "SELECT id FROM users ORDER BY id",
        "list_products_in_category": "SELECT id FROM products WHERE category_id = 3 ORDER BY id",
        "list_products": f"SELECT id FROM products ORDER BY {order}, id",
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
async def test_a_page_goes_on_after_a_product_that_was_deleted_meanwhile(
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


async def test_a_page_goes_on_where_the_price_shown_was_when_it_changed_meanwhile(session: AsyncSession):
    await fill(session, 40)
    page = await catalog.list_products(session, ProductOrder.PRICE, limit=20)
    after = ProductOrder.PRICE.key(page[-1])
    await catalog.update_product_price(session, page[-1].id, Decimal("0.01"))
    rest = await catalog.list_products(session, ProductOrder.PRICE, after=after)
    assert sorted(p.id for p in [*page, *rest]) == list(range(1, 44))


async def test_pages_by_stock_go_on_after_the_largest_stock_there_is(session: AsyncSession):
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


@pytest.mark.parametrize("name", ["list_users", "list_products_in_category"])
async def test_a_last_id_that_is_none_is_refused(
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
    for after in (7, "ab", [1, 2], (), (1,), (1, 2, 3), {"id": 1}):
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
            assert str(error) == f"order_by must be one of id, name, price, stock_quantity: {order_by!r}"
