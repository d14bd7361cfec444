"""What was decided last of an order that was placed again."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import reopened_id
from db.bulk.rows import LedgerRow
from db.statuses import Outcome
from db.worker import ledger


async def latest_decisions(session: AsyncSession, rows: Iterable[LedgerRow]) -> dict[UUID, LedgerRow]:
    """Of those rejected orders that were placed again, by their id, what was decided of them last.

    An order that was placed again and rejected again may have been placed once more, and so on.
    """
    latest: dict[UUID, LedgerRow] = {}
    asked = {row.order_id: reopened_id(row.order_id) for row in rows if row.outcome == Outcome.REJECTED}
    while asked:
        found = await ledger.find_outcomes(session, set(asked.values()))
        decided = {first: found[new] for first, new in asked.items() if new in found}
        latest |= decided
        asked = {
            first: reopened_id(row.order_id)
            for first, row in decided.items()
            if row.outcome == Outcome.REJECTED
        }
    return latest
