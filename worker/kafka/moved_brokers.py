"""Brokers that have all moved to other addresses, behind bootstrap servers that stay where they are.

aiokafka asks the bootstrap servers once. From then on it knows the brokers by what they tell of each other,
and where all of them have moved it looks for them at their old addresses without end.
"""

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.cluster import ClusterMetadata


def learn_brokers(consumer: AIOKafkaConsumer, asked: AIOKafkaAdminClient) -> bool:
    """Let a consumer know the brokers that a newer client knows, if none is where it knows one.

    Returns whether that was so.
    """
    known, now = consumer._client.cluster, asked._client.cluster
    if not now._brokers or _addresses(known) & _addresses(now):
        return False
    known._brokers = dict(now._brokers)
    consumer._client.force_metadata_update()
    return True


def _addresses(cluster: ClusterMetadata) -> set[tuple[str, int]]:
    return {(broker.host, broker.port) for broker in cluster.brokers()}
