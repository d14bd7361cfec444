"""What the worker knows of itself: ready or not and why, and when it last showed a sign of life.

Written by the consumer and the monitor, read by the HTTP endpoints and by the watchdog.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn

from worker.retry import describe

log = logging.getLogger(__name__)

EXIT_STALLED: Final = 3
CHECK_INTERVAL_SECONDS: Final = 2.0
CHECK_TIMEOUT_SECONDS: Final = 2.0
_ORDERS: Final = "orders"


class Health:
    """Thread-safe by being made of single assignments. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {"worker": "starting"}
        self._partitions: list[int] = []
        self._sign_of_life = time.monotonic()
        self._lag = 0

    def started(self) -> None:
        self._troubles.pop("worker", None)

    def stopping(self) -> None:
        self._troubles["worker"] = "stopping"

    def assigned(self, partitions: list[int]) -> None:
        self._partitions = partitions

    def answered(self, server: str) -> None:
        """`server` ("database", "kafka") answers."""
        self._troubles.pop(server, None)

    def failed(self, server: str, why: str) -> None:
        """`server` does not, and why; ready again once it answers. To notice that is a sign of life."""
        self._troubles[server] = why
        self._sign_of_life = time.monotonic()

    def set_back(self, why: str, alive: bool) -> None:
        """Orders wait to be tried again. `alive`: for a server that is away, which is no stall."""
        self._troubles[_ORDERS] = f"set back: {why}"
        if alive:
            self._sign_of_life = time.monotonic()

    def progressed(self) -> None:
        """The orders of a partition are decided and announced."""
        self._sign_of_life = time.monotonic()

    def relieved(self) -> None:
        """No orders wait here any more to be tried again."""
        self._troubles.pop(_ORDERS, None)

    def lags(self, records: int) -> None:
        """`records` wait to be decided. With none, there is no progress to expect."""
        if not records:
            self._sign_of_life = time.monotonic()
        self._lag = records

    def troubles(self) -> dict[str, str]:
        """Why the worker is not ready; empty: it is."""
        return dict(self._troubles)

    def partitions(self) -> list[int]:
        """Those that are assigned to this worker."""
        return self._partitions

    def describe(self) -> Mapping[str, object]:
        reasons = self.troubles()
        return {
            "ready": not reasons,
            "reasons": reasons,
            "partitions": self._partitions,
            "lag": self._lag,
        }

    def stalled_seconds(self) -> float:
        """Time since the last sign of life."""
        return time.monotonic() - self._sign_of_life


async def monitor(health: Health, checks: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
    """Ask each server every two seconds whether it is there, until cancelled. Silence is a no."""
    while True:
        await asyncio.gather(*(_check(health, server, check) for server, check in checks.items()))
        await asyncio.sleep(CHECK_INTERVAL_SECONDS)


async def _check(health: Health, server: str, check: Callable[[], Awaitable[object]]) -> None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check()
    except Exception as error:
        health.failed(server, describe(error))
    else:
        health.answered(server)


def start_watchdog(health: Health, limit_seconds: float, leave: Callable[[int], NoReturn] = os._exit) -> None:
    """End the process with exit code 3 once it shows no sign of life for `limit_seconds` with work to do.

    A thread of its own, because an event loop that hangs cannot notice that it hangs. Leaving at once is
    safe: what is not committed comes again. A server that is away is no stall: noticing it is a sign of life.
    """

    def watch() -> None:
        while (stalled := health.stalled_seconds()) < limit_seconds:
            time.sleep(min(1.0, max(0.05, limit_seconds - stalled)))
        log.critical("no progress for %.0f s with orders waiting: leaving, to be started again", stalled)
        logging.shutdown()
        leave(EXIT_STALLED)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
