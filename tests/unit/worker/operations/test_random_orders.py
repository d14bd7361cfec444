"""The orders that `place --random` makes."""

import time
from decimal import Decimal

import pytest

from worker.core.decode import Decoded, decode
from worker.operations.place.messages import encode, random_orders, with_twins

PRODUCTS = [(product_id, Decimal("2.50")) for product_id in range(1, 21)]


def test_the_same_seed_gives_the_same_orders() -> None:
    first = [encode(order) for order in random_orders(7, [1, 2], PRODUCTS, 50)]
    time.sleep(0.002)
    assert first == [encode(order) for order in random_orders(7, [1, 2], PRODUCTS, 50)]
    assert first != [encode(order) for order in random_orders(8, [1, 2], PRODUCTS, 50)]


def test_random_orders_are_valid_and_within_what_was_asked_for() -> None:
    for order in random_orders(None, [1, 2], PRODUCTS, 300, max_items=3):
        decoded = decode(encode(order).value, 10_000)
        assert isinstance(decoded, Decoded)
        assert decoded.order == order.plain()
        assert 1 <= len({item.product_id for item in order.items}) == len(order.items) <= 3


def test_a_small_catalogue_limits_the_items() -> None:
    orders = random_orders(1, [1], PRODUCTS[:2], 50, max_items=5, with_prices=False)
    assert {len(order.items) for order in orders} == {1, 2}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_twins_follow_their_original(share: float) -> None:
    messages = [encode(order) for order in random_orders(1, [1], PRODUCTS, 1_000)]
    sent = list(with_twins(iter(messages), share, seed=1))
    assert [message for message, is_twin in sent if not is_twin] == messages
    seen = set()
    for message, is_twin in sent:
        assert (message.key in seen) == is_twin
        seen.add(message.key)
    assert abs(sum(is_twin for _, is_twin in sent) - 1_000 * share) < 60
