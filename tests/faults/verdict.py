"""The verdict on a run: a sentence for each broken guarantee.

Everything is read from outside: the tables by plain SQL, the topics by librdkafka with read_committed.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

from tests.faults import decisions, model
from tests.faults.along import Subscriber
from tests.faults.arena import Arena
from tests.faults.placed import Letter
from tests.faults.workload import PRICE, Kind
from tests.support.deadline import eventually
from tests.support.group_offsets import committed_lag
from tests.support.kafka_topics import admin_client, partition_numbers
from tests.support.promises import Scene
from tests.support.subscriber import Message

_SHOWN = 3  # of each kind of violation


def find_violations(arena: Arena, along: Subscriber) -> list[str]:
    """Every broken guarantee; `along` read the outcomes during the run."""
    outcomes = arena.scene.outcomes()
    return [
        *_books(arena),
        *_ledger(arena),
        *_sources(arena),
        *_passed_over(arena),
        *_published_once(arena, outcomes),
        *_subscriber(outcomes, along),
        *_dead_letters(arena),
        *left_open(arena),
        *_decisions(arena),
    ]


def _decisions(arena: Arena) -> list[str]:
    """Every outcome and reason is what deciding one order at a time gives, in the order of the commits."""
    workload = arena.workload
    orders = {**workload.orders, **arena.placed.orders}
    placed = {order_id: decisions.parse_order(value) for order_id, value in orders.items()}
    start = decisions.Start(
        workload.products,
        dict.fromkeys(workload.products, Decimal(PRICE)),
        frozenset(range(1, workload.users + 1)),
    )
    return model.find_violations(_in_turn(arena), placed, start)


def _in_turn(arena: Arena) -> list[decisions.Decided]:
    """What is decided; where offsets came again, the turn of its record is in the place of each offset."""
    decided = decisions.read_decided(arena.shop)
    return (
        [replace(one, source_offset=_turn(arena, one)) for one in decided] if arena.placed.is_cut else decided
    )


def _turn(arena: Arena, one: decisions.Decided) -> int:
    return arena.placed.turn(one.source_partition, one.source_offset, one.order_id)


def _sources(arena: Arena) -> Iterable[str]:
    decided = decisions.read_decided(arena.shop)
    nowhere = {one for one in decided if _turn(arena, one) < 0}
    yield from _differences("decided from a place where it does not lie", nowhere)


def _books(arena: Arena) -> Iterable[str]:
    try:
        arena.shop.assert_conserved()
    except AssertionError as error:
        yield str(error).splitlines()[0]


def _ledger(arena: Arena) -> Iterable[str]:
    decided = {str(row["order_id"]) for row in arena.shop.sql("SELECT order_id FROM order_outcomes")}
    placed = {str(order_id) for order_id in (*arena.workload.orders, *arena.placed.orders)}
    doomed = {str(order_id) for order_id in arena.placed.doomed}
    yield from _differences("decided, though never placed", decided - placed)
    yield from _differences("placed and never decided", placed - decided - doomed)


def _passed_over(arena: Arena) -> Iterable[str]:
    """What nobody can decide is on record, and nothing else is."""
    decided = {row["order_id"] for row in arena.shop.sql("SELECT order_id FROM order_outcomes")}
    doomed = arena.placed.doomed_at()
    recorded = {
        (row["partition"], offset)
        for row in arena.shop.sql("SELECT partition, from_offset, to_offset FROM skips")
        for offset in range(row["from_offset"], row["to_offset"])
    }
    lost = {place for place, order_id in doomed.items() if order_id not in decided}
    yield from _differences("skipped, and not on record", lost - recorded)
    yield from _differences("skipped, though it could be decided", recorded - set(doomed))


def _published_once(arena: Arena, outcomes: Sequence[Message]) -> Iterable[str]:
    ledger = {
        str(row["order_id"]): row["event"].encode()
        for row in arena.shop.sql("SELECT order_id, event::text FROM order_outcomes")
    }
    times = Counter(message.header("ce_subject") for message in outcomes)
    yield from _differences("decided and never published", set(ledger) - set(times))
    yield from _differences("published, though never decided", set(times) - set(ledger))
    allowed = 1 + arena.rewinds
    yield from _differences(
        "published too often", {order for order, count in times.items() if count > allowed}
    )
    ids: dict[str | None, set[str | None]] = {}
    for message in outcomes:
        ids.setdefault(message.header("ce_subject"), set()).add(message.header("ce_id"))
    yield from _differences(
        "published under several event ids", {o for o, found in ids.items() if len(found) > 1}
    )
    yield from _differences(
        "published in other bytes than the ledger's",
        {m.header("ce_subject") for m in outcomes if m.value != ledger.get(str(m.header("ce_subject")))},
    )


def _subscriber(outcomes: Sequence[Message], along: Subscriber) -> Iterable[str]:
    """The subscriber that read along saw what is there in the end, each record once and in order."""
    at_the_end = Counter(message.value for message in outcomes)
    eventually(
        lambda: len(along.seen) >= len(outcomes),
        20,
        lambda: f"the subscriber has seen {len(along.seen)} of {len(outcomes)}: {along.fetching()}",
    )
    seen = Counter(value for _, _, _, value in along.seen)
    yield from _differences("seen while the run continued, and gone in the end", seen - at_the_end)
    yield from _differences(
        "there in the end, and not seen by a subscriber that read along", at_the_end - seen
    )
    last: dict[tuple[str, int], int] = {}
    for topic, partition, offset, _ in along.seen:
        if offset <= last.get((topic, partition), -1):
            yield f"seen again or out of order: {topic} {partition}:{offset}"
        last[topic, partition] = offset


def _dead_letters(arena: Arena) -> Iterable[str]:
    """The dead letters are the poison and the conflicts that were placed, once each."""
    expected = arena.placed.letters
    found: Counter[Letter] = Counter(
        (m.header("source.partition"), m.header("source.offset"), m.header("error.code"))
        for m in arena.scene.dead_letters()
    )
    if arena.rewinds or arena.placed.is_cut:
        found, expected = Counter(set(found)), Counter(set(expected))
    yield from _differences("missing dead letters", expected - found)
    yield from _differences("dead letters that should not be", found - expected)


def left_open(arena: Arena) -> Iterable[str]:
    """Whatever is unfinished: offsets, database transactions, Kafka transactions."""
    if lag := committed_lag(arena.scene.kafka, arena.scene.group_id, arena.scene.topics.order_placed):
        yield f"{lag} input records whose offset is not committed"
    open_ones = arena.shop.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'order-worker' AND state <> 'idle'"
    )
    if open_ones:
        yield f"{open_ones} database transactions still open"
    if has_open_transaction(arena.scene):
        yield "a Kafka transaction is still open"


def has_open_transaction(scene: Scene) -> bool:
    """Whether some topic ends in records whose transaction is neither committed nor aborted."""
    topics = vars(scene.topics).values()
    stable, end = ([ends(scene, topic, level) for topic in topics] for level in IsolationLevel)
    return stable != end


def ends(scene: Scene, topic: str, level: IsolationLevel) -> dict[int, int]:
    """Where each partition of the topic ends for a reader of this level."""
    admin = admin_client(scene.kafka)
    asked = {TopicPartition(topic, p): OffsetSpec.latest() for p in partition_numbers(admin, topic)}
    answers = admin.list_offsets(asked, isolation_level=level, request_timeout=10)
    return {p.partition: answer.result(10).offset for p, answer in answers.items()}


def _differences(what: str, those: Iterable[Any]) -> Iterable[str]:
    found = sorted(str(one)[:80] for one in those)
    if found:
        yield f"{len(found)} {what}: {', '.join(found[:_SHOWN])}"


def count_kinds(arena: Arena) -> str:
    """What was placed, for the log."""
    kinds = Counter(record.kind for record in arena.workload.records)
    return ", ".join(f"{kinds[kind]} {kind.value}" for kind in Kind)
