"""The limits of the output topics: read from their settings now and then, and learned from refusals."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import reduce
from typing import Final

from worker.kafka.limits.refusals import RefusalRemedy
from worker.kafka.limits.topic_limits import TopicLimits, explains, learned
from worker.observability.events import Event, about

log = logging.getLogger(__name__)

ReadLimits = Callable[[Iterable[str]], Awaitable[Mapping[str, TopicLimits]]]

# A limit that was raised is used after this, and one that was lowered costs one refusal at most.
READ_AGAIN_SECONDS: Final = 180.0


async def nothing_to_read(_topics: Iterable[str]) -> dict[str, TopicLimits]:
    """Reads no settings: the limits are Kafka's defaults, and what refusals show."""
    return {}


class OutputLimits:
    """The limits of each output topic. Reading never raises: a limit that cannot be read stays as it was."""

    def __init__(self, topics: Iterable[str], read: ReadLimits = nothing_to_read) -> None:
        self._configured = dict.fromkeys(topics, TopicLimits())  # by the topics' settings
        self._lessons: dict[
            str, list[tuple[RefusalRemedy, int]]
        ] = {}  # by refusals that the settings do not explain
        self._known = dict(self._configured)
        self._read = read
        self._read_at = time.monotonic()
        self._reading: asyncio.Task[None] | None = None

    def of(self, topic: str) -> TopicLimits:
        return self._known.get(topic) or TopicLimits()

    def least_in_sync(self, topic: str) -> int:
        """How many copies of a partition have to be in sync before it takes anything."""
        return self.of(topic).min_in_sync

    async def read(self) -> None:
        """Read the topics' settings; limits that refusals have shown are kept only if that fails."""
        for topic in await self._ask():
            self._lessons.pop(topic, None)
            self._known[topic] = self._configured[topic]

    def read_now_and_then(self) -> None:
        """Read the settings again, in the background, if that was not done for a few minutes."""
        if time.monotonic() - self._read_at < READ_AGAIN_SECONDS:
            return
        self._read_at = time.monotonic()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self.read())

    async def learn(self, topic: str, remedy: RefusalRemedy, refused_bytes: int) -> None:
        """After a refusal: read the topic's settings, and lower the limit if they do not explain it."""
        await self._ask()
        configured = self._configured.get(topic) or TopicLimits()
        lessons = self._lessons.setdefault(topic, [])
        if not explains(configured, remedy, refused_bytes):
            lessons.append((remedy, refused_bytes))
        self._known[topic] = reduce(lambda known, lesson: learned(known, *lesson), lessons, configured)

    async def _ask(self) -> list[str]:
        """Read the settings; returns the topics for which that succeeded."""
        self._read_at = time.monotonic()
        try:
            found = await self._read(list(self._configured))
        except Exception as error:  # if Kafka is away, publishing fails and reports it
            extra = about(Event.LOOK_FAILED, server="kafka", error=type(error).__name__)
            log.debug("the settings of the output topics could not be read: %r", error, extra=extra)
            return []
        self._configured |= found
        return list(found)

    async def close(self) -> None:
        """Cancel a running read."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
