"""Kafka as a cluster of three local brokers, of which one is really killed."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as Offset
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.acceptance.kafka_edge.load import Load
from tests.faults.cluster import GROUPS, TRANSACTIONS, LocalKafkaCluster
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.kafka_topics import admin_client, create_topics, wait_until_known
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.taking_over import committed_offset, leases_of
from tests.support.topic_changes import set_option
from tests.support.topic_names import TopicNames
from tests.support.worker_process import Workers
from worker.kafka.clients import kafka_admin, largest_record_bytes
from worker.kafka.topic_metadata import until_all_brokers_know
from worker.operations.lag.measure import NO_LEADER
from worker.operations.setup import topics as operation
from worker.sandbox.servers.folders import data_folder
from worker.settings import Settings

TOPIC = "copied"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalKafkaCluster]:
    with data_folder() as folder:
        brokers = LocalKafkaCluster(folder)
        try:
            brokers.start()
            yield brokers
        finally:
            brokers.abandon()


@pytest.fixture(scope="module")
def admin(cluster: LocalKafkaCluster) -> AdminClient:
    """The topic exists."""
    admin = admin_client(cluster.bootstrap_servers)
    create_topics(cluster.bootstrap_servers, {TOPIC: None}, 4, replicas=-1)
    eventually(cluster.in_sync)
    return admin


@pytest.fixture
def whole(cluster: LocalKafkaCluster, admin: AdminClient) -> Iterator[LocalKafkaCluster]:
    """The cluster with all of its brokers, whatever the test does to them."""
    yield cluster
    if away := [node_id for node_id in (1, 2, 3) if not cluster.in_sync(node_id)]:
        cluster.restart(*away)


def test_a_cluster_has_three_brokers_and_each_record_on_two_of_them_at_least(
    cluster: LocalKafkaCluster, admin: AdminClient
) -> None:
    servers = cluster.bootstrap_servers.split(",")
    there = admin.list_topics(TOPIC, timeout=10)
    of_topic = ConfigResource(ConfigResource.Type.TOPIC, TOPIC)
    settings = admin.describe_configs([of_topic])[of_topic].result(10)

    assert len(set(servers)) == 3
    assert {f"{broker.host}:{broker.port}" for broker in there.brokers.values()} == set(servers)
    assert [sorted(one.isrs) for one in there.topics[TOPIC].partitions.values()] == [[1, 2, 3]] * 4
    assert settings["min.insync.replicas"].value == "2"


async def test_topics_that_were_created_are_known_to_each_of_the_brokers(cluster: LocalKafkaCluster) -> None:
    settings = Settings(kafka_bootstrap_servers=cluster.bootstrap_servers)
    for attempt in range(2):
        names = {name: f"{name}-{attempt}" for name in Settings.model_fields if name.endswith("_topic")}
        await operation.create_topics(settings.model_copy(update=names), partitions=10)
        async with kafka_admin(settings) as admin:
            await until_all_brokers_know(admin, dict.fromkeys(names.values(), 10), limit_seconds=0)


async def test_a_command_begins_though_a_broker_that_died_is_still_on_the_list(
    whole: LocalKafkaCluster,
) -> None:
    settings = Settings(kafka_bootstrap_servers=whole.bootstrap_servers)
    await asyncio.to_thread(whole.crash, 2)
    # Each asks one of the three, at random.
    await asyncio.gather(*(largest_record_bytes(settings, TOPIC) for _ in range(20)))


def test_the_coordinator_of_a_group_is_the_one_kafka_names(
    cluster: LocalKafkaCluster, admin: AdminClient
) -> None:
    groups = ["order-worker", "arena-1234abcd", "Überprüfung"]
    for group in groups:
        commit(cluster, group)

    named = {
        name: answer.result(10).coordinator.id
        for name, answer in admin.describe_consumer_groups(groups).items()
    }
    assert {group: cluster.coordinator_of(GROUPS, group) for group in groups} == named


async def test_an_offset_that_the_coordinator_does_not_return_is_not_none(
    cluster: LocalKafkaCluster, admin: AdminClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(commit, cluster, "asked")
    coordinator = await asyncio.to_thread(cluster.coordinator_of, GROUPS, "asked")
    leases = leases_of(engine, cluster.bootstrap_servers, TOPIC, (TOPIC,), group_id="asked")

    async def next_offset(partition: int) -> int | None:
        return (await committed_offset(leases, TopicPartition(TOPIC, partition)))[1]

    async def moved(*_: object) -> int:
        return coordinator % 3 + 1

    try:
        assert [await next_offset(0), await next_offset(1)] == [0, None]
        monkeypatch.setattr(AIOKafkaAdminClient, "find_coordinator", moved)
        with pytest.raises(GroupCoordinatorNotAvailableError):
            await next_offset(0)
    finally:
        await leases.producers.close()


@pytest.fixture
def env(env: dict[str, str], whole: LocalKafkaCluster) -> dict[str, str]:
    return env | {"ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": whole.bootstrap_servers}


@pytest.fixture
def topics(topic_names: TopicNames) -> TopicNames:
    """Each test makes them as it needs them."""
    return topic_names


@pytest.fixture
def scene(whole: LocalKafkaCluster, shop: Shop, topics: TopicNames, env: dict[str, str]) -> Scene:
    return Scene(whole.bootstrap_servers, shop, topics, env["ORDER_WORKER_GROUP_ID"])


@pytest.mark.takes_long
def test_what_is_published_where_no_broker_leads_waits_alone_and_is_named(
    whole: LocalKafkaCluster,
    scene: Scene,
    workers: Workers,
    order_worker: OrderWorker,
    topic_names: TopicNames,
) -> None:
    create_on(whole, topic_names.order_placed, 1, 2, 3)
    create_on(whole, topic_names.order_confirmed, 1, 2)
    create_on(whole, topic_names.order_rejected, 3, 1)
    create_on(whole, topic_names.dead_letter, 1, 2)
    load, unled = Load(scene), f"{topic_names.order_rejected}-0"
    worker = workers.start().wait_until_ready()
    load.place(1, 0, 1)
    scene.wait_until_drained()
    whole.crash(3)
    load.ids.append(rejected := uuid4())
    scene.place([order_value(line(99), order_id=rejected)], partition=0)
    eventually(lambda: f"no broker leads {unled}: start one" in worker.get("/readyz")[1])
    load.place(1, 0)
    began, spent = time.monotonic(), worker.metric("process_cpu_seconds_total")[""]
    load.place(1, 1)
    eventually(lambda: len(scene.confirmed()) == 3)
    eventually(lambda: worker.log.count(f"no broker leads {unled}") > 3)
    spent = worker.metric("process_cpu_seconds_total")[""] - spent
    assert spent < 0.1 * (time.monotonic() - began), "it asks for a leader now and then"

    row = order_worker.here("lag", "--json", "--interval", "0.2").done().document["partitions"]
    assert [(one["end"], one["lag"]) for one in row[1:]] == [(2, 0), (None, None)]
    assert row[2]["remarks"] == [NO_LEADER]
    order_worker.here("reconcile").assert_one_line(1, f"no broker leads {topic_names.order_placed}-2: start")
    order_worker.here("explain", str(rejected)).assert_one_line(1, "no broker leads")

    whole.start(3)
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200)
    scene.assert_promises(load.ids)


@pytest.mark.parametrize("kept_in", [TRANSACTIONS, GROUPS])
def test_a_coordinator_whose_topic_has_too_few_copies_in_sync_is_named_by_that_topic(
    whole: LocalKafkaCluster, scene: Scene, workers: Workers, topic_names: TopicNames, kept_in: str
) -> None:
    create_topics(whole.bootstrap_servers, dict.fromkeys(astuple(topic_names)), 1, replicas=-1)
    load = Load(scene)
    worker = workers.start(transaction_timeout_ms="8000").wait_until_ready()
    load.place(1, 0)
    scene.wait_until_drained()
    set_option(whole.bootstrap_servers, kept_in, "min.insync.replicas", "3")
    whole.crash(3)
    load.place(1, 0)
    worker.wait_for_log(f"from the coordinator that writes to {kept_in}: look at", 60)
    eventually(lambda: kept_in in worker.get("/readyz")[1])
    assert not re.search("TimeoutError|kafka: no answer in time", worker.log)
    whole.start(3)
    scene.wait_until_drained()
    scene.assert_promises(load.ids)
    set_option(whole.bootstrap_servers, kept_in, "min.insync.replicas", "2")


def test_what_is_published_where_too_few_copies_are_in_sync_waits_alone_and_is_named(
    whole: LocalKafkaCluster, scene: Scene, workers: Workers, topic_names: TopicNames
) -> None:
    create_topics(whole.bootstrap_servers, dict.fromkeys(astuple(topic_names)), 2, replicas=-1)
    set_option(whole.bootstrap_servers, topic_names.dead_letter, "min.insync.replicas", "3")
    load, short = Load(scene), f"in sync of {topic_names.dead_letter}-0 (2 of 3 copies in sync): start"
    whole.crash(3)
    eventually(lambda: len(in_sync(whole, topic_names.dead_letter)) == 2)
    worker = workers.start().wait_until_ready()
    scene.place([b"poison"], partition=0)
    eventually(lambda: short in worker.get("/readyz")[1], 10)
    load.place(1, 0, 1)
    load.wait_until_decided()
    eventually(lambda: len(scene.confirmed()) == 1)
    whole.start(3)
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200)
    scene.assert_promises(load.ids, dead_letters=1)


def in_sync(cluster: LocalKafkaCluster, topic: str) -> list[int]:
    """The brokers whose copies of partition 0 are in sync."""
    described = admin_client(cluster.bootstrap_servers).list_topics(topic, timeout=10)
    return list(described.topics[topic].partitions[0].isrs)


def create_on(cluster: LocalKafkaCluster, topic: str, *brokers: int) -> None:
    """A topic without copies, each partition on one of these brokers."""
    config, on = {"min.insync.replicas": "1"}, [[broker] for broker in brokers]
    new = NewTopic(topic, len(on), replica_assignment=on, config=config)
    admin_client(cluster.bootstrap_servers).create_topics([new])[topic].result(20)
    wait_until_known(cluster.bootstrap_servers, {topic: len(on)})


def commit(cluster: LocalKafkaCluster, group: str) -> None:
    """An offset of the group, which exists from then on."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": group, "log_level": 0})

    def committed() -> bool:
        # A new cluster has no coordinators before somebody asks for one, and says so while they load.
        with suppress(KafkaException):
            consumer.commit(offsets=[Offset(TOPIC, 0, 0)], asynchronous=False)
            return True
        return False

    eventually(committed)
    consumer.close()
