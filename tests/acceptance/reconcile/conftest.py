"""The command, and topics for outcomes that nobody published."""

from collections.abc import Iterator

import pytest

from tests.support.kafka_topics import create_topics, delete_topics
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.topic_names import PARTITIONS, TopicNames


@pytest.fixture
def reconcile(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("reconcile")


@pytest.fixture
def aside(scene: Scene) -> Iterator[TopicNames]:
    """Topics beside the test's own, for outcomes that nobody published."""
    names = TopicNames(
        scene.topics.order_placed,
        f"{scene.topics.order_confirmed}-aside",
        f"{scene.topics.order_rejected}-aside",
        scene.topics.dead_letter,
    )
    create_topics(scene.kafka, {names.order_confirmed: None, names.order_rejected: None}, PARTITIONS)
    yield names
    delete_topics(scene.kafka, [names.order_confirmed, names.order_rejected])
