"""What Kafka refuses when the worker publishes: no order is held up by it for ever, and nothing is lost."""

import time
from uuid import uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.publishing import publish
from tests.support.topic_changes import set_option
from tests.support.worker_process import Workers

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]

TEN_MINUTES_MS = 600_000


def test_a_burst_goes_to_a_topic_that_takes_small_batches_only(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 1_000_000})
    set_option(scene.kafka, scene.topics.order_confirmed, "max.message.bytes", "200000")
    ids = [uuid4() for _ in range(5_000)]
    scene.place([order_value(line(1), order_id=one) for one in ids], partition=0)
    worker = workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)
    assert "will be tried again" not in worker.log


def test_a_limit_lowered_while_orders_come_holds_up_nobody(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 1_000_000})
    first, second = ([uuid4() for _ in range(count)] for count in (100, 3_000))
    worker = workers.start().wait_until_ready()
    scene.place([order_value(line(1), order_id=one) for one in first])
    scene.wait_until_drained()
    set_option(scene.kafka, scene.topics.order_confirmed, "max.message.bytes", "20000")
    set_option(scene.kafka, scene.topics.dead_letter, "max.message.bytes", "2000")
    scene.place([*(order_value(line(1), order_id=one) for one in second), b"{bad" * 5_000], partition=0)
    scene.wait_until_drained()
    scene.assert_promises([*first, *second], dead_letters=1)
    assert "MESSAGE_TOO_LARGE" in worker.log
    (letter,) = scene.dead_letters()
    assert letter.header("value.cut_from_bytes") == "20000"


@pytest.mark.parametrize("stamp", ["CreateTime", "LogAppendTime"])
def test_poison_of_long_ago_is_a_letter_of_today(scene: Scene, workers: Workers, stamp: str):
    scene.shop.stock_up({1: 100})
    for topic in (scene.topics.dead_letter, scene.topics.order_confirmed):
        set_option(scene.kafka, topic, "message.timestamp.before.max.ms", "60000")
        set_option(scene.kafka, topic, "message.timestamp.type", stamp)
    old_ms = int(time.time() * 1_000) - TEN_MINUTES_MS
    publish(scene.kafka, scene.topics.order_placed, [b"{bad"], partition=0, timestamp_ms=old_ms)
    order_id = uuid4()
    scene.place([order_value(line(1), order_id=order_id)], partition=0)
    workers.start()
    scene.wait_until_drained()
    (letter,) = scene.dead_letters()
    assert letter.header("source.timestamp") == str(old_ms)
    assert time.time() * 1_000 - letter.timestamp < 60_000
    scene.assert_promises([order_id], dead_letters=1)


def test_poison_without_key_goes_to_a_compacted_topic_under_a_made_up_one(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    worker = workers.start().wait_until_ready()
    set_option(scene.kafka, scene.topics.dead_letter, "cleanup.policy", "compact")
    order_id = uuid4()
    scene.place([b"{bad", order_value(line(1), order_id=order_id)], partition=0)
    scene.wait_until_drained()
    (letter,) = scene.dead_letters()
    assert letter.key == f"{scene.topics.order_placed}-0-0".encode()
    assert letter.header("key.made_up") == "true"
    scene.assert_promises([order_id], dead_letters=1)
    assert "INVALID_RECORD" in worker.log


def test_settings_that_will_hurt_are_said_at_the_start(scene: Scene, workers: Workers):
    set_option(scene.kafka, scene.topics.order_confirmed, "max.message.bytes", "20000")
    worker = workers.start().wait_until_ready()
    assert worker.log.count("is too small for an outcome of 1,000 items") == 1


THOUSAND_ITEMS = [line(number) for number in range(1, 1_001)]


@pytest.mark.takes_long
def test_an_outcome_its_topic_refuses_waits_alone_and_is_published_once_by_itself(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    scene.shop.stock_up(dict.fromkeys(range(1, 1_001), 1_000))
    set_option(scene.kafka, scene.topics.order_confirmed, "max.message.bytes", "20000")
    worker = workers.start().wait_until_ready()
    large, others = uuid4(), [uuid4() for _ in range(50)]
    orders = [order_value(line(1), order_id=one) for one in others]
    orders.insert(10, order_value(*THOUSAND_ITEMS, order_id=large))
    scene.place(orders, partition=0)
    scene.wait_until_drained()
    assert {m.event["order_id"] for m in scene.confirmed()} == {str(one) for one in others}

    named = f"{scene.topics.order_confirmed} refuses the outcome of order {large}"
    eventually(lambda: named in worker.get("/readyz")[1], 40, lambda: worker.log[-2000:])
    status, reasons = worker.get("/readyz")
    assert status == 503
    assert f"from {scene.topics.order_placed}-0@10" in reasons
    assert f"raise max.message.bytes of {scene.topics.order_confirmed} to" in reasons
    assert 'order_worker_withheld_outcomes{partition="0"} 1.0' in worker.get("/metrics")[1]

    for command in (["lag"], ["explain", str(large)], ["reconcile"]):
        assert "raise max.message.bytes of" in order_worker(*command).out, command
    repair = order_worker("reconcile", "--repair", "--execute")
    assert "withheld" in repair.out
    assert "0 outcomes published" in repair.out or "1 discrepancy" in repair.out
    assert len(scene.confirmed()) == len(others)

    worker.kill()
    set_option(scene.kafka, scene.topics.order_confirmed, "max.message.bytes", "1048588")
    worker = workers.start().wait_until_ready()
    eventually(lambda: len(scene.confirmed()) > len(others), 60, lambda: worker.log[-2000:])
    eventually(lambda: 'withheld_outcomes{partition="0"} 0.0' in worker.get("/metrics")[1], 40)
    assert worker.get("/readyz")[0] == 200
    assert order_worker("reconcile").code == 0
    scene.assert_promises([large, *others])
