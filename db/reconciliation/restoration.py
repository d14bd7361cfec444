"""What a restoration of the ledger finds while it reads topics of any length: one session's temporary tables.

Outcomes that are in a topic and not in the ledger are copied here in portions, and then the input records
that may have led to them; the caller holds no ids. What is written to the ledger is read from here.

Every function needs the session that `prepare` was called with, bound to one connection until the end.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession


class MissingOutcome(NamedTuple):
    """A published outcome whose order is not in the ledger. `digest` stands for outcome and event."""

    order_id: UUID
    digest: bytes
    outcome: str
    decided_at: datetime
    topic: str
    partition: int
    offset: int
    event: str
    passed_on: str | None = None  # as in the ledger


class SourceRow(NamedTuple):
    """An input record that may have led to an outcome. `is_home`: the outcome's partition belongs to it."""

    order_id: UUID
    partition: int
    offset: int
    timestamp_ms: int
    fingerprint: bytes
    is_home: bool
    sorted_fingerprint: bytes | None = None


class RestoredLetter(NamedTuple):
    """The input record that became a dead letter. `timestamp_ms` is the record's, None: not known."""

    partition: int
    offset: int
    timestamp_ms: int | None


class UnaccountedRow(NamedTuple):
    """An input record that is committed, of an order that is in no ledger row and in no outcome topic."""

    partition: int
    offset: int
    order_id: UUID


class DifferingRow(NamedTuple):
    """A published outcome with other bytes than the valid ones. `what` says which those are."""

    order_id: UUID
    topic: str
    partition: int
    offset: int
    what: str


class MissingCount(NamedTuple):
    """Missing outcomes of one kind: how many, since when, with a source, and with a row in `orders`."""

    outcome: str
    orders: int
    first_decided_at: datetime
    last_decided_at: datetime
    with_source: int
    with_order: int


class Restorable(NamedTuple):
    """A missing outcome, and its input record: None if that is not there any more."""

    order_id: UUID
    outcome: str
    decided_at: datetime
    partition: int
    event: str
    source_partition: int | None
    source_offset: int | None
    fingerprint: bytes | None
    sorted_fingerprint: bytes | None
    passed_on: str | None


class Shortage(NamedTuple):
    """A product of which missing orders sold more than is in stock. `stock` None: there is no product."""

    product_id: int
    sold: int
    stock: int | None


_TABLES: Final = (
    "CREATE TEMPORARY TABLE restored_outcomes (order_id uuid, digest bytea, outcome text NOT NULL,"
    " decided_at timestamptz NOT NULL, topic text NOT NULL, partition integer NOT NULL,"
    " record_offset bigint NOT NULL, event text NOT NULL, passed_on text, PRIMARY KEY (order_id, digest))",
    "CREATE TEMPORARY TABLE restored_sources (order_id uuid, partition integer,"
    " record_offset bigint NOT NULL, timestamp_ms bigint NOT NULL, fingerprint bytea NOT NULL,"
    " is_home boolean NOT NULL, sorted_fingerprint bytea, PRIMARY KEY (order_id, partition))",
    "CREATE TEMPORARY TABLE restored_letters (partition integer NOT NULL, record_offset bigint NOT NULL,"
    " timestamp_ms bigint)",
    "CREATE INDEX ON restored_letters (partition, record_offset)",
    "CREATE TEMPORARY TABLE restored_unaccounted (partition integer NOT NULL, record_offset bigint NOT NULL,"
    " order_id uuid NOT NULL)",
    "CREATE TEMPORARY TABLE restored_differing (order_id uuid NOT NULL, topic text NOT NULL,"
    " partition integer NOT NULL, record_offset bigint NOT NULL, what text NOT NULL)",
    "CREATE TEMPORARY VIEW restored_orders AS SELECT CAST(o.event AS json) AS event FROM restored_outcomes o"
    " WHERE o.outcome = 'confirmed' AND NOT EXISTS (SELECT FROM orders WHERE orders.id = o.order_id)",
    "CREATE TEMPORARY VIEW restored_sold AS SELECT line.product_id, sum(line.quantity) AS quantity"
    " FROM restored_orders o CROSS JOIN LATERAL json_to_recordset(o.event -> 'items')"
    " AS line (product_id bigint, quantity bigint) GROUP BY line.product_id",
)
_ADD_OUTCOMES: Final = text(
    "INSERT INTO restored_outcomes VALUES (:order_id, :digest, :outcome, :decided_at, :topic, :partition,"
    " :offset, :event, :passed_on) ON CONFLICT DO NOTHING"
)
# Read in the order of the offsets: the first of an order in its partition stays.
_ADD_SOURCES: Final = text(
    "INSERT INTO restored_sources VALUES"
    " (:order_id, :partition, :offset, :timestamp_ms, :fingerprint, :is_home, :sorted_fingerprint)"
    " ON CONFLICT DO NOTHING"
)
_ADD_LETTERS: Final = text("INSERT INTO restored_letters VALUES (:partition, :offset, :timestamp_ms)")
_ADD_UNACCOUNTED: Final = text("INSERT INTO restored_unaccounted VALUES (:partition, :offset, :order_id)")
_ADD_DIFFERING: Final = text(
    "INSERT INTO restored_differing VALUES (:order_id, :topic, :partition, :offset, :what)"
)
# The first decision stands, as it would have in the ledger.
_KEEP_FIRST: Final = """
WITH later AS (
  DELETE FROM restored_outcomes o USING restored_outcomes first
  WHERE first.order_id = o.order_id AND (first.decided_at, first.digest) < (o.decided_at, o.digest)
  RETURNING o.order_id, o.digest, o.topic, o.partition, o.record_offset
)
INSERT INTO restored_differing
SELECT DISTINCT ON (order_id, digest) order_id, topic, partition, record_offset,
  'published before with other bytes, and the first decision stands'
FROM later ORDER BY order_id, digest
"""
_IDS: Final = bindparam("ids", type_=ARRAY(Uuid))
_FIND_MISSING: Final = text(
    "SELECT order_id, digest, outcome, decided_at, topic, partition, record_offset, event, passed_on"
    " FROM restored_outcomes WHERE order_id = ANY (:ids)"
).bindparams(_IDS)
_FIND_DECIDED: Final = text("SELECT order_id FROM order_outcomes WHERE order_id = ANY (:ids)").bindparams(
    _IDS
)
_FIND_LETTERS: Final = text(
    "SELECT partition, record_offset, timestamp_ms FROM restored_letters"
    " WHERE partition = :partition AND record_offset = ANY (:offsets)"
).bindparams(bindparam("partition", type_=Integer), bindparam("offsets", type_=ARRAY(BigInteger)))
_COUNT_MISSING: Final = text(
    "SELECT o.outcome, count(*), min(o.decided_at), max(o.decided_at),"
    " count(*) FILTER (WHERE EXISTS (SELECT FROM restored_sources s WHERE s.order_id = o.order_id)),"
    " count(*) FILTER (WHERE EXISTS (SELECT FROM orders WHERE orders.id = o.order_id))"
    " FROM restored_outcomes o GROUP BY o.outcome ORDER BY o.outcome"
)
# The record in the outcome's own partition, if there is one; else the one that was placed first.
_LIST_RESTORABLE: Final = text(
    "SELECT o.order_id, o.outcome, o.decided_at, o.partition, o.event,"
    " s.partition, s.record_offset, s.fingerprint, s.sorted_fingerprint, o.passed_on FROM restored_outcomes o"
    " LEFT JOIN LATERAL (SELECT * FROM restored_sources s WHERE s.order_id = o.order_id"
    "   ORDER BY s.is_home DESC, s.timestamp_ms, s.partition LIMIT 1) s ON true"
    " WHERE o.order_id > :after ORDER BY o.order_id LIMIT :limit"
).bindparams(bindparam("after", type_=Uuid))
_COUNT_SOLD: Final = text("SELECT count(*), CAST(coalesce(sum(quantity), 0) AS bigint) FROM restored_sold")
_LIST_SHORTAGES: Final = text(
    "SELECT s.product_id, CAST(s.quantity AS bigint), p.stock_quantity FROM restored_sold s"
    " LEFT JOIN products p ON p.id = s.product_id"
    " WHERE p.id IS NULL OR p.stock_quantity < s.quantity ORDER BY s.product_id"
)
_LIST_USERS_GONE: Final = text(
    "SELECT DISTINCT CAST(o.event ->> 'user_id' AS bigint) AS user_id FROM restored_orders o"
    " WHERE NOT EXISTS (SELECT FROM users WHERE users.id = CAST(o.event ->> 'user_id' AS bigint))"
    " ORDER BY user_id"
)
_BEFORE_ALL: Final = UUID(int=0)


async def prepare(session: AsyncSession) -> None:
    """Create the temporary tables; they go with the session's connection."""
    for statement in _TABLES:
        await session.execute(text(statement))


async def add_missing(session: AsyncSession, rows: Sequence[MissingOutcome]) -> None:
    """Add outcomes; the same one counts once, however often it was published."""
    if rows:
        await session.execute(_ADD_OUTCOMES, [row._asdict() for row in rows])


async def add_sources(session: AsyncSession, rows: Sequence[SourceRow]) -> None:
    """Add records, in the order of their offsets: the first of an order in its partition counts."""
    if rows:
        await session.execute(_ADD_SOURCES, [row._asdict() for row in rows])


async def add_letters(session: AsyncSession, rows: Sequence[RestoredLetter]) -> None:
    if rows:
        await session.execute(_ADD_LETTERS, [row._asdict() for row in rows])


async def add_unaccounted(session: AsyncSession, rows: Sequence[UnaccountedRow]) -> None:
    if rows:
        await session.execute(_ADD_UNACCOUNTED, [row._asdict() for row in rows])


async def add_differing(session: AsyncSession, rows: Sequence[DifferingRow]) -> None:
    if rows:
        await session.execute(_ADD_DIFFERING, [row._asdict() for row in rows])


async def keep_first_decisions(session: AsyncSession) -> None:
    """Of an order that was published with several contents the first decision stays; the others differ."""
    await session.execute(text("ANALYZE restored_outcomes"))
    await session.execute(text(_KEEP_FIRST))


async def find_missing(session: AsyncSession, order_ids: Collection[UUID]) -> dict[UUID, MissingOutcome]:
    """The missing outcomes of these orders. After `keep_first_decisions`."""
    rows = await session.execute(_FIND_MISSING, {"ids": list(order_ids)})
    return {row[0]: MissingOutcome(*row) for row in rows}


async def find_decided(session: AsyncSession, order_ids: Collection[UUID]) -> set[UUID]:
    """Those of the orders that are in the ledger."""
    return set(await session.scalars(_FIND_DECIDED, {"ids": list(order_ids)}))


async def find_letters(
    session: AsyncSession, partition: int, offsets: Collection[int]
) -> list[RestoredLetter]:
    """The dead letters of these records, each as often as it was written."""
    rows = await session.execute(_FIND_LETTERS, {"partition": partition, "offsets": list(offsets)})
    return [RestoredLetter(*row) for row in rows]


async def count_missing(session: AsyncSession) -> list[MissingCount]:
    """How many outcomes are missing, by kind."""
    return [MissingCount(*row) for row in await session.execute(_COUNT_MISSING)]


async def count_unaccounted(session: AsyncSession) -> Mapping[int, tuple[int, int]]:
    """By partition: how many records there are of orders that nothing is known of, and the first's offset."""
    rows = await session.execute(
        text("SELECT partition, count(*), min(record_offset) FROM restored_unaccounted GROUP BY partition")
    )
    return {partition: (number, first) for partition, number, first in rows}


async def count_differing(session: AsyncSession) -> int:
    """How many outcomes were published with other bytes than the valid ones."""
    number: int | None = await session.scalar(text("SELECT count(*) FROM restored_differing"))
    return number or 0


async def list_differing(session: AsyncSession, limit: int) -> list[DifferingRow]:
    """The first of them, by place."""
    rows = await session.execute(
        text(
            "SELECT order_id, topic, partition, record_offset, what FROM restored_differing"
            " ORDER BY topic, partition, record_offset, order_id LIMIT :limit"
        ),
        {"limit": limit},
    )
    return [DifferingRow(*row) for row in rows]


async def list_restorable(session: AsyncSession, after: UUID | None, limit: int) -> list[Restorable]:
    """The next missing outcomes by order id, each with its source."""
    rows = await session.execute(_LIST_RESTORABLE, {"after": after or _BEFORE_ALL, "limit": limit})
    return [Restorable(*row) for row in rows]


async def count_sold(session: AsyncSession) -> tuple[int, int]:
    """How many products, and pieces of them, the orders sold that are missing and in no row of `orders`."""
    products, pieces = (await session.execute(_COUNT_SOLD)).one()
    return products, pieces


async def list_shortages(session: AsyncSession) -> list[Shortage]:
    """Products that do not exist, or of which such orders sold more than is in stock."""
    return [Shortage(*row) for row in await session.execute(_LIST_SHORTAGES)]


async def list_users_gone(session: AsyncSession) -> list[int]:
    """Users of such orders who are gone."""
    return list(await session.scalars(_LIST_USERS_GONE))
