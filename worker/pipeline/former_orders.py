"""What is published for a record that an earlier version accepted as an order and this version refuses."""

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.topics import Topics
from db.worker import ledger
from worker.core.results import RecordResult, Replays, ResultBuilder
from worker.core.triage import Arrival, Standing, triage


async def decided_before(
    session: AsyncSession, arrival: Arrival, topics: Topics, replays: Replays
) -> RecordResult | None:
    """The stored outcome, if this very record was decided; None: it was not, so it becomes a dead letter.

    Its stock may be taken and its outcome not published, so the outcome is published as for any redelivery.
    """
    row = (await ledger.find_outcomes(session, [arrival.order.key])).get(arrival.order.order_id)
    if row is None or triage([arrival], {arrival.order.key: row}) != [Standing.REDELIVERY]:
        return None
    now = await ledger.database_time(session)
    builder = ResultBuilder(topics, replays, now, int(now.timestamp() * 1_000))
    return builder.repeat(arrival, Standing.REDELIVERY, row)
