"""A rejected order as it is placed again, and where the records of such orders are read."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import TopicPartition

from contracts.envelope import reopened_id
from contracts.plain_order import PlainOrder
from tests.support.builders import line, order_value, record
from worker.core.decode import Decoded, decode
from worker.errors import UsageError
from worker.kafka.offsets import Bounds
from worker.operations.orders import ids_file
from worker.operations.orders.ids_file import read_ids
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


def test_an_order_inside_an_event_is_changed_in_its_place():
    inside = order_value(line(1, 2, "2.50"), line(2)).decode()
    envelope = '{"specversion":"1.0","id":"1","source":"/s","type":"t","items":[],"data":%s}'
    headers = (("content-type", b"application/cloudevents+json"), ("x", b"y"))
    old = ordered(inside.encode())
    placed = record((envelope % inside).encode(), headers=headers)
    again = reopened(placed, old.order_id, drop_prices=True, max_bytes=10_000)
    assert again
    changed = inside.replace(old.key, str(reopened_id(old.order_id))).replace('"2.50"', "null")
    assert again.value == (envelope % changed).encode()
    assert again.headers == [*headers, ("supersedes", old.key.encode())]
    assert again.decoded.order.order_id == reopened_id(old.order_id)


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


def test_a_file_names_orders_by_their_ids_or_as_they_were_placed(tmp_path: Path):
    file = tmp_path / "orders"
    first, second, third = uuid4(), uuid4(), uuid4()
    lines = [
        f"\ufeff{first}",
        "",
        str(second).upper(),
        order_value(line(1), order_id=third).decode(),
        str(first),
    ]
    file.write_text("\r\n".join(lines), encoding="utf-8")
    assert read_ids(file, 10_000) == (first, second, third)


@pytest.mark.parametrize(
    "bad", ["order_id", "{", '{"order_id": 7}', "[]", '{"id": "x"}', "1" * 36, "{" * 2_000]
)
def test_a_line_that_names_no_order_is_named(tmp_path: Path, bad: str):
    file = tmp_path / "orders"
    file.write_text(f"{uuid4()}\n\n{bad}\n")
    with pytest.raises(UsageError, match=r"orders:3: no order id"):
        read_ids(file, 10_000)


def test_a_file_has_some_ids_and_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "orders"
    file.write_text("\n \n")
    with pytest.raises(UsageError, match="holds no order ids"):
        read_ids(file, 10_000)
    monkeypatch.setattr(ids_file, "MOST", 1)
    file.write_text(f"{uuid4()}\n{uuid4()}\n")
    with pytest.raises(UsageError, match="has more than 1 ids"):
        read_ids(file, 10_000)
