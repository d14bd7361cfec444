"""Nothing lost, nothing twice, stock conserved: on a network that fails between worker and servers.

A network that carries nothing looks to a worker like a frozen server: see test_faults.py for that.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.acceptance.test_faults import placed
from tests.faults.proxy import Proxy
from tests.support.deadline import eventually
from tests.support.kafka_topics import create_topics
from tests.support.log_lines import log_lines
from tests.support.own_broker import own_broker
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.topic_names import PARTITIONS, TopicNames
from tests.support.worker_process import Workers, workers_in
from tests.support.worker_template import WorkerTemplate
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.ports import free_port

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_2, pytest.mark.guarantee_3]

SHORT_DEADLINES = {
    "batch_max_records": "50",
    "batch_timeout_seconds": "3",
    "transaction_timeout_ms": "4000",
    "request_timeout_ms": "2000",
    "retry_max_seconds": "1",
}


def wait_until_decided(scene: Scene, count: int) -> None:
    eventually(lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") >= count, 40)


@pytest.fixture
def database_network(env: dict[str, str], database_url: str) -> Iterator[Proxy]:
    """Between the test's workers and their database; a test names it before `workers`, and goes around it."""
    parts = urlsplit(database_url)
    user = parts.netloc.rpartition("@")[0]
    with Proxy(parts.port or 5432, target_host=parts.hostname or "127.0.0.1") as proxy:
        through = parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}")
        env["ORDER_WORKER_DATABASE_URL"] = urlunsplit(through)
        yield proxy


def test_database_connections_cut_again_and_again_cost_nothing(
    database_network: Proxy, scene: Scene, workers: Workers
) -> None:
    ids, poison = placed(scene, 2_000, seed=21)
    worker = workers.start(**SHORT_DEADLINES)
    for decided in range(200, 1_800, 200):
        wait_until_decided(scene, decided)
        database_network.cut()
    scene.wait_until_drained()
    assert "will be tried again" in worker.log, "some cut has met a batch"
    scene.assert_promises(ids, dead_letters=poison)


def test_commits_whose_replies_are_lost_are_found_and_published_once(
    database_network: Proxy, scene: Scene, workers: Workers
) -> None:
    ids, poison = placed(scene, 2_000, seed=23)
    worker = workers.start(**SHORT_DEADLINES)
    for decided in (200, 600, 1_000):
        wait_until_decided(scene, decided)
        swallowed = database_network.swallowed_bytes
        database_network.drop_replies(after=b"COMMIT")
        eventually(lambda: database_network.swallowed_bytes > swallowed)  # noqa: B023
        if decided == 1_000:  # once the worker gives up by itself, twice its connection is reset
            worker.wait_for_log(": no answer in time")
        database_network.heal()
    scene.wait_until_drained()
    # Each lost reply was met, by a batch or by what looks after the group beside it.
    met = ("will be tried again", "looking after the group: ", "withheld outcomes could not be looked at")
    assert sum(map(worker.log.count, met)) >= 3
    scene.assert_promises(ids, dead_letters=poison)


@pytest.fixture(scope="module")
def broker_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def broker(broker_port: int) -> Iterator[LocalKafka]:
    with own_broker(proxy_port=broker_port) as broker:
        yield broker


@pytest.fixture
def kafka_network(broker: LocalKafka, broker_port: int) -> Iterator[Proxy]:
    assert broker.proxied_port
    with Proxy(broker.proxied_port, port=broker_port) as proxy:
        yield proxy


@pytest.fixture
def kafka_scene(broker: LocalKafka, shop: Shop, topic_names: TopicNames, env: dict[str, str]) -> Scene:
    placed, confirmed = topic_names.order_placed, topic_names.order_confirmed
    names = [placed, confirmed, topic_names.order_rejected, topic_names.dead_letter]
    create_topics(broker.bootstrap_servers, dict.fromkeys(names), PARTITIONS)
    return Scene(broker.bootstrap_servers, shop, topic_names, env["ORDER_WORKER_GROUP_ID"])


@pytest.fixture
def kafka_workers(
    kafka_network: Proxy,
    kafka_scene: Scene,
    env: dict[str, str],
    tmp_path: Path,
    worker_template: WorkerTemplate,
) -> Iterator[Workers]:
    through = {"ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka_network.port}"}
    with workers_in(env | through, tmp_path, worker_template) as started:
        yield started


def test_kafka_connections_cut_again_and_again_cost_nothing(
    kafka_network: Proxy, kafka_scene: Scene, kafka_workers: Workers
) -> None:
    ids, poison = placed(kafka_scene, 1_500, seed=24)
    worker = kafka_workers.start(**SHORT_DEADLINES, log_format="json")
    for decided in range(200, 1_400, 400):
        wait_until_decided(kafka_scene, decided)
        assert kafka_network.connections, "the worker comes this way"
        kafka_network.cut()
    kafka_scene.wait_until_drained()
    log_lines(worker.log)
    kafka_scene.assert_promises(ids, dead_letters=poison)


def test_a_kafka_whose_replies_are_lost_past_every_deadline_leaves_no_doubt(
    kafka_network: Proxy, kafka_scene: Scene, kafka_workers: Workers
) -> None:
    ids, poison = placed(kafka_scene, 1_200, seed=25)
    worker = kafka_workers.start(**SHORT_DEADLINES, log_format="json")
    wait_until_decided(kafka_scene, 300)
    kafka_network.drop_replies()
    eventually(lambda: worker.get("/readyz")[0] == 503, 40)
    worker.wait_for_log("will be tried again")
    kafka_network.heal()
    kafka_scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200, 40)
    said = log_lines(worker.log)
    assert {"batch_set_back", "kafka_client"} <= {line["event"] for line in said}
    words = [line["message"] for line in said if line["event"] == "kafka_client"]
    assert not [one for one in words if "('" in one or "Error(" in one], "no tuples and no reprs of Python"
    kafka_scene.assert_promises(ids, dead_letters=poison)
