"""Publishes to a topic as a service of its own would: librdkafka, idempotent, acknowledged."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from confluent_kafka import Producer


def publish(
    bootstrap_servers: str,
    topic: str,
    values: Sequence[bytes | None],
    *,
    partition: int | None = None,
    headers: Sequence[tuple[str, bytes | None]] | None = None,
    key: bytes | None = None,
    compression: str = "none",
    timestamp_ms: int = 0,
) -> None:
    """Publish the values in order, and return when all are acknowledged. `timestamp_ms`: 0 is now."""
    producer = _producer(bootstrap_servers, compression)
    failures: list[Any] = []
    where: dict[str, Any] = {} if partition is None else {"partition": partition}
    try:
        producer.list_topics(topic, timeout=30)  # which may have got more partitions since it last looked
        for value in values:
            producer.produce(
                topic,
                value=value,
                key=key,
                headers=[*(headers or [])],
                timestamp=timestamp_ms,
                on_delivery=lambda error, _message: failures.append(error) if error else None,
                **where,
            )
            producer.poll(0)
        assert producer.flush(30) == 0
        assert not failures, failures
    except BaseException:
        forget_producers()
        raise


@cache
def _producer(bootstrap_servers: str, compression: str) -> Producer:
    """The one client that publishes to these servers: each new one waits for its id, half a second."""
    # A batch of the client counts as one message against the topic's limit, so it is kept below.
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,  # else a record that is tried again comes after those behind it
            "message.max.bytes": 9_000_000,
            "batch.size": 500_000,
            "linger.ms": 5,
            "compression.type": compression,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
    )


def forget_producers() -> None:
    """Begin again with new clients: brokers that have forgotten records refuse what the old ones send."""
    _producer.cache_clear()
