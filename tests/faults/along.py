"""A subscriber that reads the outcomes during a run."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition

from tests.support.kafka_topics import partition_numbers
from tests.support.promises import Scene


@dataclass
class Subscriber:
    """The outcomes that it saw, as (topic, partition, offset, value), in the order of arrival."""

    seen: list[tuple[str, int, int, bytes | None]] = field(default_factory=list)
    statistics: str = "{}"
    """librdkafka's latest statistics"""

    def fetching(self) -> str:
        """What librdkafka says of each partition, to explain why it reads nothing."""
        return "; ".join(
            f"{topic} {number} {known['fetch_state']} from {known['broker']}, next {known['next_offset']},"
            f" stable {known['ls_offset']}, end {known['hi_offset']}"
            for topic, partitions in json.loads(self.statistics).get("topics", {}).items()
            for number, known in partitions["partitions"].items()
            if number != "-1"
        )


@contextmanager
def subscriber(scene: Scene) -> Iterator[Subscriber]:
    """A subscriber that reads the outcomes with read_committed while the run continues."""
    one = Subscriber()
    ended = threading.Event()

    def read() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": scene.kafka,
                "group.id": f"subscriber-{uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
                # Behind a restart of the broker librdkafka may know no leader, and asks again after this:
                # by default after five minutes, in which it sees nothing.
                "topic.metadata.refresh.interval.ms": 2_000,
                "statistics.interval.ms": 5_000,
                "stats_cb": lambda known: setattr(one, "statistics", known),
            }
        )
        try:
            # Assigned: as a member of a group it read no more after 2 of some 170 restarts of the broker.
            # That is a fault of librdkafka or Kafka: a reader at the end saw everything.
            consumer.assign(
                [
                    TopicPartition(topic, partition, 0)
                    for topic in (scene.topics.order_confirmed, scene.topics.order_rejected)
                    for partition in partition_numbers(consumer, topic)
                ]
            )
            while not ended.is_set():
                messages = [m for m in consumer.consume(500, timeout=0.2) if m.error() is None]
                one.seen.extend(
                    (m.topic() or "", m.partition() or 0, m.offset() or 0, m.value()) for m in messages
                )
        finally:
            consumer.close()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        ended.set()
        thread.join(30)
