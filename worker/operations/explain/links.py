"""The orders that an order is linked with: placed again under a new id, or placed for a rejected one."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import reopened_id
from db.worker import ledger, reopenings
from db.worker.reopenings import Reopening
from worker.operations.explain.order_facts import LinkedOrder


async def find_links(
    session: AsyncSession, order_id: UUID, superseded: UUID | None = None
) -> tuple[LinkedOrder | None, LinkedOrder | None]:
    """The order that it was placed again as, and the one that it supersedes.

    The ledger knows the first also where a backup has lost the row of the reopening, and the order's record
    the second: `superseded`.
    """
    rows = await reopenings.find_links(session, order_id)
    again = next((row for row in rows if row.order_id == order_id), None)
    origin = next((row for row in rows if row.new_order_id == order_id), None)
    new_id, old_id = reopened_id(order_id), origin.order_id if origin else superseded
    decided = await ledger.find_outcomes(session, [one for one in (new_id, old_id) if one])
    outcomes = {one: row.outcome for one, row in decided.items()}
    new = _linked(new_id, outcomes, again) if again or new_id in outcomes else None
    return new, _linked(old_id, outcomes, origin) if old_id else None


def _linked(order_id: UUID, outcomes: dict[UUID, str], row: Reopening | None) -> LinkedOrder:
    outcome = outcomes.get(order_id)
    if row is None:
        return LinkedOrder(order_id, outcome)
    return LinkedOrder(order_id, outcome, row.requested_by, row.requested_at, row.drop_prices)
