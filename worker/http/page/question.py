"""A question to a server that may be slow, asked for everybody who looks at the page."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from worker.failures import is_outage, reason_of
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


class Question(Generic[T]):
    """Asked at most once in `KEPT_SECONDS` and one at a time, however many want to know.

    An answer comes within the limit, or a trouble does. What takes longer is cancelled; as long as it has not
    ended, nothing new is asked.
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
        """Asked, and neither answered nor ended."""
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
        _give_up(asked)
        return Panel(None, f"{self._server}: no answer within {self._limit_seconds:.0f} s")

    async def _answered(self) -> Panel[T]:
        try:
            return Panel(await self._ask())
        except NoAnswerError as error:
            return Panel(None, str(error))
        except Exception as error:
            if is_outage(error):
                return Panel(None, f"{self._server}: {reason_of(error)}")
            said = about(Event.PAGE_FAILED, error=type(error).__name__)
            logger.exception("a part of the page failed", extra=said)
            return Panel(None, f"failed with {type(error).__name__}; the log of this worker says more")

    async def closed(self) -> None:
        """Nothing is being asked any more, or will not end."""
        if self._asked is not None and self.is_open:
            _give_up(self._asked)
            await asyncio.wait({self._asked}, timeout=_CLOSING_SECONDS)


def _give_up(asked: asyncio.Task[Panel[T]]) -> None:
    """Once: cancelled again, it would leave its connections before they are closed."""
    if not asked.cancelling():
        asked.cancel()
