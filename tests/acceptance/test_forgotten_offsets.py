"""A broker that forgets how far the group has come, or what it has acknowledged: all is published once."""

import sys
from uuid import UUID, uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.group_offsets import remember_wrongly_while_in_use
from tests.support.promises import Scene
from tests.support.worker_process import Workers
from worker.core.steps import Step

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]

FORGOTTEN = "Kafka has forgotten the offset"


def placed(scene: Scene, count: int = 50) -> list[UUID]:
    """Orders in one partition, and a dead letter after each tenth."""
    ids = [uuid4() for _ in range(count)]
    values = [
        value
        for number, order_id in enumerate(ids, 1)
        for value in [order_value(line(1), order_id=order_id), *[b"no order"] * (number % 10 == 0)]
    ]
    scene.place(values, partition=0)
    return ids


def die_over_the_second_batch(workers: Workers, step: Step) -> None:
    at_step = (sys.executable, "-m", "tests.support.worker_at_step", step.value, "SIGKILL", "1", "1")
    workers.start(*at_step, batch_max_records="10", session_timeout_ms="2000").wait()


@pytest.fixture
def published(scene: Scene, workers: Workers) -> list[UUID]:
    """Orders whose outcomes are published; no worker is left."""
    scene.shop.stock_up({1: 1_000})
    ids = placed(scene)
    worker = workers.start(batch_max_records="10")
    scene.wait_until_drained()
    assert worker.stop() == 0
    return ids


def test_offsets_that_are_gone(scene: Scene, workers: Workers, published: list[UUID]):
    scene.forget_offsets()
    more = placed(scene, 10)
    worker = workers.start()
    scene.wait_until_drained()
    scene.assert_promises([*published, *more], dead_letters=6)
    assert worker.log.count(FORGOTTEN) == 1


def test_offsets_of_long_ago(scene: Scene, workers: Workers, published: list[UUID]):
    scene.remember_wrongly()
    worker = workers.start()
    scene.wait_until_drained()
    scene.assert_promises(published, dead_letters=5)
    assert worker.log.count(FORGOTTEN) == 1


@pytest.mark.parametrize(
    "step", [Step.AFTER_DATABASE_COMMIT, Step.AFTER_SENDS, Step.BEFORE_KAFKA_COMMIT, Step.AFTER_KAFKA_COMMIT]
)
def test_a_worker_dies_over_its_orders_and_then_the_offsets_are_gone(
    scene: Scene, workers: Workers, published: list[UUID], step: Step
):
    more = placed(scene, 30)
    die_over_the_second_batch(workers, step)
    scene.forget_offsets()
    workers.start(batch_max_records="10")
    scene.wait_until_drained()
    scene.assert_promises([*published, *more], dead_letters=8)


def test_what_kafka_has_acknowledged_and_then_undone_is_published_again(
    scene: Scene, workers: Workers, published: list[UUID]
):
    more = placed(scene, 30)
    die_over_the_second_batch(workers, Step.AFTER_SENDS)
    scene.pretend_the_last_commits_were_acknowledged()
    worker = workers.start(batch_max_records="10")
    scene.wait_until_drained()
    scene.assert_promises([*published, *more], dead_letters=8)
    assert worker.log.count("Kafka has undone what it had acknowledged") == 1


def test_an_idle_worker_notices_that_kafka_has_less_than_it_acknowledged(
    scene: Scene, workers: Workers, published: list[UUID]
):
    worker = workers.start(batch_max_records="10")
    more = placed(scene, 10)
    scene.wait_until_drained()
    remember_wrongly_while_in_use(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 1})
    assert scene.lag() == 65
    scene.wait_until_drained()
    worker.wait_for_log(FORGOTTEN)
    scene.assert_promises([*published, *more], dead_letters=6)


def test_a_new_topic_of_the_same_name_is_decided_from_its_beginning(
    scene: Scene, workers: Workers, published: list[UUID]
):
    scene.recreate_input_topic()
    more = placed(scene, 80)
    workers.start()
    scene.wait_until_drained()
    ids = {m.header("ce_subject") for m in scene.outcomes()}
    assert ids == {str(order_id) for order_id in [*published, *more]}
    assert len(scene.outcomes()) == len(ids)
