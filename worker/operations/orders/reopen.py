"""`orders reopen`: rejected orders into the input topic again, each once under a new id, a few first.

    reopen
     ├ recover    what a killed run sent
     ├ claim      one transaction: a row an order, before anything is sent; from here on the set is frozen
     └ steps      1, 2, 5, 10, … orders: send in Kafka transactions, mark, wait for the workers, look

The new id is made of the old one, so that even a record that was sent twice would be decided once.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from contracts.envelope import reopened_id
from db.bulk.rows import LedgerRow
from db.statuses import Outcome
from db.worker import ledger, reopenings
from db.worker.reopenings import ClaimedOrder, ReopeningClaim, ReopeningRun
from worker.core.triage import Source
from worker.failures import DATABASE_ERRORS
from worker.kafka.clients import kafka_admin
from worker.kafka.consuming.reading import TopicReader
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of, topic_reader
from worker.operations.dead_letters.read import shop_sessions
from worker.operations.orders.choose import Choice, Selection, pages
from worker.operations.orders.rehearse import require_some
from worker.operations.orders.rejection import rejection_codes
from worker.operations.orders.send import fenced, parcels, recover, send_all
from worker.operations.redrive.canary import failed_too_often, steps
from worker.operations.redrive.handled import until_handled
from worker.operations.redrive.redrive import require_worker
from worker.operations.redrive.send import Parcel, input_producer
from worker.operations.screen import Bar, progress
from worker.operations.throttle import Throttle
from worker.operations.turn import turn_of
from worker.settings import Settings

COMMAND = "reopen"


@dataclass(frozen=True, slots=True)
class ReopenRequest:
    """What an operator asks for."""

    choice: Choice
    drop_prices: bool = False
    max_failures: float = 0.1
    rate: float | None = None
    """orders a second; None: as fast as they are decided"""
    by: str = "unknown"
    patience_seconds: float = 60.0
    quiet: bool = False


@dataclass(slots=True)
class Earlier:
    """What runs that were killed left open: what of it was sent, and what is free again."""

    sent: int = 0
    released: int = 0


@dataclass(slots=True)
class ReopenReport:
    """What a reopen did."""

    run_id: UUID
    earlier: Earlier
    selection: Selection
    sent: int = 0
    results: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """of those that were rejected again; a code counts once an order"""
    rejected_sample: UUID | None = None
    """one of those, by its new id"""
    stopped: bool = False
    """too many were rejected again; what was not sent is free for a later run"""
    released: int = 0


async def reopen(settings: Settings, request: ReopenRequest) -> ReopenReport:
    """Place each chosen order once, ever, under its new id, and see what came of it.

    Raises CommandError where no worker runs, where nothing is chosen, and where the workers stop meanwhile:
    what was not sent is free again then.
    """
    topic = settings.order_placed_topic
    async with (
        topic_reader(settings, topic) as inputs,
        shop_sessions(settings, "orders reopen") as sessions,
        kafka_admin(settings) as admin,
    ):
        await require_worker(admin, settings)
        async with AsyncExitStack() as stack:
            async with turn_of(settings, sessions, "rejected orders"):
                async with sessions() as session:
                    claiming = await reopenings.list_claiming_runs(session, topic)
                producer = await stack.enter_async_context(input_producer(settings, COMMAND))
                found = await recover(settings, sessions, inputs, claiming, request.patience_seconds)
                earlier = Earlier(*found)
                run = ReopeningRun(uuid4(), request.by, request.drop_prices, topic)
                async with sessions.begin() as session:
                    selection = await _claim(session, inputs, run, request.choice)
            require_some(selection, other_work=bool(earlier.sent or earlier.released))
            report = ReopenReport(run.run_id, earlier, selection)
            stepped = _SteppedRun(settings, request, sessions, inputs, admin, producer, report)
            return await stepped.run()


async def _claim(session: AsyncSession, inputs: TopicReader, run: ReopeningRun, choice: Choice) -> Selection:
    selection = Selection()
    partitions = await partitions_of(inputs, TopicSelection(run.topic))
    # Before the rows are committed, so before anything is sent: it lies after.
    bounds = await bounds_of(inputs, partitions)
    ends = {p.partition: b.end for p, b in bounds.items()}
    async for rows in pages(session, choice, run.topic, selection):
        claims = [_claim_of(row, ends) for row in rows]
        added = await reopenings.add_reopenings(session, run, claims)
        # Another run has claimed the others meanwhile, and reopens them.
        selection.unfinished += len(claims) - len(added)
        selection.orders -= len(claims) - len(added)
    return selection


def _claim_of(row: LedgerRow, ends: dict[int, int]) -> ReopeningClaim:
    # Where upstream had it.
    to = row.source_partition % len(ends)
    return ReopeningClaim(
        row.order_id, reopened_id(row.order_id), row.source_partition, row.source_offset, to, ends[to]
    )


@dataclass(slots=True)
class _SteppedRun:
    """Step by step through the claimed orders of one run."""

    settings: Settings
    request: ReopenRequest
    sessions: async_sessionmaker[AsyncSession]
    inputs: TopicReader
    admin: AIOKafkaAdminClient
    producer: AIOKafkaProducer
    report: ReopenReport
    in_doubt: set[UUID] = field(default_factory=set)

    async def run(self) -> ReopenReport:
        report, throttle = self.report, Throttle(self.request.rate)
        chosen = report.selection.orders
        try:
            with progress("reopening", chosen, quiet=self.request.quiet) as bar:
                for size in steps():
                    if not await self._step(size, throttle, bar) or self._should_stop():
                        break
            if not report.stopped and report.sent < report.selection.orders:
                # Their rows are no longer there: another run has freed them, and then taken them for itself.
                raise fenced(self.settings)
        finally:
            # Also after an error and Ctrl-C. Of what is in doubt, the next run finds out whether it was sent.
            with suppress(*DATABASE_ERRORS, OSError):
                async with self.sessions.begin() as session:
                    report.released = await reopenings.release_reopenings(
                        session, report.run_id, self.in_doubt
                    )
        return report

    def _should_stop(self) -> bool:
        results = self.report.results
        failed = results.total() - results[Outcome.CONFIRMED]
        self.report.stopped = failed_too_often(failed, results.total(), self.request.max_failures)
        return self.report.stopped

    async def _step(self, size: int, throttle: Throttle, bar: Bar) -> bool:
        """False: there was nothing left to send."""
        async with self.sessions() as session:
            claimed = await reopenings.list_claimed(session, self.report.run_id, size)
        if not claimed:
            return False
        sent: dict[UUID, Source] = {}
        drop_prices, most = self.request.drop_prices, throttle.at_once(len(claimed))
        async for some in parcels(self.settings, self.inputs, claimed, drop_prices, most):
            await asyncio.sleep(throttle.pause(len(some), time.monotonic()))
            sent |= await self._send(some)
        await self._forget_gone(claimed, sent)
        await self._look(sent)
        bar.advance(len(claimed))
        return True

    async def _send(self, some: Sequence[Parcel]) -> dict[UUID, Source]:
        self.in_doubt = {parcel.id for parcel in some}
        offsets = await send_all(self.producer, self.settings, some)
        await self._mark(offsets)
        self.in_doubt = set()
        self.report.sent += len(offsets)
        topic = self.settings.order_placed_topic
        return {parcel.id: Source(topic, parcel.partition, offsets[parcel.id]) for parcel in some}

    async def _mark(self, offsets: dict[UUID, int]) -> None:
        async with self.sessions.begin() as session:
            await reopenings.mark_sent(session, offsets)

    async def _forget_gone(self, claimed: Sequence[ClaimedOrder], sent: dict[UUID, Source]) -> None:
        gone = [one.order_id for one in claimed if one.new_order_id not in sent]
        if gone:
            async with self.sessions.begin() as session:
                await reopenings.drop_reopenings(session, gone)
            self.report.selection.gone += gone
            self.report.selection.orders -= len(gone)

    async def _look(self, sent: dict[UUID, Source]) -> None:
        """What the workers have made of them."""
        patience_seconds = self.request.patience_seconds
        await until_handled(self.settings, self.admin, list(sent.values()), patience_seconds)
        async with self.sessions() as session:
            decided = await ledger.find_outcomes(session, list(sent))
        report = self.report
        report.results.update(row.outcome for row in decided.values())
        report.results.update({"dead letter": len(sent) - len(decided)} if len(decided) < len(sent) else {})
        for row in decided.values():
            report.reasons.update(rejection_codes(row))
            if row.outcome == Outcome.REJECTED:
                report.rejected_sample = row.order_id


def failure_text(report: ReopenReport) -> str:
    """Why not all is well, in one line; empty where it is."""
    if not report.stopped and (letters := report.results["dead letter"]):
        return f"{letters:,} of {report.sent:,} became dead letters: see `order-worker dead-letters list`"
    return _stopped_text(report) if report.stopped else ""


def _stopped_text(report: ReopenReport) -> str:
    failed = report.results.total() - report.results[Outcome.CONFIRMED]
    codes = ", ".join(f"{count:,} {code}" for code, count in report.reasons.most_common())
    look = f"; look at `order-worker explain {report.rejected_sample}`" if report.rejected_sample else ""
    prices = "; --drop-prices leaves out the prices that the buyers saw" if "price_changed" in codes else ""
    return f"stopped: {failed:,} of {report.sent:,} were not confirmed ({codes}){prices}{look}"
