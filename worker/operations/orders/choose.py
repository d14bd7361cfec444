"""Chooses the rejected orders that a reopen places again, and those it leaves out, with the reason."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import reopened_id
from db.bulk.rows import LedgerRow
from db.statuses import Outcome
from db.worker import ledger, reopenings
from db.worker.decided_orders import OrderFilter, list_decided_orders
from worker.operations.orders.origins import PORTION

NAMED: Final = 10  # ids in a sentence; all of them are in the JSON


@dataclass(frozen=True, slots=True)
class Choice:
    """Rejected orders for which all that is given holds, or of these ids; `limit`: the first so many."""

    wanted: OrderFilter = field(default_factory=OrderFilter)
    order_ids: tuple[UUID, ...] = ()
    limit: int | None = None


@dataclass(slots=True)
class Selection:
    """The chosen orders, and those left out, with the reason."""

    orders: int = 0
    reopened_before: int = 0
    unfinished: int = 0
    """placed again, and not decided yet, or claimed by a reopen that has not ended"""
    of_other_topics: int = 0
    not_rejected: list[UUID] = field(default_factory=list)
    """asked for by id, and confirmed"""
    undecided: list[UUID] = field(default_factory=list)
    """asked for by id, and not in the ledger"""
    gone: list[UUID] = field(default_factory=list)
    """their record is no longer in the input topic"""


async def pages(
    session: AsyncSession, choice: Choice, topic: str, selection: Selection
) -> AsyncIterator[list[LedgerRow]]:
    """The rejected orders to be placed again, by their ids; `selection` counts the others.

    `topic` is the input's.
    """
    async for rows in _decided(session, choice, selection):
        chosen = await _to_reopen(session, rows, topic, selection)
        if choice.limit is not None:
            chosen = chosen[: choice.limit - selection.orders]
        selection.orders += len(chosen)
        yield chosen
        if selection.orders == choice.limit:
            return


async def _decided(
    session: AsyncSession, choice: Choice, selection: Selection
) -> AsyncIterator[list[LedgerRow]]:
    if not choice.order_ids:
        outcomes = replace(choice.wanted.outcomes, outcome=Outcome.REJECTED)
        async for rows in ledger_pages(session, replace(choice.wanted, outcomes=outcomes)):
            yield rows
        return
    ids = sorted(set(choice.order_ids))
    for start in range(0, len(ids), PORTION):
        some = ids[start : start + PORTION]
        found = await ledger.find_outcomes(session, some)
        selection.undecided += [order_id for order_id in some if order_id not in found]
        rows = [found[order_id] for order_id in some if order_id in found]
        selection.not_rejected += [row.order_id for row in rows if row.outcome != Outcome.REJECTED]
        yield [row for row in rows if row.outcome == Outcome.REJECTED]


async def ledger_pages(session: AsyncSession, wanted: OrderFilter) -> AsyncIterator[list[LedgerRow]]:
    """The decided orders by their ids, a page at a time, of a ledger of any size."""
    last: UUID | None = None
    while rows := await list_decided_orders(session, wanted, after=last, limit=PORTION):
        yield rows
        last = rows[-1].order_id


async def _to_reopen(
    session: AsyncSession, rows: Sequence[LedgerRow], topic: str, selection: Selection
) -> list[LedgerRow]:
    known = await reopenings.find_reopenings(session, [row.order_id for row in rows])
    # The new id in the ledger shows a reopening too: a backup may lack its row.
    decided = await ledger.find_outcomes(session, [reopened_id(row.order_id) for row in rows])
    chosen = []
    for row in rows:
        if reopened_id(row.order_id) in decided:
            selection.reopened_before += 1
        elif row.order_id in known:
            selection.unfinished += 1
        elif row.source_topic != topic:
            selection.of_other_topics += 1
        else:
            chosen.append(row)
    return chosen


def left_out_text(selection: Selection) -> str:
    """What is left out, in words; empty where nothing is."""
    counts = {
        "reopened before": selection.reopened_before,
        "placed again and not decided yet": selection.unfinished,
        "from another input topic": selection.of_other_topics,
    }
    ids = {
        "not rejected, but confirmed": selection.not_rejected,
        "not decided, or unknown": selection.undecided,
        "no longer in the input topic (retention)": selection.gone,
    }
    parts = [f"{count:,} {why}" for why, count in counts.items() if count]
    return ", ".join(parts + [f"{len(some):,} {why} ({named(some)})" for why, some in ids.items() if some])


def named(ids: Sequence[UUID]) -> str:
    """The first of them."""
    return ", ".join(map(str, ids[:NAMED])) + (" …" if len(ids) > NAMED else "")
