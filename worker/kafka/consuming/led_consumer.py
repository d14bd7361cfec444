"""A consumer that names the partitions without a leader; aiokafka's waits until its time limit."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from worker.kafka.leaders import has_leader, leaderless, require_leaders


class LedConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """An AIOKafkaConsumer that raises NoLeaderError when it is asked for offsets and no broker has them."""

    def without_leader(self, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        """The partitions without a leader, by the known metadata. Sends no request."""
        return {partition for partition in partitions if not has_leader(self._client, partition)}

    async def leaderless(self, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
        """The partitions without a leader now. Does not wait for an election."""
        return await leaderless(self._client, partitions, patience_seconds=0.0)

    async def require_leaders(self, partitions: Collection[TopicPartition]) -> None:
        """Raise NoLeaderError if some of them have no leader, even after the time that an election takes."""
        await require_leaders(self._client, partitions)

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """As aiokafka's."""
        await self.require_leaders(partitions)
        found: dict[TopicPartition, int] = await super().beginning_offsets(partitions)
        return found

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """As aiokafka's."""
        await self.require_leaders(partitions)
        found: dict[TopicPartition, int] = await super().end_offsets(partitions)
        return found

    async def offsets_for_times(self, timestamps: Mapping[TopicPartition, int]) -> dict[TopicPartition, Any]:
        """As aiokafka's."""
        await self.require_leaders(timestamps.keys())
        found: dict[TopicPartition, Any] = await super().offsets_for_times(timestamps)
        return found
