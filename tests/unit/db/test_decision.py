"""The rule of the shop: examples, then properties that hold for any batch."""

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.plain_order import PlainOrder
from db.decision import (
    Confirmed,
    InsufficientStock,
    PriceChanged,
    Rejected,
    UnknownProduct,
    UnknownUser,
    decide_batch,
)
from db.stock import StockLevel
from tests.support.builders import line, order

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_4]

TEN_OF_EACH = {1: StockLevel.of(Decimal("2.50"), 10), 2: StockLevel.of(Decimal("0.99"), 10)}


def decide(*orders: PlainOrder, levels: Mapping[int, StockLevel] = TEN_OF_EACH):
    return decide_batch(orders, {1}, levels)


def test_an_order_that_fits_is_confirmed_at_the_prices_in_force():
    batch = decide(order(line(1, 3), line(2, 2)))
    assert batch.decisions == (Confirmed(948, ["2.50", "0.99"]),)
    assert batch.taken == {1: 3, 2: 2}


def test_an_order_short_of_one_item_is_rejected_whole():
    batch = decide(order(line(1, 3), line(2, 11)))
    assert batch.decisions == (Rejected((InsufficientStock(2, 11, 10),)),)
    assert batch.taken == {}


def test_every_failing_item_is_listed_not_the_first():
    batch = decide(order(line(1, 11), line(9), line(2, 1, "1.00"), user_id=7))
    assert batch.decisions == (
        Rejected(
            (
                UnknownUser(),
                InsufficientStock(1, 11, 10),
                UnknownProduct(9),
                PriceChanged(2, Decimal("1.00"), Decimal("0.99")),
            )
        ),
    )


def test_two_lines_of_one_product_are_summed_before_they_meet_the_stock():
    batch = decide(order(line(1, 6), line(1, 5)))
    assert batch.decisions == (Rejected((InsufficientStock(1, 11, 10),)),)


def test_the_available_quantity_is_what_the_orders_before_left():
    batch = decide(order(line(1, 8)), order(line(1, 3)), order(line(1, 2)))
    first, second, third = batch.decisions
    assert isinstance(first, Confirmed)
    assert second == Rejected((InsufficientStock(1, 3, 2),))
    assert isinstance(third, Confirmed), "a rejected order takes nothing, so the last two are still there"


def test_the_price_the_buyer_saw_is_accepted_while_it_is_in_force():
    (decision,) = decide(order(line(1, 1, "2.5"))).decisions
    assert isinstance(decision, Confirmed)


def test_several_wrong_prices_of_one_product_are_each_reported_once():
    (decision,) = decide(order(line(1, 1, "2.00"), line(1, 1, "3.00"), line(1, 1, "2.00"))).decisions
    current = Decimal("2.50")
    assert decision == Rejected(
        (PriceChanged(1, Decimal("2.00"), current), PriceChanged(1, Decimal("3.00"), current))
    )


def test_a_rejection_rests_on_every_product_of_its_order_also_on_those_that_fit():
    batch = decide(order(line(1, 11), line(2, 1)), order(line(9)), order(line(3, 1), user_id=7))
    assert batch.relied_on == {1, 2, 9, 3}
    assert decide(order(line(2, 1))).relied_on == set()


orders = st.builds(
    lambda user, lines: order(*lines, user_id=user),
    st.integers(1, 3),
    st.lists(
        st.builds(line, st.integers(1, 6), st.integers(1, 8), st.sampled_from([None, None, "1.00", "2.00"])),
        min_size=1,
        max_size=6,
    ),
)
batches = st.lists(orders, max_size=25)
shops = st.dictionaries(
    st.integers(1, 5),
    st.builds(StockLevel.of, st.sampled_from([Decimal("1.00"), Decimal("2.00")]), st.integers(0, 30)),
)


@given(batches, shops)
def test_a_batch_decides_exactly_as_one_order_at_a_time_would(batch: list[PlainOrder], shop):
    together = decide_batch(batch, {1, 2}, shop)
    left = dict(shop)
    alone = []
    for one in batch:
        result = decide_batch([one], {1, 2}, left)
        alone.append(result.decisions[0])
        for product_id, quantity in result.taken.items():
            left[product_id] = left[product_id]._replace(quantity=left[product_id].quantity - quantity)
    assert list(together.decisions) == alone
    assert all(level.quantity >= 0 for level in left.values())
    assert {i: shop[i].quantity - left[i].quantity for i in shop if shop[i] != left[i]} == together.taken


@given(batches, shops)
def test_stock_is_never_oversold_and_every_confirmed_line_is_taken(batch: list[PlainOrder], shop):
    result = decide_batch(batch, {1, 2}, shop)
    sold: dict[int, int] = {}
    for one, decision in zip(batch, result.decisions, strict=True):
        if isinstance(decision, Confirmed):
            for item in one.items:
                sold[item.product_id] = sold.get(item.product_id, 0) + item.quantity
    assert sold == result.taken
    assert all(quantity <= shop[i].quantity for i, quantity in sold.items())


@given(batches, shops)
@settings(max_examples=200)
def test_a_rejected_order_lists_every_reason_a_plain_reading_of_the_rule_finds(batch: list[PlainOrder], shop):
    result = decide_batch(batch, {1, 2}, shop)
    left = {i: level.quantity for i, level in shop.items()}
    for one, decision in zip(batch, result.decisions, strict=True):
        expected: set[object] = set()
        if one.user_id not in {1, 2}:
            expected.add(UnknownUser())
        for product_id in {item.product_id for item in one.items}:
            mine = [item for item in one.items if item.product_id == product_id]
            requested = sum(item.quantity for item in mine)
            if product_id not in shop:
                expected.add(UnknownProduct(product_id))
                continue
            if requested > left[product_id]:
                expected.add(InsufficientStock(product_id, requested, left[product_id]))
            price = shop[product_id].price
            expected |= {
                PriceChanged(product_id, Decimal(i.unit_price), Decimal(price))
                for i in mine
                if i.unit_price not in (None, price)
            }
        if isinstance(decision, Rejected):
            assert set(decision.refusals) == expected
            assert len(decision.refusals) == len(expected), "each reason once"
        else:
            assert not expected
            for item in one.items:
                left[item.product_id] -= item.quantity
