"""Which rows of the ledger no longer need their event, and the statement that drops it. The row stays.

An event is needed as long as anybody may publish it: its input record can be read again, it is not committed,
or it is withheld. What else is in a row (outcome, fingerprints, source, time) is what makes the same order a
duplicate, and is never dropped.

All statements read or change one span of the table's blocks. That needs no index on the time of the decision,
which every decision would have to write, reads each block once, and finds again by itself where a run ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    Integer,
    LargeBinary,
    TextClause,
    Uuid,
    bindparam,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession


class PruneState(StrEnum):
    """How a row stands to a pruning: the first of these that holds."""

    PRUNED = "pruned"  # it has no event any more
    YOUNGER = "younger"  # decided at the given time, or later
    OTHER_TOPIC = "other_topic"  # from another topic than the input, or from a partition that it lacks
    IN_TOPIC = "in_topic"  # its record can be read again
    NOT_COMMITTED = "not_committed"  # the group, or PostgreSQL, does not take it for published yet
    DELETED_EARLY = "deleted_early"  # its record was deleted before the group had committed it
    WITHHELD = "withheld"  # its topic refuses it, or did a short while ago
    PRUNABLE = "prunable"


@dataclass(frozen=True, slots=True)
class PruneBound:
    """Of one input partition: the offset of its first record, and that below which all is published."""

    partition: int
    first_offset: int
    published_to: int


@dataclass(frozen=True, slots=True)
class PruneRule:
    """Rows of `topic` that were decided before `before` (aware) and lie below both bounds of a partition."""

    topic: str
    before: datetime
    bounds: Sequence[PruneBound]


class StateCount(NamedTuple):
    """How many rows, and the bytes that their events take."""

    rows: int
    event_bytes: int


class PrunableRow(NamedTuple):
    """`event`: only if it has the lines of the order, and nothing else in the row does."""

    order_id: UUID
    fingerprint: bytes
    event: str | None


class TableSize(NamedTuple):
    """What the ledger takes on disk, without and with its index."""

    table_bytes: int
    index_bytes: int


# Both ends of a span as text: the driver knows no type for a row's place.
_JUDGED: Final = """
    SELECT l.order_id, l.outcome, l.fingerprint, l.sorted_fingerprint, l.event,
      CASE
        WHEN l.event IS NULL THEN 'pruned'
        WHEN l.decided_at >= :before THEN 'younger'
        WHEN l.source_topic <> :topic OR b.partition IS NULL THEN 'other_topic'
        WHEN l.source_offset >= b.first_offset THEN 'in_topic'
        WHEN l.source_offset >= b.published_to THEN 'not_committed'
        WHEN EXISTS (SELECT FROM skips k WHERE k.topic = l.source_topic
          AND k.partition = l.source_partition AND k.kind = 'deleted'
          AND l.source_offset >= k.from_offset AND l.source_offset < k.to_offset) THEN 'deleted_early'
        WHEN EXISTS (SELECT FROM withheld_outcomes w WHERE w.order_id = l.order_id) THEN 'withheld'
        ELSE 'prunable'
      END AS state
    FROM order_outcomes l
    LEFT JOIN unnest(:partitions, :first_offsets, :published_to) AS b (partition, first_offset, published_to)
      ON b.partition = l.source_partition
    WHERE l.ctid >= CAST(CAST(:start AS text) AS tid) AND l.ctid < CAST(CAST(:end AS text) AS tid)
"""


def _of_span(select: str) -> TextClause:
    return text(f"WITH judged AS ({_JUDGED}) {select}").bindparams(
        bindparam("before", type_=DateTime(timezone=True)),
        bindparam("partitions", type_=ARRAY(Integer)),
        bindparam("first_offsets", type_=ARRAY(BigInteger)),
        bindparam("published_to", type_=ARRAY(BigInteger)),
    )


_COUNT: Final = _of_span(
    "SELECT state, count(*), coalesce(sum(pg_column_size(event)), 0) FROM judged GROUP BY state"
)
_LIST: Final = _of_span("""
    SELECT order_id, fingerprint, CASE WHEN outcome = 'confirmed' AND sorted_fingerprint IS NULL
        AND json_array_length(event -> 'items') > 1 THEN CAST(event AS text) END
    FROM judged WHERE state = 'prunable'
""")
# By the key: whatever has moved a row meanwhile, it is that order's.
_PRUNE: Final = text("""
    UPDATE order_outcomes l
    SET event = NULL, sorted_fingerprint = coalesce(l.sorted_fingerprint, pruned.sorted_fingerprint)
    FROM unnest(:order_ids, :sorted_fingerprints) AS pruned (order_id, sorted_fingerprint)
    WHERE l.order_id = pruned.order_id AND l.event IS NOT NULL
    RETURNING 1
""").bindparams(
    bindparam("order_ids", type_=ARRAY(Uuid)), bindparam("sorted_fingerprints", type_=ARRAY(LargeBinary))
)
# Not waited for until it is on disk: the next run prunes again what a crash has undone.
_NO_WAIT: Final = text("SELECT set_config('synchronous_commit', 'off', true)")
# The ledger itself, or its partitions: a table that is partitioned has no blocks of its own.
_PARTS: Final = """
    (SELECT CAST('order_outcomes' AS regclass) UNION SELECT relid FROM pg_partition_tree('order_outcomes'))
    AS part (id)
"""
_BLOCKS: Final = text(f"""
    SELECT max(pg_relation_size(id)) / CAST(current_setting('block_size') AS bigint) FROM {_PARTS}
""")  # noqa: S608 (constant)
_SIZE: Final = text(f"""
    SELECT CAST(sum(pg_table_size(id)) AS bigint), CAST(sum(pg_indexes_size(id)) AS bigint) FROM {_PARTS}
""")  # noqa: S608 (constant)


async def count_blocks(session: AsyncSession) -> int:
    """How many blocks the ledger has now, or its largest partition; spans hold rows of all its partitions.

    What is written later lies after them, or in free places.
    """
    return int((await session.execute(_BLOCKS)).scalar_one())


async def count_states(
    session: AsyncSession, rule: PruneRule, start: int, end: int
) -> dict[PruneState, StateCount]:
    """How the rows of a span of blocks stand, `end` not included; states without a row are missing."""
    rows = await session.execute(_COUNT, _span(rule, start, end))
    return {PruneState(state): StateCount(number, int(size)) for state, number, size in rows}


async def list_prunable(session: AsyncSession, rule: PruneRule, start: int, end: int) -> list[PrunableRow]:
    """The rows of a span of blocks, `end` not included, whose event is not needed any more."""
    return [PrunableRow(*row) for row in await session.execute(_LIST, _span(rule, start, end))]


async def prune(session: AsyncSession, sorted_fingerprints: Mapping[UUID, bytes | None]) -> int:
    """Drop the events of these orders, and keep the fingerprint that is given; how many were dropped now."""
    await session.execute(_NO_WAIT)
    rows = await session.execute(
        _PRUNE,
        {
            "order_ids": list(sorted_fingerprints),
            "sorted_fingerprints": list(sorted_fingerprints.values()),
        },
    )
    return len(rows.all())


async def ledger_size(session: AsyncSession) -> TableSize:
    """On disk, free places included."""
    return TableSize(*(await session.execute(_SIZE)).one())


def _span(rule: PruneRule, start: int, end: int) -> dict[str, object]:
    return {
        "before": rule.before,
        "topic": rule.topic,
        "partitions": [bound.partition for bound in rule.bounds],
        "first_offsets": [bound.first_offset for bound in rule.bounds],
        "published_to": [bound.published_to for bound in rule.bounds],
        "start": f"({start},0)",
        "end": f"({end},0)",
    }
