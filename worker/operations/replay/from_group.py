"""`replay --from-group`: a group continues where one of another name stopped, and publishes nothing again.

    fence      the old group's partitions: what it still has under way ends, its offsets are final
    copy       its `positions`, from which a worker finds out by itself what Kafka has lost
    commit     its offsets, as they are, for the new group

Copied before committed: with the copy alone workers continue at the right place as well, only more slowly. So
it may be killed anywhere, and run again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.engine import session_factory
from db.worker import positions, redrives, withheld
from worker.database import database_engine, require_database
from worker.errors import UsageError
from worker.kafka import group
from worker.kafka.clients import kafka_admin, require_topics
from worker.kafka.offset_mark import MARK, has_decided, is_workers_mark
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of, topic_reader
from worker.kafka.producing.exclusive_producer import exclusive_producer, is_fenced
from worker.kafka.published import is_offset_lost, published_to
from worker.operations.fencing import Fenced, fenced
from worker.operations.one_line import in_one_line
from worker.operations.replay.handover import (
    Handover,
    PartitionStanding,
    Stage,
    require_furthest,
    require_possible,
)
from worker.pipeline.late_publication import producer_id
from worker.settings import Settings

Sessions = async_sessionmaker[AsyncSession]


@dataclass(frozen=True, slots=True)
class GroupTakeover:
    """What is taken over of `old_group`, and who is in the two groups. `redrives`: not finished yet."""

    old_group: str
    handovers: list[Handover]
    old_members: list[group.Member]
    redrives: int
    executed: bool = False


async def from_group(
    settings: Settings,
    old_group: str,
    selected: TopicSelection,
    *,
    execute: bool = False,
    copied: Callable[[], None] = lambda: None,
) -> GroupTakeover:
    """Rehearse the takeover for the group of the settings and, with `execute`, do it.

    Workers of the new group may run already: they wait for it. `copied` is called between copying the
    positions and committing the offsets. Raises CommandError with nothing changed for the new group, or to be
    run again.
    """
    if old_group == settings.group_id:
        raise UsageError(f"--from-group {old_group}: that is ORDER_WORKER_GROUP_ID itself, the group to be")
    if selected.topic != settings.order_placed_topic:
        raise UsageError(
            f"--topic {selected.topic}: only the input topic, {settings.order_placed_topic}, has offsets"
        )
    await require_topics(settings)
    async with database_engine(settings, "order-worker replay") as engine, kafka_admin(settings) as admin:
        await require_database(engine, settings)
        with in_one_line():
            sessions = session_factory(engine)
            if execute:
                await group.require_stopped(admin, old_group)
            result = await _look(settings, sessions, admin, old_group, selected)
            if execute:
                await _execute(settings, sessions, admin, result, copied)
                result = replace(await _look(settings, sessions, admin, old_group, selected), executed=True)
            return result


async def _look(
    settings: Settings,
    sessions: Sessions,
    admin: AIOKafkaAdminClient,
    old_group: str,
    selected: TopicSelection,
) -> GroupTakeover:
    async with topic_reader(settings, selected.topic) as consumer:
        partitions = await partitions_of(consumer, selected)
        ends = await bounds_of(consumer, partitions)
    old_commits = await group.commits(admin, old_group, partitions)
    new_commits = await group.commits(admin, settings.group_id, partitions)
    async with sessions() as session:
        old_pending = await positions.list_pending(session, old_group, selected.topic)
        new_pending = await positions.list_pending(session, settings.group_id, selected.topic)
        others = await positions.list_other_groups(session, settings.group_id, selected.topic)
        unfinished = await redrives.count_unfinished(session, old_group)
    handovers = [
        Handover(
            p,
            PartitionStanding(old_commits[p], old_pending.get(p.partition)),
            PartitionStanding(new_commits[p], new_pending.get(p.partition)),
            ends[p].end,
        )
        for p in partitions
    ]
    require_possible(old_group, settings.group_id, handovers)
    require_furthest(old_group, handovers, others)
    return GroupTakeover(old_group, handovers, await group.members(admin, old_group), unfinished)


async def _execute(
    settings: Settings,
    sessions: Sessions,
    admin: AIOKafkaAdminClient,
    planned: GroupTakeover,
    copied: Callable[[], None],
) -> None:
    old_group = planned.old_group
    taking = [one.partition for one in planned.handovers if one.stage is Stage.AHEAD]
    async with fenced(settings, sessions, old_group, taking) as old:
        # Again: who came meanwhile is fenced, but would take its partitions over once more.
        await group.require_stopped(admin, old_group)
        commits = await _final_commits(old)
        await _end_tries(settings, sessions, old_group, taking)
        # Before the copy, with which workers that wait begin: afterwards it would fence them.
        async with fenced(settings, sessions, settings.group_id, taking) as new:
            await _take(sessions, old_group, settings.group_id, new, commits, copied)
    await group.until_shown(admin, settings.group_id, [p for p in taking if commits[p]], _all_have_decided)
    if planned.redrives:
        await _take_over_redrives(settings, sessions, old_group)


async def _final_commits(old: Fenced) -> dict[TopicPartition, OffsetAndMetadata | None]:
    """The old group's offsets; an offset that Kafka has lost is found out from the outcome topics."""
    commits = dict(old.commits)
    for partition, commit in old.commits.items():
        held, committed = old.held[partition], None if commit is None else commit.offset
        was_moved = commit is not None and not is_workers_mark(commit.metadata)
        if held.pending and not was_moved and is_offset_lost(committed, held.pending):
            end = await published_to(old.leases, held.lease, held.pending, committed)
            commits[partition] = OffsetAndMetadata(end, MARK)
    return commits


async def _take(
    sessions: Sessions,
    old_group: str,
    new_group: str,
    new: Fenced,
    commits: group.Commits,
    copied: Callable[[], None],
) -> None:
    missing = {p: commit for p, commit in commits.items() if commit and not has_decided(new.commits[p])}
    # An operator's move of the old group is one of the new group. The copy alone would overrule it.
    await _commit(new, {p: commit for p, commit in missing.items() if not is_workers_mark(commit.metadata)})
    async with sessions.begin() as session:
        for partition in new.held:
            await positions.copy_to_group(session, old_group, new_group, *partition)
    copied()
    try:
        await _commit(new, {p: commit for p, commit in missing.items() if is_workers_mark(commit.metadata)})
    except Exception as error:
        # Workers that waited have found the copy, and continue by that.
        if not is_fenced(error):
            raise


async def _commit(new: Fenced, commits: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
    await new.leases.commit({new.held[partition].lease: commit for partition, commit in commits.items()})


def _all_have_decided(commits: group.Commits) -> bool:
    return all(has_decided(commit) for commit in commits.values())


async def _end_tries(
    settings: Settings, sessions: Sessions, old_group: str, partitions: Sequence[TopicPartition]
) -> None:
    """Outcomes that their topic has refused are published later, by producers of names of their own."""
    async with sessions() as session:
        waiting = await withheld.count_withheld(session, settings.order_placed_topic)
    for partition in partitions:
        if waiting.get(partition.partition):
            await _end(settings, producer_id(old_group, partition))


async def _end(settings: Settings, transactional_id: str) -> None:
    """Fence the producer of this name: it can commit nothing more, and its open transaction has ended."""
    async with exclusive_producer(settings, transactional_id, settings.transaction_timeout_ms):
        pass


async def _take_over_redrives(settings: Settings, sessions: Sessions, old_group: str) -> None:
    """Dead letters that are being redriven: the next run of the new group finds out what was sent of them."""
    await _end(settings, f"{old_group}.redrive")
    async with sessions.begin() as session:
        await redrives.move_to_group(session, old_group, settings.group_id, settings.order_placed_topic)
