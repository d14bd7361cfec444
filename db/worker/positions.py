"""How far each partition is published, in addition to Kafka's own committed offset.

A broker may forget committed offsets, and undo the last transaction whose commit it has acknowledged
(docs/kafka-limits.md). What was published must not be published again because of that, and what was undone
must be. So before a batch is published, its row here gets the offsets of the batch and a sentinel: a record
that shows whether the batch was published. The row also keeps those of the previous batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any, Final, cast

from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    Text,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from db.direct import DirectStatement
from db.models import Position
from db.worker.array_rows import array_rows


@dataclass(frozen=True, slots=True)
class Sentinel:
    """One record of a publication, which identifies it among all publications of the same.

    `digest` stands for its key and headers. It lies in that partition of its topic, at `from_offset` or
    behind it, and no earlier publication of the same does. Where these are None, an earlier version has
    begun it: then `timestamp_ms`, the record's own by the worker's clock, has to do.
    """

    topic: str
    timestamp_ms: int
    digest: bytes
    partition: int | None = None
    from_offset: int | None = None


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The previous batch: Kafka has acknowledged the commit of its publication."""

    from_offset: int
    sentinel: Sentinel | None
    published_by: str | None = field(default=None, compare=False)  # as below


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """The latest batch of a partition whose publication began.

    Every record before `published_to` is published, as Kafka said; whether the previous batch still is, its
    sentinel in `acknowledged` shows. The records from `published_to` to `pending_to` are decided; `sentinel`
    shows whether they are published, and is None if there was nothing to publish. `last_timestamp_ms` is that
    of the record before `pending_to`. `published_by` is the transactional id of its publication; a copy for
    another group has none. `acknowledged` and `published_by` are read only: `record_pending` sets them.
    """

    published_to: int
    pending_to: int
    last_timestamp_ms: int
    sentinel: Sentinel | None
    acknowledged: Acknowledged | None = None
    published_by: str | None = field(default=None, compare=False)


_STATE: Final = {
    "announced_to": BigInteger,
    "begun_to": BigInteger,
    "last_timestamp_ms": BigInteger,
    "witness_topic": Text,
    "witness_timestamp_ms": BigInteger,
    "witness_digest": LargeBinary,
    "witness_partition": Integer,
    "witness_from_offset": BigInteger,
}
# The previous batch: the latest so far if this one continues after it, the stored previous one if the same
# batch begins once more, and otherwise none.
_ACKNOWLEDGED: Final = {
    "acknowledged_from": "announced_to",
    "acknowledged_topic": "witness_topic",
    "acknowledged_timestamp_ms": "witness_timestamp_ms",
    "acknowledged_digest": "witness_digest",
    "acknowledged_partition": "witness_partition",
    "acknowledged_from_offset": "witness_from_offset",
    "acknowledged_by": "begun_by",
}
_ROW: Final = {"topic": Text, "partition": Integer, "epoch": BigInteger, "follows": BigInteger, **_STATE}
_KEPT: Final = (*_STATE, "begun_by", *_ACKNOWLEDGED)
_FOLLOWS_ANYTHING: Final = -1
_new = array_rows("begun", _ROW)
_RECORD_PENDING: Final = DirectStatement(
    update(Position)
    .where(
        Position.group_id == bindparam("group"),
        Position.topic == _new.c.topic,
        Position.partition == _new.c.partition,
        # A worker that took the partition over since then has begun another epoch.
        Position.epoch == _new.c.epoch,
        # If the row holds anything but what its owner wrote, PostgreSQL was restored from a backup.
        or_(_new.c.follows == _FOLLOWS_ANYTHING, Position.begun_to.is_not_distinct_from(_new.c.follows)),
    )
    .values(
        {
            **{name: _new.c[name] for name in _STATE},
            "begun_by": Position.transactional_id,
            **{
                name: case(
                    (Position.begun_to == _new.c.announced_to, getattr(Position, latest)),
                    (Position.announced_to == _new.c.announced_to, getattr(Position, name)),
                )
                for name, latest in _ACKNOWLEDGED.items()
            },
        }
    )
    .returning(Position.topic, Position.partition)
)


async def forget(session: AsyncSession, group_id: str, topic: str, partition: int) -> None:
    """Delete all but the epoch, after the log of which it speaks is gone."""
    await session.execute(
        update(Position)
        .where(Position.group_id == group_id, Position.topic == topic, Position.partition == partition)
        .values(dict.fromkeys(_KEPT, None))
    )


async def copy_to_group(
    session: AsyncSession, old_group: str, new_group: str, topic: str, partition: int
) -> None:
    """Let the new group continue where the old one is, unless the new one has begun a batch.

    The old group may have no hanging transaction in Kafka: its transactional ids are not copied. A caller
    that has started an epoch of the new group has to start another one, because that one lacks this row.
    """
    state = [name for name in _KEPT if not name.endswith("_by")]
    copied = select(
        *(literal(new_group), Position.topic, Position.partition, Position.epoch + 1),
        *(getattr(Position, name) for name in state),
    )
    statement = insert(Position).from_select(
        ["group_id", "topic", "partition", "epoch", *state],
        copied.where(
            Position.group_id == old_group, Position.topic == topic, Position.partition == partition
        ),
    )
    new = statement.excluded
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[Position.group_id, Position.topic, Position.partition],
            set_={
                "epoch": func.greatest(Position.epoch + 1, new.epoch),
                **{name: getattr(new, name) for name in state},
            },
            where=Position.begun_to.is_(None),
        )
    )


async def list_pending(session: AsyncSession, group_id: str, topic: str) -> dict[int, PendingBatch]:
    """The latest batch of each partition whose publication began, without becoming its owner."""
    rows = await session.execute(
        select(Position.partition, *pending_columns()).where(
            Position.group_id == group_id, Position.topic == topic, Position.announced_to.is_not(None)
        )
    )
    return {partition: pending for partition, *state in rows if (pending := pending_of(state))}


async def list_pending_to(session: AsyncSession, group_id: str, topic: str) -> dict[int, int | None]:
    """By partition, the offset after the latest batch whose publication began; None: there was none."""
    rows = await session.execute(
        select(Position.partition, Position.begun_to).where(
            Position.group_id == group_id, Position.topic == topic
        )
    )
    return {row.partition: row.begun_to for row in rows}


async def list_other_groups(session: AsyncSession, group_id: str, topic: str) -> dict[int, dict[str, int]]:
    """By partition, to where the other groups of this schema have decided it.

    The group that came furthest in the whole topic comes first: it is the one to continue from.
    """
    rows = await session.execute(
        select(Position.partition, Position.group_id, Position.begun_to)
        .where(Position.group_id != group_id, Position.topic == topic, Position.begun_to.is_not(None))
        .order_by(func.sum(Position.begun_to).over(partition_by=Position.group_id).desc(), Position.group_id)
    )
    groups: dict[int, dict[str, int]] = {}
    for partition, other, pending_to in rows:
        groups.setdefault(partition, {})[other] = pending_to or 0
    return groups


async def record_pending(
    session: AsyncSession,
    group_id: str,
    batches: Mapping[tuple[str, int], tuple[int, PendingBatch]],
    follows: Mapping[tuple[str, int], int | None] | None = None,
) -> set[tuple[str, int]]:
    """Remember, before they are published, batches by (topic, partition), each with its owner's epoch.

    Returns those that were remembered. The others have a new owner and must not be published; or, where
    `follows` is given, the row does not hold that `pending_to` any more: PostgreSQL is that of a backup.
    """
    follows = {} if follows is None else follows
    rows = [
        (
            *place,
            epoch,
            follows.get(place, _FOLLOWS_ANYTHING),
            pending.published_to,
            pending.pending_to,
            pending.last_timestamp_ms,
            *(astuple(pending.sentinel) if pending.sentinel else [None] * len(fields(Sentinel))),
        )
        for place, (epoch, pending) in batches.items()
    ]
    columns = {
        f"each_{name}": list(values) for name, values in zip(_ROW, zip(*rows, strict=True), strict=True)
    }
    remembered = await _RECORD_PENDING.fetch(session, {"group": group_id, **columns})
    return cast("set[tuple[str, int]]", set(remembered))


def pending_columns() -> list[InstrumentedAttribute[object]]:
    """Those of a row of which `pending_of` makes a PendingBatch."""
    return [getattr(Position, name) for name in _KEPT]


def pending_of(state: Sequence[object]) -> PendingBatch | None:
    """What a row says of the latest batch; None: there was none. `state`: its `pending_columns`."""
    published_to, pending_to, last_timestamp_ms, *others = cast("Sequence[Any]", state)
    if published_to is None:
        return None
    width = len(fields(Sentinel))
    sentinel, (published_by, acknowledged_from, *before) = others[:width], others[width:]
    acknowledged = None
    if acknowledged_from is not None:
        acknowledged = Acknowledged(acknowledged_from, _sentinel(*before[:width]), before[width])
    return PendingBatch(
        published_to, pending_to, last_timestamp_ms, _sentinel(*sentinel), acknowledged, published_by
    )


def _sentinel(
    topic: str | None,
    timestamp_ms: int | None,
    digest: bytes | None,
    partition: int | None,
    from_offset: int | None,
) -> Sentinel | None:
    if topic is None or timestamp_ms is None or digest is None:
        return None
    return Sentinel(topic, timestamp_ms, digest, partition, from_offset)
