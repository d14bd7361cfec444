"""The events of decisions, byte for byte."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from contracts.events import ConfirmedItem, OrderConfirmed, OrderedItem, OrderPlaced
from db.decision import Confirmed
from worker.core.outcome import event_json

money = st.integers(0, 10**10 - 1).map(lambda cents: Decimal(cents).scaleb(-2))
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1970, 1, 2), datetime(9998, 12, 30), timezones=zones)  # noqa: DTZ001 (Hypothesis wants them so)
lines = st.tuples(st.integers(1, 2**63 - 1), st.integers(1, 1_000_000), money)


@given(
    order_id=st.uuids(),
    user_id=st.integers(1, 2**63 - 1),
    sold=st.lists(lines, min_size=1, max_size=5),
    total_cents=st.integers(0, 10**14 - 1),
    placed_at=times,
    decided_at=st.datetimes(datetime(1970, 1, 2), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_a_confirmation_is_the_contracts_own_json(
    order_id, user_id, sold, total_cents, placed_at, decided_at
):
    items = tuple(OrderedItem(product_id=p, quantity=q) for p, q, _ in sold)
    placed = OrderPlaced(order_id=order_id, user_id=user_id, placed_at=placed_at, items=items)
    # As it is read from Kafka: with the zone that pydantic makes of the text.
    order = OrderPlaced.model_validate_json(placed.model_dump_json()).plain()
    decision = Confirmed(total_cents, [str(price) for _, _, price in sold])
    event = OrderConfirmed(
        order_id=order_id,
        user_id=user_id,
        total_amount=Decimal(total_cents).scaleb(-2),
        items=tuple(ConfirmedItem(product_id=p, quantity=q, unit_price=price) for p, q, price in sold),
        placed_at=order.placed_at,
        decided_at=decided_at,
    )
    assert event_json(order, decision, decided_at) == event.model_dump_json()
    assert decision.total_amount == event.total_amount
