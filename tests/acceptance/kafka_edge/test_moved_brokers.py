"""All brokers come back at other addresses, and the bootstrap servers stay where they are."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.faults.proxy import Proxy
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.publishing import forget_producers
from tests.support.worker_process import Workers
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.services import Services

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]


@pytest.fixture(scope="session")
def services(on_own_kafka: Services) -> Services:
    return on_own_kafka


@contextmanager
def advertised_at(kafka: LocalKafka, old: int, new: int) -> Iterator[None]:
    """Restarted, it names another port to who comes by way of the network."""
    settings = kafka.folder / "kafka" / "server.properties"
    before = settings.read_text()
    settings.write_text(before.replace(f"PROXIED://127.0.0.1:{old}", f"PROXIED://127.0.0.1:{new}"))
    assert settings.read_text() != before
    try:
        kafka.start()
        yield
    finally:
        settings.write_text(before)
        kafka.stop()
        kafka.start()
        forget_producers()


def test_a_running_worker_finds_them_by_way_of_the_bootstrap_servers(
    scene: Scene, workers: Workers, own_kafka: LocalKafka, own_kafka_port: int
):
    load, new_port = Load(scene), free_port()
    workers.environment["ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{own_kafka.proxied_port}"
    assert own_kafka.proxied_port
    with Proxy(own_kafka.proxied_port, port=own_kafka_port):
        load.place(10, 0, 1)
        worker = workers.start()
        scene.wait_until_drained()
        own_kafka.stop()
    with (
        Proxy(own_kafka.proxied_port, port=new_port),
        advertised_at(own_kafka, own_kafka_port, new_port),
    ):
        forget_producers()
        load.wait_until_decided(load.place(10, 0, 1), 60)
        scene.wait_until_drained()
        eventually(lambda: worker.get("/readyz")[0] == 200, 30, lambda: worker.get("/readyz")[1])
        scene.assert_promises(load.ids)
    assert not re.search("TimeoutError|kafka: no answer in time", worker.log), "its producer was lost as well"
