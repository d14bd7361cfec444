import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.events import (
    ConfirmedItem,
    OrderConfirmed,
    OrderedItem,
    OrderPlaced,
    OrderRejected,
    Reason,
    ReasonCode,
)

ORDER_ID = UUID("0d9c1f6e-1b7a-4a35-9a55-2f6a7f0c8e11")
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)

cents = st.integers(0, 25 * 10**6 - 1)  # four lines of the largest quantity stay within the total
items = st.builds(
    OrderedItem,
    product_id=st.integers(1, 2**63 - 1),
    quantity=st.integers(1, 1_000_000),
    unit_price=st.none() | cents.map(lambda n: Decimal(n).scaleb(-2)),
)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1970, 1, 2), datetime(9998, 12, 30), timezones=offsets)  # noqa: DTZ001 (Hypothesis wants them so)
orders = st.builds(
    OrderPlaced,
    order_id=st.uuids(),
    user_id=st.integers(1, 2**63 - 1),
    placed_at=times,
    items=st.lists(items, min_size=1, max_size=4).map(tuple),
)

# So few values that equal orders come up as well, and digits of neighbouring fields can be confused.
few = st.sampled_from([1, 2, 11, 12, 21, 111])
similar_items = st.builds(
    OrderedItem,
    product_id=few,
    quantity=few,
    unit_price=st.sampled_from([None, Decimal("1.00"), Decimal("1.10"), Decimal("11.00")]),
)
similar_orders = st.builds(
    OrderPlaced,
    order_id=st.just(ORDER_ID),
    user_id=few,
    placed_at=st.sampled_from(
        [NOW, NOW.astimezone(timezone(timedelta(hours=1))), NOW + timedelta(microseconds=1)]
    ),
    items=st.lists(similar_items, min_size=1, max_size=2).map(tuple),
)


def an_order(**changes: Any) -> OrderPlaced:
    order = {
        "order_id": ORDER_ID,
        "user_id": 7,
        "placed_at": NOW,
        "items": (OrderedItem(product_id=11, quantity=2, unit_price=Decimal("2.55")),),
    }
    return OrderPlaced.model_validate({**order, **changes})


# --- fingerprint ---


@given(orders)
def test_a_fingerprint_has_16_bytes_and_survives_json(order: OrderPlaced) -> None:
    assert len(order.fingerprint()) == 16
    assert OrderPlaced.model_validate_json(order.model_dump_json()).fingerprint() == order.fingerprint()


@given(order=orders, shuffled=st.randoms(), indent=st.none() | st.integers(0, 3), offset=offsets)
def test_the_same_order_written_otherwise_has_the_same_fingerprint(
    order: OrderPlaced, shuffled: Any, indent: int | None, offset: timezone
) -> None:
    fields = order.model_dump(mode="json", exclude_none=shuffled.random() < 0.5)
    fields["placed_at"] = order.placed_at.astimezone(offset).isoformat()
    fields["items"] = [rewritten_price(item) for item in fields["items"]]
    fields["channel"] = "web"
    pairs = list(fields.items())
    shuffled.shuffle(pairs)
    text = json.dumps(dict(pairs), indent=indent)
    assert OrderPlaced.model_validate_json(text).fingerprint() == order.fingerprint()


def rewritten_price(item: dict[str, Any]) -> dict[str, Any]:
    """`2.50` as `2.5` and `2.00` as `2`."""
    price = item.get("unit_price")
    return {**item, "unit_price": price.rstrip("0").rstrip(".")} if price else item


def test_the_order_id_is_not_part_of_the_fingerprint() -> None:
    assert an_order(order_id=UUID(int=1)).fingerprint() == an_order().fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"user_id": 8},
        {"placed_at": NOW + timedelta(microseconds=1)},
        {"placed_at": NOW.replace(tzinfo=timezone(timedelta(hours=1)))},
        {"items": (OrderedItem(product_id=12, quantity=2, unit_price=Decimal("2.55")),)},
        {"items": (OrderedItem(product_id=11, quantity=3, unit_price=Decimal("2.55")),)},
        {"items": (OrderedItem(product_id=11, quantity=2, unit_price=Decimal("2.56")),)},
        {"items": (OrderedItem(product_id=11, quantity=2),)},
        {"items": an_order().items * 2},
    ],
)
def test_any_changed_field_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert an_order(**changes).fingerprint() != an_order().fingerprint()


@given(similar_orders, similar_orders)
def test_two_fingerprints_are_equal_exactly_when_the_orders_are(one: OrderPlaced, other: OrderPlaced) -> None:
    assert (one.fingerprint() == other.fingerprint()) == (one == other)


def test_digits_cannot_move_from_one_line_of_an_order_to_the_next() -> None:
    one = (OrderedItem(product_id=1, quantity=11), OrderedItem(product_id=1, quantity=1))
    other = (OrderedItem(product_id=1, quantity=1), OrderedItem(product_id=11, quantity=1))
    assert an_order(items=one).fingerprint() != an_order(items=other).fingerprint()


def test_a_fingerprint_never_changes_between_releases() -> None:
    # The ledger holds fingerprints of years ago: this value may not change.
    assert an_order().fingerprint().hex() == "184023560b82176a1df71aadb0c27653"


# --- values ---


@pytest.mark.parametrize(
    ("text", "price"), [("2.5", "2.50"), ("3", "3.00"), ("0", "0.00"), ("99999999.99", "99999999.99")]
)
def test_a_price_always_has_two_decimals(text: str, price: str) -> None:
    item = OrderedItem.model_validate_json(json.dumps({"product_id": 1, "quantity": 1, "unit_price": text}))
    assert str(item.unit_price) == price


def test_any_accepted_time_can_be_reported_in_any_zone() -> None:
    for text in ("1970-01-01T00:00:00Z", "9998-12-31T23:59:59.999999Z"):
        order = OrderPlaced.model_validate_json(
            an_order().model_dump_json().replace("2026-11-23T10:00:00Z", text)
        )
        for hours in (-14, 14):
            assert order.placed_at.astimezone(timezone(timedelta(hours=hours))) == order.placed_at


def test_the_summed_quantity_of_the_largest_order_fits_an_integer_column() -> None:
    largest = OrderedItem(product_id=1, quantity=1_000_000)
    assert sum(item.quantity for item in an_order(items=(largest,) * 1_000).items) < 2**31


def test_events_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        an_order().user_id = 8  # type: ignore[misc]


@pytest.mark.parametrize("quantity", [True, "7", 3.0])
def test_nothing_but_an_integer_is_a_quantity(quantity: object) -> None:
    with pytest.raises(ValidationError):
        OrderedItem.model_validate({"product_id": 1, "quantity": quantity})


# --- outcomes ---


def test_a_confirmation_is_published_with_money_as_text_and_times_in_utc() -> None:
    line = ConfirmedItem(product_id=11, quantity=2, unit_price=Decimal("2.50"))
    event = OrderConfirmed(
        order_id=ORDER_ID,
        user_id=7,
        total_amount=Decimal("5.00"),
        items=(line,),
        placed_at=NOW,
        decided_at=NOW,
    )
    assert json.loads(event.model_dump_json()) == {
        "order_id": str(ORDER_ID),
        "user_id": 7,
        "total_amount": "5.00",
        "items": [{"product_id": 11, "quantity": 2, "unit_price": "2.50"}],
        "placed_at": "2026-11-23T10:00:00Z",
        "decided_at": "2026-11-23T10:00:00Z",
    }


def test_a_rejection_needs_a_reason() -> None:
    rejection = {"order_id": ORDER_ID, "user_id": 7, "retryable": True, "placed_at": NOW, "decided_at": NOW}
    assert OrderRejected(reasons=(Reason(code=ReasonCode.UNKNOWN_USER),), **rejection)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        OrderRejected(reasons=(), **rejection)  # type: ignore[arg-type]


def test_subscribers_read_back_what_is_published() -> None:
    reason = Reason(
        code=ReasonCode.PRICE_CHANGED,
        product_id=1,
        expected_unit_price=Decimal("1.00"),
        current_unit_price=Decimal("2.00"),
    )
    event = OrderRejected(
        order_id=ORDER_ID, user_id=7, reasons=(reason,), retryable=False, placed_at=NOW, decided_at=NOW
    )
    assert OrderRejected.model_validate_json(event.model_dump_json(exclude_none=True)) == event
