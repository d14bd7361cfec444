"""The input side: hands polled records to the flow, and never lets an error end the worker.

    handle_order_placed
     ├ top up       add the records fetched since the poll (`input`)
     ├ admit        keep the records of our partitions that are not decided yet; take new partitions over
     │              (`owner`, `takeover`)
     └ flow         decide them in PostgreSQL, while the previous batch is published to Kafka

Correctness needs one rule: a partition's records are published in order, under a lease that was taken before
the committed offset was read, and with the offset in the same transaction.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition

from worker.kafka.records import Records, by_partition, firsts
from worker.observability.events import Event, about, places
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.pipeline.flow import Flow
from worker.pipeline.input import Input
from worker.pipeline.owner import Owner
from worker.pipeline.partition import Partitions
from worker.pipeline.retries import Pauses, Retries

log = logging.getLogger(__name__)

# A batch takes over at most this many partitions; the records of others are polled again. To take 32 over
# takes about a second on two cores, and the group waits for it in a rebalance.
TAKEN_OVER_AT_ONCE: Final = 32


@dataclass(eq=False, kw_only=True, slots=True)
class OrderConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Handles batches in turn: one is published while the next is decided. A rebalance waits for both."""

    source: Input
    partitions: Partitions
    pauses: Pauses
    owner: Owner
    flow: Flow
    retries: Retries
    health: Health
    metrics: Metrics
    # Held across PostgreSQL, Kafka and the end of a rebalance: no probe and no endpoint may wait for it.
    _batch_in_flight: asyncio.Lock = field(default_factory=asyncio.Lock)
    _handled_at: float = float("-inf")  # monotonic seconds: when the previous batch was

    def take_no_more(self) -> None:
        """Accept no batch after the one in flight."""
        if consumer := self.source.consumer:
            consumer.hand_over_no_more()

    @asynccontextmanager
    async def between_batches(self) -> AsyncIterator[None]:
        """No batch is decided or published meanwhile."""
        async with self._batch_in_flight:
            await self.flow.wait_published()
            yield

    async def handle_order_placed(self, records: Sequence[ConsumerRecord]) -> None:
        """Decide and publish the records, or rewind their partitions to read them again. Never raises."""
        self.source.accept()  # before the first await
        try:
            async with self._batch_in_flight:
                try:
                    records = await self.source.top_up(records, self._handled_at)
                    await self.flow.run(await self._admit(by_partition(records)))
                except Exception as error:
                    # A fault of this program. The records must be read again all the same:
                    # FastStream would log this and continue with the next batch, and these would be lost.
                    await self.flow.wait_published()
                    self.owner.drop(self.partitions.owned())
                    self.retries.rewind(firsts(by_partition(records)), error, "worker")
                self._handled_at = time.monotonic()
        finally:
            self.source.in_hand.clear()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Release the partitions, after the batch in flight is finished, so that nobody decides it again."""
        self.metrics.rebalance_begins()
        async with self.between_batches():
            revoked = list(revoked)
            self.source.is_revoked = True
            await self.owner.release(revoked)
            self.pauses.forget(revoked)
            for partition in revoked:
                self.partitions.forget(partition)
                self.health.forget(partition)
            self.health.all_resumed()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Only set what to fetch: a partition is taken over when its first records have arrived."""
        numbers = sorted(p.partition for p in assigned)
        self.source.is_revoked = False
        self.source.share_out(len(numbers))
        self.health.assigned(numbers)
        self.metrics.rebalance_ends()
        log.info(
            "assigned partitions: %s",
            ", ".join(map(str, numbers)) or "none",
            extra=about(Event.PARTITIONS_ASSIGNED, partitions=places(dict.fromkeys(assigned))),
        )

    async def close(self) -> None:
        """Finish what is being published, and release all partitions."""
        async with self.between_batches():
            await self.owner.release()

    async def _admit(self, records: Records) -> Records:
        """The records of assigned partitions that are not decided yet; takes new ones over."""
        assigned = self.source.assignment_to_own()
        mine: Records = {}
        for partition, of_one in records.items():
            if partition not in assigned:
                continue
            first_missing = self.partitions[partition].missing_before(of_one[0].offset)
            if first_missing is None:
                mine[partition] = of_one
            else:
                self.source.seek(partition, first_missing)
        if any(not self.partitions[p].ownership for p in mine):
            await self.flow.wait_published()  # a take-over must not meet an open transaction
        new = {p: of_one[0].offset for p, of_one in mine.items() if not self.partitions[p].ownership}
        for partition in list(new)[TAKEN_OVER_AT_ONCE:]:
            self.source.seek(partition, new.pop(partition))
            del mine[partition]
        await self.owner.take_over(new)
        # Some that was owned may be so no more: their producer broke.
        lost = {p: r for p, r in mine.items() if p not in new and not self.partitions[p].ownership}
        self.retries.read_again(firsts(lost))
        admitted = {p: self.partitions[p].admit(of_one, is_new=p in new) for p, of_one in mine.items()}
        return {p: of_one for p, of_one in admitted.items() if of_one}
