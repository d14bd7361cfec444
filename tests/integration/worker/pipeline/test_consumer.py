"""What OrderConsumer does when: deciding, recording and publishing on real PostgreSQL, without Kafka.

These tests are about interleaving only. That every outcome is published once and in order, whatever happens,
is proved elsewhere, on real Kafka: tests/acceptance, tests/faults.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaConnectionError

from db.engine import create_engine, session_factory
from tests.support.builders import line, order_value, record
from tests.support.consumer_stage import (
    BATCH_MAX_RECORDS,
    FIRST,
    OTHER,
    PATIENCE_SECONDS,
    POLLED,
    RECORDS,
    Stage,
)
from tests.support.shop import Shop
from worker.core.results import RecordResult
from worker.pipeline.input import FETCHED_AHEAD_BYTES

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]


REFUSE_ALL_OF_PRODUCT_2 = (
    "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.product_id = 2"
    " THEN RAISE 'not this one'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER own BEFORE INSERT ON order_items FOR EACH ROW EXECUTE FUNCTION own()",
)

# Of connections that are made from then on.
IMPATIENT = (
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 200', current_database()); END $$"
)


@pytest.fixture
async def stage(request: pytest.FixtureRequest, database_url: str, shop: Shop) -> AsyncIterator[Stage]:
    """The consumer among its stand-ins; a parameter is the largest batch, in bytes."""
    await asyncio.to_thread(shop.stock_up, {1: 100})
    engine = create_engine(database_url, pool_size=1, max_overflow=0)
    yield Stage(session_factory(engine), batch_max_bytes=getattr(request, "param", 1024 * 1024))
    await engine.dispose()


async def test_a_batch_is_decided_while_the_previous_is_published_and_published_after_it(
    stage: Stage,
):
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await stage.decided(2)
        ahead = await stage.in_ledger(FIRST)
        pending, attempts = await stage.pending(FIRST), list(stage.publisher.attempts[FIRST])
        held.set_result(None)
    assert (ahead, pending, attempts) == (2 * POLLED, POLLED, [POLLED])
    await stage.flow.wait_published()
    assert await stage.pending(FIRST) == 2 * POLLED
    assert stage.publisher.published == {p: ids[: 2 * POLLED] for p, ids in stage.placed.items()}


@pytest.mark.parametrize("committed", [0, None])
async def test_behind_a_batch_that_fails_nothing_of_the_next_one_is_published(
    stage: Stage, committed: int | None
):
    stage.publisher.committed[FIRST] = committed
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await stage.decided(2)
        held.set_exception(KafkaConnectionError())
    await stage.flow.wait_published()
    assert stage.publisher.published == {}
    assert stage.publisher.attempts == {FIRST: [POLLED], OTHER: [POLLED]}
    assert await stage.pending(FIRST) == POLLED
    assert stage.input.position == {FIRST: 0, OTHER: 0}
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


@pytest.mark.parametrize("stage", [1], indirect=True)
async def test_behind_a_part_that_fails_the_rest_of_its_poll_comes_again(stage: Stage):
    held = stage.publisher.hold(FIRST)
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await stage.decided(2)
        held.set_exception(KafkaConnectionError())
    await stage.flow.wait_published()
    assert stage.publisher.published == {}
    assert stage.input.position == {FIRST: 0, OTHER: 0}
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def test_what_has_failed_is_published_alone_and_last_until_it_succeeds(stage: Stage):
    """A transaction is one for all partitions: one that is refused must not hold the others up for ever."""
    for _ in range(2):
        stage.publisher.hold(FIRST).set_exception(KafkaConnectionError())
        stage.input.resume(FIRST, OTHER)
        await stage.next_batch()
        await stage.flow.wait_published()
    assert stage.publisher.published == {}
    held = stage.publisher.hold(FIRST)
    stage.input.resume(FIRST, OTHER)
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.publish_the_rest(OTHER))
        await asyncio.wait_for(stage.publisher.waits[FIRST].wait(), PATIENCE_SECONDS)
        before = list(stage.publisher.published[OTHER])
        held.set_exception(KafkaConnectionError())
    assert before, "those of the other one went first"
    assert stage.publisher.published[OTHER] == stage.placed[OTHER]
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def test_a_partition_is_taken_over_when_nothing_is_being_published_any_more(stage: Stage):
    stage.input.pause(OTHER)
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    stage.input.resume(OTHER)
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await asyncio.sleep(0)  # it runs now, up to where it has to wait
        taken_too_early = stage.takeover.taken[1:]
        held.set_exception(KafkaConnectionError())
    await stage.flow.wait_published()
    assert not taken_too_early
    assert stage.publisher.published == {OTHER: stage.placed[OTHER][:POLLED]}
    assert stage.input.position == {FIRST: 0, OTHER: POLLED}
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def test_the_next_publication_is_recorded_with_its_decisions_if_none_is_under_way(
    stage: Stage,
):
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    assert stage.processor.pending_before_commit == POLLED
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await stage.decided(2)
        before_commit = stage.processor.pending_before_commit
        held.set_result(None)
    assert before_commit == POLLED, "the batch before was on its way"
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def test_the_next_publication_is_not_recorded_if_the_previous_batch_fails(stage: Stage):
    """Otherwise it would not be known any more whether that one was published."""
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    decided = stage.processor.hold_decisions()
    stage.processor.decided.clear()
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await asyncio.wait_for(stage.processor.decided.wait(), PATIENCE_SECONDS)
        held.set_exception(KafkaConnectionError())
        await stage.flow.wait_published()
        decided.set_result(None)
    assert await stage.pending(FIRST) == POLLED
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def fail_with_records_on_their_way(stage: Stage) -> Sequence[ConsumerRecord]:
    """The first batch fails when the next records have been read, which are returned."""
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    on_their_way = stage.input.poll()
    held.set_exception(KafkaConnectionError())
    await stage.flow.wait_published()
    return on_their_way


@pytest.mark.parametrize("topics_tell", [True, False])
async def test_records_polled_before_the_first_batch_fails_are_not_the_first_records(
    stage: Stage, topics_tell: bool
):
    """Where the topics show it, `published_to` would do alone: it continues before the batch that failed."""
    stage.takeover.topics_tell = topics_tell
    on_their_way = await fail_with_records_on_their_way(stage)
    await stage.consumer.handle_order_placed(on_their_way)
    assert stage.input.position[FIRST] == 0
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


@pytest.mark.parametrize("topics_tell", [True, False])
async def test_records_that_retention_deletes_after_a_rewind_are_not_asked_for_again(
    stage: Stage, topics_tell: bool
):
    stage.takeover.topics_tell = topics_tell
    on_their_way = await fail_with_records_on_their_way(stage)
    del stage.input.records[FIRST][:POLLED]
    await stage.consumer.handle_order_placed(on_their_way)
    asked_for = [offset for partition, offset in stage.input.sought if partition == FIRST]
    assert asked_for == [0, 0], "rewound, and asked for"
    await stage.publish_the_rest()
    assert stage.publisher.published == {FIRST: stage.placed[FIRST][POLLED:], OTHER: stage.placed[OTHER]}


@pytest.mark.parametrize("fails_first", ["publishing", "deciding"])
async def test_when_two_batches_fail_the_partition_is_rewound_to_the_earlier(stage: Stage, fails_first: str):
    published = stage.publisher.hold(FIRST)
    await stage.next_batch()
    decided = stage.processor.fail()
    async with asyncio.TaskGroup() as beside:
        deciding = beside.create_task(stage.next_batch())
        if fails_first == "publishing":
            published.set_exception(KafkaConnectionError())
            await stage.flow.wait_published()
            decided.set_exception(ConnectionResetError())
        else:
            decided.set_exception(ConnectionResetError())
            await deciding
            between = stage.input.position[FIRST]
            published.set_exception(KafkaConnectionError())
            assert between == POLLED
    await stage.flow.wait_published()
    assert stage.input.position == {FIRST: 0, OTHER: 0}
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def test_a_batch_rewound_for_the_database_keeps_the_worker_unready(stage: Stage):
    """The batch before, published meanwhile, says nothing of the database."""
    published = stage.publisher.hold(FIRST)
    await stage.next_batch()
    stage.processor.fail().set_exception(ConnectionResetError("database away"))
    await stage.next_batch()
    published.set_result(None)
    await stage.flow.wait_published()
    assert stage.health.troubles() == {"orders": "rewound: database: database away"}
    await stage.publish_the_rest()
    assert stage.health.troubles() == {}


async def test_what_was_published_although_its_reply_was_lost_leaves_nothing_waiting(stage: Stage):
    """No record may come that would clear it."""
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    stage.publisher.committed |= {FIRST: POLLED, OTHER: POLLED}
    held.set_exception(KafkaConnectionError())
    await stage.flow.wait_published()
    waiting = set(stage.health.troubles())
    stage.input.resume(FIRST, OTHER)
    await stage.next_batch()
    await stage.flow.wait_published()
    assert (waiting, stage.health.troubles()) == ({"order-placed-0", "order-placed-1"}, {})
    assert stage.publisher.attempts[FIRST] == [POLLED]


async def test_the_partitions_assigned_share_what_is_fetched_ahead(stage: Stage):
    for partitions in ([FIRST, OTHER], [FIRST]):
        await stage.consumer.on_partitions_assigned(partitions)
        assert stage.input.fetched_of_a_partition_bytes == FETCHED_AHEAD_BYTES // len(partitions)


async def test_what_became_of_the_records_is_not_kept_while_their_outcomes_are_published(stage: Stage):
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    assert await stage.pending(FIRST) == POLLED  # behind a round trip, in which publishing begins as well
    attempts = list(stage.publisher.attempts[FIRST])
    gc.collect()
    kept = sum(type(one) is RecordResult for one in gc.get_objects())
    held.set_result(None)
    await stage.flow.wait_published()
    assert (attempts, kept) == ([POLLED], 0)
    assert stage.publisher.published == {p: ids[:POLLED] for p, ids in stage.placed.items()}


async def test_partitions_are_given_up_when_what_is_being_published_is(stage: Stage):
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.consumer.on_partitions_revoked([FIRST, OTHER]))
        await asyncio.sleep(0)  # it runs now, up to where it has to wait
        too_early = list(stage.publisher.released)
        held.set_result(None)
    assert not too_early
    assert stage.publisher.published == {p: ids[:POLLED] for p, ids in stage.placed.items()}
    assert stage.publisher.released == [FIRST, OTHER]


async def test_records_that_come_again_while_they_are_being_published_are_published_once(stage: Stage):
    """As where the broker finds an offset out of range: aiokafka then goes back to the earliest by itself."""
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    stage.input.position[FIRST] = 0
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await stage.decided(2)
        held.set_result(None)
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def test_a_busy_worker_also_decides_what_came_meanwhile(stage: Stage):
    stage.input.fetched_since = True
    await stage.next_batch()
    assert stage.input.asked_for == []
    await stage.next_batch()  # at once
    assert stage.input.asked_for == [BATCH_MAX_RECORDS - 2 * POLLED]
    await stage.flow.wait_published()
    assert stage.publisher.attempts == {FIRST: [POLLED, 3 * POLLED], OTHER: [POLLED, 3 * POLLED]}
    assert stage.publisher.published == stage.placed


async def test_what_came_meanwhile_waits_behind_a_batch_that_was_rewound(stage: Stage):
    """While more was asked for, the batch before failed: all of its partition comes again, in order."""
    stage.input.fetched_since = True
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    held.set_exception(KafkaConnectionError())
    await stage.next_batch()
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def test_a_batch_does_not_wait_for_a_rebalance_that_waits_for_it(stage: Stage):
    await stage.next_batch()
    stage.input.rebalance = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        beside.create_task(stage.consumer.on_partitions_revoked([FIRST, OTHER]))
    assert stage.input.asked_for
    assert stage.publisher.published == {p: ids[: 2 * POLLED] for p, ids in stage.placed.items()}


async def test_what_was_polled_before_a_rebalance_is_not_taken_over_within_it(stage: Stage):
    """Found by the campaign: nobody released what was, and a foreign consumer commits without a lease.

    So a worker that got the partition back went on behind that commit, as its owner, and skipped records.
    """
    polled = stage.input.poll()
    await stage.consumer.on_partitions_revoked([FIRST, OTHER])
    await stage.consumer.handle_order_placed(polled)
    assert stage.partitions.owned() == {}
    for partition in (FIRST, OTHER):
        stage.input.seek(partition, 0)  # as aiokafka does: to the committed offset
    await stage.consumer.on_partitions_assigned([FIRST, OTHER])
    await stage.publish_the_rest()
    assert stage.publisher.published == stage.placed


async def test_what_is_wrong_with_kafka_while_more_is_asked_for_costs_nothing(stage: Stage):
    await stage.next_batch()
    stage.input.rebalance = asyncio.get_running_loop().create_future()
    stage.input.rebalance.set_exception(KafkaConnectionError())
    await stage.next_batch()
    await stage.flow.wait_published()
    assert stage.publisher.published == {p: ids[: 2 * POLLED] for p, ids in stage.placed.items()}


async def test_an_idle_commit_skips_no_records_that_were_dropped_to_be_read_again(stage: Stage):
    stage.publisher.committed[FIRST] = 1  # another owner came further than where reading began
    held = stage.takeover.hold(FIRST)
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await asyncio.sleep(0)
        idle = beside.create_task(stage.idle.commit_past_markers(FIRST))
        await asyncio.sleep(0)
        assert stage.input.accepted_position(FIRST) == POLLED
        held.set_result(None)
    assert not idle.result()
    assert stage.publisher.committed[FIRST] == 1
    await stage.publish_the_rest()
    assert stage.publisher.published[FIRST] == stage.placed[FIRST][1:]


async def test_records_polled_before_a_take_over_goes_back_are_read_again_in_order(stage: Stage):
    # As where the log was cut, and others have grown past the place where this worker stood.
    stage.publisher.committed[FIRST], stage.input.position[FIRST] = 0, 4
    held = stage.takeover.hold(FIRST)
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.idle.take_over([FIRST]))
        await asyncio.sleep(0)
        beside.create_task(stage.next_batch())
        await asyncio.sleep(0)
        held.set_result(None)
    await stage.publish_the_rest()
    assert stage.publisher.published[FIRST] == stage.placed[FIRST]


async def test_the_beginning_that_is_committed_is_before_records_that_were_rewound(stage: Stage):
    stage.takeover.fails = KafkaConnectionError()
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await asyncio.sleep(0)
        beside.create_task(stage.idle.commit_beginning(FIRST))
    assert stage.input.committed.get(FIRST, 0) == 0


async def test_behind_markers_alone_the_offset_is_committed(stage: Stage):
    await stage.next_batch()
    await stage.flow.wait_published()
    stage.input.position[FIRST] = POLLED + 1
    assert await stage.idle.commit_past_markers(FIRST)
    assert stage.publisher.committed[FIRST] == POLLED + 1
    assert not await stage.idle.commit_past_markers(FIRST)


async def test_a_partition_that_was_rewound_to_skipped_offsets_continues_after_them(stage: Stage):
    await stage.next_batch()
    await stage.flow.wait_published()
    stage.input.position[FIRST] = POLLED
    assert await stage.idle.continue_after_skipped(FIRST, POLLED, POLLED + 2)
    assert (stage.publisher.committed[FIRST], stage.input.position[FIRST]) == (POLLED + 2, POLLED + 2)

    stage.input.position[FIRST] = POLLED
    assert not await stage.idle.continue_after_skipped(FIRST, POLLED, POLLED + 2)
    assert (stage.publisher.committed[FIRST], stage.input.position[FIRST]) == (POLLED + 2, POLLED + 2)


async def test_a_refused_order_holds_up_no_other_partition_although_none_is_confirmed(
    stage: Stage, shop: Shop
):
    """Found with a shop that is sold out: each rejection waited behind the one order that is refused."""
    await asyncio.to_thread(shop.sql, "UPDATE products SET stock_quantity = 0, received_quantity = 0")
    await asyncio.to_thread(shop.stock_up, {2: 100})
    for statement in REFUSE_ALL_OF_PRODUCT_2:
        await asyncio.to_thread(shop.sql, statement)
    stage.input.records[FIRST][0] = record(order_value(line(2)))
    await stage.publish_the_rest(OTHER)
    assert stage.publisher.published == {OTHER: stage.placed[OTHER]}
    (waiting,) = stage.health.troubles().items()
    assert waiting[0] == "order-placed-0"
    assert "@0) is refused: not this one" in waiting[1]
    await asyncio.to_thread(shop.sql, "UPDATE products SET stock_quantity = 100, received_quantity = 100")
    await stage.publish_the_rest()
    assert stage.publisher.published[FIRST][1:] == stage.placed[FIRST][1:]
    assert not stage.health.troubles()


async def test_behind_a_locked_product_only_the_partitions_that_need_it_wait(stage: Stage, shop: Shop):
    """Found with a shop whose session kept one product locked: no order of any product was decided."""
    await asyncio.to_thread(shop.stock_up, {2: 100})
    await asyncio.to_thread(shop.sql, IMPATIENT)
    stage.input.records[FIRST][0] = record(order_value(line(2)))
    other = await asyncpg.connect(shop.database_url)
    async with other.transaction():
        await other.execute("SELECT 1 FROM products WHERE id = 2 FOR UPDATE")
        await stage.publish_the_rest(OTHER)
        assert stage.publisher.published == {OTHER: stage.placed[OTHER]}
        (waiting,) = stage.health.troubles().items()
        assert waiting[0] == "order-placed-0"
        assert "another session keeps product 2 locked" in waiting[1]
    await other.close()
    await stage.publish_the_rest()
    assert stage.publisher.published[FIRST][1:] == stage.placed[FIRST][1:]
    assert not stage.health.troubles()


@pytest.mark.parametrize("letters_a_batch", [1, 50])
async def test_refused_orders_alone_in_a_partition_are_letters_if_others_were_confirmed(
    stage: Stage, shop: Shop, monkeypatch: pytest.MonkeyPatch, letters_a_batch: int
):
    """Found with 4,000 in a row: nothing of their own batch showed that the tables take orders."""
    monkeypatch.setattr("worker.pipeline.batch.MAX_LETTERS", letters_a_batch)
    monkeypatch.setattr("worker.pipeline.retries.LATER_SECONDS", 0.01)
    await asyncio.to_thread(shop.stock_up, {2: 100})
    for statement in REFUSE_ALL_OF_PRODUCT_2:
        await asyncio.to_thread(shop.sql, statement)
    for offset in range(RECORDS):
        stage.input.records[FIRST][offset] = record(order_value(line(2)), offset=offset)
    stage.input.pause(FIRST)
    await stage.publish_the_rest(OTHER)
    stage.input.resume(FIRST)
    await stage.publish_the_rest()
    assert len(stage.publisher.published[FIRST]) == RECORDS
    assert not stage.health.troubles()
