"""Does what a replay has planned: fence, record, move. Ended at any point, it can be run again."""

from collections.abc import Callable, Sequence
from datetime import datetime

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.engine import session_factory
from db.worker import leases, ledger, positions, skips
from db.worker.positions import PendingBatch
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.clients import KAFKA_ERRORS
from worker.kafka.group import Commits, require_stopped, until_shown
from worker.kafka.offset_mark import MOVED_BY_REPLAY
from worker.kafka.producing.exclusive_producer import is_fenced
from worker.kafka.published import published_to
from worker.operations.fencing import Fenced, fenced
from worker.operations.replay.plan import Move, reached_to
from worker.settings import Settings


async def execute(
    settings: Settings,
    engine: AsyncEngine,
    admin: AIOKafkaAdminClient,
    planned: Sequence[Move],
    *,
    commits: Commits,
    last_decided_at: datetime | None,
    recorded: Callable[[], None],
) -> None:
    """Move the group as planned, and return when Kafka shows it.

    `commits` and `last_decided_at`, of what comes again and is decided, are those of the rehearsal.

    Raises CommandError with nothing changed, unless the message names partitions that were moved.
    """
    moving = [move for move in planned if move.target != move.committed]
    sessions = session_factory(engine)
    async with fenced(settings, sessions, settings.group_id, [m.partition for m in moving]) as held:
        for move in moving:
            before, now = commits[move.partition], held.commits[move.partition]
            _require_unmoved(move, _offset(before), _offset(now))
        # Again: the rehearsal may have taken long.
        await require_stopped(admin, settings.group_id)
        await _record(settings, sessions, moving, held, last_decided_at)
        recorded()
        await _move(held, moving)
    targets = {move.partition: move.target for move in moving}

    def is_moved(shown: Commits) -> bool:
        return all(_offset(shown[partition]) == target for partition, target in targets.items())

    await until_shown(admin, settings.group_id, list(targets), is_moved)


def _require_unmoved(move: Move, shown: int | None, shows: int | None) -> None:
    if shows != shown:
        raise CommandError(
            f"the group has moved in {move.name}, from {shown} to {shows}, since it was rehearsed;"
            " nothing was changed; run it again"
        )


def _offset(commit: OffsetAndMetadata | None) -> int | None:
    return None if commit is None else commit.offset


async def _record(
    settings: Settings,
    sessions: async_sessionmaker[AsyncSession],
    moving: Sequence[Move],
    held: Fenced,
    last_decided_at: datetime | None,
) -> None:
    """The replay of all partitions, in one transaction, as their owner."""
    topic, silent = settings.order_placed_topic, {}
    async with sessions.begin() as session:
        for move in moving:
            commit, number = held.commits[move.partition], move.partition.partition
            lease, pending = held.held[move.partition].lease, held.held[move.partition].pending
            if not await leases.hold_epoch(session, settings.group_id, topic, number, lease.epoch):
                raise CommandError(
                    f"a worker, or another replay, has taken over {move.name} meanwhile; nothing was changed;"
                    " stop all workers and run it again"
                )
            _require_unmoved(move, move.committed, reached_to(move.partition, commit, pending, move.log_end))
            if move.target < move.committed:
                silent[number] = (move.target, await _published_to(move, held, pending))
            if move.beyond:
                # The row belongs to a log that no longer exists; the replay records how far that was
                # published.
                await positions.forget(session, settings.group_id, topic, number)
            if move.deleted:
                await _note_deleted(session, settings, move)
        spans = {p: span for p, span in silent.items() if span[0] < span[1]}
        await ledger.add_replays(session, topic, spans, last_decided_at)


async def _published_to(move: Move, held: Fenced, pending: PendingBatch | None) -> int:
    """The offset below which all that is decided is published."""
    if not move.beyond or pending is None:
        return move.committed
    # The outcome topics show whether the latest batch was published: Kafka's offset may be older.
    committed = _offset(held.commits[move.partition])
    lease = held.held[move.partition].lease
    return max(await published_to(held.leases, lease, pending, committed), committed or 0)


async def _note_deleted(session: AsyncSession, settings: Settings, move: Move) -> None:
    """As the worker does that comes upon it, and that will not when the group was moved over it."""
    topic, number = move.partition
    await skips.add_skip(
        session,
        *(topic, number, move.committed, move.bounds.first),
        requested_by=settings.group_id,
        note="deleted from the topic before a worker read it",
        kind="deleted",
    )


async def _move(held: Fenced, moving: Sequence[Move]) -> None:
    """All of them, as one step."""
    try:
        await held.leases.commit(
            {held.held[m.partition].lease: OffsetAndMetadata(m.target, MOVED_BY_REPLAY) for m in moving}
        )
    except KAFKA_ERRORS as error:
        numbers = ",".join(str(move.partition.partition) for move in moving)
        reason = "a worker, or another replay, has taken it over" if is_fenced(error) else reason_of(error)
        raise CommandError(
            f"perhaps not moved: {', '.join(move.name for move in moving)} ({reason}); stop the workers and"
            f" run it again with --topic {moving[0].partition.topic}:{numbers}"
        ) from error
