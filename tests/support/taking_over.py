"""A partition taken over as a worker does it, by its publisher alone."""

from aiokafka import TopicPartition

from worker.kafka.offset_mark import is_workers_mark
from worker.pipeline.publisher import OwnedPartition, Publisher


async def take_over(publisher: Publisher, partition: TopicPartition) -> OwnedPartition:
    """The owner before is fenced, its transaction ended, its offset known. Raises as `fence` does."""
    owned = await publisher.fence(partition)
    try:
        # Only now: before, the old owner's pending transaction could still move the offset.
        committed = (await publisher.committed_offsets([partition]))[partition]
    except BaseException:
        publisher.put_away(owned.producer)
        raise
    if committed is not None:
        owned.next_offset = committed.offset
        owned.moved = not is_workers_mark(committed.metadata)
    return owned
