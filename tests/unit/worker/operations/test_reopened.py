"""A rejected order as it is placed again, and where the records of such orders are read."""

import json

from aiokafka import TopicPartition

from contracts.envelope import reopened_id
from contracts.plain_order import PlainOrder
from tests.support.builders import line, order_value, record
from worker.core.decode import Decoded, decode
from worker.kafka.offsets import Bounds
from worker.operations.orders.origins import rounds
from worker.operations.orders.reopened import Reopened, reopened

ZERO, ONE = TopicPartition("order-placed", 0), TopicPartition("order-placed", 1)


def placed_again(value: bytes, *, drop_prices: bool = False, max_bytes: int = 10_000) -> Reopened | None:
    headers = (("correlation_id", b"c"), ("supersedes", b"before"), ("redrive.id", b"r"), ("odd", None))
    old = record(value, headers=headers)
    return reopened(old, ordered(value).order_id, drop_prices=drop_prices, max_bytes=max_bytes)


def ordered(value: bytes) -> PlainOrder:
    decoded = decode(value, 1_000_000)
    assert isinstance(decoded, Decoded)
    return decoded.order


def test_every_byte_but_the_id_stays_and_the_header_names_the_old_order():
    value = order_value(line(1, 2, "2.50"), line(2), note='"order_id": 1.10', ratio=1e300)
    old = ordered(value)
    again = placed_again(value)
    assert again
    assert again.value == value.replace(old.key.encode(), str(reopened_id(old.order_id)).encode())
    assert again.headers == [("correlation_id", b"c"), ("odd", None), ("supersedes", old.key.encode())]
    assert again.decoded.fingerprint == old.fingerprint()


def test_without_prices_each_line_costs_what_is_in_force():
    odd = {"product_id": 3, "quantity": 1, "unit_price": None, "unit_prices": ["9.99"]}
    value = order_value(line(1, 2, "2.50"), line(2), odd, unit_price="9.99")
    again = placed_again(value, drop_prices=True)
    assert again
    expected = json.loads(value) | {"order_id": str(reopened_id(ordered(value).order_id))}
    expected["items"][0]["unit_price"] = None
    assert json.loads(again.value) == expected
    assert [item.unit_price for item in again.decoded.order.items] == [None] * 3


def test_what_is_larger_than_allowed_by_now_is_no_order():
    value = order_value(line(1))
    assert placed_again(value, max_bytes=len(value))
    assert placed_again(value, max_bytes=len(value) - 1) is None


def test_records_near_each_other_are_read_together_and_those_gone_are_not():
    bounds = {ZERO: Bounds(10, 90_000), ONE: Bounds(0, 5)}
    places = [(0, 9), (0, 2_500), (0, 11), (0, 12), (0, 50_000), (0, 90_000), (1, 0), (1, 4), (2, 1), (0, -1)]
    assert list(rounds(places, bounds)) == [
        {ZERO: (11, 13), ONE: (0, 5)},
        {ZERO: (2_500, 2_501)},
        {ZERO: (50_000, 50_001)},
    ]
    assert list(rounds([], {})) == []
