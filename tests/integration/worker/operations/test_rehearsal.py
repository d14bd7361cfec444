"""A rehearsal says what deciding the same records comes to, on real PostgreSQL."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.topics import Topics
from db.engine import session_factory
from db.statuses import SilentReplay
from tests.support.builders import line, order_value, record
from tests.support.shop import Shop
from worker.core.results import Fate
from worker.core.steps import nothing_happens
from worker.observability.metrics import Metrics
from worker.operations.replay.rehearsal import Rehearsal
from worker.operations.replay.rehearse import RecordReader
from worker.pipeline.batch import BatchProcessor
from worker.settings import Settings

DEAR, SCARCE, PLENTY = 1, 2, 3
EVER = [SilentReplay(0, 1_000_000, datetime.max.replace(tzinfo=UTC))]
MADE_BY_THE_SHOP = [UUID(int=n) for n in range(900, 903)]


@pytest.fixture
def processor(engine: AsyncEngine) -> BatchProcessor:
    return BatchProcessor(
        sessions=session_factory(engine),
        topics=Topics("placed", "confirmed", "rejected", "dead"),
        metrics=Metrics(),
        reached=nothing_happens,
        message_max_bytes=256 * 1024,
        timeout_seconds=20.0,
    )


@pytest.fixture
def reader(engine: AsyncEngine) -> RecordReader:
    read_only = engine.execution_options(postgresql_readonly=True)
    consumer: Any = None  # the records are given
    return RecordReader(Settings(_env_file=None), session_factory(read_only), consumer)


def hostile_values(rng: random.Random, count: int) -> list[bytes | None]:
    """Orders for scarce stock, of ids that come twice or that a shop has used, too dear ones, and none."""
    values: list[bytes | None] = []
    for number in range(count):
        ids = [UUID(int=number + 1), UUID(int=rng.randint(1, count)), rng.choice(MADE_BY_THE_SHOP)]
        order_id = rng.choices(ids, [8, 2, 1])[0]
        items = rng.choice(
            [
                [line(SCARCE, rng.randint(1, 4))],
                [line(PLENTY), line(SCARCE), line(PLENTY)],
                [line(PLENTY, 2, rng.choice(["2.50", "9.99"]))],
                [line(DEAR, 1_000_000) for _ in range(101)],  # over the bound of a total
                [line(4711)],
            ]
        )
        value = order_value(*items, order_id=order_id, user_id=rng.choice([1, 1, 1, 99]))
        values.append(rng.choices([value, b"{", None], [20, 1, 1])[0])
    return values


def portions(rng: random.Random, records: Sequence[Any]) -> list[Sequence[Any]]:
    ends = sorted(rng.sample(range(1, len(records)), 3))
    return [records[a:b] for a, b in zip([0, *ends], [*ends, len(records)], strict=True)]


async def prepare(shop: Shop, engine: AsyncEngine) -> None:
    await asyncio.to_thread(shop.stock_up, {SCARCE: 60, PLENTY: 10_000})
    await asyncio.to_thread(shop.stock_up, {DEAR: 10**12}, "99999999.99")
    async with engine.begin() as connection:
        for order_id in MADE_BY_THE_SHOP:
            await connection.execute(
                text("INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES (:id, 1, 1, now())"),
                {"id": order_id},
            )


@pytest.mark.parametrize("seed", range(4))
async def test_it_says_of_each_record_what_becomes_of_it(
    processor: BatchProcessor, reader: RecordReader, shop: Shop, engine: AsyncEngine, seed: int
):
    await prepare(shop, engine)
    rng = random.Random(seed)
    records = [record(value, offset=n) for n, value in enumerate(hostile_values(rng, 90))]
    for earlier in portions(rng, records[:30])[1:3]:  # decided long ago, between others that never were
        await processor.decide(earlier, {})
    before = await asyncio.to_thread(shop.stock)
    rows = await asyncio.to_thread(shop.sql, "SELECT count(*) FROM order_outcomes")

    rehearsal = Rehearsal({0: EVER})
    said = [one for some in portions(rng, records) for one in await reader.decide(rehearsal, some)]
    assert await asyncio.to_thread(shop.stock) == before, "a rehearsal changes nothing"
    assert await asyncio.to_thread(shop.sql, "SELECT count(*) FROM order_outcomes") == rows

    silent = {(records[0].topic, 0): EVER}
    done = [one for some in portions(rng, records) for one in await processor.decide(some, silent)]
    assert [(one.fate, one.codes) for one in said] == [(one.fate, one.codes) for one in done]
    after = await asyncio.to_thread(shop.stock)
    taken = {i: change.taken for i, change in rehearsal.products.items()}
    assert {i: before[i] - after[i] for i in before} == {i: taken.get(i, 0) for i in before}
    assert {i: c.stock for i, c in rehearsal.products.items()} == {i: before[i] for i in taken}
    assert {one.fate for one in said} >= {Fate.SILENCED, Fate.CONFIRMED, Fate.REJECTED, Fate.DEAD_LETTER}
    assert {"invalid_order", "order_id_conflict"} <= {code for one in said for code in one.codes}


async def test_what_only_an_earlier_version_took_for_an_order_is_one_where_that_decided_it(
    processor: BatchProcessor, reader: RecordReader, shop: Shop
):
    await asyncio.to_thread(shop.stock_up, {1: 10})
    value = order_value(line(1))
    await processor.decide([record(value, offset=7)], {})
    former = value.replace(b"T10:00", b" 10:00")
    records = [record(former, offset=7), record(former, offset=8)]
    said = await reader.decide(Rehearsal({}), records)
    assert [(one.fate, one.codes) for one in said] == [
        (one.fate, one.codes) for one in await processor.decide(records, {})
    ]
    assert [one.fate for one in said] == [Fate.REDELIVERED, Fate.DEAD_LETTER]


async def test_what_is_not_replayed_in_silence_would_be_published_again(
    processor: BatchProcessor, reader: RecordReader, shop: Shop
):
    await asyncio.to_thread(shop.stock_up, {1: 10})
    one = record(order_value(line(1)), offset=7)
    await processor.decide([one], {})
    assert (await reader.decide(Rehearsal({}), [one]))[0].fate is Fate.REDELIVERED
    (answer,) = await reader.decide(Rehearsal({0: EVER}), [one])
    assert (answer.fate, answer.outcome) == (Fate.SILENCED, "confirmed")


async def test_a_product_is_contested_if_two_partitions_want_more_than_there_is(
    reader: RecordReader, shop: Shop
):
    await asyncio.to_thread(shop.stock_up, {1: 5, 2: 5, 3: 6})
    rehearsal = Rehearsal({})
    for partition in (0, 1):
        values = [order_value(line(1, 3), line(3, 3)), order_value(line(2, 3)) if partition else None]
        await reader.decide(
            rehearsal, [record(v, offset=n, partition=partition) for n, v in enumerate(values)]
        )
    await reader.decide(rehearsal, [record(order_value(line(2, 3)), offset=9, partition=1)])
    changes = rehearsal.products
    assert {i: c.contested for i, c in changes.items()} == {1: True, 2: False, 3: False}
    assert {i: (c.taken, c.refused) for i, c in changes.items()} == {1: (3, 1), 2: (3, 1), 3: (3, 0)}
