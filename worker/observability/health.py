"""The worker's health: whether it is ready, why not, and when it last showed a sign of life.

Written by the consumer and the watch, read by the HTTP endpoints and the watchdog. Nothing here sends a
request, so `/readyz` answers at once, with any number of partitions.

Signs of life are progress and a server's refusal. A late answer is none, because this process may be the late
one; nor is an empty topic while a batch is in flight.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

import asyncpg
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError

from worker.error_texts import describe
from worker.errors import CommandError, LoginRefusedError, RefusedCredentialsError
from worker.observability.events import Event, about

log = logging.getLogger(__name__)

EXIT_STALLED: Final = 3
EXIT_REFUSED: Final = LoginRefusedError.exit_code
CHECK_INTERVAL_SECONDS: Final = 2.0
CHECK_TIMEOUT_SECONDS: Final = 2.0
# Longer than any driver waits for a server, so that it is the driver that says why.
CHECK_LIMIT_SECONDS: Final = 60.0
_ORDERS: Final = "orders"
_JOINING: Final = "joining its consumer group"
_TAKING_OVER: Final = "taking over"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a partition is not processed, and since when."""

    why: str
    since: datetime


class Health:
    """Thread-safe, because every update is a single assignment. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {"worker": "starting"}
        self.joined = asyncio.Event()
        # Apart, because a partition that publishes may still have records behind it that nobody can read.
        self._waiting: dict[str, Waiting] = {}
        self._unread: dict[str, Waiting] = {}
        self._partitions: list[int] = []
        self._sign_of_life = time.monotonic()
        self._lag: int | None = None
        self._refused: dict[str, tuple[str, float]] = {}

    def joining(self) -> None:
        """The worker's tasks run. It is ready once it has joined its group and taken over its partitions."""
        self._troubles["worker"] = _JOINING

    def started(self) -> None:
        """From here on a rebalance is no reason not to be ready."""
        self._troubles.pop("worker", None)

    def stopping(self) -> None:
        self._troubles["worker"] = "stopping"

    @property
    def is_stopping(self) -> bool:
        return self._troubles.get("worker") == "stopping"

    def assigned(self, partitions: list[int]) -> None:
        """The group is joined. A worker without partitions is on standby, and as ready as the others."""
        self._partitions = partitions
        self.joined.set()
        if self._troubles.get("worker") == _JOINING:
            self._troubles["worker"] = _TAKING_OVER
            if not partitions:
                self.started()

    def has_to_take_over(self, partitions: Sequence[TopicPartition]) -> None:
        """The assigned partitions that have orders and are not taken over yet; none: the start is over."""
        if not self._troubles.get("worker", "").startswith(_TAKING_OVER):
            return
        if partitions:
            self._troubles["worker"] = f"{_TAKING_OVER} {', '.join(map(_name, sorted(partitions)))}"
        else:
            self.started()

    def answered(self, server: str) -> None:
        """`server` ("database", "kafka") answers."""
        self._troubles.pop(server, None)
        self._refused.pop(server, None)

    def refused(self, server: str, why: str) -> None:
        """`server` refuses our credentials."""
        self.failed(server, why)
        if server not in self._refused:
            log.error("%s; trying again", why, extra=about(Event.SERVER_REFUSES, server=server))
        self._refused[server] = why, self._refused.get(server, ("", time.monotonic()))[1]

    def no_refusal(self, server: str) -> None:
        """If anything is wrong with `server`, it is not that it refuses our credentials."""
        self._refused.pop(server, None)

    def failed(self, server: str, why: str, alive: bool = True) -> bool:
        """`server` fails; the worker is ready again when it answers. Returns True if the failure is new.

        `alive`: the server refused, so this process works. A late answer may be the fault of this process.
        """
        before, self._troubles[server] = self._troubles.get(server), why
        if alive:
            self._sign_of_life = time.monotonic()
        return before is None

    def all_wait(self, why: str, alive: bool) -> None:
        """All orders wait for a retry. `alive`: because a server is away, which is not a stall."""
        self._troubles[_ORDERS] = f"rewound: {why}"
        self.tried(alive)

    def tried(self, alive: bool) -> None:
        """A batch failed. `alive`: because of a server."""
        if alive:
            self._sign_of_life = time.monotonic()

    def waits(self, partition: TopicPartition, why: str) -> bool:
        """This partition is not processed. Returns True if that is new, or has another reason."""
        return _note(self._waiting, partition, why)

    def resumed(self, partition: TopicPartition) -> None:
        """The partition is processed again. Records of it that cannot be read stay a reason."""
        self._waiting.pop(_name(partition), None)

    def unread(self, partition: TopicPartition, why: str) -> bool:
        """Records of the partition cannot be read. Returns True as `waits` does."""
        return _note(self._unread, partition, why)

    def is_read(self, partition: TopicPartition) -> None:
        """The partition's records can be read again. Another reason to wait stays."""
        self._unread.pop(_name(partition), None)

    def forget(self, partition: TopicPartition) -> None:
        """The partition is not assigned any more."""
        self.resumed(partition)
        self.is_read(partition)

    def has_reason(self, partition: TopicPartition) -> bool:
        """Whether it is known why this partition is not processed."""
        return _name(partition) in self.waiting()

    def waiting(self) -> Mapping[str, Waiting]:
        """By `TOPIC-PARTITION`."""
        return {**self._waiting, **self._unread}

    def progressed(self) -> None:
        """Orders of a partition were decided and published, even if new connections are refused."""
        self._refused.clear()
        self._sign_of_life = time.monotonic()

    def all_resumed(self) -> None:
        """Orders no longer wait for a reason that concerns all of them."""
        self._troubles.pop(_ORDERS, None)

    def lags(self, records: int | None, busy: bool = False) -> None:
        """`records` wait to be decided (None: unknown). With none, and no batch, no progress is expected."""
        if records == 0 and not busy:
            self._sign_of_life = time.monotonic()
        self._lag = records

    def troubles(self) -> dict[str, str]:
        """Why the worker is not ready; empty: it is."""
        waiting = {
            name: f"{one.why} (since {one.since:%Y-%m-%d %H:%M:%S}Z)"
            for name, one in sorted(self.waiting().items())
        }
        return {**self._troubles, **waiting}

    def partitions(self) -> list[int]:
        """The number of partitions that are assigned to this worker."""
        return self._partitions

    def describe(self) -> Mapping[str, object]:
        reasons = self.troubles()
        return {
            "ready": not reasons,
            "reasons": reasons,
            "partitions": self._partitions,
            "lag": self._lag,
        }

    def refusals(self) -> Mapping[str, tuple[str, float]]:
        """The servers that only refuse our credentials: the reason, and for how many seconds."""
        refused = dict(self._refused)  # in one step: the watchdog is another thread
        return {server: (why, time.monotonic() - since) for server, (why, since) in refused.items()}

    def stalled_seconds(self) -> float:
        """Time since the last sign of life."""
        return time.monotonic() - self._sign_of_life


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}-{partition.partition}"


def _note(reasons: dict[str, Waiting], partition: TopicPartition, why: str) -> bool:
    before = reasons.get(_name(partition))
    since = before.since if before else datetime.now(UTC)
    reasons[_name(partition)] = Waiting(why, since)
    return before is None or before.why != why


async def monitor(health: Health, checks: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
    """Check each server every two seconds, until cancelled. No answer counts as a failure."""
    async with asyncio.TaskGroup() as checking:
        for server, check in checks.items():
            checking.create_task(_monitor_one(health, server, check))


async def _monitor_one(health: Health, server: str, check: Callable[[], Awaitable[object]]) -> None:
    while True:
        had_joined = health.joined.is_set()
        await _check(health, server, check)
        # Once more as soon as the group is joined: there may be nothing to take over.
        until = asyncio.sleep(CHECK_INTERVAL_SECONDS) if had_joined else health.joined.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(until, CHECK_INTERVAL_SECONDS)


async def _check(health: Health, server: str, check: Callable[[], Awaitable[object]]) -> None:
    asked = asyncio.ensure_future(check())
    try:
        await asyncio.wait([asked], timeout=CHECK_TIMEOUT_SECONDS)
        if not asked.done():
            # Unready, and no sign of life: what is late may be this process. The driver will say.
            health.failed(server, f"no answer within {CHECK_TIMEOUT_SECONDS:g} s", alive=False)
            await asyncio.wait([asked], timeout=CHECK_LIMIT_SECONDS)
        if not asked.done():
            return
        if (error := asked.exception()) is None:
            health.answered(server)
        elif isinstance(error, RefusedCredentialsError):
            health.refused(server, str(error))
        else:
            health.failed(server, describe(error), alive=is_refusal(error))
            health.no_refusal(server)
    finally:
        asked.cancel()


def refused_too_long(why: str, seconds: float) -> str:
    return f"{why}; so for {seconds:.0f} s, longer than a rotation takes (ORDER_WORKER_REFUSED_LIMIT_SECONDS)"


def is_refusal(error: BaseException) -> bool:
    """Whether a server or the connection to it refused; an exhausted connection pool is not a refusal."""
    return isinstance(
        error,
        KafkaError | OSError | DBAPIError | asyncpg.PostgresError | asyncpg.InterfaceError | CommandError,
    )


def start_watchdog(
    health: Health,
    limit_seconds: float,
    refused_limit_seconds: float,
    leave: Callable[[int], NoReturn] = os._exit,
) -> None:
    """End the process with exit code 3 once it shows no sign of life for `limit_seconds` with work to do.

    With exit code 4 once a server only refused our credentials for `refused_limit_seconds`, unless another
    attempt got an answer or no connection, or orders were decided through existing connections.

    It is a thread of its own, because an event loop that hangs cannot notice it. Leaving at once is safe:
    what is not committed is read again. A server that is away is not a stall: its refusal is a sign of life.
    """

    def watch() -> None:
        while (stalled := health.stalled_seconds()) < limit_seconds:
            for why, seconds in health.refusals().values():
                if seconds >= refused_limit_seconds:
                    end(EXIT_REFUSED, f"{refused_too_long(why, seconds)}: leaving")
            time.sleep(min(1.0, max(0.05, limit_seconds - stalled)))
        end(
            EXIT_STALLED, f"no progress for {stalled:.0f} s with orders waiting: leaving, to be started again"
        )

    def end(code: int, why: str) -> None:
        log.critical("%s", why, extra=about(Event.WORKER_FAILS, exit_code=code))
        logging.shutdown()
        leave(code)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
