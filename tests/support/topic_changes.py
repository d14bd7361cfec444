"""What an operator does to a topic beside running workers."""

from confluent_kafka.admin import NewPartitions

from tests.support.deadline import eventually
from tests.support.subscriber import admin_client, partition_numbers


def add_partitions(bootstrap_servers: str, topic: str, count: int) -> None:
    """Raise the topic's partitions to `count`, and wait until the broker reports them."""
    admin = admin_client(bootstrap_servers)
    admin.create_partitions([NewPartitions(topic, count)])[topic].result(30)
    eventually(lambda: len(partition_numbers(admin, topic)) == count, 30)
