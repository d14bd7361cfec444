"""This worker as the owner of partitions: takes them over, and releases them."""

from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka import TopicPartition

from worker.failures import is_of_database
from worker.kafka.producing.lease import Leases
from worker.observability.health import Health
from worker.observability.metrics import Server
from worker.pipeline.input import Input
from worker.pipeline.partition import Ownership, Partitions
from worker.pipeline.retries import Offsets, Retries
from worker.pipeline.takeover import Takeover


@dataclass(eq=False, kw_only=True, slots=True)
class Owner:
    """Applies the results of take-overs. A partition that fails is rewound, and not owned."""

    topic: str
    source: Input
    partitions: Partitions
    takeover: Takeover
    leases: Leases
    retries: Retries
    health: Health

    async def take_over(self, at_hand: Offsets) -> None:
        """Own these partitions, and read each from its resume offset; what fails is rewound.

        `at_hand`: by partition, the offset of its first polled record; None: there is none.
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
                self.retries.rewind({partition: first}, result, server)
                continue
            self.partitions[partition].take(result)
            if result.published_to not in (None, first):
                # The previous owner came further than the offset at which this worker began to read, or a
                # commit that failed here succeeded in Kafka. (Or the committed offset lies in a gap: that
                # costs one more fetch.)
                self.retries.read_from(partition, result.published_to)
            if first is None or (result.published_to or 0) > first:
                # Nothing failed, or what failed here succeeded in Kafka. Reset now: no record may follow.
                self.partitions[partition].failures = 0
                self.health.resumed(partition)

    async def release(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Release these, or all that are owned. Call it only while nothing of them is being published.

        Of a batch that has failed the lease is kept: the next owner fences this process, and looks for it.
        """
        leases = []
        for partition in list(self.partitions.owned()) if partitions is None else partitions:
            self.partitions[partition].failures = 0
            ownership = self.partitions[partition].drop()
            if ownership and ownership.is_all_published:
                leases.append(ownership.lease)
        await self.leases.release(leases)
        self.drop_broken()

    def drop(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop owning these, without a release: the next take-over finds out what was published."""
        for partition in partitions:
            self.partitions[partition].drop()

    def drop_broken(self) -> None:
        """Stop owning the partitions whose lease belongs to a producer that has failed since."""
        self.drop(p for p, owned in self.partitions.owned().items() if owned.lease.producer.is_broken)
