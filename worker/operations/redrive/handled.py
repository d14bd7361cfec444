"""Waits until the workers have handled records that a command has sent to the input topic."""

import asyncio
import time
from collections.abc import Collection
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from worker.core.triage import Source
from worker.errors import CommandError
from worker.kafka.group import committed, members
from worker.settings import Settings

POLL_SECONDS: Final = 0.1


class Patience:
    """Waits as long as there is progress, and so many seconds without."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._seen, self._since = seconds, -1, time.monotonic()

    def is_over(self, progress: int) -> bool:
        now = time.monotonic()
        if progress > self._seen:
            self._seen, self._since = progress, now
        return now - self._since > self._seconds


async def until_handled(
    settings: Settings, admin: AIOKafkaAdminClient, places: Collection[Source], patience_seconds: float
) -> None:
    """The group has committed past all of them. Raises CommandError when the workers make no progress."""
    ends: dict[TopicPartition, int] = {}
    for place in places:
        partition = TopicPartition(place.topic, place.partition)
        ends[partition] = max(ends.get(partition, 0), place.offset + 1)
    patience = Patience(patience_seconds)
    while True:
        offsets = await _committed(settings, admin, ends)
        if all(offsets.get(p, 0) >= end for p, end in ends.items()):
            return
        if patience.is_over(sum(offsets.values())):
            running = await members(admin, settings.group_id)
            what = "make no progress" if running else "have stopped: start them with `order-worker run`"
            raise CommandError(
                f"the workers of the group {settings.group_id} {what}; sent and not handled:"
                f" {len(places):,} ({patience_seconds:g} s without progress); run the same again to continue"
            )
        await asyncio.sleep(POLL_SECONDS)


async def _committed(
    settings: Settings, admin: AIOKafkaAdminClient, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    try:
        found = await committed(admin, settings.group_id, list(partitions))
    except GroupCoordinatorNotAvailableError:
        return {}
    return {p: offset or 0 for p, offset in found.items()}
