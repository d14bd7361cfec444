"""A worker whose clock is off says so, and nothing that it does rests on it."""

import sys

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.promises import Scene
from tests.support.topic_changes import set_option
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_2


@pytest.mark.parametrize("off_seconds", [60, -3600], ids=["ahead", "behind"])
def test_offsets_that_kafka_forgets_make_nobody_publish_again(
    scene: Scene, workers: Workers, off_seconds: int
):
    for topic in (scene.topics.order_confirmed, scene.topics.order_rejected, scene.topics.dead_letter):
        set_option(scene.kafka, topic, "message.timestamp.type", "LogAppendTime")
    load = Load(scene)
    off_clock = (sys.executable, "-m", "tests.support.worker_off_clock", str(off_seconds))
    load.place(20, 0, 1)
    first = workers.start(*off_clock)
    scene.wait_until_drained()
    assert first.log.count("this worker's clock is") >= 1
    assert first.stop() == 0
    scene.forget_offsets()
    load.place(20, 0, 1)
    second = workers.start(*off_clock)
    scene.wait_until_drained()
    assert second.stop() == 0
    scene.forget_offsets()
    load.place(5, 0)
    workers.start()
    scene.wait_until_drained()
    scene.assert_promises(load.ids)
