"""`check`: what workers would decide for the orders of a file, read only."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from db import stock
from db.bulk import orders
from db.engine import session_factory
from db.worker import ledger
from worker.core.decode import Invalid
from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS
from worker.operations import screen
from worker.operations.check.seen_orders import SeenOrders, seen_orders
from worker.operations.check.verdicts import (
    Candidate,
    CheckFinding,
    ExpectedFate,
    Summary,
    Verdict,
    decide,
    invalid,
    repeated,
)
from worker.operations.orders.latest import latest_decisions
from worker.operations.place.order_file import FileLine, decoded, file_name, order_lines, readable_twice
from worker.settings import Settings

Judge = Callable[[Sequence[Candidate | Verdict]], Awaitable[list[Verdict]]]
"""Lines in their order → one verdict for each"""

_PORTION: Final = 2_000  # lines asked about together


async def check_file(
    settings: Settings, path: Path, report: Callable[[CheckFinding], None], *, contract_only: bool = False
) -> Summary:
    """Pass `report` every finding about a line ("-": standard input), in their order.

    Changes nothing and reserves nothing. All lines are compared with a snapshot of the database at the start.
    With `contract_only` no server is used. Raises CommandError if the file holds no order.
    """
    with readable_twice(path) as file, seen_orders() as seen:
        count = sum(1 for _ in order_lines(file, settings.message_max_bytes))
        if not count:
            raise CommandError(f"{file_name(path)} holds no orders")
        file.seek(0)
        summary = Summary()
        async with _judge(settings, contract_only) as judge:
            with screen.progress("checking", count) as bar:
                for portion in _portions(order_lines(file, settings.message_max_bytes)):
                    read = _read(portion, settings.message_max_bytes, seen, summary)
                    _report(await judge(read), summary, report)
                    bar.advance(len(portion))
        return summary


@asynccontextmanager
async def _judge(settings: Settings, contract_only: bool) -> AsyncIterator[Judge]:
    if contract_only:
        yield _of_contract
        return
    taken: Counter[int] = Counter()
    async with snapshot(settings, "check") as session:
        yield lambda read: judged(session, read, taken)


def _portions(lines: Iterator[FileLine]) -> Iterator[list[FileLine]]:
    while portion := list(islice(lines, _PORTION)):
        yield portion


def _read(
    portion: Sequence[FileLine], max_bytes: int, seen: SeenOrders, summary: Summary
) -> list[Candidate | Verdict]:
    """Each line as an order with the line before it of the same id, or the verdict that it is none."""
    read: list[Candidate | Verdict] = []
    for line in portion:
        found = decoded(line, max_bytes)
        if isinstance(found, Invalid):
            read.append(invalid(line.number, found))
            continue
        summary.unknown_fields += found.unknown_fields
        earlier = seen.first(found.order.order_id, found.order.sorted_fingerprint(), line.number)
        read.append(Candidate(line.number, found.order, found.fingerprint, earlier))
    return read


async def _of_contract(read: Sequence[Candidate | Verdict]) -> list[Verdict]:
    return [
        one if isinstance(one, Verdict) else repeated(one, {}, frozenset()) or Verdict(ExpectedFate.VALID)
        for one in read
    ]


async def judged(
    session: AsyncSession, read: Sequence[Candidate | Verdict], taken: Counter[int]
) -> list[Verdict]:
    """One verdict for each, as of the session's snapshot; `taken` is the stock that those before took."""
    candidates = [one for one in read if isinstance(one, Candidate)]
    ids = {one.order.order_id for one in candidates}
    known = await ledger.find_outcomes(session, ids)
    of_orders = await orders.find_order_ids(session, ids - known.keys())
    latest = await latest_decisions(session, known.values())
    spent = {one.line: verdict for one in candidates if (verdict := repeated(one, known, of_orders, latest))}
    new = [one for one in candidates if one.line not in spent]
    verdicts = spent | dict(zip([one.line for one in new], await _decided(session, new, taken), strict=True))
    return [verdicts[one.line] if isinstance(one, Candidate) else one for one in read]


async def _decided(session: AsyncSession, new: Sequence[Candidate], taken: Counter[int]) -> list[Verdict]:
    users = await orders.find_user_ids(session, {one.order.user_id for one in new})
    levels = await stock.list_stock(session, {item.product_id for one in new for item in one.order.items})
    return decide(new, users, levels, taken)


def _report(verdicts: Sequence[Verdict], summary: Summary, report: Callable[[CheckFinding], None]) -> None:
    for fate, findings in verdicts:
        summary.count(fate, [finding.code for finding in findings] if fate is ExpectedFate.REJECTED else ())
        for finding in findings:
            report(finding)


@asynccontextmanager
async def snapshot(settings: Settings, command: str) -> AsyncIterator[AsyncSession]:
    """A read-only session that sees one snapshot of the shop."""
    async with database_engine(settings, f"order-worker {command}") as engine:
        await require_database(engine, settings)
        try:
            async with session_factory(engine)() as session:
                options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                await session.connection(execution_options=options)
                yield session
        except (*DATABASE_ERRORS, OSError) as error:
            raise CommandError(f"PostgreSQL does not let us read: {reason_of(error)}; try again") from error


def finding_text(name: str, finding: CheckFinding) -> str:
    """file:line: field: what is wrong (code)"""
    where = f"{name}:{finding.line}" + (f": {finding.path}" if finding.path else "")
    return screen.shown(f"{where}: {finding.message} ({finding.code})")


def summary_text(summary: Summary) -> str:
    """All of it in one line."""
    fates, reasons = summary.fates, sorted(summary.reasons.items(), key=lambda one: (-one[1], one[0]))
    why = f" ({', '.join(f'{count:,} {code}' for code, count in reasons)})" if reasons else ""
    parts = {
        ExpectedFate.VALID: "keep the contract",
        ExpectedFate.CONFIRMED: "would be confirmed",
        ExpectedFate.REJECTED: f"would be rejected{why}",
        ExpectedFate.DUPLICATE: "duplicates" if fates[ExpectedFate.DUPLICATE] != 1 else "duplicate",
        ExpectedFate.REJECTED_BEFORE: "rejected before (to place them again: `order-worker orders reopen`)",
        ExpectedFate.CONFLICT: "conflicts" if fates[ExpectedFate.CONFLICT] != 1 else "conflict",
        ExpectedFate.INVALID: "invalid",
    }
    counts = ", ".join(f"{fates[fate]:,} {text}" for fate, text in parts.items() if fates[fate])
    ignored = summary.unknown_fields
    note = f"; {ignored:,} unknown field{'s' * (ignored != 1)} ignored" if ignored else ""
    return f"{summary.orders:,} order{'s' * (summary.orders != 1)}: {counts}{note}"
