"""The redrives: which dead letters were sent to the input topic again, and the results.

A row is written before its letter is sent, and holds the end of the input partition as it was then. So
after a crash, a row that is `claimed` shows where to look: the record, which carries the row's id, lies after
that end, or was never sent.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Text,
    Uuid,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import UpdateBase

from db.models import DeadLetterRedrive
from db.statuses import RedriveStatus
from db.worker.array_rows import array_rows
from db.worker.redrive_records import Claim, Finish, Redrive, Run, SourcePlace

_COLUMNS: Final = (
    DeadLetterRedrive.id,
    DeadLetterRedrive.run_id,
    DeadLetterRedrive.requested_by,
    DeadLetterRedrive.requested_at,
    DeadLetterRedrive.letter_partition,
    DeadLetterRedrive.letter_offset,
    DeadLetterRedrive.source_topic,
    DeadLetterRedrive.source_partition,
    DeadLetterRedrive.source_offset,
    DeadLetterRedrive.changed_field,
    DeadLetterRedrive.old_value,
    DeadLetterRedrive.new_value,
    DeadLetterRedrive.changes,
    DeadLetterRedrive.status,
    DeadLetterRedrive.input_partition,
    DeadLetterRedrive.input_offset,
    DeadLetterRedrive.result,
    DeadLetterRedrive.finished_at,
)
_sources = array_rows("source", {"topic": Text, "partition": Integer, "offset": BigInteger})
_FIND: Final = select(*_COLUMNS).join(
    _sources,
    (DeadLetterRedrive.source_topic == _sources.c.topic)
    & (DeadLetterRedrive.source_partition == _sources.c.partition)
    & (DeadLetterRedrive.source_offset == _sources.c.offset),
)
_sent = array_rows("sent", {"id": Uuid, "offset": BigInteger})
_MARK_SENT: Final = (
    update(DeadLetterRedrive)
    .where(DeadLetterRedrive.id == _sent.c.id, DeadLetterRedrive.status == RedriveStatus.CLAIMED.value)
    .values({"status": RedriveStatus.SENT.value, "input_offset": _sent.c.offset})
    .execution_options(synchronize_session=False)
)
_finish = array_rows("finish", {"id": Uuid, "status": Text, "result": Text})
_MARK_FINISHED: Final = (
    update(DeadLetterRedrive)
    .where(DeadLetterRedrive.id == _finish.c.id)
    .values({"status": _finish.c.status, "result": _finish.c.result, "finished_at": func.now()})
    .execution_options(synchronize_session=False)
)


async def find_redrives(
    session: AsyncSession, sources: Collection[SourcePlace]
) -> dict[SourcePlace, Redrive]:
    """The redrives of those dead letters, finished or not."""
    if not sources:
        return {}
    topics, partitions, offsets = zip(*sources, strict=True)
    rows = await session.execute(
        _FIND,
        {"each_topic": list(topics), "each_partition": list(partitions), "each_offset": list(offsets)},
    )
    return {redrive.source: redrive for redrive in (Redrive(**row._asdict()) for row in rows)}


async def find_redrive(session: AsyncSession, redrive_id: UUID) -> Redrive | None:
    """One redrive by its id, which the redriven record carries."""
    row = (await session.execute(select(*_COLUMNS).where(DeadLetterRedrive.id == redrive_id))).one_or_none()
    return None if row is None else Redrive(**row._asdict())


async def add_redrives(session: AsyncSession, run: Run, claims: Sequence[Claim]) -> set[UUID]:
    """Claim the dead letters, and return the ids of those that were not claimed before."""
    if not claims:
        return set()
    statement = insert(DeadLetterRedrive).on_conflict_do_nothing().returning(DeadLetterRedrive.id)
    rows = [{**run._asdict(), **_values(claim)} for claim in claims]
    return set((await session.execute(statement, rows)).scalars())


async def list_claimed(session: AsyncSession, run_id: UUID, limit: int) -> list[Redrive]:
    """The next letters of the run to be sent, in the order of their places."""
    rows = await session.execute(
        select(*_COLUMNS)
        .where(DeadLetterRedrive.run_id == run_id, _is(RedriveStatus.CLAIMED))
        .order_by(DeadLetterRedrive.letter_partition, DeadLetterRedrive.letter_offset)
        .limit(limit)
    )
    return [Redrive(**row._asdict()) for row in rows]


async def mark_sent(session: AsyncSession, offsets: Mapping[UUID, int]) -> int:
    """Store the input offsets of claimed dead letters; returns how many of the ids were claimed."""
    places = {"each_id": list(offsets), "each_offset": [*offsets.values()]}
    return await _changed(session, _MARK_SENT, places)


async def finish_redrives(session: AsyncSession, finished: Sequence[Finish]) -> None:
    """Store the results of dead letters that were sent."""
    if finished:
        ids, statuses, results = zip(*finished, strict=True)
        await session.execute(
            _MARK_FINISHED,
            {"each_id": list(ids), "each_status": [s.value for s in statuses], "each_result": list(results)},
        )


async def release_redrives(session: AsyncSession, run_id: UUID, but: Iterable[UUID] = ()) -> int:
    """Delete the claims of dead letters that were never sent, so that a later run may take them; how many."""
    return await _changed(
        session,
        delete(DeadLetterRedrive)
        .where(
            DeadLetterRedrive.run_id == run_id,
            _is(RedriveStatus.CLAIMED),
            DeadLetterRedrive.id.not_in(list(but)),
        )
        .execution_options(synchronize_session=False),
    )


async def drop_redrives(session: AsyncSession, ids: Collection[UUID]) -> None:
    """Forget these claims: nothing of them was sent, and nothing will be."""
    await session.execute(delete(DeadLetterRedrive).where(DeadLetterRedrive.id.in_(list(ids))))


async def count_unfinished(session: AsyncSession, group_id: str) -> int:
    """How many redrives of earlier runs have no result yet."""
    unfinished = _is(RedriveStatus.CLAIMED, RedriveStatus.SENT)
    query = select(func.count()).where(DeadLetterRedrive.group_id == group_id, unfinished)
    return (await session.execute(query)).scalar_one()


async def list_claiming_runs(session: AsyncSession, group_id: str, input_topic: str) -> list[UUID]:
    """The runs of the group that have claimed dead letters and not sent all of them."""
    claimed = *_of_group(group_id, input_topic), _is(RedriveStatus.CLAIMED)
    return list(
        (await session.execute(select(DeadLetterRedrive.run_id).where(*claimed).distinct())).scalars()
    )


async def list_claimed_from(session: AsyncSession, run_ids: Collection[UUID]) -> dict[int, int]:
    """By partition of the input topic, the offset from which their claimed letters are, if they were sent."""
    rows = await session.execute(
        select(DeadLetterRedrive.input_partition, func.min(DeadLetterRedrive.input_from))
        .where(DeadLetterRedrive.run_id.in_(run_ids), _is(RedriveStatus.CLAIMED))
        .group_by(DeadLetterRedrive.input_partition)
    )
    return dict(rows.all())


async def fail_unknowable(
    session: AsyncSession, run_ids: Collection[UUID], partition: int, first_offset: int, why: str
) -> int:
    """End those claims of these runs of which it is not known any more whether they were sent; how many."""
    return await _changed(
        session,
        update(DeadLetterRedrive)
        .where(
            DeadLetterRedrive.run_id.in_(run_ids),
            DeadLetterRedrive.input_partition == partition,
            DeadLetterRedrive.input_from < first_offset,
            _is(RedriveStatus.CLAIMED),
        )
        .values({"status": RedriveStatus.FAILED.value, "result": why, "finished_at": func.now()})
        .execution_options(synchronize_session=False),
    )


async def move_to_group(session: AsyncSession, old_group: str, new_group: str, input_topic: str) -> int:
    """Let another group finish what one has not; how many. No redrive of the old one may run any more."""
    return await _changed(
        session,
        update(DeadLetterRedrive)
        .where(*_of_group(old_group, input_topic), _is(RedriveStatus.CLAIMED, RedriveStatus.SENT))
        .values({"group_id": new_group})
        .execution_options(synchronize_session=False),
    )


async def list_sent(session: AsyncSession, group_id: str, input_topic: str, limit: int) -> list[Redrive]:
    """Dead letters of any run that are in the input topic and have no stored result."""
    rows = await session.execute(
        select(*_COLUMNS)
        .where(*_of_group(group_id, input_topic), _is(RedriveStatus.SENT))
        .order_by(DeadLetterRedrive.input_partition, DeadLetterRedrive.input_offset)
        .limit(limit)
    )
    return [Redrive(**row._asdict()) for row in rows]


async def _changed(session: AsyncSession, statement: UpdateBase, values: Any = None) -> int:
    """How many rows the statement changed."""
    result = await session.execute(statement, values)
    return int(result.rowcount)  # type: ignore[attr-defined]


def _of_group(group_id: str, input_topic: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return DeadLetterRedrive.group_id == group_id, DeadLetterRedrive.source_topic == input_topic


def _is(*statuses: RedriveStatus) -> ColumnElement[bool]:
    return DeadLetterRedrive.status.in_([status.value for status in statuses])


def _values(claim: Claim) -> dict[str, object]:
    values = claim._asdict()
    topic, partition, offset = values.pop("source")
    return {**values, "source_topic": topic, "source_partition": partition, "source_offset": offset}
