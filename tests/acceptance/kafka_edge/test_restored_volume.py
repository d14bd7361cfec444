"""An older copy of a partition's files is put back, and Kafka still remembers how far the group had come."""

import shutil
from pathlib import Path

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.log_files import folder_of, replace_folder
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.publishing import forget_producers
from tests.support.worker_process import Workers
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.services import Services

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]


@pytest.fixture(scope="session")
def services(on_own_kafka: Services) -> Services:
    return on_own_kafka


def test_no_later_order_is_lost_and_no_earlier_one_published_again(
    scene: Scene, workers: Workers, own_kafka: LocalKafka, tmp_path: Path, order_worker: OrderWorker
):
    load = Load(scene)
    load.place(10, 0, 1)
    first = workers.start()
    scene.wait_until_drained()
    assert first.stop() == 0
    files, copy = folder_of(own_kafka, scene.topics.order_placed, 0), tmp_path / "copy"
    own_kafka.stop()
    shutil.copytree(files, copy)
    own_kafka.start()
    load.place(40, 0)
    second = workers.start()
    scene.wait_until_drained()
    assert second.stop() == 0
    own_kafka.stop()
    replace_folder(files, copy)
    own_kafka.start()
    forget_producers()

    # Fewer than before, with the worker running already for the half of them; then more than before.
    load.place(15, 0)
    workers.start().wait_until_ready()
    load.place(15, 0)
    load.place(5, 1)
    load.wait_until_decided()
    load.wait_until_decided(load.place(20, 0))
    scene.wait_until_drained()
    scene.assert_promises(load.ids)
    assert order_worker.here("lag", "--json", "--interval", "0.2").done().document["lag"] == 0
