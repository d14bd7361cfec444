"""Settling batches on real PostgreSQL, without Kafka: what is decided, written and to be published."""

import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import TopicPartition
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from bench.statements import counted
from contracts.envelope import decode_passed_on, event_id
from contracts.events import OrderConfirmed, OrderRejected
from contracts.topics import Topics
from db import stock
from db.engine import create_engine, session_factory
from db.statuses import SilentReplay
from db.worker import decided, ledger
from db.worker.look_up import Found, look_up
from tests.support.builders import line, order_value, record
from tests.support.order_stories import until_somebody_waits
from tests.support.shop import Shop
from worker.core.results import Fate
from worker.core.steps import Step, nothing_happens
from worker.core.triage import Arrival
from worker.failures import LockedRowsError, RefusedOrderError
from worker.observability.metrics import Metrics
from worker.pipeline.batch import MAX_RERUNS, BatchProcessor

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_3]

Processor = Callable[..., BatchProcessor]
NOBODY = NOTHING = 4_711  # no user, no product


@pytest.fixture
async def processor(database_url: str) -> AsyncIterator[Processor]:
    """Builds processors on the test's database."""
    engine = create_engine(database_url)

    def build(reached: Callable[[Step], None] = nothing_happens, **settings: Any) -> BatchProcessor:
        return BatchProcessor(
            topics=Topics("placed", "confirmed", "rejected", "dead"),
            metrics=Metrics(),
            reached=reached,
            **{
                "sessions": session_factory(engine),
                "message_max_bytes": 256 * 1024,
                "timeout_seconds": 20.0,
                **settings,
            },
        )

    yield build
    await engine.dispose()


@pytest.fixture
async def stocked(shop: Shop) -> Shop:
    """Products 1 to 3 with ten pieces at 2.50, users 1 to 10."""
    await asyncio.to_thread(shop.stock_up, {1: 10, 2: 10, 3: 10})
    return shop


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


def batch_of(*values: bytes | None, start: int = 0, partition: int = 0) -> list[Any]:
    return [record(value, offset=start + i, partition=partition) for i, value in enumerate(values)]


async def test_a_confirmed_order_is_stored_and_its_event_shows_exactly_that(
    processor: Processor, stocked: Shop
):
    order_id = uuid4()
    value = order_value(line(1, 2), line(2, 1, "2.50"), line(1, 1), order_id=order_id)
    headers = (("correlation_id", b"c-1"), ("traceparent", b"\xff"), ("odd", None))
    (result,) = await processor().decide([record(value, headers=headers)], {})
    assert result.fate is Fate.CONFIRMED
    published = result.publication
    assert published is not None
    assert (published.topic, published.key) == ("confirmed", str(order_id).encode())
    event = OrderConfirmed.model_validate_json(published.value or b"")
    assert [(i.product_id, i.quantity, str(i.unit_price)) for i in event.items] == [
        (1, 2, "2.50"),
        (2, 1, "2.50"),
        (1, 1, "2.50"),
    ]
    assert str(event.total_amount) == "10.00"
    sent = dict(published.headers)
    assert sent["ce_id"] == str(event_id(order_id)).encode()
    assert sent["ce_type"] == b"order-confirmed"
    assert sent["correlation_id"] == b"c-1"
    assert "traceparent" not in sent
    rows = await in_thread(stocked.sql, "SELECT * FROM order_items ORDER BY line_number")
    assert [(r["line_number"], r["product_id"], r["quantity"]) for r in rows] == [
        (1, 1, 2),
        (2, 2, 1),
        (3, 1, 1),
    ]
    assert await in_thread(stocked.stock) == {1: 7, 2: 9, 3: 10}
    assert (
        await in_thread(stocked.value, "SELECT event::text FROM order_outcomes")
        == (published.value or b"").decode()
    )
    await in_thread(stocked.assert_conserved)


async def test_a_rejected_order_changes_nothing_and_shows_every_reason(processor: Processor, stocked: Shop):
    value = order_value(line(1, 11), line(99), line(2, 1, "9.99"), user_id=77)
    (result,) = await processor().decide([record(value)], {})
    assert result.fate is Fate.REJECTED
    assert result.codes == ("unknown_user", "insufficient_stock", "unknown_product", "price_changed")
    event = OrderRejected.model_validate_json(result.publication.value)  # type: ignore[union-attr, arg-type]
    assert event.retryable is False
    assert event.reasons[1].model_dump(exclude_none=True) == {
        "code": "insufficient_stock",
        "product_id": 1,
        "requested": 11,
        "available": 10,
    }
    assert await in_thread(stocked.value, "SELECT count(*) FROM orders") == 0
    assert await in_thread(stocked.stock) == {1: 10, 2: 10, 3: 10}


async def test_only_missing_stock_is_worth_another_try(processor: Processor, stocked: Shop):
    (result,) = await processor().decide([record(order_value(line(1, 11)))], {})
    assert OrderRejected.model_validate_json(result.publication.value).retryable is True  # type: ignore[union-attr, arg-type]


async def test_all_that_a_batch_rests_on_is_read_with_one_statement(
    database_url: str, processor: Processor, stocked: Shop
):
    value, new = order_value(line(1)), str(uuid4())
    await processor().decide(batch_of(value), {})
    order_id = json.loads(value)["order_id"]
    engine = create_engine(database_url)
    async with session_factory(engine)() as session:
        with counted(engine) as sent:
            found = await look_up(session, [order_id, new], [1, NOBODY], [1, 2, NOTHING])
        assert len(sent) == 1
        assert found == Found(
            await ledger.database_time(session), 1, {1}, await stock.list_stock(session, [1, 2])
        )
        nothing = await look_up(session, [new], [NOBODY], [NOTHING])
        assert nothing == Found(found.time, 0, set(), {})
    await engine.dispose()


async def test_a_redelivered_record_gets_the_stored_event_byte_for_byte(processor: Processor, stocked: Shop):
    batch = batch_of(order_value(line(1)), order_value(line(1, 99)))
    first = await processor().decide(batch, {})
    again = await processor().decide(batch, {})
    assert [s.fate for s in again] == [Fate.REDELIVERED, Fate.REDELIVERED]
    # All of it but the time, by which this publication differs from the previous one.
    visible, again_told = (
        [s.publication._replace(timestamp_ms=0) for s in one if s.publication] for one in (first, again)
    )
    assert again_told == visible
    assert len(visible) == 2
    assert await in_thread(stocked.stock) == {1: 9, 2: 10, 3: 10}


async def test_a_redelivered_record_gets_the_headers_that_it_got_first(processor: Processor, stocked: Shop):
    headers = (
        ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
        *(("tracestate", b"x=1"), ("correlation_id", b"c-1"), ("ce_id", b"e"), ("ce_source", b"/s")),
    )
    plain = record(order_value(line(1), order_id=uuid4()), offset=3, headers=headers)
    event = b'{"specversion":"1.0","id":"e","source":"/s","type":"t","data":%s}' % order_value(line(1))
    label = (("content-type", b"application/cloudevents+json"),)
    records = [plain, record(event, offset=4, headers=label)]
    first = await processor().decide(records, {})
    again = await processor().decide(records, {})
    assert [one.fate for one in again] == [Fate.REDELIVERED] * 2
    sent = [one.publication.headers for one in first if one.publication]
    assert [one.publication.headers for one in again if one.publication] == sent
    cause = [("ce_causationid", b"e"), ("ce_causationsource", b"/s")]
    assert sent[0][8:] == [headers[0], headers[1], ("correlation_id", b"c-1"), *cause]
    assert sent[1][8:] == cause
    kept = await in_thread(stocked.sql, "SELECT passed_on FROM order_outcomes ORDER BY source_offset")
    assert [decode_passed_on(row["passed_on"]) for row in kept] == [
        [("correlation_id", b"c-1"), *cause],
        cause,
    ]


async def test_what_an_earlier_version_decided_is_published_and_not_decided_again(
    processor: Processor, stocked: Shop
):
    """Its outcome may not have been published yet, and its record is no order any more."""
    order_id = uuid4()
    (first,) = await processor().decide([record(order_value(line(1), order_id=order_id), offset=7)], {})
    former = order_value(line(1), order_id=order_id).replace(
        str(order_id).encode(), str(order_id).upper().encode()
    )
    new = order_value(line(1), placed_at="2026-11-23 10:00:00Z")
    batch = [record(former, offset=7), record(former, offset=8), record(new, offset=9)]
    again, elsewhere, refused = await processor().decide(batch, {})
    assert (again.fate, elsewhere.fate, refused.fate) == (
        *(Fate.REDELIVERED, Fate.DEAD_LETTER, Fate.DEAD_LETTER),
    )
    assert again.publication
    assert first.publication
    assert again.publication[:4] == first.publication[:4]
    for result, path in ((elsewhere, "order_id"), (refused, "placed_at")):
        headers = dict(result.publication.headers)  # type: ignore[union-attr]
        assert (headers["error.code"], headers["error.path"]) == (b"invalid_order", path.encode())
    silent = {("order-placed", 0): (SilentReplay(0, 100, datetime.now(UTC) + timedelta(hours=1)),)}
    (silenced,) = await processor().decide(batch[:1], silent)
    assert silenced.fate is Fate.SILENCED
    assert await in_thread(stocked.stock) == {1: 9, 2: 10, 3: 10}


async def test_the_same_order_again_is_a_duplicate_in_the_batch_and_across_partitions(
    processor: Processor, stocked: Shop
):
    value = order_value(line(1))
    together = await processor().decide(batch_of(value, value), {})
    assert [s.fate for s in together] == [Fate.CONFIRMED, Fate.DUPLICATE]
    (elsewhere,) = await processor().decide([record(value, partition=3, offset=0)], {})
    assert (elsewhere.fate, elsewhere.publication) == (Fate.DUPLICATE, None)
    assert await in_thread(stocked.stock) == {1: 9, 2: 10, 3: 10}


async def test_the_same_id_with_other_content_is_a_dead_letter(processor: Processor, stocked: Shop):
    order_id = uuid4()
    one, other = order_value(line(1), order_id=order_id), order_value(line(1, 2), order_id=order_id)
    first, second = await processor().decide(batch_of(one, other), {})
    (third,) = await processor().decide(batch_of(other, start=7), {})
    assert first.fate is Fate.CONFIRMED
    assert [(s.fate, s.codes) for s in (second, third)] == [(Fate.DEAD_LETTER, ("order_id_conflict",))] * 2
    assert second.publication is not None
    assert second.publication.value == other
    assert dict(second.publication.headers)["source.offset"] == b"1"
    assert await in_thread(stocked.stock) == {1: 9, 2: 10, 3: 10}


async def test_an_order_postgresql_refuses_is_found_and_its_neighbours_are_decided(
    processor: Processor, stocked: Shop
):
    refuse = "BEGIN IF NEW.quantity = 7 THEN RAISE 'seven' USING ERRCODE = '22003'; END IF; RETURN NEW; END"
    await in_thread(
        stocked.sql, f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {refuse} $$"
    )
    await in_thread(
        stocked.sql,
        "CREATE TRIGGER refuse BEFORE INSERT ON order_items FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    values = [order_value(line(1)) for _ in range(9)]
    values.insert(4, order_value(line(2, 7)))
    results = await processor().decide(batch_of(*values), {})
    assert [s.fate for s in results] == [Fate.CONFIRMED] * 4 + [Fate.DEAD_LETTER] + [Fate.CONFIRMED] * 5
    assert results[4].codes == ("data_error",)
    assert results[4].publication
    assert dict(results[4].publication.headers)["error.message"] == b"seven"
    await in_thread(stocked.assert_conserved)
    assert (await in_thread(stocked.stock))[1] == 1


async def test_a_total_is_confirmed_up_to_its_bound_and_a_dead_letter_a_cent_above(
    processor: Processor, stocked: Shop
):
    dear = {50: "99999999.99", 51: "100.00", 52: "99.98", 53: "99.99"}
    for product_id, price in dear.items():
        await in_thread(stocked.stock_up, {product_id: 10**9}, price)
    up_to = [line(50, 9_999), line(51, 1_000_000)]
    values = [
        *(order_value(*up_to, line(52)), order_value(*up_to, line(53))),
        *(order_value(line(1)), order_value(line(50, 1_000_000))),
    ]
    # The same order again is no duplicate of it: nothing was decided.
    values.append(values[1])
    results = await processor().decide(batch_of(*values), {})
    assert [s.fate is Fate.CONFIRMED for s in results] == [True, False, True, False, False]
    for number, total in ((1, b"1,000,000,000,000.00"), (3, b"99,999,999,990,000.00"), (4, b"")):
        letter = results[number]
        assert letter.codes == ("invalid_order",)
        assert letter.publication
        headers = dict(letter.publication.headers)
        assert headers["error.path"] == b"items"
        assert total in (headers["error.message"] or b"")
        assert b"at most 999,999,999,999.99" in (headers["error.message"] or b"")
    totals = await in_thread(stocked.sql, "SELECT total_amount::text FROM orders ORDER BY 1 DESC")
    assert totals[0][0] == "999999999999.99"
    await in_thread(stocked.assert_conserved)


@contextmanager
def meanwhile(happens: str, shop: Shop, *, before_the_write: bool = False) -> Iterator[None]:
    """Somebody else's statement, committed once between the unlocked read of a batch and its end."""
    add_decided, left = decided.add_decided, [happens]

    async def interrupted(*given: Any) -> None:
        if not before_the_write:
            await add_decided(*given)
        if left:
            await in_thread(shop.sql, left.pop())
        if before_the_write:
            await add_decided(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decided, "add_decided", interrupted)
        yield


async def test_stock_sold_between_read_and_write_is_noticed(processor: Processor, stocked: Shop):
    with meanwhile("UPDATE products SET stock_quantity = 2, received_quantity = 2 WHERE id = 1", stocked):
        results = await processor().decide(batch_of(order_value(line(1, 2)), order_value(line(1, 2))), {})
    assert [s.fate for s in results] == [Fate.CONFIRMED, Fate.REJECTED]
    assert await in_thread(stocked.stock) == {1: 0, 2: 10, 3: 10}
    await in_thread(stocked.assert_conserved)


async def test_a_price_that_changes_between_read_and_write_is_noticed(processor: Processor, stocked: Shop):
    with meanwhile("UPDATE products SET price = 3.00 WHERE id = 1", stocked):
        results = await processor().decide(
            batch_of(order_value(line(1, 2)), order_value(line(1, 1, "2.50"))), {}
        )
    assert [(s.fate, s.codes) for s in results] == [(Fate.CONFIRMED, ()), (Fate.REJECTED, ("price_changed",))]
    assert await in_thread(stocked.value, "SELECT total_amount::text FROM orders") == "6.00"


async def test_a_rejection_that_rests_on_a_stale_read_is_decided_again(processor: Processor, stocked: Shop):
    with meanwhile("UPDATE products SET stock_quantity = 50, received_quantity = 50 WHERE id = 1", stocked):
        (result,) = await processor().decide(batch_of(order_value(line(1, 20))), {})
    assert result.fate is Fate.CONFIRMED
    assert (await in_thread(stocked.stock))[1] == 30


async def test_an_outcome_is_never_stamped_before_its_decision(processor: Processor, stocked: Shop):
    """Or `explain`, which looks for it in the topic from then on, would not find it."""
    with meanwhile("UPDATE products SET price = 3.00 WHERE id = 1", stocked):
        (result,) = await processor().decide(batch_of(order_value(line(1))), {})
    decided_at = await in_thread(stocked.value, "SELECT decided_at FROM order_outcomes")
    assert result.publication is not None
    assert result.publication.timestamp_ms >= int(decided_at.timestamp() * 1_000)


async def test_a_batch_that_ran_again_is_given_up_without_the_collector(processor: Processor, stocked: Shop):
    """Found by the soak: an error kept in a frame of its own traceback kept the whole batch."""
    gc.collect()
    gc.disable()
    try:
        with meanwhile("UPDATE products SET price = 3.00 WHERE id = 1", stocked):
            await processor().decide(batch_of(order_value(line(1, 2))), {})
        assert [one for one in gc.get_objects() if isinstance(one, Arrival)] == []
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("lines", "user_id", "codes"),
    [
        ([line(1, 20), line(2, 5)], 1, ("insufficient_stock", "insufficient_stock")),
        ([line(2, 5)], 77, ("unknown_user", "insufficient_stock")),
    ],
)
async def test_a_rejection_shows_also_what_ran_out_after_it_was_read(
    processor: Processor, stocked: Shop, lines: list[dict[str, Any]], user_id: int, codes: tuple[str, ...]
):
    """Found by the campaign: what fits at first is no part of the reasons, but the rejection rests on it."""
    with meanwhile("UPDATE products SET stock_quantity = 1, received_quantity = 1 WHERE id = 2", stocked):
        (result,) = await processor().decide(batch_of(order_value(*lines, user_id=user_id)), {})
    assert result.codes == codes


async def test_a_product_that_appears_between_read_and_write_is_decided_again(
    processor: Processor, stocked: Shop
):
    new = "INSERT INTO products (id, name, price, stock_quantity, category_id) VALUES (60, 'New', 1, 5, 1)"
    with meanwhile(new, stocked):
        (result,) = await processor().decide(batch_of(order_value(line(60))), {})
    assert result.fate is Fate.CONFIRMED


@pytest.mark.parametrize("count", [1, 100])
async def test_a_user_of_a_batch_under_way_cannot_be_deleted_any_more(
    processor: Processor, stocked: Shop, monkeypatch: pytest.MonkeyPatch, count: int
):
    await in_thread(stocked.stock_up, {7: 1_000})
    add_decided, deletions = decided.add_decided, []

    async def add_beside_a_deletion(*given: Any) -> None:
        deletions.append(asyncio.create_task(in_thread(stocked.sql, "DELETE FROM users WHERE id = 5")))
        await until_somebody_waits(stocked)
        await add_decided(*given)

    monkeypatch.setattr(decided, "add_decided", add_beside_a_deletion)
    values = [order_value(line(7), user_id=5) for _ in range(count)]
    results = await processor().decide(batch_of(*values), {})
    assert [one.fate for one in results] == [Fate.CONFIRMED] * count
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="fk_orders_user_id"):
        await deletions[0]
    assert await in_thread(stocked.value, "SELECT count(*) FROM orders WHERE user_id = 5") == count


async def test_a_user_deleted_before_the_batch_reads_makes_its_order_rejected(
    processor: Processor, stocked: Shop
):
    await in_thread(stocked.sql, "DELETE FROM users WHERE id = 5")
    (result,) = await processor().decide(batch_of(order_value(line(1), user_id=5)), {})
    assert (result.fate, result.codes) == (Fate.REJECTED, ("unknown_user",))


# (Where PostgreSQL has looked each product up, it cannot be deleted after the write.)
@pytest.mark.parametrize(("others", "before_the_write"), [(1, True), (100, True), (100, False)])
async def test_a_product_deleted_between_read_and_write_makes_its_order_rejected(
    processor: Processor, stocked: Shop, others: int, before_the_write: bool
):
    await in_thread(stocked.stock_up, {7: 1_000})
    values = [order_value(line(7)) for _ in range(others)]
    with meanwhile("DELETE FROM products WHERE id = 1", stocked, before_the_write=before_the_write):
        *results, last = await processor().decide(batch_of(*values, order_value(line(7), line(1))), {})
    assert {one.fate for one in results} == {Fate.CONFIRMED}
    assert (last.fate, last.codes) == (Fate.REJECTED, ("unknown_product",))
    assert (await in_thread(stocked.stock))[7] == 1_000 - others
    await in_thread(stocked.assert_conserved)


async def test_two_workers_racing_for_the_last_pieces_sell_each_once(processor: Processor, stocked: Shop):
    values = [[order_value(line(1), line(2)) for _ in range(8)] for _ in range(4)]
    results = await asyncio.gather(
        *(processor().decide(batch_of(*of_one, partition=p), {}) for p, of_one in enumerate(values))
    )
    fates = [s.fate for of_one in results for s in of_one]
    assert fates.count(Fate.CONFIRMED) == 10
    assert fates.count(Fate.REJECTED) == 22
    assert await in_thread(stocked.stock) == {1: 0, 2: 0, 3: 10}
    await in_thread(stocked.assert_conserved)


async def test_two_workers_with_the_same_order_on_two_partitions_decide_it_once(
    processor: Processor, stocked: Shop
):
    values = [order_value(line(3)) for _ in range(5)]
    results = await asyncio.gather(
        *(processor().decide(batch_of(*values, partition=p), {}) for p in range(3))
    )
    fates = [s.fate for of_one in results for s in of_one]
    assert (fates.count(Fate.CONFIRMED), fates.count(Fate.DUPLICATE)) == (5, 10)
    assert (await in_thread(stocked.stock))[3] == 5


async def test_orders_whose_ledger_rows_were_purged_are_dead_letters_not_stored_twice(
    processor: Processor, stocked: Shop
):
    await in_thread(stocked.stock_up, {7: 10_000})
    values = [order_value(line(7)) for _ in range(500)]
    await processor().decide(batch_of(*values), {})
    await in_thread(stocked.sql, "DELETE FROM order_outcomes")
    new, deciding = order_value(line(7)), processor()
    results = await deciding.decide(batch_of(*values[:250], new, *values[250:], start=1_000), {})
    fates = [s.fate for s in results]
    assert (fates.count(Fate.DEAD_LETTER), fates[250]) == (500, Fate.CONFIRMED)
    assert results[0].codes == ("order_id_taken",)
    assert (await in_thread(stocked.stock))[7] == 10_000 - 501
    reruns = deciding.metrics.reruns.labels("UniqueViolationError")._value.get()
    assert reruns <= MAX_RERUNS + 500 + 2, "each by itself, and not found by halving"


async def test_the_id_of_an_order_of_the_shop_is_a_dead_letter_that_says_so(
    processor: Processor, stocked: Shop
):
    order_id = uuid4()
    await in_thread(
        stocked.sql,
        "WITH made AS (INSERT INTO orders (id, user_id, total_amount, placed_at)"
        " VALUES ($1, 1, 0, now()) RETURNING id)"
        " INSERT INTO order_items SELECT id, 1, 3, 1, 0 FROM made",
        order_id,
    )
    values = [order_value(line(1)), order_value(line(1), order_id=order_id), order_value(line(2))]
    results = await processor().decide(batch_of(*values), {})
    assert [s.fate for s in results] == [Fate.CONFIRMED, Fate.DEAD_LETTER, Fate.CONFIRMED]
    headers = dict(results[1].publication.headers)  # type: ignore[union-attr]
    assert headers["error.code"] == b"order_id_taken"
    assert headers["error.message"] == b"this id belongs to an order that was not placed through Kafka"
    assert headers["error.path"] == b"order_id"


@pytest.mark.parametrize("table", ["order_outcomes", "orders"])
async def test_a_constraint_that_refuses_every_order_makes_them_wait_and_no_dead_letter(
    processor: Processor, stocked: Shop, table: str
):
    batch = batch_of(*(order_value(line(1)) for _ in range(3)), order_value(line(2, 99)))
    await in_thread(stocked.sql, f"ALTER TABLE {table} ADD CONSTRAINT mistake CHECK (false) NOT VALID")
    with pytest.raises(RefusedOrderError, match="mistake"):
        await processor().decide(batch, {})
    await in_thread(stocked.sql, f"ALTER TABLE {table} DROP CONSTRAINT mistake")
    fates = [s.fate for s in await processor().decide(batch, {})]
    assert fates == [Fate.CONFIRMED] * 3 + [Fate.REJECTED], "none was decided out of turn meanwhile"


async def test_a_constraint_that_goes_away_while_an_order_is_refused_costs_no_dead_letter(
    processor: Processor, stocked: Shop, monkeypatch: pytest.MonkeyPatch
):
    ask = BatchProcessor._would_be_confirmed

    async def mend_and_ask(self: BatchProcessor, other: Arrival, batch: Any) -> bool:
        await in_thread(stocked.sql, "ALTER TABLE orders DROP CONSTRAINT IF EXISTS mistake")
        return await ask(self, other, batch)

    monkeypatch.setattr(BatchProcessor, "_would_be_confirmed", mend_and_ask)
    await in_thread(stocked.sql, "ALTER TABLE orders ADD CONSTRAINT mistake CHECK (false) NOT VALID")
    results = await processor().decide(batch_of(order_value(line(1)), order_value(line(1))), {})
    assert [s.fate for s in results] == [Fate.CONFIRMED] * 2


async def test_an_order_that_a_constraint_refuses_beside_others_is_a_dead_letter(
    processor: Processor, stocked: Shop
):
    refused = "CHECK (total_amount <> 5) NOT VALID"
    await in_thread(stocked.sql, f"ALTER TABLE orders ADD CONSTRAINT no_fives {refused}")
    values = [order_value(line(1)), order_value(line(1, 2)), order_value(line(1))]
    results = await processor().decide(batch_of(*values), {})
    assert [s.fate for s in results] == [Fate.CONFIRMED, Fate.DEAD_LETTER, Fate.CONFIRMED]
    assert results[1].codes == ("data_error",)


async def test_a_silent_replay_publishes_nothing_that_was_decided_before_it(
    processor: Processor, stocked: Shop
):
    batch = batch_of(*(order_value(line(1)) for _ in range(4)))
    await processor().decide(batch[:3], {})
    requested_at = await in_thread(stocked.value, "SELECT clock_timestamp()")
    replays = {TopicPartition("order-placed", 0): [SilentReplay(1, 4, requested_at)]}
    results = await processor().decide(batch, replays)
    assert [s.fate for s in results] == [Fate.REDELIVERED, Fate.SILENCED, Fate.SILENCED, Fate.CONFIRMED]
    earlier = {TopicPartition("order-placed", 0): [SilentReplay(0, 4, datetime.now(UTC) - timedelta(days=1))]}
    assert (await processor().decide(batch[:1], earlier))[0].fate is Fate.REDELIVERED


async def test_a_silent_replay_is_no_question_of_the_clock(
    processor: Processor, stocked: Shop, session: AsyncSession
):
    """As if PostgreSQL's clock had been set back since, and nobody had read what the replay reads again."""
    batch = batch_of(*(order_value(line(1)) for _ in range(3)))
    await processor().decide(batch[:2], {})
    an_hour_ahead = "UPDATE order_outcomes SET decided_at = decided_at + interval '1 hour'"
    await in_thread(stocked.sql, an_hour_ahead)
    await ledger.add_replays(session, "order-placed", {0: (0, 3)})
    replays = {TopicPartition("order-placed", 0): await ledger.list_replays(session, "order-placed", 0)}
    results = await processor().decide(batch, replays)
    assert [s.fate for s in results] == [Fate.SILENCED, Fate.SILENCED, Fate.CONFIRMED]
    (again,) = await processor().decide(batch[2:], replays)
    assert again.fate is Fate.REDELIVERED, "what is decided in the replay is published until it was"


@pytest.fixture
async def impatient(database_url: str, processor: Processor) -> AsyncIterator[BatchProcessor]:
    """Waits for no lock longer than 0.2 s."""
    engine = create_engine(database_url, server_settings={"lock_timeout": "200"})
    yield processor(sessions=session_factory(engine))
    await engine.dispose()


@pytest.mark.parametrize("table", ["products", "users"])
async def test_a_locked_row_is_waited_for_once_and_then_only_by_those_who_need_it(
    processor: Processor, impatient: BatchProcessor, stocked: Shop, table: str
):
    needs_it = batch_of(order_value(line(1), user_id=1))
    needs_it_not = batch_of(order_value(line(2), user_id=2), partition=1)
    # Without the first one's experience, it would wait for the lock until its time is up.
    patient = processor(locked=impatient.locked)
    other = await asyncpg.connect(stocked.database_url)
    async with other.transaction():
        await other.execute(f"SELECT 1 FROM {table} WHERE id = 1 FOR UPDATE")
        for one in (impatient, patient):
            with pytest.raises(LockedRowsError, match=f"keeps {table[:-1]} 1 locked") as locked:
                await one.decide([*needs_it, *needs_it_not], {})
            assert locked.value.partitions == {TopicPartition("order-placed", 0)}
        assert [one.fate for one in await impatient.decide(needs_it_not, {})] == [Fate.CONFIRMED]
    await other.close()
    # No dead letter, although another one was confirmed meanwhile.
    assert [one.fate for one in await impatient.decide(needs_it, {})] == [Fate.CONFIRMED]


async def test_a_lock_that_is_on_no_row_of_the_orders_makes_all_of_them_wait(
    impatient: BatchProcessor, stocked: Shop
):
    batch = batch_of(order_value(line(1)))
    other = await asyncpg.connect(stocked.database_url)
    async with other.transaction():
        await other.execute("LOCK TABLE order_outcomes")
        with pytest.raises(DBAPIError, match="lock timeout"):
            await impatient.decide(batch, {})
    await other.close()
    assert [one.fate for one in await impatient.decide(batch, {})] == [Fate.CONFIRMED]


async def test_a_batch_of_poison_alone_is_all_dead_letters_with_the_databases_time(
    processor: Processor, stocked: Shop
):
    batch = batch_of(b"not json", None, order_value(line(1, 0)))
    results = await processor().decide(batch, {})
    assert [s.codes[0] for s in results] == ["not_json", "empty_value", "invalid_order"]
    assert [s.publication.value for s in results if s.publication] == [one.value for one in batch]
    for one in results:
        assert one.publication is not None
        failed_at = datetime.fromisoformat((dict(one.publication.headers)["failed_at"] or b"").decode())
        assert failed_at.tzinfo is not None


async def test_unknown_fields_are_counted(processor: Processor, stocked: Shop):
    counting = processor()
    await counting.decide(batch_of(order_value(line(1), gift_wrap=True), order_value(line(1))), {})
    assert counting.metrics.unknown_fields._value.get() == 1


@pytest.mark.guarantee_4
async def test_batches_of_any_size_decide_by_offset_as_one_order_at_a_time_would(
    processor: Processor, stocked: Shop
):
    rng = random.Random(4)
    wanted = [{p: rng.randint(1, 4) for p in rng.sample((1, 2, 3), rng.randint(1, 2))} for _ in range(20)]
    left, fits = {1: 10, 2: 10, 3: 10}, []
    for quantities in wanted:
        fits.append(all(left[product] >= quantity for product, quantity in quantities.items()))
        for product, quantity in quantities.items():
            left[product] -= quantity * fits[-1]
    assert fits != sorted(fits, reverse=True), "a small order fits behind a large one that did not"
    records = batch_of(*(order_value(*(line(p, q) for p, q in one.items())) for one in wanted))
    results = []
    for first, end in ((0, 1), (1, 8), (8, 20)):
        results += await processor().decide(records[first:end], {})
    assert [one.fate is Fate.CONFIRMED for one in results] == fits
    assert await in_thread(stocked.stock) == left
