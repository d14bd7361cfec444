"""`replay`: lets workers read records again, in silence. What was announced before is not announced again.

    rehearse   what they would do, in reads alone
    fence      each partition, so that its committed offset is the last word on what is announced
    record     in PostgreSQL, from where to that offset nothing is to be announced again
    move       the group, partition by partition, each only if nobody has taken it over since

Recorded before moved: a partition that was moved without a record would be announced again. A record
without a move does no harm, since all that lies there is announced already.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db import ledger, positions
from db.engine import session_factory
from db.ledger import SilentReplay
from db.positions import Begun
from worker.connections import (
    DATABASE_ERRORS,
    KAFKA_ERRORS,
    database_engine,
    kafka_admin,
    reason_of,
    require_database,
    require_topics,
)
from worker.errors import CommandError, UsageError
from worker.kafka.offset_mark import is_workers_mark
from worker.operations import group
from worker.operations.offsets import TopicSelection, bounds_of, offsets_at, partitions_of, topic_reader
from worker.operations.rehearsal import ProductChange, Rehearsal, Tally
from worker.operations.rehearse import RecordReader
from worker.operations.replay_plan import Move, Target, moves, require_records
from worker.operations.screen import progress
from worker.operations.sole_producer import is_fenced
from worker.publisher import OwnedPartition, Publisher
from worker.recall import is_forgotten
from worker.settings import Settings
from worker.settlement import Fate
from worker.steps import nothing_happens

Sessions = async_sessionmaker[AsyncSession]
Owned = Mapping[TopicPartition, OwnedPartition]

# How long the group's coordinator may take to tell an offset whose commit it has acknowledged.
_TOLD_SECONDS: Final = 15.0
_ASK_AGAIN_SECONDS: Final = 0.05
_FOR_EVER: Final = datetime.max.replace(tzinfo=UTC)
# What a worker passes over without a word: records that may be skipped without anybody missing them.
_NOTHING_TO_TELL: Final = frozenset({Fate.SILENCED, Fate.DUPLICATE})


@dataclass(slots=True)
class Replay:
    """A replay: where the group goes, and what workers will make of what comes again."""

    target: Target
    moves: list[Move]
    members: list[group.Member]
    tallies: dict[TopicPartition, Tally] = field(default_factory=dict)
    products: list[ProductChange] = field(default_factory=list)  # the most taken first
    seconds: float = 0.0  # that the rehearsal took
    executed: bool = False


async def replay(
    settings: Settings,
    selected: TopicSelection,
    target: Target,
    *,
    execute: bool = False,
    quiet: bool = False,
    recorded: Callable[[], None] = lambda: None,
) -> Replay:
    """Rehearse the replay and, with `execute`, do it. Ended at any point, it can be run again.

    `recorded` is called between recording it and moving the group. Raises CommandError with nothing changed,
    but where the message names the partitions that were moved.
    """
    if selected.topic != settings.order_placed_topic:
        raise UsageError(
            f"--topic {selected.topic}: only the input topic, {settings.order_placed_topic}, can be replayed"
        )
    await require_topics(settings)
    async with database_engine(settings, "order-worker replay") as engine, kafka_admin(settings) as admin:
        await require_database(engine, settings)
        with _in_one_line():
            if execute:
                await group.require_stopped(admin, settings.group_id)
            result = await _rehearse(settings, engine, admin, selected, target, quiet)
            if execute:
                await _execute(settings, engine, admin, result.moves, recorded)
                result.executed = True
            return result


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except DATABASE_ERRORS as error:
        raise CommandError(f"PostgreSQL ended it: {reason_of(error)}; run it again") from error
    except KAFKA_ERRORS as error:
        raise CommandError(f"Kafka ended it: {reason_of(error)}; run it again") from error


async def _rehearse(
    settings: Settings,
    engine: AsyncEngine,
    admin: AIOKafkaAdminClient,
    selected: TopicSelection,
    target: Target,
    quiet: bool,
) -> Replay:
    # Whatever happens here, nothing is written.
    sessions = session_factory(engine.execution_options(postgresql_readonly=True))
    async with topic_reader(settings, selected.topic) as consumer:
        partitions = await partitions_of(consumer, selected)
        members = await group.members(admin, settings.group_id)
        committed = await _committed(settings, sessions, admin, partitions)
        bounds = await bounds_of(consumer, list(committed))
        at_time = await offsets_at(consumer, bounds, target.time) if target.time else {}
        result = Replay(target, moves(target, bounds, committed, at_time), members)
        require_records(target, result.moves)
        reading = RecordReader(settings, sessions, consumer)
        await _require_nothing_lost(reading, target, result.moves)
        await _read_what_comes_again(reading, result, quiet)
    return result


async def _committed(
    settings: Settings, sessions: Sessions, admin: AIOKafkaAdminClient, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """Of each partition of which anything is decided. Raises CommandError where Kafka tells too little."""
    commits = await group.commits(admin, settings.group_id, partitions)
    async with sessions() as session:
        begun = await positions.list_begun(session, settings.group_id, partitions[0].topic)
    for partition, commit in commits.items():
        told = None if commit is None else commit.offset
        moved = commit is not None and not is_workers_mark(commit.metadata)
        latest = begun.get(partition.partition)
        if latest and is_forgotten(told, moved, latest):
            raise _forgotten(partition, told, latest)
    found = {p: commit.offset for p, commit in commits.items() if commit is not None}
    if not found:
        names = ", ".join(f"{p.topic}-{p.partition}" for p in partitions)
        raise CommandError(
            f"nothing was ever decided by the group {settings.group_id} in {names}: all of it comes by itself"
            " when workers start (or is ORDER_WORKER_GROUP_ID another one?)"
        )
    return found


def _forgotten(partition: TopicPartition, told: int | None, begun: Begun) -> CommandError:
    return CommandError(
        f"Kafka tells {'no offset' if told is None else f'the offset {told}'} of the group in"
        f" {partition.topic}-{partition.partition}, and its workers came to {begun.announced_to} at least;"
        " nothing was changed; start them once, which find out what is true, stop them, and try again"
    )


async def _read_what_comes_again(reading: RecordReader, result: Replay, quiet: bool) -> None:
    spans = {m.partition: m.replayed for m in result.moves if m.target < m.committed}
    # What the replay will record: all that is decided there by now is announced, and will be passed over.
    silent = {p.partition: [SilentReplay(*span, requested_at=_FOR_EVER)] for p, span in spans.items()}
    rehearsal, began = Rehearsal(silent), time.monotonic()
    result.tallies = {p: Tally() for p in spans}
    with progress("rehearsing", sum(end - start for start, end in spans.values()), quiet=quiet) as bar:
        async for partition, settled in reading.through(rehearsal, spans, bar):
            result.tallies[partition].add(settled)
    result.seconds = time.monotonic() - began
    changes = [change for change in rehearsal.products.values() if change.taken or change.refused]
    result.products = sorted(changes, key=lambda c: (-c.taken, -c.refused, c.product_id))


async def _require_nothing_lost(reading: RecordReader, target: Target, planned: Sequence[Move]) -> None:
    """What would be skipped is decided and announced, record by record, or a CommandError says what is not.

    Only a replay's own record tells that something which is decided was announced as well.
    """
    spans = {m.partition: m.skipped for m in planned if m.target > m.committed}
    async with reading.sessions() as session:
        silent = {p.partition: await ledger.list_replays(session, p.topic, p.partition) for p in spans}
    tallies = {p: Tally() for p in spans}
    with progress("checking what is skipped", sum(e - s for s, e in spans.values()), quiet=True) as bar:
        async for partition, settled in reading.through(Rehearsal(silent), spans, bar):
            tallies[partition].add(settled)
    lost = [
        f"{p.topic}-{p.partition} {start} to {end} ({_lost(tallies[p])})"
        for p, (start, end) in spans.items()
        if tallies[p].fates.keys() - _NOTHING_TO_TELL
    ]
    if lost:
        raise CommandError(
            f"{target.to.value} would skip records that nobody has dealt with: {', '.join(lost)};"
            " nothing was changed; start the workers instead, which pass over what is done"
        )


def _lost(tally: Tally) -> str:
    fates = tally.fates
    counts = {
        "undecided": fates[Fate.CONFIRMED] + fates[Fate.REJECTED],
        "decided, and perhaps not announced": fates[Fate.REDELIVERED],
        "dead letters to write": fates[Fate.DEAD_LETTER],
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


async def _execute(
    settings: Settings,
    engine: AsyncEngine,
    admin: AIOKafkaAdminClient,
    planned: Sequence[Move],
    recorded: Callable[[], None],
) -> None:
    moving = [move for move in planned if move.target != move.committed]
    async with _fenced(settings, moving) as (publisher, owned):
        for move in moving:
            _require_unmoved(move, owned[move.partition])
        # Again: the rehearsal may have taken long.
        await group.require_stopped(admin, settings.group_id)
        await _record(settings, session_factory(engine), moving, owned)
        recorded()
        await _move(publisher, moving, owned)
    await _until_told(settings, admin, moving)


@asynccontextmanager
async def _fenced(settings: Settings, moving: Sequence[Move]) -> AsyncIterator[tuple[Publisher, Owned]]:
    """Own the partitions as a worker would: nothing that others still have under way counts from here on.

    A worker that was stopped (SIGSTOP), or cut off, may hold outcomes and an offset in an open transaction.
    Committed after we have read the offset, they would come again behind it, and be announced again.
    """
    publisher = Publisher(
        group_id=settings.group_id,
        client_options=settings.kafka_client_options(),
        topics=(settings.order_confirmed_topic, settings.order_rejected_topic, settings.dead_letter_topic),
        transaction_timeout_ms=settings.transaction_timeout_ms,
        reached=nothing_happens,
    )
    taking = [asyncio.ensure_future(publisher.take_over(move.partition)) for move in moving]
    try:
        taken = await asyncio.gather(*taking)
        yield publisher, {one.partition: one for one in taken}
    finally:
        await asyncio.wait(taking)
        for one in taking:
            if not one.cancelled() and one.exception() is None:
                publisher.put_away(one.result().producer)
        await publisher.closed()


def _require_unmoved(move: Move, owned: OwnedPartition) -> None:
    if owned.next_offset != move.committed:
        raise CommandError(
            f"the group has moved in {move.name}, from {move.committed} to {owned.next_offset}, since it was"
            " rehearsed; nothing was changed; run it again"
        )


async def _record(settings: Settings, sessions: Sessions, moving: Sequence[Move], owned: Owned) -> None:
    """The replay of all partitions, in one transaction, as their owner."""
    topic = settings.order_placed_topic
    async with sessions.begin() as session:
        for move in moving:
            turn = await positions.take_turn(session, settings.group_id, topic, move.partition.partition)
            one = owned[move.partition]
            if turn.begun and is_forgotten(one.next_offset, one.moved, turn.begun):
                raise _forgotten(move.partition, one.next_offset, turn.begun)
        spans = {m.partition.partition: m.replayed for m in moving if m.target < m.committed}
        await ledger.add_replays(session, topic, spans)


async def _move(publisher: Publisher, moving: Sequence[Move], owned: Owned) -> None:
    done = await asyncio.gather(
        *(publisher.move(owned[move.partition], move.target) for move in moving), return_exceptions=True
    )
    failed = [(m, error) for m, error in zip(moving, done, strict=True) if isinstance(error, BaseException)]
    if not failed:
        return
    names = ", ".join(move.name for move, _ in failed)
    numbers = ",".join(str(move.partition.partition) for move, _ in failed)
    _, why = failed[0]
    reason = "a worker has taken it over" if is_fenced(why) else reason_of(why)
    raise CommandError(
        f"{len(moving) - len(failed)} of {len(moving)} partitions were moved, and perhaps not {names}"
        f" ({reason}); stop the workers and run it again with --topic {moving[0].partition.topic}:{numbers}"
    )


async def _until_told(settings: Settings, admin: AIOKafkaAdminClient, moving: Sequence[Move]) -> None:
    """Kafka acknowledges a commit a moment before it tells the offset to whoever asks next."""
    expected: dict[TopicPartition, int | None] = {move.partition: move.target for move in moving}
    deadline = asyncio.get_running_loop().time() + _TOLD_SECONDS
    while await group.committed(admin, settings.group_id, list(expected)) != expected:
        if asyncio.get_running_loop().time() > deadline:
            raise CommandError(
                "the group was moved, and Kafka still tells another offset: look again before workers start"
            )
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
