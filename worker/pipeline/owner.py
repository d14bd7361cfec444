"""This worker as the owner of partitions: takes them over where they have to go on, and gives them up."""

from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka import TopicPartition

from worker.failures import is_of_database
from worker.kafka.producing.lease import Leases
from worker.observability.health import Health
from worker.pipeline.input import Input
from worker.pipeline.partition import Ownership, Partitions
from worker.pipeline.retries import Offsets, Retries, Server
from worker.pipeline.takeover import Takeover


@dataclass(eq=False, kw_only=True, slots=True)
class Owner:
    """Applies what take-overs say. Whatever fails is set back, and owned by nobody."""

    topic: str
    source: Input
    partitions: Partitions
    takeover: Takeover
    leases: Leases
    retries: Retries
    health: Health

    async def take_over(self, at_hand: Offsets) -> None:
        """Own these partitions, and read each on from where it has to go on; what fails is set back.

        `at_hand`: the offset of each one's first record in hand; None: none is.
        """
        if not at_hand or self.source.consumer is None:
            return
        everything = self.source.partitions_of(self.topic)
        taken = await self.takeover.take_over(list(at_hand), everything)
        self.drop_broken()
        for partition, result in taken.items():
            first = at_hand[partition]
            if not isinstance(result, Ownership):
                server: Server = "database" if is_of_database(result) else "kafka"
                self.retries.set_back({partition: first}, result, server)
                continue
            self.partitions[partition].take(result)
            if result.published_to not in (None, first):
                # The old owner got further than the offset we began to read at, or a failed commit of
                # ours did happen. (Or the committed offset lies in a gap: then this costs one more fetch.)
                self.retries.read_from(partition, result.published_to)
            if first is None or (result.published_to or 0) > first:
                # Nothing has failed, or what failed did happen: perhaps no record comes that would show it.
                self.partitions[partition].failures = 0
                self.health.goes_on(partition)

    async def release(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Give these up in order, or all that are owned. Nothing of them may be being published."""
        leases = []
        for partition in list(self.partitions.owned()) if partitions is None else partitions:
            self.partitions[partition].failures = 0
            if ownership := self.partitions[partition].drop():
                leases.append(ownership.lease)
        await self.leases.release(leases)
        self.drop_broken()

    def drop(self, partitions: Iterable[TopicPartition]) -> None:
        """Own these no more: what happened last has to be found out."""
        for partition in partitions:
            self.partitions[partition].drop()

    def drop_broken(self) -> None:
        """Own no more what was taken with a producer that is broken by now."""
        self.drop(p for p, owned in self.partitions.owned().items() if owned.lease.producer.is_broken)
