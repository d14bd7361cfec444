"""Leases of partitions: one transactional producer for each, whose start fences the owner before.

The transactional id names the input partition, not the worker. So the broker ends the open transaction of
whoever had the partition before, and nothing which that one still sends counts. aiokafka has no KIP-447,
which would fence by the group's generation.
"""

import asyncio
import gc
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata

from worker.core.steps import Reached, Step, nothing_happens
from worker.kafka.ends import end_offsets
from worker.kafka.limits.adapted import MAX_REQUEST_BYTES
from worker.kafka.producing.producers import RETRY_BACKOFF_MS, close_producer, place_in
from worker.kafka.producing.transaction import end_what_hangs, transaction

# Few large requests: outcomes of one batch travel together. A larger record goes alone.
MAX_BATCH_BYTES: Final = 512 * 1024
# One would do, were two transactions in a row never undone. All would mark the dead letters' topic with every
# batch for ever, where people watch its end.
OUTPUTS_KEPT: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """The right to publish and commit for one partition, until somebody else takes a lease of it.

    `places`: where its publications go, by topic. `ends`: where these places ended when the lease was taken,
    or last published to; what is published next lies behind. `outputs`: where the latest transactions wrote;
    of a new lease, wherever the one before may have written. Only the publisher changes the last two.
    """

    partition: TopicPartition
    producer: AIOKafkaProducer
    places: Mapping[str, TopicPartition]
    ends: dict[TopicPartition, int]
    outputs: deque[AbstractSet[TopicPartition]] = field(default_factory=lambda: deque(maxlen=OUTPUTS_KEPT))


class Leases:
    """Takes and drops the leases of one group."""

    def __init__(
        self,
        *,
        group_id: str,
        client_options: dict[str, Any],
        topics: Sequence[str],
        transaction_timeout_ms: int,
        reached: Reached = nothing_happens,
    ) -> None:
        """`topics`: those that are published to."""
        self.group_id = group_id
        self.client_options = client_options
        # The broker ends a transaction at its timeout; give up before, and find out what happened.
        self.publish_timeout_seconds = transaction_timeout_ms / 2_000
        self._topics = topics
        self._transaction_timeout_ms = transaction_timeout_ms
        self._reached = reached
        self._closing: set[asyncio.Task[None]] = set()

    async def take(self, partition: TopicPartition) -> Lease:
        """The partition's lease: from now on, the owner before can publish and commit nothing.

        Raises KafkaError or TimeoutError; then there is no lease.
        """
        producer = AIOKafkaProducer(
            **self.client_options,
            transactional_id=f"{self.group_id}.{partition.topic}.{partition.partition}",
            transaction_timeout_ms=self._transaction_timeout_ms,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=MAX_BATCH_BYTES,
            acks="all",
        )
        try:
            async with asyncio.timeout(self.publish_timeout_seconds):
                await producer.start()
                self._reached(Step.TAKEOVER_FENCED)
                places = {topic: await place_in(producer, topic, partition) for topic in self._topics}
                ends = await end_offsets(producer, places.values())
        except BaseException:
            self._close(producer)
            raise
        lease = Lease(partition, producer, places, ends)
        lease.outputs.append(set(places.values()))
        return lease

    def drop(self, lease: Lease) -> None:
        """Give a lease up; its producer is closed in the background, for its broker may be what is away."""
        self._close(lease.producer)

    async def closed(self) -> None:
        """Wait until the producer of every lease that was dropped is closed."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def commit(self, lease: Lease, offset: int, metadata: str = "") -> None:
        """Let the group go on at `offset`, if the lease still holds; by default as an operator's move.

        Raises KafkaError or TimeoutError: nobody knows then whether it happened.
        """
        async with transaction(lease.producer, self.publish_timeout_seconds) as opened:
            # No output is joined: what Kafka may have left hanging there is for the next owner to end.
            await opened.commit_offset(self.group_id, lease.partition, OffsetAndMetadata(offset, metadata))

    async def end_what_hangs(self, lease: Lease) -> None:
        """Abort what Kafka may have left open of a transaction of this lease that it takes for ended.

        Nobody reads on in such a partition, whoever searches for what was published there neither: partitions
        that are all searched would wait for each other without end. Starting the producer aborts only what
        Kafka knows to be open.
        """
        places = [
            TopicPartition(topic, number)
            for topic in self._topics
            for number in await lease.producer.partitions_for(topic)
        ]
        await end_what_hangs(lease.producer, places)

    async def committed_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed; None only where Kafka says that there is nothing.

        aiokafka's consumer says None as well while the group's coordinator loads or has moved: that error is
        one of the whole answer, and it reads those of partitions only (`tests.faults.upstream.no_offset`).
        Its admin client leaves the partition out then.
        """
        admin = AIOKafkaAdminClient(**self.client_options)
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(self.group_id, partitions=list(partitions))
        finally:
            await admin.close()
        if any(p not in found for p in partitions):
            raise GroupCoordinatorNotAvailableError(
                f"the coordinator of {self.group_id} knows no offsets yet"
            )
        return {p: None if found[p].offset < 0 else found[p] for p in partitions}

    def _close(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(close_producer(producer))
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not self._closing:
            # An outage leaves cycles behind. The collector, which `worker.runtime.process` spares, came by
            # so seldom that memory grew with each outage.
            gc.collect()
