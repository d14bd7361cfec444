"""What maintenance costs where there is nothing to do."""

from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from worker.pipeline.maintenance import Maintenance
from worker.pipeline.partition import Partitions

ALL = {TopicPartition("placed", number) for number in range(5)}
END = 7


class CountedPartitions(Partitions):
    looks = 0

    def published_to(self) -> dict[TopicPartition, int]:
        self.looks += 1
        return dict.fromkeys(ALL, END)


async def test_all_partitions_are_looked_at_once_and_not_once_for_each():
    """With 1,000 partitions that took an eighth of a second each half second, and no order was decided."""
    nothing: Any = SimpleNamespace()
    idling: Any = SimpleNamespace(in_hand=set)
    commits = dict.fromkeys(ALL, OffsetAndMetadata(END, ""))
    watching: Any = SimpleNamespace(seen=SimpleNamespace(commits=commits))
    consumer: Any = SimpleNamespace(assignment=lambda: ALL, accepted_position=lambda _: END)
    partitions = CountedPartitions()
    maintenance = Maintenance(
        group=nothing,
        watch=watching,
        source=nothing,
        partitions=partitions,
        flow=idling,
        idle=nothing,
        health=nothing,
        metrics=nothing,
        batch_timeout_seconds=1.0,
    )
    await maintenance._commit_past_markers(consumer)
    assert partitions.looks == 1
