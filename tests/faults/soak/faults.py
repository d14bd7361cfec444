"""The faults of a soak: each strikes once, ends by itself, and leaves servers that answer.

The spared worker is frozen with the others and cut off with them, but never killed, so that its memory over
time means something.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tests.faults.arena import Arena, wake
from tests.faults.strikes.database import WAITS_FOR_ROWS
from tests.support.deadline import eventually
from tests.support.worker_process import ROOT, WorkerProcess
from worker.sandbox.servers.services import Server

Fault = Callable[[Arena, WorkerProcess], None]

_PAST_THE_SESSION_SECONDS: Final = 4.0  # a session is 2 s in an arena
_FROZEN_SECONDS: Final = 6.0  # past every deadline of a request


def kill(arena: Arena, spared: WorkerProcess) -> None:
    """SIGKILL to a worker."""
    _another(arena, spared).kill()


def terminate(arena: Arena, spared: WorkerProcess) -> None:
    """SIGTERM to a worker."""
    _another(arena, spared).signal(signal.SIGTERM)


def stand_still(arena: Arena, _: WorkerProcess) -> None:
    """Any worker is frozen (SIGSTOP) past its session, and continues when others have its partitions."""
    worker = arena.any_worker()
    worker.signal(signal.SIGSTOP)
    try:
        time.sleep(_PAST_THE_SESSION_SECONDS)
    finally:
        wake(worker)


def backends(arena: Arena, _: WorkerProcess) -> None:
    """PostgreSQL ends the connections of all workers."""
    arena.shop.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'order-worker'"
    )


def locks(arena: Arena, spared: WorkerProcess) -> None:
    """Somebody else holds every product until the spared worker has run into its lock timeout."""
    holder = _holder(arena)
    try:
        before = spared.log.count(WAITS_FOR_ROWS)
        eventually(lambda: spared.log.count(WAITS_FOR_ROWS) > before, 30)
    finally:
        holder.kill()
        holder.communicate()


def crash(server_of: Callable[[Arena], Server]) -> Fault:
    def fault(arena: Arena, _: WorkerProcess) -> None:
        """`kill -9` of a server, which is started again."""
        server = server_of(arena)
        server.crash()
        server.start()

    return fault


def freeze(server_of: Callable[[Arena], Server]) -> Fault:
    def fault(arena: Arena, _: WorkerProcess) -> None:
        """A server is frozen for some seconds."""
        server = server_of(arena)
        server.freeze()
        try:
            time.sleep(_FROZEN_SECONDS)
        finally:
            server.thaw()

    return fault


def guest(arena: Arena, _: WorkerProcess) -> None:
    """One more worker comes, takes partitions over, and leaves."""
    worker = arena.workers.start(**arena.settings)
    arena.crew.append(worker)
    worker.wait_for_log("took over")
    with suppress(ProcessLookupError):
        worker.signal(signal.SIGTERM)


FAULTS: Final[dict[str, Fault]] = {
    "kill": kill,
    "terminate": terminate,
    "stand-still": stand_still,
    "backends": backends,
    "locks": locks,
    "database-crash": crash(lambda arena: arena.site.postgres),
    "database-freeze": freeze(lambda arena: arena.site.postgres),
    "broker-crash": crash(lambda arena: arena.site.kafka),
    "broker-freeze": freeze(lambda arena: arena.site.kafka),
    "guest": guest,
}


def _another(arena: Arena, spared: WorkerProcess) -> WorkerProcess:
    arena.keep()
    return arena.chance.choice([worker for worker in arena.crew if worker is not spared])


def _holder(arena: Arena) -> "subprocess.Popen[bytes]":
    while True:
        holder = subprocess.Popen(
            [sys.executable, "-m", "tests.support.lock_holder", arena.shop.database_url],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the soak alone
        )
        assert holder.stdout
        if holder.stdout.readline():
            return holder
        holder.communicate()  # PostgreSQL may end a session with so many locks in a deadlock
