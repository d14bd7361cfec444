"""What a restoration finds, on real tables: first decisions, their sources, what stands against."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import stock
from db.decision import Confirmed
from db.reconciliation import restoration
from db.reconciliation.restoration import MissingOutcome, RestoredLetter, Shortage, SourceRow
from db.worker import skips
from tests.support.builders import line, order, order_value, record
from tests.support.little_shop import LAMP
from worker.core.decode import Decoded, decode
from worker.core.outcome import event_json
from worker.operations.restore.lost_outcomes import Behind
from worker.operations.restore.reading import Inputs

ADA = 1  # the user
NOW = datetime(2026, 11, 23, 10, 0, 1, tzinfo=UTC)
PLACED = TopicPartition("order-placed", 1)
TOPICS = {"order-confirmed": 4}


@pytest.fixture
async def found(engine: AsyncEngine, little_shop: None) -> AsyncIterator[AsyncSession]:
    """A session whose tables are prepared."""
    async with engine.connect() as connection, AsyncSession(connection) as session:
        await restoration.prepare(session)
        yield session


def missing(order_id: UUID, *, product_id: int = LAMP, quantity: int = 1, **changed: Any) -> MissingOutcome:
    placed = order(line(product_id, quantity), order_id=order_id, user_id=changed.pop("user_id", ADA))
    event = event_json(placed, Confirmed(250 * quantity, ["2.50"]), NOW)
    one = MissingOutcome(order_id, b"1", "confirmed", NOW, "order-confirmed", 1, 7, event)
    return one._replace(**changed)


def source(
    order_id: UUID, partition: int, *, offset: int = 5, ms: int = 0, is_home: bool = False
) -> SourceRow:
    return SourceRow(order_id, partition, offset, ms, b"f" * 16, is_home)


async def test_of_several_decisions_the_first_stays_and_the_others_are_listed(found: AsyncSession):
    order_id, later = uuid4(), NOW + timedelta(seconds=1)
    await restoration.add_missing(
        found,
        [
            missing(order_id, digest=b"2", decided_at=later, offset=1),
            missing(order_id, digest=b"3", decided_at=later, offset=2),
            missing(order_id, offset=3),
            missing(order_id, offset=4),
        ],
    )
    await restoration.keep_first_decisions(found)
    (kept,) = (await restoration.find_missing(found, [order_id, uuid4()])).values()
    assert (kept.digest, kept.offset) == (b"1", 3)
    assert [row.offset for row in await restoration.list_differing(found, 10)] == [1, 2]
    assert await restoration.count_differing(found) == 2


async def test_an_outcome_came_of_the_record_at_home_or_else_of_the_one_placed_first(found: AsyncSession):
    at_home, elsewhere, gone = sorted(uuid4() for _ in range(3))
    rows = [missing(i, passed_on=str(i)) for i in (at_home, elsewhere, gone)]
    await restoration.add_missing(found, rows)
    await restoration.add_sources(
        found,
        [
            source(at_home, 0, ms=1),
            source(at_home, 1, ms=9, offset=5, is_home=True),
            source(at_home, 1, ms=2, offset=6, is_home=True),
            source(elsewhere, 2, ms=3),
            source(elsewhere, 3, ms=2),
        ],
    )
    restorable = await restoration.list_restorable(found, None, 10)
    assert [(r.order_id, r.source_partition, r.source_offset) for r in restorable] == [
        (at_home, 1, 5),
        (elsewhere, 3, 5),
        (gone, None, None),
    ]
    assert [r.passed_on for r in restorable] == [str(r.order_id) for r in restorable]
    assert await restoration.list_restorable(found, gone, 10) == []
    (count,) = await restoration.count_missing(found)
    assert (count.orders, count.with_source, count.with_order) == (3, 2, 0)


async def test_products_that_lack_stock_or_are_gone_and_users_that_are_gone_are_found(found: AsyncSession):
    await found.execute(text("UPDATE products SET stock_quantity = 5 WHERE id = :id"), {"id": LAMP})
    rows = [missing(uuid4(), quantity=3), missing(uuid4(), quantity=3), missing(uuid4(), product_id=9_999)]
    await restoration.add_missing(found, [*rows, missing(uuid4(), user_id=777, quantity=1)])
    assert await restoration.list_shortages(found) == [Shortage(LAMP, 7, 5), Shortage(9_999, 1, None)]
    assert await restoration.list_users_gone(found) == [777]
    assert await restoration.count_sold(found) == (2, 8)


async def test_what_was_sold_is_taken_whatever_it_costs_and_only_where_all_of_it_is_there(
    found: AsyncSession,
):
    await found.execute(
        text("UPDATE products SET stock_quantity = 5, price = 99 WHERE id = :id"), {"id": LAMP}
    )
    assert await stock.take_sold(found, {})
    assert await stock.take_sold(found, {LAMP: 5})
    assert (await stock.list_stock(found, [LAMP]))[LAMP].quantity == 0
    assert not await stock.take_sold(found, {LAMP: 1})
    assert not await stock.take_sold(found, {9_999: 1})


def inputs(session: AsyncSession, *waiting: Behind, skipped: tuple[skips.SkippedSpan, ...] = ()) -> Inputs:
    return Inputs(session, 10_000, {b.partition: b for b in waiting}, TOPICS, skipped)


def placed(order_id: UUID, offset: int, *, quantity: int = 1) -> ConsumerRecord[Any, Any]:
    value = order_value(line(LAMP, quantity), order_id=order_id, user_id=ADA)
    return record(value, partition=1, offset=offset)


async def test_a_dead_letter_and_another_order_of_that_id_are_not_what_it_came_of(found: AsyncSession):
    order_id = uuid4()
    await restoration.add_missing(found, [missing(order_id)])
    letter, other, redriven, again = (
        placed(order_id, 10),
        placed(order_id, 11, quantity=2),
        placed(order_id, 12),
        placed(order_id, 13),
    )
    earlier_topic = RestoredLetter(1, 12, redriven.timestamp - 1)
    await restoration.add_letters(found, [RestoredLetter(1, 10, letter.timestamp), earlier_topic])
    await inputs(found).keep(PLACED, [letter, other, redriven, again])
    (row,) = await restoration.list_restorable(found, None, 10)
    read = decode(redriven.value, 10_000)
    assert isinstance(read, Decoded)
    assert (row.source_partition, row.source_offset, row.fingerprint) == (1, 12, read.fingerprint)


async def test_committed_records_of_which_nothing_is_known_are_counted(found: AsyncSession):
    known, skipped, dead, lost = (uuid4() for _ in range(4))
    await restoration.add_missing(found, [missing(known)])
    await restoration.add_letters(found, [RestoredLetter(1, 12, None)])
    span = skips.SkippedSpan(1, 11, 12, "me", "", NOW)
    reading = inputs(found, Behind(1, 5, 15), skipped=(span,))
    ids = {4: lost, 10: known, 11: skipped, 12: dead, 13: lost, 14: lost, 15: lost}
    await reading.keep(PLACED, [placed(order_id, offset) for offset, order_id in ids.items()])
    await reading.keep(PLACED._replace(partition=2), [placed(lost, 13)])
    assert await restoration.count_unaccounted(found) == {1: (2, 13)}
    assert reading.last_timestamps == {1: placed(lost, 14).timestamp}
