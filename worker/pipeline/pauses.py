"""Which partitions are not fetched, and until when: one time for each, and the later one counts."""

import asyncio
from collections.abc import Callable, Collection, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition


class Pauses:
    """Pauses partitions of the running consumer, and resumes each when its own time has come.

    One timer for all. A partition that is taken away and comes back is not paused any more.
    """

    def __init__(
        self, consumer: Callable[[], AIOKafkaConsumer | None], now: Callable[[], float] | None = None
    ) -> None:
        """`now`: seconds of the event loop's clock, which is asked by default."""
        self._consumer = consumer
        self._now = now
        self._until: dict[TopicPartition, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def pause(self, partitions: Collection[TopicPartition], seconds: float) -> None:
        """Fetch nothing of these for so long at least: a longer pause that runs already is not cut short."""
        until = self._clock() + seconds
        consumer = self._consumer()
        if consumer is None:
            return
        for partition in partitions:
            if partition in consumer.assignment():
                consumer.pause(partition)
                self._until[partition] = max(until, self._until.get(partition, until))
        self._set_timer()

    def is_paused(self, partition: TopicPartition) -> bool:
        return partition in self._until

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """They are not ours any more; should they come back, they begin without a pause."""
        for partition in partitions:
            self._until.pop(partition, None)

    def resume_due(self) -> None:
        """Fetch again what has waited long enough."""
        now, consumer = self._clock(), self._consumer()
        due = [p for p, until in self._until.items() if until <= now]
        self.forget(due)
        if consumer is not None:
            consumer.resume(*(p for p in due if p in consumer.assignment()))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        first = min(self._until.values(), default=None)
        # A timer of the loop may come a moment early by its own clock.
        self._timer = (
            None if first is None else loop.call_later(max(0.001, first - self._clock()), self.resume_due)
        )

    def _clock(self) -> float:
        return asyncio.get_running_loop().time() if self._now is None else self._now()
