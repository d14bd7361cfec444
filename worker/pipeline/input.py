"""Where orders come from: the running consumer, and how much of them a worker keeps in memory."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError

from worker.kafka.client_internals import hidden_topics
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.internals import limit_partition_fetch
from worker.kafka.records import Records, estimate_fit

# Enough for the largest batch: 8,000 orders of three items take 2.8 MiB. With 768 KiB for each partition two
# of them gave 4,400, for which worker, PostgreSQL and Kafka took 53 to 56 µs an order; this takes 46 to 50
# (three rounds, two processes), and 4 MiB no less.
FETCHED_AHEAD_BYTES: Final = 3 * 1024 * 1024
# The least for each partition: a broker's answer holds whole batches, and only one batch that is larger than
# this. 16 partitions have 4 MiB then, and the process 181 to 188 MiB.
PARTITION_LEAST_BYTES: Final = 256 * 1024
# A poll that answers sooner after a batch has not waited for its records: they were fetched before.
AT_ONCE_SECONDS: Final = 0.002
# An answer of the broker takes 2 to 5 ms on two busy cores.
SINCE_TIMEOUT_MS: Final = 10


class Input:
    """The consumer of one worker. Without one, before the start and after the end, nothing is assigned."""

    def __init__(
        self, batch_max_records: int, batch_max_bytes: int, at_once_seconds: float = AT_ONCE_SECONDS
    ) -> None:
        self._batch_max_records = batch_max_records
        self._batch_max_bytes = batch_max_bytes
        self._at_once_seconds = at_once_seconds
        self._find: Callable[[], RecordConsumer | None] = lambda: None
        self.in_hand: set[TopicPartition] = set()
        """whose records were polled and are not decided yet"""
        self.is_revoked = False
        """between the end of one assignment and the next one"""

    def attach(self, find: Callable[[], RecordConsumer | None]) -> None:
        """Where to find the running consumer: FastStream builds it when the application starts."""
        self._find = find

    @property
    def consumer(self) -> RecordConsumer | None:
        return self._find()

    def assignment(self) -> set[TopicPartition]:
        consumer = self._find()
        return set(consumer.assignment()) if consumer else set()

    def assignment_to_own(self) -> set[TopicPartition]:
        """The assigned partitions; none while they are revoked, although the consumer still names them.

        Nobody would release what is taken over then, and the worker would continue from there when the
        partition comes back, wherever the group's offset is by that time.
        """
        return set() if self.is_revoked else self.assignment()

    def partitions_of(self, topic: str) -> list[TopicPartition]:
        """All partitions of the topic, also those of other workers."""
        consumer = self._find()
        numbers = consumer.partitions_for_topic(topic) if consumer else None
        return [TopicPartition(topic, number) for number in numbers or ()]

    def is_hidden(self, topic: str) -> bool:
        """Whether the worker's user may not see the topic. Kafka does not say whether it exists then."""
        consumer = self._find()
        return consumer is not None and topic in hidden_topics(consumer)

    def accept(self) -> None:
        """Accept the records of the last poll; without this, the next poll returns them again."""
        if consumer := self._find():
            self.in_hand |= consumer.accept()

    def seek(self, partition: TopicPartition, offset: int) -> bool:
        """False if the partition is not assigned any more: its new owner starts at the committed offset."""
        consumer = self._find()
        if consumer is None:
            return False
        try:
            consumer.seek(partition, offset)
        except IllegalStateError:
            return False
        return True

    def share_out(self, partitions: int) -> None:
        """Share `FETCHED_AHEAD_BYTES` out among so many partitions.

        aiokafka has a limit for each partition only, set before the number of partitions is known.
        """
        if consumer := self._find():
            of_each = max(PARTITION_LEAST_BYTES, FETCHED_AHEAD_BYTES // max(1, partitions))
            limit_partition_fetch(consumer, of_each)

    async def top_up(
        self, records: Sequence[ConsumerRecord], last_batch_at: float
    ) -> Sequence[ConsumerRecord]:
        """The records, and those that arrived while the previous batch was decided, up to a whole batch.

        aiokafka fetches ahead: a busy worker polls what was fetched when the previous batch began. Records
        that have arrived since would wait for one more batch. `last_batch_at`: monotonic seconds.
        """
        consumer = self._find()
        room = estimate_fit(records, self._batch_max_records, self._batch_max_bytes) - len(records)
        was_idle = time.monotonic() - last_batch_at > self._at_once_seconds
        if consumer is None or room <= 0 or was_idle:
            return records
        since: Records = {}
        # Within a limit of our own: while the group rebalances, aiokafka would wait here for the assignment,
        # which waits for this batch. An error of Kafka is raised again by the next poll.
        with suppress(TimeoutError, KafkaError, ConsumerStoppedError):
            async with asyncio.timeout(2 * SINCE_TIMEOUT_MS / 1_000):
                since = await consumer.getmany(timeout_ms=SINCE_TIMEOUT_MS, max_records=room)
                self.accept()
        return [*records, *chain.from_iterable(since.values())]
