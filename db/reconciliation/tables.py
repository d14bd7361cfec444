"""Joins the topics' records with ledger, orders and stock, in temporary tables of one session.

A reconciliation reads topics of any length. What it needs of each record is copied here in portions, and
PostgreSQL, which spills to disk by itself, does the joins: the caller holds no ids. Each portion is judged by
a statement of its own, committed at once, because a transaction that lasts would keep the dead versions of
the products' rows from being cleaned up, and every sale makes one.

Every function needs the session that `prepare` was called with, bound to one connection until the end.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.reconciliation.rules import (
    JUDGE_LEDGER,
    JUDGE_ORDERS,
    JUDGE_PUBLISHED,
    JUDGE_RECORDS,
    JUDGE_STRAY_OUTCOMES,
    JUDGE_UNREADABLE,
)
from db.reports import stock_discrepancies


class Span(NamedTuple):
    """The offsets of one partition that are judged: from `start` up to, not including, `end`.

    `is_cut`: the records before `start` were deleted. Dead letters of offsets below `letters_from` may have
    been deleted, and so may outcomes decided before `confirmed_since_ms` and `rejected_since_ms`.
    """

    partition: int
    start: int
    end: int
    is_cut: bool
    oldest_ms: int | None
    letters_from: int = 0
    confirmed_since_ms: int = 0
    rejected_since_ms: int = 0


class UnreadableRow(NamedTuple):
    """Offsets of the input, `end` not included, that cannot be unpacked. `waits`: the group waits there."""

    partition: int
    start: int
    end: int
    why: str
    waits: bool


class Finding(NamedTuple):
    """One discrepancy: where (of the input or of an outcome topic), of which order or product, and what."""

    code: str
    topic: str | None
    partition: int | None
    offset: int | None
    order_id: UUID | None
    product_id: int | None
    detail: str


class Unpublished(NamedTuple):
    """A decided order whose outcome is in no topic, with all that its publication is made of."""

    partition: int
    offset: int
    order_id: UUID
    outcome: str
    event: str
    decided_at: datetime
    passed_on: bytes | None


_PREPARE: Final = (
    # A plan for any portion would be one for half a percent of all, which reads the whole ledger each time.
    "SET plan_cache_mode = force_custom_plan",
    "CREATE TEMPORARY TABLE reconciled_records (partition integer NOT NULL, record_offset bigint NOT NULL,"
    " timestamp_ms bigint NOT NULL, order_id uuid, fingerprint bytea, code text, passed_on bytea)",
    "CREATE TEMPORARY TABLE reconciled_outcomes (is_confirmation boolean NOT NULL,"
    " partition integer NOT NULL, record_offset bigint NOT NULL, order_id uuid, digest bytea NOT NULL,"
    " republished boolean NOT NULL)",
    "CREATE TEMPORARY TABLE reconciled_letters (partition integer NOT NULL, record_offset bigint NOT NULL,"
    " timestamp_ms bigint, letter_partition integer NOT NULL, letter_offset bigint NOT NULL)",
    "CREATE TEMPORARY TABLE reconciled_spans (topic text NOT NULL, partition integer NOT NULL,"
    " start_offset bigint NOT NULL, end_offset bigint NOT NULL, is_cut boolean NOT NULL, oldest_ms bigint,"
    " letters_from bigint NOT NULL, confirmed_since_ms bigint NOT NULL, rejected_since_ms bigint NOT NULL)",
    "CREATE TEMPORARY TABLE reconciled_findings (code text NOT NULL, topic text, partition integer,"
    " record_offset bigint, order_id uuid, product_id bigint, detail text NOT NULL)",
    "CREATE TEMPORARY TABLE reconciled_unreadable (partition integer NOT NULL, start_offset bigint NOT NULL,"
    " end_offset bigint NOT NULL, why text NOT NULL, waits boolean NOT NULL)",
    # As the events write it.
    "CREATE TEMPORARY TABLE reconciled_unbalanced (product_id text PRIMARY KEY)",
    # The records that the ledger names as the source of their own order, with that decision. (A pruned one
    # has no record, but where a volume of Kafka's was restored: then there is nothing to compare with.)
    "CREATE TEMPORARY VIEW reconciled_decided AS SELECT r.partition, r.record_offset, r.passed_on,"
    " l.order_id, l.outcome, l.fingerprint, l.event, l.decided_at,"
    " s.topic, s.confirmed_since_ms, s.rejected_since_ms"
    " FROM reconciled_records r JOIN reconciled_spans s ON s.partition = r.partition"
    " JOIN order_outcomes l ON l.order_id = r.order_id AND l.source_topic = s.topic"
    " AND l.source_partition = r.partition AND l.source_offset = r.record_offset AND l.event IS NOT NULL",
)
# Once all is copied: one sort is cheaper than keeping an index while random ids come in.
_INDEX: Final = (
    "CREATE INDEX ON reconciled_records (partition, record_offset)",
    "CREATE INDEX ON reconciled_outcomes (order_id)",
    "CREATE INDEX ON reconciled_outcomes (is_confirmation, partition, record_offset)",
    "CREATE INDEX ON reconciled_letters (partition, record_offset)",
    "ANALYZE reconciled_records",
    "ANALYZE reconciled_outcomes",
    "ANALYZE reconciled_letters",
)


async def prepare(session: AsyncSession) -> None:
    """Create the temporary tables; they go with the session's connection."""
    for statement in _PREPARE:
        await session.execute(text(statement))


async def add_unreadable(session: AsyncSession, rows: Sequence[UnreadableRow]) -> None:
    if rows:
        await session.execute(
            text("INSERT INTO reconciled_unreadable VALUES (:partition, :start, :end, :why, :waits)"),
            [row._asdict() for row in rows],
        )


async def set_spans(session: AsyncSession, topic: str, spans: Sequence[Span]) -> None:
    """What is judged, and from where on what the other topics hold is complete; replaces what was set."""
    await session.execute(text("DELETE FROM reconciled_spans"))
    if spans:
        await session.execute(
            text(
                "INSERT INTO reconciled_spans VALUES (:topic, :partition, :start, :end, :is_cut, :oldest_ms,"
                " :letters_from, :confirmed_since_ms, :rejected_since_ms)"
            ),
            [{"topic": topic, **span._asdict()} for span in spans],
        )


async def find_first_decision(session: AsyncSession) -> datetime | None:
    """When the first of the records was decided; None: none was."""
    first: datetime | None = await session.scalar(text("SELECT min(decided_at) FROM reconciled_decided"))
    return first


async def index(session: AsyncSession) -> None:
    """Once all records are added, and before any is judged."""
    for statement in _INDEX:
        await session.execute(text(statement))


async def judge_stock(session: AsyncSession) -> int:
    """Products whose received − sold is not their stock become findings, the first ones; how many."""
    wrong = await stock_discrepancies(session)
    if wrong:
        await session.execute(
            text(
                "INSERT INTO reconciled_findings (code, product_id, detail)"
                " VALUES ('stock_differs', :product_id, :detail)"
            ),
            [
                {
                    "product_id": p.product_id,
                    "detail": f"received {p.received} − sold {p.sold} is not the stock of {p.stock}",
                }
                for p in wrong
            ],
        )
        await session.execute(
            text("INSERT INTO reconciled_unbalanced SELECT CAST(product_id AS text) FROM reconciled_findings")
        )
    return len(wrong)


async def judge_records(session: AsyncSession, partition: int, start: int, end: int) -> Mapping[str, int]:
    """What became of each record of a portion, counted; records without exactly one result are findings."""
    return await _counts(session, JUDGE_RECORDS, partition, start, end)


async def judge_published(
    session: AsyncSession, partition: int, start: int, end: int, topics: tuple[str, str]
) -> Mapping[str, int]:
    """Whether the decisions of a portion were published, once and as they are.

    `topics`: the one of confirmations, the one of rejections.
    """
    return await _counts(
        session, JUDGE_PUBLISHED, partition, start, end, confirmed=topics[0], rejected=topics[1]
    )


async def judge_orders(session: AsyncSession, partition: int, start: int, end: int) -> Mapping[str, int]:
    """Whether the orders of a portion are as they were published. After `judge_stock`."""
    return await _counts(session, JUDGE_ORDERS, partition, start, end)


async def judge_stray_outcomes(
    session: AsyncSession, is_confirmation: bool, topic: str, partition: int, start: int, end: int
) -> Mapping[str, int]:
    """Outcomes of a portion of an outcome topic that the ledger knows nothing of become findings."""
    return await _counts(
        session, JUDGE_STRAY_OUTCOMES, partition, start, end, is_confirmation=is_confirmation, topic=topic
    )


async def judge_ledger(session: AsyncSession) -> Mapping[str, int]:
    """Ledger rows of the window whose source holds no record of theirs become findings. Reads all rows."""
    rows = await session.execute(text(JUDGE_LEDGER))
    return {name: number for name, number in rows if number}


async def judge_unreadable(session: AsyncSession, topic: str) -> None:
    """Make findings of unreadable spans that were not skipped. Reads all their ledger rows."""
    await session.execute(text(JUDGE_UNREADABLE), {"topic": topic})


async def count_findings(session: AsyncSession) -> Mapping[str, int]:
    """How many there are of each code."""
    rows = await session.execute(
        text("SELECT code, count(*) FROM reconciled_findings GROUP BY code ORDER BY code")
    )
    return {code: int(number) for code, number in rows}


async def stream_findings(session: AsyncSession, limit: int | None = None) -> AsyncIterator[Finding]:
    """All findings, or the first: by code and place."""
    rows = await session.stream(
        text(
            "SELECT code, topic, partition, record_offset, order_id, product_id, detail"
            " FROM reconciled_findings"
            " ORDER BY code, topic, partition, record_offset, order_id, product_id LIMIT :limit"
        ),
        {"limit": limit},
    )
    async for row in rows:
        yield Finding(*row)


async def index_unpublished(session: AsyncSession) -> None:
    """Before the first of the two below."""
    await session.execute(
        text("CREATE INDEX ON reconciled_findings (partition, record_offset) WHERE code = 'not_told'")
    )
    await session.execute(text("ANALYZE reconciled_findings"))


async def find_end_of_portion(
    session: AsyncSession, partition: int, after: int, before: int, size: int
) -> int | None:
    """The source offset of the last of the next such orders between the two; None: there are none."""
    last: int | None = await session.scalar(
        text(
            "SELECT max(record_offset) FROM (SELECT record_offset FROM reconciled_findings"
            " WHERE code = 'not_told' AND partition = :partition"
            " AND record_offset > :after AND record_offset < :before ORDER BY record_offset LIMIT :size) next"
        ),
        {"partition": partition, "after": after, "before": before, "size": size},
    )
    return last


async def list_unpublished(
    session: AsyncSession, partition: int, after: int, last: int
) -> Sequence[Unpublished]:
    """Those of a portion, up to `last` inclusive, that are still unpublished by all that was added since.

    A portion at a time, because PostgreSQL compares all of them with all outcomes where only a limit says
    that few are wanted.
    """
    rows = await session.execute(
        text(
            "SELECT d.partition, d.record_offset, d.order_id, d.outcome, CAST(d.event AS text), d.decided_at,"
            " d.passed_on FROM reconciled_findings f"
            " JOIN reconciled_decided d ON d.partition = f.partition AND d.record_offset = f.record_offset"
            " WHERE f.code = 'not_told' AND f.partition = :partition"
            " AND f.record_offset > :after AND f.record_offset <= :last AND NOT EXISTS (SELECT"
            "   FROM reconciled_outcomes o WHERE o.order_id = f.order_id AND NOT o.republished)"
            " ORDER BY f.record_offset"
        ),
        {"partition": partition, "after": after, "last": last},
    )
    return [Unpublished(*row) for row in rows]


async def _counts(
    session: AsyncSession, statement: str, partition: int, start: int, end: int, **more: str | bool
) -> Mapping[str, int]:
    rows = await session.execute(
        text(statement), {"partition": partition, "start": start, "end": end, **more}
    )
    return {name: int(number) for name, number in rows if number}
