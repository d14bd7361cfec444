"""Which events a pruning drops, and what it leaves of a row."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from asyncpg import UniqueViolationError
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.rows import LedgerRow
from db.worker import ledger, pruning
from db.worker.pruning import PruneBound, PruneRule, PruneState, StateCount
from db.worker.skips import add_skip
from tests.support.shop import Shop

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=30)
RULE = PruneRule("placed", NOW - timedelta(days=7), [PruneBound(0, 100, 90), PruneBound(3, 50, 60)])
EVENT = '{ "items": [{"product_id": 1}, {"product_id": 2}] }'


def a_row(shop: Shop, offset: int, partition: int = 0, **changes: object) -> UUID:
    values = {
        "order_id": uuid4(),
        "outcome": "confirmed",
        "fingerprint": b"\x01" * 16,
        "source_topic": "placed",
        "source_partition": partition,
        "source_offset": offset,
        "event": EVENT,
        "decided_at": OLD,
        **changes,
    }
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    shop.sql(f"INSERT INTO order_outcomes ({', '.join(values)}) VALUES ({places})", *values.values())
    order_id = values["order_id"]
    assert isinstance(order_id, UUID)
    return order_id


async def states(session: AsyncSession) -> dict[PruneState, int]:
    found = await pruning.count_states(session, RULE, 0, await pruning.count_blocks(session))
    return {state: count.rows for state, count in found.items()}


async def test_a_row_keeps_its_event_as_long_as_anybody_may_need_it(session: AsyncSession, shop: Shop):
    prunable = {a_row(shop, 0), a_row(shop, 89), a_row(shop, -1), a_row(shop, 49, partition=3)}
    a_row(shop, 1, decided_at=RULE.before)
    a_row(shop, 1, event=None)
    a_row(shop, 1, source_topic="another")
    a_row(shop, 1, partition=7)
    a_row(shop, 100)
    a_row(shop, 50, partition=3)
    a_row(shop, 90)
    a_row(shop, 20)
    await add_skip(session, "placed", 0, 20, 21, requested_by="group", note="", kind="deleted")
    prunable.add(a_row(shop, 30))  # skipped, not deleted
    await add_skip(session, "placed", 0, 30, 31, requested_by="ada", note="", kind="skipped")
    withheld = a_row(shop, 2)
    shop.sql(
        "INSERT INTO withheld_outcomes (order_id, topic, source_topic, source_partition, source_offset,"
        " headers, size_bytes, reason, what_to_do, published_at)"
        " VALUES ($1, 'confirmed', 'placed', 0, 2, '[]', 1, 'too large', 'wait', now())",
        withheld,
    )
    assert await states(session) == {
        PruneState.PRUNABLE: 5,
        PruneState.YOUNGER: 1,
        PruneState.PRUNED: 1,
        PruneState.OTHER_TOPIC: 2,
        PruneState.IN_TOPIC: 2,
        PruneState.NOT_COMMITTED: 1,
        PruneState.DELETED_EARLY: 1,
        PruneState.WITHHELD: 1,
    }
    rows = await pruning.list_prunable(session, RULE, 0, 1)
    assert {row.order_id for row in rows} == prunable


async def test_a_pruned_row_keeps_all_but_its_event_and_is_pruned_once(session: AsyncSession, shop: Shop):
    order_id, rejected = a_row(shop, 1), a_row(shop, 2, outcome="rejected", sorted_fingerprint=b"\x02")
    before = (await ledger.find_outcomes(session, [order_id]))[order_id]
    listed = {row.order_id: row.event for row in await pruning.list_prunable(session, RULE, 0, 1)}
    assert listed == {order_id: EVENT, rejected: None}, "of a rejected order there is nothing to find out"
    kept = {order_id: b"\x03", rejected: None}
    assert await pruning.prune(session, kept) == 2
    rows = await ledger.find_outcomes(session, list(kept))
    assert rows[order_id] == before._replace(event=None, sorted_fingerprint=b"\x03")
    assert rows[rejected].sorted_fingerprint == b"\x02"
    assert await pruning.prune(session, kept) == 0
    assert await states(session) == {PruneState.PRUNED: 2}


async def test_spans_of_blocks_hold_each_row_once(session: AsyncSession, shop: Shop):
    for offset in range(50):
        a_row(shop, offset, event='{"items": [], "x": "' + "x" * 1_000 + '"}')
    blocks = await pruning.count_blocks(session)
    assert blocks >= 7
    found = [await pruning.count_states(session, RULE, start, start + 3) for start in range(0, blocks, 3)]
    counts = [one.get(PruneState.PRUNABLE, StateCount(0, 0)) for one in found]
    assert sum(count.rows for count in counts) == 50
    assert sum(count.event_bytes for count in counts) >= 50_000


async def test_the_key_refuses_to_decide_a_pruned_order_again(session: AsyncSession, shop: Shop):
    order_id = a_row(shop, 1)
    await pruning.prune(session, {order_id: None})
    await session.commit()
    row = (await ledger.find_outcomes(session, [order_id]))[order_id]
    assert row == LedgerRow(order_id, "confirmed", b"\x01" * 16, "placed", 0, 1, None, OLD, None)
    with pytest.raises(UniqueViolationError):
        a_row(shop, 2, order_id=order_id)


async def test_a_ledger_in_partitions_is_pruned_in_all_of_them(session: AsyncSession, shop: Shop):
    """They were taken for an empty ledger: a table in partitions has no blocks of its own."""
    for statement in (
        "ALTER TABLE order_outcomes RENAME TO whole",
        "ALTER INDEX pk_order_outcomes RENAME TO pk_whole",
        "CREATE TABLE order_outcomes (LIKE whole INCLUDING CONSTRAINTS, PRIMARY KEY (order_id))"
        " PARTITION BY HASH (order_id)",
        *(
            f"CREATE TABLE part{n} PARTITION OF order_outcomes FOR VALUES WITH (MODULUS 2, REMAINDER {n})"
            for n in (0, 1)
        ),
    ):
        shop.sql(statement)
    order_ids = {a_row(shop, offset) for offset in range(20)}
    assert await states(session) == {PruneState.PRUNABLE: 20}
    size = await pruning.ledger_size(session)
    assert size.table_bytes > 0 < size.index_bytes
    rows = await pruning.list_prunable(session, RULE, 0, await pruning.count_blocks(session))
    assert {row.order_id for row in rows} == order_ids
    assert await pruning.prune(session, dict.fromkeys(order_ids)) == 20
    assert await states(session) == {PruneState.PRUNED: 20}
