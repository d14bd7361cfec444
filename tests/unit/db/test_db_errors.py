"""What the errors of the shop say, how they are related, and that no constraint is without words."""

from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import ForeignKeyConstraint, PrimaryKeyConstraint, UniqueConstraint

from db import errors
from db.constraints import _REFERENCES, _UNIQUE
from db.decision import InsufficientStock, PriceChanged, Refusal, UnknownProduct, UnknownUser
from db.errors import (
    AlreadyExistsError,
    IllegalStatusChangeError,
    InvalidValueError,
    LockedError,
    NotEnoughStockError,
    NotFoundError,
    NoTransactionError,
    PriceChangedError,
    RefusedError,
    SequenceBehindError,
    ShopError,
    StillReferencedError,
    UnknownNameError,
    UnusableProductError,
    refused,
)
from db.models import Base
from db.statuses import OrderStatus

ORDER_ID = UUID("5f0c6a3e-8a4b-4d7e-9b1a-2c3d4e5f6a7b")
SHORT = InsufficientStock(7, 11, 10)
REPRICED = PriceChanged(7, Decimal("2.00"), Decimal("2.50"))
PENDING, COMPLETED, CANCELLED = OrderStatus


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InvalidValueError("quantity", 0, "must be positive"), "quantity must be positive: 0"),
        (InvalidValueError("email", "", "must not be empty"), "email must not be empty: ''"),
        (InvalidValueError("price", Decimal("2.505"), "is odd"), "price is odd: 2.505"),
        (NotFoundError("user", "id", 99), "there is no user with id 99"),
        (NotFoundError("user", "email", "a@b.c"), "there is no user with email 'a@b.c'"),
        (NotFoundError("order", "id", ORDER_ID), f"there is no order with id {ORDER_ID}"),
        (
            AlreadyExistsError("user", "email", "a@b.c", "uq_users_email"),
            "user with email 'a@b.c' exists already (uq_users_email)",
        ),
        (
            AlreadyExistsError("order", "id", ORDER_ID, "pk_orders"),
            f"order with id {ORDER_ID} exists already (pk_orders)",
        ),
        (StillReferencedError("user", 5, 1), "user 5 cannot be deleted: 1 order needs it"),
        (StillReferencedError("product", 5, 2), "product 5 cannot be deleted: 2 orders need it"),
        (StillReferencedError("category", 5, products=1), "category 5 cannot be deleted: 1 product needs it"),
        (
            StillReferencedError("category", 5, products=1_200),
            "category 5 cannot be deleted: 1,200 products need it",
        ),
        (
            LockedError("user", 5),
            "user 5 is in use by another transaction: run yours again, or change and delete user 5 in one"
            " that has taken no stock yet",
        ),
        (StillReferencedError("product", 5, 12_345), "product 5 cannot be deleted: 12,345 orders need it"),
        (
            IllegalStatusChangeError(ORDER_ID, COMPLETED, CANCELLED),
            f"order {ORDER_ID} is completed and cannot become cancelled",
        ),
        (
            IllegalStatusChangeError(ORDER_ID, CANCELLED, COMPLETED),
            f"order {ORDER_ID} is cancelled and cannot become completed",
        ),
        (
            IllegalStatusChangeError(ORDER_ID, CANCELLED, CANCELLED),
            f"order {ORDER_ID} is cancelled already",
        ),
        (
            NoTransactionError(),
            "the session is in AUTOCOMMIT: use one whose transactions end with a commit",
        ),
        (UnknownNameError([UnknownUser()], 99), "there is no user with id 99"),
        (UnknownNameError([UnknownProduct(98)], 1), "there is no product with id 98"),
        (PriceChangedError([REPRICED], 1), "product 7 costs 2.50, not 2.00"),
        (NotEnoughStockError([SHORT], 1), "product 7: 11 requested, 10 available"),
        (NotEnoughStockError([SHORT]), "product 7: 11 requested, 10 available"),
        (
            UnknownNameError([UnknownUser(), REPRICED, SHORT, UnknownProduct(98)], 99),
            "there is no user with id 99; product 7 costs 2.50, not 2.00;"
            " product 7: 11 requested, 10 available; there is no product with id 98",
        ),
    ],
)
def test_an_error_says_in_a_sentence_what_is_wrong(error: ShopError, message: str):
    assert str(error) == message


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 60, "'" + "x" * 60 + "'"),
        ("x" * 61, "'" + "x" * 60 + "…'"),
        ("x" * 10_000, "'" + "x" * 60 + "…'"),
        (10**60 - 1, "9" * 60),
        (10**60, "1" + "0" * 59 + "…"),
        (b"x" * 100, "b'" + "x" * 58 + "…"),
        ("two\nlines", "'two\\nlines'"),
        (None, "None"),
    ],
    ids=["60 characters", "61", "10,000", "60 digits", "61 digits", "bytes", "line break", "None"],
)
def test_a_long_value_is_shortened_in_the_message_and_kept_in_the_error(value: object, shown: str):
    found = [
        InvalidValueError("name", value, "is odd"),
        NotFoundError("user", "name", value),
        AlreadyExistsError("user", "name", value, "uq"),
    ]
    assert [str(error) for error in found] == [
        f"name is odd: {shown}",
        f"there is no user with name {shown}",
        f"user with name {shown} exists already (uq)",
    ]
    assert all(vars(error)["value"] is value for error in found)


def test_the_tree_is_the_one_the_module_draws():
    classes = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)
    ]
    assert {each: each.__bases__ for each in classes} == {
        ShopError: (Exception,),
        InvalidValueError: (ShopError,),
        NotFoundError: (ShopError,),
        AlreadyExistsError: (ShopError,),
        SequenceBehindError: (ShopError,),
        StillReferencedError: (ShopError,),
        LockedError: (ShopError,),
        IllegalStatusChangeError: (ShopError,),
        UnusableProductError: (ShopError,),
        NoTransactionError: (ShopError,),
        RefusedError: (ShopError,),
        UnknownNameError: (RefusedError, NotFoundError),
        PriceChangedError: (RefusedError,),
        NotEnoughStockError: (RefusedError,),
    }
    drawn = errors.__doc__ or ""
    assert all(each.__name__ in drawn for each in classes)


@pytest.mark.parametrize(
    ("refusals", "gravest"),
    [
        ([SHORT], NotEnoughStockError),
        ([SHORT, InsufficientStock(8, 2, 1)], NotEnoughStockError),
        ([REPRICED], PriceChangedError),
        ([SHORT, REPRICED], PriceChangedError),
        ([UnknownUser()], UnknownNameError),
        ([UnknownProduct(98)], UnknownNameError),
        ([SHORT, REPRICED, UnknownProduct(98)], UnknownNameError),
        ([UnknownUser(), SHORT, REPRICED], UnknownNameError),
    ],
)
def test_the_gravest_of_the_reasons_is_the_error_and_all_of_them_are_in_it(
    refusals: list[Refusal], gravest: type[RefusedError]
):
    error = refused(refusals, 99)
    assert type(error) is gravest
    assert error.refusals == tuple(refusals)


@pytest.mark.parametrize(
    ("refusals", "first"),
    [
        ([UnknownUser(), UnknownProduct(98)], ("user", "id", 99)),
        ([SHORT, UnknownProduct(98), UnknownProduct(97)], ("product", "id", 98)),
    ],
)
def test_an_unknown_name_is_reported_as_what_was_not_found(
    refusals: list[Refusal], first: tuple[str, str, int]
):
    error = refused(refusals, 99)
    assert isinstance(error, NotFoundError)
    assert (error.what, error.field, error.value) == first


def test_only_the_short_products_are_reported_as_short():
    other = InsufficientStock(8, 2, 1)
    assert NotEnoughStockError([SHORT, other]).short == (SHORT, other)


# Constraints

TABLES = ["users", "categories", "products", "orders", "order_items"]
KEYS = {
    "pk_users": ("user", "id"),
    "uq_users_email": ("user", "email"),
    "ix_users_email_lower": ("user", "email"),
    "pk_categories": ("category", "id"),
    "uq_categories_name": ("category", "name"),
    "pk_products": ("product", "id"),
    "pk_orders": ("order", "id"),
    "pk_order_items": ("order item", "order_id"),
}
REFERENCES = {
    "fk_products_category_id": ("category", "category_id"),
    "fk_orders_user_id": ("user", "user_id"),
    "fk_order_items_order_id": ("order", "order_id"),
    "fk_order_items_product_id": ("product", "product_id"),
}


@pytest.mark.parametrize("table", TABLES)
def test_every_constraint_that_input_can_break_has_words(table: str):
    constraints = Base.metadata.tables[table].constraints
    unique = {str(c.name) for c in constraints if isinstance(c, PrimaryKeyConstraint | UniqueConstraint)}
    references = {str(c.name) for c in constraints if isinstance(c, ForeignKeyConstraint)}
    assert unique
    assert unique <= set(_UNIQUE)
    assert references <= set(_REFERENCES)


def test_the_words_for_a_constraint_name_the_thing_and_the_field():
    assert _UNIQUE == KEYS
    assert _REFERENCES == REFERENCES
