"""A subscriber without code of the worker: librdkafka, read_committed, from a topic's start to its end."""

import json
import time
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.support.kafka_topics import partition_numbers

OPEN_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Message:
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int
    offset: int
    timestamp: int

    @property
    def event(self) -> Any:
        assert self.value is not None
        return json.loads(self.value)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        return values[-1].decode() if values and values[-1] is not None else None


def read_topic(bootstrap_servers: str, topic: str) -> list[Message]:
    """All committed messages that are in the topic now. An open transaction is waited for, for a moment.

    Kafka shows the offsets that a transaction commits before all its records: it writes a marker for each
    partition.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"reader-{uuid4()}",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        partitions = partition_numbers(consumer, topic)
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        open_partitions, hidden, messages = set(partitions), set[int](), []
        until = time.monotonic() + OPEN_SECONDS
        while open_partitions - hidden or (hidden and time.monotonic() < until):
            # One at a time: a call for many waits until there are so many, or until its timeout.
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                messages.append(_message(message))
                hidden.discard(message.partition())
            elif error.code() == KafkaError._PARTITION_EOF:
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
                if offset < end:
                    hidden.add(partition)
                else:
                    open_partitions.discard(partition)
                    hidden.discard(partition)
            else:
                raise AssertionError(error)
        return messages
    finally:
        consumer.close()


def end_of(bootstrap_servers: str, topic: str, partition: int) -> int:
    """The offset behind the last record or marker of a partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "end-of", "log_level": 0})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])
    finally:
        consumer.close()


def _message(message: Any) -> Message:
    return Message(
        message.key(),
        message.value(),
        _headers(message),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
    )


# Called from C, which checks whether a call has left an error set. The interpreter's own method call does not
# check, and the error would be raised by the next call.
_READ_HEADERS: Final = methodcaller("headers")


def _headers(message: Any) -> list[tuple[str, bytes | None]]:
    """Empty where a name is not UTF-8, which librdkafka's binding cannot read."""
    try:
        return list(_READ_HEADERS(message) or ())
    except (SystemError, UnicodeDecodeError):
        return []
