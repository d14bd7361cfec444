"""Kafka's topics as the tests make them, and the client that asks about them."""

from collections.abc import Iterable, Mapping
from functools import cache

from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.deadline import eventually
from tests.support.shop import run_apart
from worker.kafka.topic_metadata import until_all_brokers_know


@cache
def admin_client(bootstrap_servers: str) -> AdminClient:
    """The one client that asks these servers; it comes back by itself when they do.

    Never dropped: a failed future keeps a client in a cycle, and where the garbage collector frees that in a
    thread of librdkafka's, the process ends.
    """
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})


def partition_numbers(client: Consumer | AdminClient, topic: str) -> list[int]:
    """Which partitions the topic has.

    It asks until the broker knows the topic, which may be after the answer to its creation. Until then the
    broker names no partition, and a client would take the topic for empty.
    """
    return eventually(
        lambda: sorted(client.list_topics(topic, timeout=10).topics[topic].partitions),
        20,
        lambda: f"as the partitions of {topic}",
    )


def create_topics(
    bootstrap_servers: str, largest_bytes: Mapping[str, int | None], partitions: int, replicas: int = 1
) -> None:
    """Create topics that take so large records (None: Kafka's own limit), and wait until all see them.

    `replicas`: -1 for as many as the brokers are set to.
    """
    admin = admin_client(bootstrap_servers)
    configs = {
        name: {} if size is None else {"max.message.bytes": str(size)} for name, size in largest_bytes.items()
    }
    new = [NewTopic(name, partitions, replicas, config=config) for name, config in configs.items()]
    for future in admin.create_topics(new).values():
        future.result(20)
    wait_until_known(bootstrap_servers, dict.fromkeys(largest_bytes, partitions))


def wait_until_known(bootstrap_servers: str, partitions: Mapping[str, int]) -> None:
    """Wait until each broker knows the partitions of each topic (a number), and a leader of each of them.

    The answer to a creation comes before that, and any of them may be asked next.
    """

    async def wait() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        await admin.start()
        try:
            await until_all_brokers_know(admin, partitions)
        finally:
            await admin.close()

    run_apart(wait())


def delete_topics(bootstrap_servers: str, names: Iterable[str]) -> None:
    """Delete the topics, without waiting until clients notice."""
    for future in admin_client(bootstrap_servers).delete_topics(list(names)).values():
        future.result(60)  # at load 24, 10 s were too few right behind a restart of the broker
