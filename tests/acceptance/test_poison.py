"""A record that is no order is one dead letter, and never harms its neighbours."""

from uuid import uuid4

import pytest

from contracts.examples import hostile_values
from tests.support.builders import line, order_value
from tests.support.promises import Scene
from tests.support.topic_changes import set_largest_record
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_3


def test_every_hostile_value_between_good_orders_is_dead_lettered_once(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 1_000_000})
    hostile = hostile_values()
    assert len(hostile) >= 50
    ids, values = [], []
    for one in hostile:
        ids.append(uuid4())
        values += [order_value(line(1), order_id=ids[-1]), one.value]
    scene.place(values, partition=0)
    workers.start()
    scene.wait_until_drained()

    letters = {int(m.header("source.offset") or -1): m for m in scene.dead_letters()}
    assert sorted(letters) == list(range(1, 2 * len(hostile), 2))
    for number, one in enumerate(hostile):
        letter = letters[2 * number + 1]
        assert (letter.key, letter.value) == (None, one.value), one.name
        assert (letter.header("error.code"), letter.header("error.path")) == (one.code, one.path), one.name
        assert letter.header("error.message"), one.name
        assert letter.header("source.topic") == scene.topics.order_placed
        assert letter.timestamp > 0
    scene.assert_promises(ids, dead_letters=len(hostile))


def test_an_odd_header_never_costs_an_order_and_is_not_passed_on(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    order_id = uuid4()
    odd = [
        ("content-type", b"text/plain"),
        ("reply_to", b"somewhere-else"),
        ("correlation_id", None),
        ("correlation_id", b"\xff\xfe"),
        ("traceparent", b"not a trace"),
        ("anything", None),
        ("", b"\x00"),
    ]
    scene.place([order_value(line(1), order_id=order_id)], headers=odd)
    workers.start()
    scene.wait_until_drained()
    (message,) = scene.confirmed()
    names = [name for name, _ in message.headers]
    assert names == [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_dataschema",
        "ce_time",
        "ce_subject",
        "content-type",
    ]
    assert message.header("content-type") == "application/json"
    scene.assert_promises([order_id])


def test_odd_headers_of_a_dead_letter_are_kept_as_they_are(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 1})
    odd = [("traceparent", None), ("x", b"\xff"), ("x", b"again")]
    scene.place([b"not json"], headers=odd)
    workers.start()
    scene.wait_until_drained()
    (letter,) = scene.dead_letters()
    assert letter.headers[:3] == odd


def test_a_record_at_the_brokers_limit_still_gets_its_dead_letter(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    order_id = uuid4()
    scene.place([b"x" * 1_000_000, order_value(line(1), order_id=order_id)], partition=0)
    workers.start()
    scene.wait_until_drained()
    (letter,) = scene.dead_letters()
    assert letter.header("error.code") == "too_large"
    assert letter.value == b"x" * 1_000_000
    scene.assert_promises([order_id], dead_letters=1)


def test_a_record_too_large_for_any_request_of_ours_is_cut_and_holds_nobody_up(
    scene: Scene, workers: Workers
):
    scene.shop.stock_up({1: 100})
    for topic in (scene.topics.order_placed, scene.topics.dead_letter):
        set_largest_record(scene.kafka, topic, 8 * 1024 * 1024)
    order_id = uuid4()
    scene.place([b"x" * 5_000_000, order_value(line(1), order_id=order_id)], partition=0)
    workers.start()
    scene.wait_until_drained()
    (letter,) = scene.dead_letters()
    assert letter.header("error.code") == "too_large"
    assert letter.header("value.cut_from_bytes") == "5000000"
    scene.assert_promises([order_id], dead_letters=1)


def test_an_order_whose_total_no_column_holds_is_one_dead_letter(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    scene.shop.stock_up({50: 1_000_000_000}, price="99999999.99")
    ids = [uuid4() for _ in range(8)]
    values = [order_value(line(1), order_id=i) for i in ids]
    values.insert(4, order_value(line(50, 1_000_000)))
    scene.place(values, partition=0)
    workers.start()
    scene.wait_until_drained()
    (letter,) = scene.dead_letters()
    assert (letter.header("error.code"), letter.header("error.path")) == ("invalid_order", "items")
    scene.assert_promises(ids, dead_letters=1)
