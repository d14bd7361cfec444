"""The faults a run may meet, by name. Each acts on an arena and leaves servers that answer.

A fault waits for progress between its blows, so that each hits a worker at work, and never for a time.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import asyncpg

from tests.deadline import eventually
from tests.faults.arena import LARGEST_BYTES, Arena, wake
from tests.subscriber import set_largest_record
from tests.worker_process import WorkerProcess
from worker.steps import Step

Fault = Callable[[Arena], None]
BLOWS: Final = 4


def nothing(arena: Arena) -> None:
    """The run without a fault, for comparison."""
    arena.some_progress()


def crash_at(step: Step) -> Fault:
    def crash(arena: Arena) -> None:
        """A worker kills itself at the step, again and again."""
        for _ in range(BLOWS):
            victim = _struck(arena, step, "SIGKILL")
            arena.injected += victim.process.poll() == -signal.SIGKILL

    return crash


def zombie_at(step: Step) -> Fault:
    def zombie(arena: Arena) -> None:
        """A worker stands still at the step past its session, and wakes up when others have its work."""
        for _ in range(2):
            victim = _struck(arena, step, "SIGSTOP")
            arena.injected += f"SIGSTOP at {step}" in victim.log
            arena.until(lambda: arena.scene.lag() == 0)
            wake(victim)
            arena.feed(1 / 8)

    return zombie


def _struck(arena: Arena, step: Step, action: str) -> WorkerProcess:
    """A worker that has done this to itself at the step, while only one other shared the work with it."""
    size, arena.size = arena.size, 1
    while len(arena.crew) > 1:
        arena.crew.pop().stop()
    passed = arena.chance.randrange(3)
    victim = arena.add_at_step(step, action, passed)
    arena.until(lambda: "health, metrics and docs on" in victim.log)
    for _ in range(passed + 2):
        arena.feed(1 / 24)
        with suppress(AssertionError):
            arena.until(lambda: f"{action} at {step}" in victim.log, 5)
            break
    arena.size = size
    return victim


def kill_at_random(arena: Arena) -> None:
    """SIGKILL to any worker, at any moment."""
    for _ in range(2 * BLOWS):
        arena.some_progress()
        arena.any_worker().kill()
        arena.injected += 1


def stop_at_random(arena: Arena) -> None:
    """SIGTERM to any worker, and again before it can have ended."""
    for blow in range(2 * BLOWS):
        arena.some_progress()
        worker = arena.any_worker()
        worker.signal(signal.SIGTERM)
        if blow % 2:
            with suppress(ProcessLookupError):
                worker.signal(signal.SIGTERM)
        arena.injected += 1


def rebalance_storm(arena: Arena) -> None:
    """Workers come and go, so that partitions change hands again and again."""
    for _ in range(2 * BLOWS):
        arena.some_progress()
        guest = arena.workers.start(**arena.settings)
        arena.crew.append(guest)
        arena.some_progress()
        guest.signal(signal.SIGTERM)
        arena.injected += 1


def terminate_backends(arena: Arena) -> None:
    """The database ends the workers' connections."""
    for _ in range(2 * BLOWS):
        arena.some_progress()
        arena.injected += len(
            arena.shop.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'order-worker'"
            )
        )


def crash_server(name: str) -> Fault:
    def crash(arena: Arena) -> None:
        """`kill -9` of the server, which is started again."""
        for _ in range(2):
            arena.some_progress()
            server = getattr(arena.services, name)
            server.crash()
            server.restart()
            arena.injected += 1

    return crash


def restart_server(name: str) -> Fault:
    def restart(arena: Arena) -> None:
        """An orderly stop of the server under load, and a start."""
        for _ in range(2):
            arena.some_progress()
            getattr(arena.services, name).restart()
            arena.injected += 1

    return restart


def freeze_server(name: str) -> Fault:
    def freeze(arena: Arena) -> None:
        """The server stands still until a worker has given up on it."""
        arena.some_progress()
        worker = arena.any_worker().wait_until_ready()
        arena.feed(1 / 4)
        server = getattr(arena.services, name)
        server.freeze()
        try:
            # It says so once every deadline of its own has passed.
            eventually(lambda: worker.get("/readyz")[0] == 503, 40)
        finally:
            server.thaw()
        arena.injected += 1

    return freeze


def locked_products(arena: Arena) -> None:
    """Somebody else holds every product until the workers have run into their lock timeout."""
    for _ in range(2):
        arena.some_progress()
        before = arena.retries()
        with _session(arena, "SELECT 1 FROM products FOR UPDATE"):
            arena.feed(1 / 8)
            arena.until(lambda: arena.retries() > before)  # noqa: B023
        arena.injected += 1


def reverse_lockers(arena: Arena) -> None:
    """Somebody else changes products one after the other, in the order opposite to the workers'."""
    ended = threading.Event()

    async def write() -> None:
        connection = await asyncpg.connect(arena.shop.database_url)
        ids = sorted(arena.workload.products, reverse=True)
        while not ended.is_set():
            with suppress(asyncpg.DeadlockDetectedError):
                async with connection.transaction():
                    for product_id in ids:
                        await connection.execute(
                            "UPDATE products SET description = description || '' WHERE id = $1", product_id
                        )
                arena.injected += 1
        await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(write()), daemon=True)
    thread.start()
    try:
        for _ in range(BLOWS):
            arena.some_progress()
    finally:
        ended.set()
        thread.join(30)


def alter_table(arena: Arena) -> None:
    """The tables change under the workers: a migration by somebody who did not stop them."""
    for number in range(BLOWS):
        arena.some_progress()
        for table in ("products", "orders", "order_outcomes"):
            arena.shop.sql(f"ALTER TABLE {table} ADD COLUMN note_{number} text")
        arena.injected += 1


def refused_sends(arena: Arena) -> None:
    """The topic of the dead letters takes nothing for a while."""
    for _ in range(2):
        arena.some_progress()
        before = arena.retries()
        set_largest_record(arena.scene.kafka, arena.scene.topics.dead_letter, 100)
        try:
            arena.feed(1 / 4)
            arena.until(lambda: arena.retries() > before)  # noqa: B023
        finally:
            largest = LARGEST_BYTES["dead_letter"]
            set_largest_record(arena.scene.kafka, arena.scene.topics.dead_letter, largest)
        arena.injected += 1


def mixed(arena: Arena) -> None:
    """One fault after the other, in an order of the seed's."""
    chosen = [kill_at_random, terminate_backends, rebalance_storm, freeze_server("postgres"), locked_products]
    arena.chance.shuffle(chosen)
    for fault in chosen[:3]:
        fault(arena)


@contextmanager
def _session(arena: Arena, statement: str) -> Iterator[None]:
    """A transaction of somebody else's that has run the statement and stays open."""
    held, done = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(arena.shop.database_url)
        while not held.is_set():
            # Who locks this much may be the one that PostgreSQL ends when a worker comes the other way.
            with suppress(asyncpg.DeadlockDetectedError):
                async with connection.transaction():
                    await connection.execute(statement)
                    held.set()
                    await asyncio.to_thread(done.wait)
        await connection.close()

    def run() -> Any:
        return asyncio.run(hold())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert held.wait(30)
        yield
    finally:
        done.set()
        thread.join(30)


FAULTS: Final[dict[str, Fault]] = {
    "none": nothing,
    **{f"crash-{step.value.replace('_', '-')}": crash_at(step) for step in Step},
    **{
        f"zombie-{step.value.replace('_', '-')}": zombie_at(step)
        for step in (
            Step.TAKEOVER_FENCED,
            Step.BEFORE_DATABASE_COMMIT,
            Step.AFTER_DATABASE_COMMIT,
            Step.AFTER_SENDS,
            Step.BEFORE_KAFKA_COMMIT,
        )
    },
    "kill": kill_at_random,
    "terminate": stop_at_random,
    "rebalance": rebalance_storm,
    "backends": terminate_backends,
    "database-crash": crash_server("postgres"),
    "database-restart": restart_server("postgres"),
    "database-freeze": freeze_server("postgres"),
    "broker-crash": crash_server("kafka"),
    "broker-restart": restart_server("kafka"),
    "broker-freeze": freeze_server("kafka"),
    "locks": locked_products,
    "reverse-locks": reverse_lockers,
    "alter-table": alter_table,
    "refused-sends": refused_sends,
    "mixed": mixed,
}
