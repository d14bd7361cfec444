"""Faults of topics, group and clocks, while workers run."""

from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Final
from uuid import uuid4

from confluent_kafka import Consumer

from tests.faults.arena import LARGEST_BYTES, Arena
from tests.faults.strikes import INJECTIONS
from tests.support.group_offsets import foreign_consumer_in
from tests.support.topic_changes import add_partitions, delete_records, set_option

_BEFORE: Final = "message.timestamp.before.max.ms"
_AFTER: Final = "message.timestamp.after.max.ms"
_LARGEST: Final = "max.message.bytes"
_NO_LIMIT: Final = str(2**63 - 1)
_MIB: Final = 1024 * 1024
_HOUR: Final = 3_600

# Topic, option, value for a while, value afterwards. What the workload makes fits one by one.
_SETTINGS: Final = (
    ("order_confirmed", _LARGEST, "4000", str(_MIB)),
    ("order_rejected", _LARGEST, "4000", str(_MIB)),
    ("dead_letter", _LARGEST, "330000", str(LARGEST_BYTES["dead_letter"])),
    ("dead_letter", _LARGEST, "3000", str(LARGEST_BYTES["dead_letter"])),
    ("dead_letter", _BEFORE, "1000", _NO_LIMIT),
    ("order_confirmed", _BEFORE, "1000", _NO_LIMIT),
    ("order_rejected", _AFTER, "1000", str(_HOUR * 1_000)),
    ("order_confirmed", "message.timestamp.type", "LogAppendTime", "CreateTime"),
    ("dead_letter", "message.timestamp.type", "LogAppendTime", "CreateTime"),
    ("dead_letter", "cleanup.policy", "compact", "delete"),
)


def odd_header_names(arena: Arena) -> None:
    """Between the orders come records with a header name that is not UTF-8, also in compressed batches."""
    for number in range(INJECTIONS):
        arena.some_progress()
        for partition in arena.chance.sample(range(arena.partitions), 2):
            arena.place_odd(partition)
            arena.feed(1 / 32)
            arena.injected += 1
        if number % 2:
            arena.any_worker().kill()


def settings_changed(arena: Arena) -> None:
    """Sizes, timestamp rules and cleanup policies of the output topics change, and change back."""
    for kind, option, value, back in arena.chance.sample(_SETTINGS, len(_SETTINGS)):
        topic = getattr(arena.scene.topics, kind)
        arena.some_progress()
        try:
            set_option(arena.scene.kafka, topic, option, value)
            arena.feed(1 / 24)
            arena.drain()
        finally:
            set_option(arena.scene.kafka, topic, option, back)
        arena.injected += 1


def partitions_added(arena: Arena) -> None:
    """The input gets more partitions, and orders on them."""
    for _ in range(2):
        arena.some_progress()
        added = arena.chance.randint(1, 2)
        arena.partitions += added
        add_partitions(arena.scene.kafka, arena.scene.topics.order_placed, arena.partitions)
        arena.injected += 1
        for partition in range(arena.partitions - added, arena.partitions):
            arena.place_extra(partition, arena.chance.randint(5, 30))
        arena.some_progress()
        arena.drain()


def deleted_records(arena: Arena) -> None:
    """Retention deletes what is decided, and then some orders before they are."""
    topic = arena.scene.topics.order_placed
    for _ in range(2):
        arena.some_progress()
        arena.drain()
        delete_records(arena.scene.kafka, topic, dict.fromkeys(range(arena.partitions), -1))
        arena.some_progress()
        arena.drain()
        arena.kill_all()
        partition = arena.chance.randrange(arena.partitions)
        begin = arena.placed.ends[partition]
        arena.place_extra(partition, arena.chance.randint(1, 20))
        end = arena.placed.ends[partition]
        arena.place_extra(partition, arena.chance.choice([0, 5]))
        delete_records(arena.scene.kafka, topic, {partition: end})
        arena.placed.doom(partition, range(begin, end))
        arena.injected += 1
        arena.drain()


def group_renamed(arena: Arena) -> None:
    """The workers come back under another group id, and its offsets are taken over once they ask for it."""
    for _ in range(2):
        arena.some_progress()
        arena.dismiss()
        before, after = arena.scene.group_id, f"arena-{uuid4().hex[:8]}"
        arena.workers.environment["ORDER_WORKER_GROUP_ID"] = after
        arena.scene = replace(arena.scene, group_id=after)
        arena.feed(1 / 8)
        arena.until(lambda: f"--from-group {before}" in arena.reasons())  # noqa: B023
        arena.dismiss()
        arena.command("replay", "--from-group", before, "--execute").done()
        arena.injected += 1


def foreign_consumer(arena: Arena) -> None:
    """A consumer that is no worker joins the group, commits what it has read, and leaves."""
    for number in range(INJECTIONS):
        arena.some_progress()
        with _foreign_consumer(arena) as foreign:
            arena.until(lambda: foreign.poll(0.1) or foreign.assignment())
            theirs = [place.partition for place in foreign.assignment()]
            for partition in theirs:
                arena.place_extra(partition, arena.chance.randint(1, 20))
            arena.feed(1 / 16)
            if theirs:
                arena.until(lambda: foreign.poll(0.1) is not None)
            foreign.consume(arena.chance.randint(0, 30), timeout=1)
            if number % 2:
                arena.any_worker().kill()
        arena.injected += bool(theirs)


def _foreign_consumer(arena: Arena) -> AbstractContextManager[Consumer]:
    return closing(
        foreign_consumer_in(arena.scene.kafka, arena.scene.group_id, arena.scene.topics.order_placed)
    )


def clocks_are_off(arena: Arena) -> None:
    """Workers whose clocks are off by a minute to a day die, and Kafka forgets their offsets."""
    arena.dismiss()
    arena.clocks = (60, -60, _HOUR, -_HOUR, 24 * _HOUR, -24 * _HOUR)
    for number in range(INJECTIONS):
        arena.some_progress()
        arena.kill_all()
        if number % 2:
            arena.scene.remember_wrongly()
        else:
            arena.scene.forget_offsets()
        arena.injected += 1
