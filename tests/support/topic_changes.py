"""What an operator does to a topic beside running workers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

from tests.support.deadline import eventually
from tests.support.kafka_topics import admin_client, partition_numbers, wait_until_known


def add_partitions(bootstrap_servers: str, topic: str, count: int) -> None:
    """Raise the topic's partitions to `count`, and wait until the broker reports them."""
    admin = admin_client(bootstrap_servers)
    admin.create_partitions([NewPartitions(topic, count)])[topic].result(30)
    eventually(lambda: len(partition_numbers(admin, topic)) == count, 30)


def recreate_topic(bootstrap_servers: str, topic: str, partitions: int | None = None) -> None:
    """Delete the topic and create an empty one of the same name, by default with as many partitions."""
    admin = admin_client(bootstrap_servers)
    partitions = partitions or len(partition_numbers(admin, topic))
    admin.delete_topics([topic])[topic].result(10)

    def created() -> bool:
        with suppress(KafkaException):  # still being deleted
            admin.create_topics([NewTopic(topic, partitions)])[topic].result(10)
            return True
        return False

    eventually(created)
    wait_until_known(bootstrap_servers, {topic: partitions})


def delete_records(bootstrap_servers: str, topic: str, before: Mapping[int, int]) -> None:
    """Delete what lies before these offsets by partition, as retention would; -1: everything."""
    places = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    for future in admin_client(bootstrap_servers).delete_records(places).values():
        future.result(10)


def set_largest_record(bootstrap_servers: str, topic: str, largest_bytes: int) -> None:
    """Change how large a record the topic takes."""
    set_option(bootstrap_servers, topic, "max.message.bytes", str(largest_bytes))


def set_option(bootstrap_servers: str, topic: str, name: str, value: str) -> None:
    """Change an option of the topic."""
    _set_option(bootstrap_servers, ConfigResource.Type.TOPIC, topic, name, value)


def set_broker_option(bootstrap_servers: str, name: str, value: str) -> None:
    """Change an option that brokers take while they run, on each of them."""
    for node_id in admin_client(bootstrap_servers).list_topics(timeout=10).brokers:
        _set_option(bootstrap_servers, ConfigResource.Type.BROKER, str(node_id), name, value)


@contextmanager
def unverified_transactions(bootstrap_servers: str) -> Iterator[None]:
    """The brokers take records of transactions that the partition was not added to."""
    name = "transaction.partition.verification.enable"
    set_broker_option(bootstrap_servers, name, "false")
    try:
        yield
    finally:
        set_broker_option(bootstrap_servers, name, "true")


def _set_option(bootstrap_servers: str, kind: Any, resource_name: str, name: str, value: str) -> None:
    admin = admin_client(bootstrap_servers)
    change = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(kind, resource_name, incremental_configs=[change])
    admin.incremental_alter_configs([resource])[resource].result(10)
    asked = ConfigResource(kind, resource_name)
    # The answer says that it is stored; it is not in effect yet.
    eventually(lambda: admin.describe_configs([asked])[asked].result(10)[name].value == value, 10)
