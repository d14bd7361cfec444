"""A cached query to a server that may be slow, shared by everyone who opens the page."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from worker.error_texts import reason_of
from worker.failures import is_outage
from worker.http.queries import NoAnswerError
from worker.observability.events import Event, about

T = TypeVar("T")
logger = logging.getLogger(__name__)

KEPT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 2.0
_CLOSING_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Panel(Generic[T]):
    """One part of the page: what it shows, or in words why it cannot."""

    value: T | None
    trouble: str = ""


class CachedQuery(Generic[T]):
    """A query that runs at most once in `KEPT_SECONDS` and never twice at a time, for any number of requests.

    It returns an answer or a trouble within the limit. A slower query is cancelled; until it has ended, no
    new one is started.
    """

    def __init__(
        self, server: str, ask: Callable[[], Awaitable[T]], limit_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._server = server
        self._ask = ask
        self._limit_seconds = limit_seconds
        self._asked: asyncio.Task[Panel[T]] | None = None
        self._asked_at = 0.0

    @property
    def is_open(self) -> bool:
        """A query is running."""
        return self._asked is not None and not self._asked.done()

    async def answer(self) -> Panel[T]:
        """Never raises: one broken part must not hide the others."""
        if self._asked is None or (self._asked.done() and time.monotonic() - self._asked_at >= KEPT_SECONDS):
            self._asked, self._asked_at = asyncio.create_task(self._answered()), time.monotonic()
        asked = self._asked
        # Not `wait_for`: it would wait for whatever the cancelled one still has to close.
        await asyncio.wait({asked}, timeout=self._limit_seconds)
        if asked.done() and not asked.cancelled():
            return asked.result()
        _cancel_once(asked)
        return Panel(None, f"{self._server}: no answer within {self._limit_seconds:.0f} s")

    async def _answered(self) -> Panel[T]:
        try:
            return Panel(await self._ask())
        except NoAnswerError as error:
            return Panel(None, str(error))
        except Exception as error:
            if is_outage(error):
                return Panel(None, f"{self._server}: {reason_of(error)}")
            extra = about(Event.PAGE_FAILED, error=type(error).__name__)
            logger.exception("a part of the page failed", extra=extra)
            return Panel(None, f"failed with {type(error).__name__}; the log of this worker says more")

    async def close(self) -> None:
        """Cancel a running query, and wait for its end, within a limit."""
        if self._asked is not None and self.is_open:
            _cancel_once(self._asked)
            await asyncio.wait({self._asked}, timeout=_CLOSING_SECONDS)


def _cancel_once(asked: asyncio.Task[Panel[T]]) -> None:
    """Cancel once: cancelled twice, the query would leave its connections open."""
    if not asked.cancelling():
        asked.cancel()
