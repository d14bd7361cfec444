"""Counts open dead letters for the metrics, now and then, in one worker of the group."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from aiokafka import TopicPartition

from contracts.events import DeadLetterCode
from worker.error_texts import describe
from worker.failures import is_outage
from worker.http.page.parameters import LETTER_CODES
from worker.http.page.sources import Sources
from worker.http.queries import NoAnswerError
from worker.observability.events import Event, about
from worker.observability.metrics import Metrics
from worker.operations.dead_letters.letter import OTHER

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 10.0


class OpenLetters:
    """Counts while this worker owns partition 0 of the input, so that only one worker of the group does."""

    def __init__(
        self, sources: Sources, assigned: Callable[[], Collection[TopicPartition]], metrics: Metrics
    ) -> None:
        self._sources = sources
        self._assigned = assigned
        self._metrics = metrics

    async def run(self) -> None:
        """Until cancelled."""
        looked_at = float("-inf")
        while True:
            if not any(p.partition == 0 for p in self._assigned()):
                self._metrics.open_dead_letters.clear()
                looked_at = float("-inf")
            elif time.monotonic() - looked_at >= LOOK_SECONDS:
                looked_at = time.monotonic()
                await self.look()
            await asyncio.sleep(_POLL_SECONDS)

    async def counted(self) -> Counter[str]:
        """The number of open dead letters, by code: one of ours, `(none)`, or `(other)` for all others.

        Anybody may write any code into the topic, and each would be a time series.
        """
        counted = Counter[str]()
        for code, number in (await self._sources.open_letters()).items():
            counted[code if code in LETTER_CODES else OTHER] += number
        return counted

    async def look(self) -> None:
        """Count them for the metrics; a failure is only logged."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                counted = await self.counted()
        except Exception as error:
            extra = about(Event.LOOK_FAILED, error=type(error).__name__)
            if is_outage(error) or isinstance(error, NoAnswerError):
                log.info("open dead letters were not counted: %s", describe(error), extra=extra)
            else:
                log.exception("open dead letters were not counted", extra=extra)
            return
        self._metrics.open_dead_letters.clear()
        for code in {*counted, *(one.value for one in DeadLetterCode)}:
            self._metrics.open_dead_letters.labels(code).set(counted[code])
