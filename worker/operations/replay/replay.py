"""`replay`: lets workers read records again, without publishing again what was published before.

    rehearse   find out, read only, what the workers would do
    fence      each partition, so that its committed offset is final
    record     in PostgreSQL the offsets of which nothing is published again
    move       the group, partition by partition, each only if no worker has taken it over since

The replay is recorded before the move: after a move without a record, everything would be published again. A
record without a move is harmless, since everything in it is published already.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.engine import session_factory
from db.statuses import SilentReplay
from db.worker import ledger, positions
from worker.core.results import Fate
from worker.database import database_engine, require_database
from worker.errors import CommandError, UsageError
from worker.kafka import group
from worker.kafka.clients import kafka_admin, require_topics
from worker.kafka.consuming.reading import reader
from worker.kafka.consuming.unreadable import UnreadableCount, UnreadableSpan
from worker.kafka.offsets import TopicSelection, bounds_of, offsets_at, partitions_of, topic_reader
from worker.operations.one_line import in_one_line
from worker.operations.replay.execution import execute as execute_moves
from worker.operations.replay.plan import Move, Target, moves, reached_to, require_records
from worker.operations.replay.rehearsal import ProductChange, Rehearsal, RehearsalTally
from worker.operations.replay.rehearse import RecordReader
from worker.operations.screen import command_line, progress
from worker.settings import Settings

Sessions = async_sessionmaker[AsyncSession]

_FOR_EVER: Final = datetime.max.replace(tzinfo=UTC)
# Records for which a worker publishes nothing: skipping them loses no outcome.
_NOTHING_TO_TELL: Final = frozenset({Fate.SILENCED, Fate.DUPLICATE})


@dataclass(slots=True)
class ReplayRun:
    """A replay: where the group goes, and what workers will make of what comes again."""

    target: Target
    moves: list[Move]
    members: list[group.Member]
    commits: group.Commits
    tallies: dict[TopicPartition, RehearsalTally] = field(default_factory=dict)
    products: list[ProductChange] = field(default_factory=list)  # the most taken first
    seconds: float = 0.0  # that the rehearsal took
    last_decided_at: datetime | None = None  # of what comes again and is decided
    executed: bool = False
    unreadable: list[UnreadableCount] = field(default_factory=list)  # of what comes again


async def replay(
    settings: Settings,
    selected: TopicSelection,
    target: Target,
    *,
    execute: bool = False,
    quiet: bool = False,
    recorded: Callable[[], None] = lambda: None,
) -> ReplayRun:
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
        with in_one_line():
            if execute:
                await group.require_stopped(admin, settings.group_id)
            result = await _rehearse(settings, engine, admin, selected, target, quiet)
            if execute:
                await execute_moves(
                    *(settings, engine, admin, result.moves),
                    commits=result.commits,
                    last_decided_at=result.last_decided_at,
                    recorded=recorded,
                )
                result.executed = True
            return result


async def _rehearse(
    settings: Settings,
    engine: AsyncEngine,
    admin: AIOKafkaAdminClient,
    selected: TopicSelection,
    target: Target,
    quiet: bool,
) -> ReplayRun:
    # Whatever happens here, nothing is written.
    sessions = session_factory(engine.execution_options(postgresql_readonly=True))
    async with topic_reader(settings, selected.topic) as consumer:
        partitions = await partitions_of(consumer, selected)
        members = await group.members(admin, settings.group_id)
        commits = await group.commits(admin, settings.group_id, partitions)
        # Read after the committed offsets, so that none of them lies beyond its log's end.
        log_ends = await _log_ends(settings, partitions)
        committed = await _committed(settings, sessions, commits, log_ends)
        bounds = await bounds_of(consumer, list(committed))
        at_time = await offsets_at(consumer, bounds, target.time) if target.time else {}
        planned = moves(target, bounds, log_ends, committed, at_time)
        result = ReplayRun(target, planned, members, commits)
        require_records(target, result.moves)
        reading = RecordReader(settings, sessions, consumer)
        await _require_nothing_lost(reading, target, result.moves)
        await _read_what_comes_again(reading, result, quiet)
        result.unreadable = consumer.met.counts()
    return result


async def _log_ends(settings: Settings, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    async with reader(settings.kafka_client_options(), "read_uncommitted") as consumer:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(list(partitions))
    return ends


async def _committed(
    settings: Settings,
    sessions: Sessions,
    commits: group.Commits,
    log_ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """By partition with decided orders. Raises CommandError if Kafka reports too little."""
    async with sessions() as session:
        pending = await positions.list_pending(session, settings.group_id, settings.order_placed_topic)
        others = await positions.list_other_groups(session, settings.group_id, settings.order_placed_topic)
    found = {
        p: reached
        for p, commit in commits.items()
        if (reached := reached_to(p, commit, pending.get(p.partition), log_ends[p])) is not None
    }
    if not found:
        groups = [name for p in commits for name in others.get(p.partition, ())]
        raise _nothing_decided(settings, commits, list(dict.fromkeys(groups)))
    return found


def _nothing_decided(
    settings: Settings, partitions: Collection[TopicPartition], others: Sequence[str]
) -> CommandError:
    names = ", ".join(f"{p.topic}-{p.partition}" for p in partitions)
    nothing = f"nothing was ever decided by the group {settings.group_id} in {names}"
    if others:
        return CommandError(
            f"{nothing}, but by the group {', '.join(others)}: take its offsets over first"
            f" (`{command_line('replay', '--from-group', others[0])}`), then run this again"
        )
    return CommandError(
        f"{nothing}: all of it comes by itself when workers start (or is ORDER_WORKER_GROUP_ID another one?)"
    )


async def _read_what_comes_again(reading: RecordReader, result: ReplayRun, quiet: bool) -> None:
    spans = {m.partition: m.replayed for m in result.moves if m.target < m.committed}
    # What the replay will record: all that is decided there by now is published, and will be skipped.
    silent = {
        m.partition.partition: [SilentReplay(m.target, m.committed, _FOR_EVER)]
        for m in result.moves
        if m.partition in spans
    }
    rehearsal, began = Rehearsal(silent), time.monotonic()
    result.tallies = {p: RehearsalTally() for p in spans}
    with progress("rehearsing", sum(end - start for start, end in spans.values()), quiet=quiet) as bar:
        async for partition, results in reading.through(rehearsal, spans, bar):
            result.tallies[partition].add(results)
    result.seconds, result.last_decided_at = time.monotonic() - began, rehearsal.last_decided_at
    changes = [change for change in rehearsal.products.values() if change.taken or change.refused]
    result.products = sorted(changes, key=lambda c: (-c.taken, -c.refused, c.product_id))


async def _require_nothing_lost(reading: RecordReader, target: Target, planned: Sequence[Move]) -> None:
    """What would be skipped is decided and published, record by record, or a CommandError says what is not.

    Only the record of a replay proves that decided orders were published as well.
    """
    skipping = [m for m in planned if m.skipped[0] < m.skipped[1]]
    spans = {m.partition: m.skipped for m in skipping}
    silent = await _known_to_be_published(reading, skipping)
    tallies = {p: RehearsalTally() for p in spans}
    unreadable: list[UnreadableSpan] = []
    with progress("checking what is skipped", sum(e - s for s, e in spans.values()), quiet=True) as bar:
        async for partition, results in reading.through(Rehearsal(silent), spans, bar, unreadable.append):
            tallies[partition].add(results)
    lost = [
        f"{p.topic}-{p.partition} {start} to {end} ({_lost(tallies[p])})"
        for p, (start, end) in spans.items()
        if tallies[p].fates.keys() - _NOTHING_TO_TELL
    ] + [str(span) for span in unreadable]
    if lost:
        raise CommandError(
            f"{target.to.value} would skip records that nobody has dealt with: {', '.join(lost)};"
            " nothing was changed; start the workers instead, which skip what is done"
        )


async def _known_to_be_published(
    reading: RecordReader, moves: Sequence[Move]
) -> dict[int, list[SilentReplay]]:
    async with reading.sessions() as session:
        silent = {
            n: await ledger.list_replays(session, topic, n) for topic, n in (m.partition for m in moves)
        }
    for move in moves:
        if move.beyond:
            # All that is decided there was committed, and so was published.
            silent[move.partition.partition].append(SilentReplay(0, move.committed, _FOR_EVER))
    return silent


def _lost(tally: RehearsalTally) -> str:
    fates = tally.fates
    counts = {
        "undecided": fates[Fate.CONFIRMED] + fates[Fate.REJECTED],
        "decided, and perhaps not published": fates[Fate.REDELIVERED],
        "dead letters to write": fates[Fate.DEAD_LETTER],
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
