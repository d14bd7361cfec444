"""`explain`: collects everything that is known about one order, from PostgreSQL and from the topics.

    collect
     ├ ask for the group   its members and committed offsets
     ├ read the tables     ledger, order and items
     ├ search              order_search: the source by its place, the rest from the decision on
     └ conclude            explanation.explained: pure

Reads only: no group is joined, nothing is committed.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import orders, stock
from db.bulk.rows import LedgerRow
from db.engine import session_factory
from db.errors import NotFoundError
from db.worker import ledger, sales
from db.worker.skips import list_skips
from db.worker.withheld import find_unpublished
from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS
from worker.kafka import group
from worker.kafka.clients import KAFKA_ERRORS, quiet_aiokafka, require_topics
from worker.kafka.consuming.reading import nothing_more, reader
from worker.kafka.offsets import reading_failed_by
from worker.operations import screen
from worker.operations.explain.explanation import Explanation, explained, explained_by_rows
from worker.operations.explain.facts import (
    Found,
    dead_letters,
    decision_of,
    inputs,
    outcomes,
    stored_order,
    superseded,
)
from worker.operations.explain.links import find_links
from worker.operations.explain.order_facts import Facts, ProductNow, StoredOrder
from worker.operations.explain.search import FAR, OrderSearch, Progress, Reach, Scan
from worker.settings import Settings

SALES_SECONDS: Final = 3.0
_QUERY_CANCELED: Final = "57014"


def _no_progress(what: str, total: int) -> AbstractContextManager[screen.Bar]:
    return screen.progress(what, total, quiet=True)


async def explain_order(settings: Settings, order_id: UUID, scan: Scan) -> Explanation:
    """As `collect`, with what the servers refuse as a CommandError."""
    async with database_engine(settings, "order-worker explain") as engine:
        await require_database(engine, settings)
        await require_topics(settings)
        with quiet_aiokafka() as last_error:
            try:
                return await collect(
                    order_id,
                    session_factory(engine),
                    settings.kafka_client_options(),
                    settings,
                    scan,
                    screen.progress,
                )
            except DATABASE_ERRORS as error:
                raise CommandError(
                    f"PostgreSQL does not let us read: {reason_of(error)}; try again"
                ) from error
            except KAFKA_ERRORS as error:
                why = reading_failed_by(error, last_error)
                raise CommandError(f"Kafka does not let us read: {why}; try again") from error


async def collect(
    order_id: UUID,
    sessions: async_sessionmaker[AsyncSession],
    client_options: Mapping[str, Any],
    settings: Settings,
    scan: Scan = Scan.NEAR,
    progress: Progress = _no_progress,
    reach: Reach = FAR,
    sales_seconds: float = SALES_SECONDS,
) -> Explanation:
    """Everything that is known about the order. The four topics must exist.

    `sales_seconds` is for counting what later orders took of its products, which is left out past that.

    Raises KafkaError, TimeoutError or OSError, or DBAPIError, as the servers give them.
    """
    async with AsyncExitStack() as stack:
        admin = AIOKafkaAdminClient(**client_options, retry_backoff_ms=200)
        stack.push_async_callback(admin.close)
        await admin.start()
        fetch = {"max_partition_fetch_bytes": reach.fetch_bytes}  # 1 MiB is aiokafka's own default
        consumer = await stack.enter_async_context(
            reader({**client_options, **fetch}, on_unreadable=nothing_more)
        )
        looking = OrderSearch(consumer, settings, order_id, progress, reach)
        members = await group.members(admin, settings.group_id)
        # In this order: what the group has committed past is in the ledger or among the dead letters by now.
        committed = await group.committed(
            admin, settings.group_id, await looking.partitions(settings.topics.placed)
        )
        row, order = await _rows(order_id, sessions)
        async with sessions() as session:
            skips = await list_skips(session, settings.topics.placed)
            withheld = await find_unpublished(session, [order_id])
        found, left = await (looking.all() if scan is Scan.ALL else looking.near(row, committed))
    async with sessions() as session:
        new, old = await find_links(session, order_id, superseded(found.inputs))
    facts = Facts(
        order_id,
        settings.group_id,
        len(members),
        {p.partition: offset for p, offset in committed.items()},
        decision=decision_of(row) if row else None,
        order=order,
        inputs=inputs(found.inputs, found.dead_letters, row, committed, settings.message_max_bytes),
        outcomes=outcomes(found.outcomes, settings.topics.confirmed, row),
        dead_letters=dead_letters(found.dead_letters),
        unread=left,
        notes=_notes(row, settings, found),
        unreadable=tuple(consumer.met.counts()),
        skips=tuple(skips),
        withheld="; ".join(f"{one.reason}; {one.what_to_do}" for one in withheld),
        reopened_as=new,
        supersedes=old,
    )
    return explained(await _with_products(sessions, facts, sales_seconds))


async def collect_rows(
    order_id: UUID,
    sessions: async_sessionmaker[AsyncSession],
    group_id: str,
    sales_seconds: float = SALES_SECONDS,
) -> Explanation | None:
    """What PostgreSQL alone knows, for when Kafka gives no answer; None: nothing."""
    row, order = await _rows(order_id, sessions)
    async with sessions() as session:
        new, old = await find_links(session, order_id)
    decision = decision_of(row) if row else None
    facts = Facts(order_id, group_id, 0, {}, decision=decision, order=order, reopened_as=new, supersedes=old)
    return explained_by_rows(await _with_products(sessions, facts, sales_seconds)) if row or order else None


async def _rows(
    order_id: UUID, sessions: async_sessionmaker[AsyncSession]
) -> tuple[LedgerRow | None, StoredOrder | None]:
    async with sessions() as session:
        row = (await ledger.find_outcomes(session, {order_id})).get(order_id)
        return row, await _find_order(session, order_id)


def _notes(row: LedgerRow | None, settings: Settings, found: Found) -> tuple[str, ...]:
    if row is None:
        return ()
    source = f"{row.source_topic}-{row.source_partition}@{row.source_offset}"
    if row.source_topic != settings.topics.placed:
        return (f"It was decided from {source}; the input topic is {settings.topics.placed} now.",)
    if not any((r.partition, r.offset) == (row.source_partition, row.source_offset) for r in found.inputs):
        return (f"The record it was decided from, {source}, is not in the topic any more (retention).",)
    return ()


async def _find_order(session: AsyncSession, order_id: UUID) -> StoredOrder | None:
    try:
        return stored_order(await orders.get_order(session, order_id))
    except NotFoundError:
        return None


async def _with_products(
    sessions: async_sessionmaker[AsyncSession], facts: Facts, sales_seconds: float
) -> Facts:
    """With what is there now of each product that the order names."""
    ids = _product_ids(facts)
    if not ids:
        return facts
    async with sessions() as session:
        levels = await stock.list_stock(session, ids)
    since = facts.decision.decided_at if facts.decision else facts.order.created_at if facts.order else None
    taken = await _taken_later(sessions, ids, since, sales_seconds) if since else None
    products = []
    for product_id in ids:
        level = levels.get(product_id)
        price, quantity = (Decimal(level.price), level.quantity) if level else (None, None)
        products.append(
            ProductNow(product_id, price, quantity, taken.get(product_id, 0) if taken is not None else None)
        )
    return replace(facts, products=tuple(products))


def _product_ids(facts: Facts) -> Sequence[int]:
    """In the order of first appearance."""
    lines = [line for record in facts.inputs for line in record.lines]
    decided = facts.decision
    named = [
        *(line.product_id for line in (decided.lines if decided else ())),
        *(reason.product_id for reason in (decided.reasons if decided else ()) if reason.product_id),
        *(line.product_id for line in lines),
    ]
    return list(dict.fromkeys(named))


async def _taken_later(
    sessions: async_sessionmaker[AsyncSession],
    ids: Sequence[int],
    since: datetime,
    limit_seconds: float,
) -> dict[int, int] | None:
    try:
        async with sessions() as session:
            return await sales.list_sold_since(session, ids, since, limit_seconds)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _QUERY_CANCELED:
            raise
        return None
