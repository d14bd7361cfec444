"""Fixtures only: a Kafka of these tests' own, which they stop, cut off and change on disk."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.faults.proxy import Proxy
from tests.faults.site import broker_apart
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.services import Services


@pytest.fixture(scope="session")
def own_kafka_port() -> int:
    """Where those come back to who reach the own Kafka by way of `kafka_network`."""
    return free_port()


@pytest.fixture(scope="session")
def own_kafka(own_kafka_port: int) -> Iterator[LocalKafka]:
    """A broker with its controller apart: over a restart it keeps what it has acknowledged."""
    with data_folder() as folder, broker_apart(folder, proxy_port=own_kafka_port) as kafka:
        kafka.start()
        yield kafka


@pytest.fixture(scope="session")
def on_own_kafka(services: Services, own_kafka: LocalKafka) -> Services:
    """The usual PostgreSQL, and the own Kafka."""
    return replace(services, kafka_bootstrap_servers=own_kafka.bootstrap_servers, kafka=own_kafka)


@pytest.fixture
def kafka_network(own_kafka: LocalKafka, own_kafka_port: int) -> Iterator[Proxy]:
    """Between a worker and the own Kafka."""
    assert own_kafka.proxied_port
    with Proxy(own_kafka.proxied_port, port=own_kafka_port) as proxy:
        yield proxy
