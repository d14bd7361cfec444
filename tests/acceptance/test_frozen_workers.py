"""A worker that is frozen in the middle of a statement delays no other for longer than a batch may take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.builders import line, order_value
from tests.support.promises import Scene
from tests.support.roles import as_role
from tests.support.worker_process import Workers

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_2, pytest.mark.guarantee_3]

COLUMNS = (
    "order_id",
    "outcome",
    "fingerprint",
    "source_topic",
    "source_partition",
    "source_offset",
    "event",
    "decided_at",
)
# PostgreSQL writes the rows of a binary COPY by the thousand, and asyncpg sends them by the half megabyte.
ROWS = 2_500
EVENT = '"' + "x" * 1_000 + '"'


async def test_a_worker_that_is_frozen_in_the_middle_of_a_copy_holds_nobody_up(
    scene: Scene, workers: Workers, worker_role: str
):
    scene.shop.stock_up({1: 10})
    order_id = uuid4()
    async with frozen_in_a_copy(as_role(scene.shop.database_url, worker_role), order_id):
        await asyncio.to_thread(scene.place, [order_value(line(1), order_id=order_id)], partition=0)
        worker = workers.start(batch_timeout_seconds="3", lock_timeout_ms="500", retry_max_seconds="0.5")
        await asyncio.to_thread(scene.wait_until_drained)
        assert "was frozen in a statement" in worker.log
        await asyncio.to_thread(scene.assert_promises, [order_id])


async def test_a_worker_that_is_frozen_before_it_runs_what_it_prepared_delays_no_other(
    scene: Scene, workers: Workers, worker_role: str
):
    scene.shop.stock_up({1: 10})
    order_id = uuid4()
    async with frozen_after_preparing(as_role(scene.shop.database_url, worker_role)):
        await asyncio.to_thread(scene.place, [order_value(line(1), order_id=order_id)], partition=0)
        worker = workers.start(
            batch_timeout_seconds="3",
            lock_timeout_ms="500",
            retry_max_seconds="0.5",
            session_timeout_ms="1000",  # which ends what is idle in its transaction
        )
        await asyncio.to_thread(scene.wait_until_drained)
        assert "was frozen in a statement" in worker.log
        await asyncio.to_thread(scene.assert_promises, [order_id])


@asynccontextmanager
async def frozen_after_preparing(database_url: str) -> AsyncIterator[None]:
    """A worker's session that holds a product, and has prepared its next statement."""
    session = await asyncpg.connect(
        database_url,
        server_settings={"application_name": "order-worker", "idle_in_transaction_session_timeout": "1000"},
    )
    await session.execute("BEGIN; SELECT FROM products FOR UPDATE")
    await session.prepare("UPDATE products SET stock_quantity = stock_quantity - $1")
    try:
        yield
    finally:
        session.terminate()


@asynccontextmanager
async def frozen_in_a_copy(database_url: str, order_id: UUID) -> AsyncIterator[None]:
    """A worker's session that has written a row of the order, and sends nothing more of its COPY."""
    sent, thawed = asyncio.Event(), asyncio.Event()

    async def rows() -> AsyncIterator[tuple[object, ...]]:
        for one in (order_id, *(uuid4() for _ in range(ROWS))):
            yield _row(one)
        sent.set()
        await thawed.wait()

    session = await asyncpg.connect(database_url, server_settings={"application_name": "order-worker"})
    await session.execute("BEGIN")
    copy = asyncio.create_task(
        session.copy_records_to_table("order_outcomes", columns=COLUMNS, records=rows())
    )
    await sent.wait()
    try:
        yield
    finally:
        thawed.set()
        await asyncio.gather(copy, return_exceptions=True)
        session.terminate()


def _row(order_id: UUID) -> tuple[object, ...]:
    return (order_id, "rejected", bytes(16), "another", 0, 0, EVENT, datetime.now(UTC))
