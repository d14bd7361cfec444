"""`orders list`: decided orders, on a screen, as JSON, or as the lines that upstream placed."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.rows import LedgerRow
from db.worker import reopenings
from db.worker.decided_orders import OrderFilter
from worker.errors import CommandError
from worker.kafka.offsets import topic_reader
from worker.operations.check.check import snapshot
from worker.operations.orders.choose import ledger_pages
from worker.operations.orders.origins import Origin, Origins, origins, read_origins
from worker.operations.screen import progress
from worker.operations.whole_file import write_line, written
from worker.settings import Settings

NOTHING = "no decided order is like that"


@dataclass(frozen=True, slots=True)
class ListedOrder:
    """One decided order. `reopened_as`: the id under which it was placed again.

    `pruned`: its event is no longer in the ledger, and with it reasons, user and time.
    """

    order_id: UUID
    outcome: str
    reasons: list[dict[str, object]]
    """as the event has them; none of a confirmed order"""
    user_id: int | None
    placed_at: str | None
    decided_at: datetime
    source: dict[str, object]
    reopened_as: UUID | None
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class ListSummary:
    """How many were listed, and whether there are more than the limit."""

    orders: int
    more: bool


async def list_orders(
    settings: Settings,
    wanted: OrderFilter,
    limit: int,
    show: Callable[[list[ListedOrder]], None],
) -> ListSummary:
    """Give `show` the orders by their ids, a page at a time, at most `limit`."""
    shown = 0
    async with snapshot(settings, "orders list") as session:
        async for rows in _at_most(limit + 1, ledger_pages(session, wanted)):
            listed = rows[: limit - shown]
            shown += len(listed)
            show(await _listed(session, listed))
            if len(listed) < len(rows):
                return ListSummary(shown, more=True)
    return ListSummary(shown, more=False)


async def _at_most(
    limit: int | None, pages: AsyncIterator[list[LedgerRow]]
) -> AsyncIterator[list[LedgerRow]]:
    left = limit
    async for rows in pages:
        yield rows if left is None else rows[:left]
        if left is not None:
            left -= len(rows)
            if left <= 0:
                return


async def _listed(session: AsyncSession, rows: Sequence[LedgerRow]) -> list[ListedOrder]:
    again = await reopenings.find_reopenings(session, [row.order_id for row in rows])
    listed = []
    for row in rows:
        event, reopening = from_json(row.event or "{}"), again.get(row.order_id)
        listed.append(
            ListedOrder(
                row.order_id,
                row.outcome,
                event.get("reasons", []),
                event.get("user_id"),
                event.get("placed_at"),
                row.decided_at,
                {"topic": row.source_topic, "partition": row.source_partition, "offset": row.source_offset},
                reopening.new_order_id if reopening else None,
                pruned=row.event is None,
            )
        )
    return listed


async def write_orders(
    settings: Settings,
    wanted: OrderFilter,
    limit: int | None,
    out: Path,
    report_gone: Callable[[str], None],
    *,
    force: bool,
) -> int:
    """Write the orders as upstream placed them, a JSON line each ("-": standard output); how many.

    They come out of the input topic, for the ledger does not have the items of a rejected order. In the order
    of their records. `report_gone` is called for each whose record is no longer there.

    Raises CommandError where no such order is in the ledger, or no record of them is there.
    """
    topic, count = settings.order_placed_topic, 0
    with written(out, force) as file, origins() as chosen:
        await _choose(settings, wanted, limit, chosen, report_gone)
        async with topic_reader(settings, topic) as inputs:
            with progress("writing", chosen.count) as bar:
                for portion in chosen.portions():
                    left: dict[UUID, Origin] = {one.order_id: one for one in portion}
                    async for found in read_origins(inputs, topic, portion, settings.message_max_bytes):
                        # A line break stands between the parts of a JSON text, and never within one.
                        line = b" ".join((found.record.value or b"").splitlines())
                        write_line(file, line + b"\n", out)
                        del left[found.origin.order_id]
                        count += 1
                    for origin in left.values():
                        place = f"{topic}-{origin.partition}@{origin.offset}"
                        report_gone(f"{origin.order_id}: its record {place} is gone (retention)")
                    bar.advance(len(portion))
        if not count:
            raise CommandError("nothing was written: the records of these orders are gone")
    return count


async def _choose(
    settings: Settings,
    wanted: OrderFilter,
    limit: int | None,
    chosen: Origins,
    report_gone: Callable[[str], None],
) -> None:
    topic, found = settings.order_placed_topic, 0
    async with snapshot(settings, "orders list") as session:
        async for rows in _at_most(limit, ledger_pages(session, wanted)):
            found += len(rows)
            chosen.add(row for row in rows if row.source_topic == topic)
            for row in rows:
                if row.source_topic != topic:
                    report_gone(f"{row.order_id}: it came from {row.source_topic}, and not from {topic}")
    if not found:
        raise CommandError(NOTHING)
