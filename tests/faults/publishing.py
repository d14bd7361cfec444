"""Publishes the records of a run to the partitions that they name."""

from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer

from tests.faults.workload import Record


def publish(bootstrap_servers: str, topic: str, records: Iterable[Record]) -> None:
    """Publish each record to its partition, once and in order: its offset is its place there."""
    # One at a time against the limit of the topic, as a batch of the client counts as one message.
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "message.max.bytes": 9_000_000,
            "batch.size": 500_000,
            "linger.ms": 5,
            "log_level": 0,
        }
    )
    failures: list[Any] = []
    for record in records:
        producer.produce(
            topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            headers=list(record.headers),
            on_delivery=lambda error, _message: failures.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not failures, failures[:3]
