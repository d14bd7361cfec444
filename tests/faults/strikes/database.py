"""PostgreSQL: its connections, its processes, its locks, its tables, its disk."""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import asyncpg

from tests.faults.arena import Arena
from tests.faults.standby import PostgresPair
from tests.faults.strikes import INJECTIONS

_TABLES: Final = ("products", "orders", "order_outcomes")
WAITS_FOR_ROWS: Final = "locked, which orders need"
"""in the log of a worker whose partitions wait for a row"""
_SMALL_DISK_BYTES: Final = 64 * 1024 * 1024


def terminate_backends(arena: Arena) -> None:
    """The database ends the workers' connections."""
    for _ in range(2 * INJECTIONS):
        arena.some_progress()
        arena.injected += len(
            arena.shop.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'order-worker'"
            )
        )


def crash(arena: Arena) -> None:
    """`kill -9` of PostgreSQL, which is started again."""
    for _ in range(2):
        arena.some_progress()
        arena.site.postgres.crash()
        arena.site.postgres.start()
        arena.injected += 1


def immediate_stop(arena: Arena) -> None:
    """What `pg_ctl stop -m immediate` does to PostgreSQL, and a start with recovery."""
    for _ in range(2):
        arena.some_progress()
        server = arena.site.postgres
        assert server.pid
        os.kill(server.pid, signal.SIGQUIT)
        server.restart()
        arena.injected += 1


def restart(arena: Arena) -> None:
    """An orderly stop of PostgreSQL under load, and a start."""
    for _ in range(2):
        arena.some_progress()
        arena.site.postgres.restart()
        arena.injected += 1


def fail_over(arena: Arena) -> None:
    """PostgreSQL is killed, then stopped in order; its synchronous standby takes its place each time."""
    pair = arena.site.databases
    assert isinstance(pair, PostgresPair)
    for in_order in (False, True):
        arena.some_progress()
        arena.feed(1 / 16)
        pair.fail_over(in_order=in_order)
        arena.injected += 1


def freeze(arena: Arena) -> None:
    """PostgreSQL stands still until a worker has given up on it."""
    try:
        with arena.given_up():
            arena.site.postgres.freeze()
    finally:
        arena.site.postgres.thaw()
    arena.injected += 1


def kill_while_frozen(arena: Arena) -> None:
    """PostgreSQL stands still, and then every worker is killed in the midst of its orders."""
    try:
        with arena.given_up():
            arena.site.postgres.freeze()
        with arena.retrying():
            pass  # longer than any periodic action of a client
        for worker in arena.crew:
            worker.kill()
    finally:
        arena.site.postgres.thaw()
    arena.injected += 1


def locked_products(arena: Arena) -> None:
    """Somebody else holds every product until the workers have run into their lock timeout, and say so."""
    for _ in range(2):
        arena.some_progress()
        before = _waits_for_rows(arena)
        with _held(arena, "SELECT 1 FROM products FOR UPDATE"):
            arena.feed(1 / 8)
            arena.until(lambda: _waits_for_rows(arena) > before)  # noqa: B023
        arena.injected += 1


def _waits_for_rows(arena: Arena) -> int:
    return arena.workers.logs.count(WAITS_FOR_ROWS)


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
        for _ in range(INJECTIONS):
            arena.some_progress()
    finally:
        ended.set()
        thread.join(30)


def alter_table(arena: Arena) -> None:
    """The tables change under the workers: a migration by somebody who did not stop them."""
    for number in range(INJECTIONS):
        arena.some_progress()
        for table in _TABLES:
            arena.shop.sql(f"ALTER TABLE {table} ADD COLUMN note_{number} text")
        arena.injected += 1


def impossible_constraint(arena: Arena) -> None:
    """A mistaken constraint refuses every new outcome, until somebody takes it back."""
    for _ in range(2):
        arena.some_progress()
        with arena.retrying():
            arena.shop.sql("ALTER TABLE order_outcomes ADD CONSTRAINT mistake CHECK (false) NOT VALID")
            arena.feed(1 / 8)
        arena.shop.sql("ALTER TABLE order_outcomes DROP CONSTRAINT mistake")
        arena.injected += 1


def trigger_that_leaves_out(arena: Arena) -> None:
    """A shop's trigger leaves out every item, and then every row of the ledger, until it is taken back."""
    for table in ("order_items", "order_outcomes"):
        _with_trigger(arena, table, "RETURN NULL")


def trigger_that_raises(arena: Arena) -> None:
    """A shop's trigger raises its own error for every order, until it is taken back."""
    _with_trigger(arena, "orders", "RAISE 'closed for today'")


def _with_trigger(arena: Arena, table: str, body: str) -> None:
    arena.some_progress()
    arena.shop.sql(f"CREATE FUNCTION shops_own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$")
    with arena.retrying():
        arena.shop.sql(
            f"CREATE TRIGGER shops_own BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION shops_own()"
        )
        arena.feed(1 / 8)
    arena.shop.sql("DROP FUNCTION shops_own CASCADE")
    arena.injected += 1


def asynchronous_commits(arena: Arena) -> None:
    """Somebody lets the database commit asynchronously, and PostgreSQL crashes under load."""
    name = arena.shop.value("SELECT quote_ident(current_database())")
    arena.shop.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    terminate_backends(arena)
    crash(arena)


def full_disk(arena: Arena) -> None:
    """The disk that the ledger is on is full, until somebody makes room (needs root)."""
    arena.some_progress()
    with _small_disk() as disk:
        arena.shop.sql(f"CREATE TABLESPACE small LOCATION '{disk / 'tables'}'")
        arena.shop.sql("ALTER TABLE order_outcomes SET TABLESPACE small")
        for _ in range(2):
            ballast, before = disk / "ballast", _refusals(arena)
            _fill(ballast)
            arena.feed(1 / 4)
            # Not any retry: right after the move PostgreSQL may say once that there is no such file.
            arena.until(lambda: _refusals(arena) > before)  # noqa: B023
            ballast.unlink()
            arena.some_progress()
            arena.injected += 1
        arena.shop.sql("ALTER TABLE order_outcomes SET TABLESPACE pg_default")
        arena.shop.sql("DROP TABLESPACE small")


def _refusals(arena: Arena) -> int:
    return arena.workers.logs.count("No space left on device")


def _fill(path: Path) -> None:
    """To the last byte, whatever others take meanwhile."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@contextmanager
def _small_disk() -> Iterator[Path]:
    """A file system of its own that PostgreSQL may write to."""
    with TemporaryDirectory(prefix="small-disk-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK_BYTES}", "tmpfs", name], check=True)
        try:
            (Path(name) / "tables").mkdir(mode=0o700)
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@contextmanager
def _held(arena: Arena, statement: str) -> Iterator[None]:
    """Another client's transaction, which has run the statement and stays open."""
    held, done = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(arena.shop.database_url)
        while not held.is_set():
            # In a deadlock with a worker PostgreSQL may end this transaction, because it holds many locks.
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
