"""What is published of a record that an earlier version took for an order, and this one refuses."""

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.topics import Topics
from db.worker import ledger
from worker.core.settlement import Replays, Settled, Settlement
from worker.core.triage import Arrival, Standing, triage


async def decided_before(
    session: AsyncSession, arrival: Arrival, topics: Topics, replays: Replays
) -> Settled | None:
    """Its outcome, where this very record was decided; None: it was not, and is no order any more.

    Stock may be taken, and its subscribers may not know: the outcome is published as of any redelivery.
    """
    row = (await ledger.find_outcomes(session, [arrival.order.key])).get(arrival.order.order_id)
    if row is None or triage([arrival], {arrival.order.key: row}) != [Standing.REDELIVERY]:
        return None
    now = await ledger.database_time(session)
    settlement = Settlement(topics, replays, now, int(now.timestamp() * 1_000))
    return settlement.repeat(arrival, Standing.REDELIVERY, row)
