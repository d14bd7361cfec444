"""What an object of the shop says of itself, and what it has before it is stored. No database is asked."""

from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import make_transient_to_detached

from db.models import Base, Category, Order, OrderItem, OrderOutcome, OrderStatus, Product, Skip, User

ORDER_ID = UUID("5f0c6a3e-8a4b-4d7e-9b1a-2c3d4e5f6a7b")

SHOWN: list[tuple[Base, str]] = [
    (User(id=7, email="ada@example.com", full_name="Ada"), "User(id=7)"),
    (User(email="ada@example.com"), "User()"),
    (Category(id=1, name="Gifts", description="long"), "Category(id=1, name='Gifts')"),
    (Product(id=1, name="Lamp", price=Decimal(1)), "Product(id=1, name='Lamp')"),
    (Product(id=1, name="x" * 500), f"Product(id=1, name='{'x' * 60}…')"),
    (Product(id=1, name="two\nlines"), "Product(id=1, name='two\\nlines')"),
    (Product(id=10**5_000), "Product(id=a int too long to show)"),
    (Order(id=ORDER_ID, status=OrderStatus.PENDING), f"Order(id={ORDER_ID}, status='pending')"),
    (
        OrderItem(order_id=ORDER_ID, line_number=2, product_id=3, quantity=4),
        f"OrderItem(order_id={ORDER_ID}, line_number=2, product_id=3, quantity=4)",
    ),
    (
        OrderOutcome(order_id=ORDER_ID, outcome="confirmed", event="{}", fingerprint=b"secret"),
        f"OrderOutcome(order_id={ORDER_ID}, outcome='confirmed')",
    ),
    (Skip(id=3, requested_by="ada", note="private"), "Skip(id=3)"),
]


@pytest.mark.parametrize(("row", "shown"), SHOWN, ids=[shown[:30] for _, shown in SHOWN])
def test_an_object_shows_its_key_and_little_more(row: Base, shown: str):
    assert repr(row) == shown


@pytest.mark.parametrize("model", sorted((m.class_ for m in Base.registry.mappers), key=str))
def test_an_object_of_which_nothing_is_loaded_shows_its_key_alone(model: type[Base]):
    keys = [column.name for column in inspect(model).primary_key]
    row = model(**dict.fromkeys(keys, 1))
    make_transient_to_detached(row)
    inspect(row)._expire(inspect(row).dict, set())  # as after a rollback
    assert repr(row) == f"{model.__name__}({', '.join(f'{key}=1' for key in keys)})"


def test_what_a_model_shows_is_a_column_of_it_and_nothing_personal():
    for mapper in Base.registry.mappers:
        assert set(mapper.class_._SHOWN) <= set(mapper.columns.keys())
        assert not {"email", "full_name", "headers", "event", "note"} & set(mapper.class_._SHOWN)
