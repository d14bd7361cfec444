"""Decides a batch of records: decodes it, runs one database transaction, and returns what to publish.

    decide
     ├ decode              each record by itself; never raises
     └ one transaction     find known outcomes, lock users, read stock → triage → decide → write → take stock

The transaction writes optimistically: products are read unlocked, everything is written, and only
the last step, under one advisory lock, takes the stock where price and stock still allow it. If they
do not, the transaction is rolled back, and the batch runs again with its products locked first.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from contracts.events import DeadLetterCode
from contracts.topics import Topics
from db import stock
from db.bulk import orders
from db.decision import Decider
from db.errors import UnusableProductError
from db.worker import decided, ledger
from db.worker.look_up import Found, look_up
from worker.core.decode import Decoded, Invalid, decode_former
from worker.core.results import ID_TAKEN, Fate, RecordResult, Replays, ResultBuilder, dead_letter
from worker.core.steps import Reached, Step
from worker.core.triage import Arrival, Arrivals, Record, Standing, triage
from worker.failures import (
    ManyRefusedError,
    OverTotalError,
    RefusedOrderError,
    Remedy,
    is_duplicate_key,
    may_concern_all,
    remedy,
)
from worker.observability.metrics import Metrics
from worker.pipeline.decoding import decode_all
from worker.pipeline.former_orders import decided_before
from worker.pipeline.locked_rows import LockedRows
from worker.pipeline.refused_orders import MAX_LETTERS, RefusedOrders, letter_of
from worker.pipeline.stock_taking import take

# A rerun helps when somebody else changed a row meanwhile. Locked reruns meet that at most once per
# competing commit; more than a few means the cause is in the batch itself, or a server's.
MAX_RERUNS: Final = 4

Guard = Callable[[AsyncSession], Awaitable[None]]
"""Raises where the database is not the one that the worker knows."""
BeforeCommit = Callable[[AsyncSession, list[RecordResult]], Awaitable[None]]
"""runs in the transaction that decides a whole batch, just before its commit"""
_VERIFIED: Final = "order_worker_verified"


@dataclass(slots=True)
class _Batch:
    """What all transactions of a batch share. `letters`: how many of its orders PostgreSQL refuses."""

    arrivals: Sequence[Arrival]
    replays: Replays
    require_same_database: Guard | None
    before_commit: BeforeCommit | None = None  # of a transaction that decides the whole batch
    failed_at: datetime | None = None  # of its dead letters, once there is one
    letters: int = 0


@dataclass(frozen=True, slots=True)
class BatchProcessor:
    """Decides batches. After `decide` returns, the database holds every decision; Kafka knows nothing yet."""

    sessions: async_sessionmaker[AsyncSession]
    topics: Topics
    metrics: Metrics
    reached: Reached
    message_max_bytes: int
    timeout_seconds: float
    refused: RefusedOrders = field(default_factory=RefusedOrders)
    locked: LockedRows = field(default_factory=LockedRows)

    async def decide(
        self,
        records: Sequence[ConsumerRecord],
        replays: Replays,
        require_same_database: Guard | None = None,
        before_commit: BeforeCommit | None = None,
    ) -> list[RecordResult]:
        """One result per record, in their order. Safe to call again with the same records at any time.

        `require_same_database` is asked on each new connection, in the transaction that is to decide.
        `before_commit` is called where one transaction decides all the records, and may be called again.

        Raises the error of PostgreSQL or the connection when the whole batch has to wait, LockedRowsError or
        RefusedOrderError when partitions of it have to, and TimeoutError when one transaction takes longer
        than `timeout_seconds`. Some of its orders may be decided by then; the next call finds them in the
        ledger.
        """
        with self.metrics.phase("decode"):
            arrivals, invalid, unknown_fields = decode_all(records, self.message_max_bytes)
        batch = _Batch(arrivals.all, replays, require_same_database, None if invalid else before_commit)
        async with self.locked.waited_for(self.sessions, arrivals, self.timeout_seconds):
            results = await self._decide_or_split(arrivals, MAX_RERUNS, batch)
        letters = {place: await self._invalid(batch, records[place], why) for place, why in invalid.items()}
        self.reached(Step.AFTER_DATABASE_COMMIT)
        self.metrics.unknown_fields.inc(unknown_fields)
        if not letters:
            return results
        rest = iter(results)
        return [letters.get(place) or next(rest) for place in range(len(records))]

    async def _decide_or_split(self, arrivals: Arrivals, reruns: int, batch: _Batch) -> list[RecordResult]:
        """Decide them in one transaction; if PostgreSQL refuses it, in halves, down to the refused order."""
        if not arrivals.all:
            return []
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    return await self._decide_in_one_transaction(arrivals, batch, locked=attempt > 0)
            except Exception as error:
                # Not kept beyond this block: a variable of this frame and the error's traceback would form a
                # cycle, which holds the whole batch until the garbage collector runs, and that is rare.
                what = remedy(error)
                if what is Remedy.WAIT or (what is Remedy.RERUN and attempt == reruns):
                    raise
                if what is Remedy.SPLIT or attempt == reruns:
                    return await self._decide_apart(arrivals, error, batch)
                self.metrics.reruns.labels(type(error).__name__).inc()
                attempt += 1

    async def _decide_apart(
        self, arrivals: Arrivals, failure: Exception, batch: _Batch
    ) -> list[RecordResult]:
        if len(arrivals.all) == 1:
            return [await self._refused(arrivals, failure, batch)]
        if single := await self._single_keys(arrivals, failure):
            # Each by itself. Halving takes twice as long: if all orders came again after rows of the ledger
            # were deleted, a batch would outlast a rebalance. In offset order, as below.
            results: list[RecordResult] = []
            for is_single, run in groupby(arrivals.all, lambda a: a.order.key in single):
                for part in ([a] for a in run) if is_single else [list(run)]:
                    results += await self._decide_or_split(Arrivals(part), 1, batch)
            return results
        half = len(arrivals.all) // 2
        # In their order: the second half meets the stock that the first one leaves.
        # One rerun each: where many orders are refused, more would take longer than a rebalance waits.
        first = await self._decide_or_split(Arrivals(arrivals.all[:half]), 1, batch)
        return first + await self._decide_or_split(Arrivals(arrivals.all[half:]), 1, batch)

    async def _single_keys(self, arrivals: Arrivals, failure: Exception) -> AbstractSet[str]:
        """The keys of orders to decide each by itself: those that the failure names, or whose id belongs to
        an order that is not in the ledger (PostgreSQL would refuse to confirm them)."""
        if isinstance(failure, OverTotalError):
            return failure.total_cents.keys()
        if isinstance(failure, UnusableProductError):
            of_them = failure.products
            return {a.order.key for a in arrivals.all if any(item[0] in of_them for item in a.order.items)}
        if not is_duplicate_key(failure):
            return frozenset()
        async with asyncio.timeout(self.timeout_seconds), self.sessions() as session:
            found = await orders.find_orders_without_outcome(session, arrivals.keys)
        return {str(order_id) for order_id in found}

    async def _refused(self, alone: Arrivals, failure: Exception, batch: _Batch) -> RecordResult:
        """The dead letter of an order that PostgreSQL refuses; raises if the database may be at fault.

        The order is at fault if another order would be confirmed now, or if others were confirmed between its
        refusals, and it is refused again. Raises RefusedOrderError where no other shows that.
        """
        (arrival,) = alone.all
        if is_duplicate_key(failure) and await self._single_keys(alone, failure):
            return await self._dead_letter(batch, arrival.record, ID_TAKEN)
        if not may_concern_all(failure):
            return await self._dead_letter(batch, arrival.record, letter_of(arrival, failure))
        record, place = arrival.record, TopicPartition(arrival.record.topic, arrival.record.partition)
        if batch.letters == MAX_LETTERS:
            raise ManyRefusedError(place, record.offset)
        if not self.refused.is_at_fault(record) and not await self._confirms_another(arrival, batch):
            self.refused.add(record)
            raise RefusedOrderError(arrival.order.key, place, record.offset, failure) from failure
        try:
            async with asyncio.timeout(self.timeout_seconds):
                (result,) = await self._decide_in_one_transaction(alone, batch, locked=True)
        except Exception as error:
            if remedy(error) in (Remedy.WAIT, Remedy.RERUN):
                raise
            batch.letters += 1
            return await self._dead_letter(batch, record, letter_of(arrival, error))
        return result

    async def _confirms_another(self, arrival: Arrival, batch: _Batch) -> bool:
        for other in self.refused.sentinels(arrival, batch.arrivals):
            if await self._would_be_confirmed(other, batch):
                return True
        return False

    async def _would_be_confirmed(self, arrival: Arrival, batch: _Batch) -> bool:
        """Whether all tables accept this order now; the attempt is rolled back."""
        try:
            async with asyncio.timeout(self.timeout_seconds), self.sessions() as session:
                (result,) = await self._decide_all(session, Arrivals([arrival]), batch, locked=True)
                await decided.check_deferred(session)
                return result.fate is Fate.CONFIRMED
        except Exception:
            return False

    async def _decide_in_one_transaction(
        self, arrivals: Arrivals, batch: _Batch, locked: bool
    ) -> list[RecordResult]:
        with self.metrics.phase("database"):
            return await self._decide_and_commit(arrivals, batch, locked)

    async def _decide_and_commit(self, arrivals: Arrivals, batch: _Batch, locked: bool) -> list[RecordResult]:
        async with self.sessions.begin() as session:
            results = await self._decide_all(session, arrivals, batch, locked)
            if batch.before_commit and len(results) == len(batch.arrivals):
                await batch.before_commit(session, results)
            self.reached(Step.BEFORE_DATABASE_COMMIT)
        self.refused.saw(arrivals.all, results)
        return results

    async def _decide_all(
        self, session: AsyncSession, arrivals: Arrivals, batch: _Batch, locked: bool
    ) -> list[RecordResult]:
        if batch.require_same_database:
            await _verify(session, batch.require_same_database)
        # The first statement also sends BEGIN, without which the COPYs would commit by themselves.
        found = await look_up(session, arrivals.keys, arrivals.user_ids, arrivals.product_ids)
        # By the database's clock, as the decision: no outcome is stamped before it was decided, and every
        # publication of the same has another time.
        builder = ResultBuilder(self.topics, batch.replays, found.time, int(found.time.timestamp() * 1_000))
        if not found.decided and len(arrivals.keys) == len(arrivals.all):
            # As a rule: then triage finds nothing but new orders.
            return await self._decide_new(session, arrivals, builder, found, locked)
        rows = await ledger.find_outcomes(session, arrivals.keys) if found.decided else {}
        known = {str(order_id): row for order_id, row in rows.items()}
        standings = triage(arrivals.all, known)
        # If the ledger does not know an id, its first arrival in the batch is new.
        first = {a.order.key: a.order for a in reversed(arrivals.all)}
        of_each = list(zip(arrivals.all, standings, strict=True))
        new = Arrivals(a for a, standing in of_each if standing is Standing.NEW)
        results = iter(await self._decide_new(session, new, builder, found, locked))
        return [
            next(results)
            if standing is Standing.NEW
            else builder.repeat(arrival, standing, known.get(arrival.order.key) or first[arrival.order.key])
            for arrival, standing in of_each
        ]

    async def _decide_new(
        self, session: AsyncSession, new: Arrivals, builder: ResultBuilder, found: Found, locked: bool
    ) -> list[RecordResult]:
        if not new.all:
            return []
        if unusable := {i: why for i, why in found.unusable.items() if i in new.product_ids}:
            raise UnusableProductError(unusable)
        levels = found.levels
        if locked:
            await stock.acquire_stock_lock(session)
            levels = await stock.lock_stock(session, new.product_ids)
        decider = Decider(found.user_ids, levels)
        # Each order completely before the next one, while it is in the processor's cache.
        results = [builder.add(a, decider.decide(a.order)) for a in new.all]
        if builder.over_total:
            raise OverTotalError(builder.over_total)
        rows = builder.rows()
        await decided.add_decided(session, *rows)
        await take(session, decider, levels, locked=locked)
        return results

    async def _invalid(self, batch: _Batch, record: Record, why: Invalid) -> RecordResult:
        if why.code is DeadLetterCode.INVALID_ORDER:
            former = decode_former(record.value, self.message_max_bytes, record.headers)
            if isinstance(former, Decoded):
                arrival = Arrival(former.order, former.fingerprint, record)
                async with asyncio.timeout(self.timeout_seconds), self.sessions() as session:
                    if before := await decided_before(session, arrival, self.topics, batch.replays):
                        return before
        return await self._dead_letter(batch, record, why)

    async def _dead_letter(self, batch: _Batch, record: Record, why: Invalid) -> RecordResult:
        if batch.failed_at is None:
            async with asyncio.timeout(self.timeout_seconds), self.sessions() as session:
                batch.failed_at = await ledger.database_time(session)
        return dead_letter(self.topics, record, why.code, why.message, why.path, batch.failed_at)


async def _verify(session: AsyncSession, require_same_database: Guard) -> None:
    """A database is replaced behind a broken connection only, so it is enough to look at new ones."""
    connection = (await session.connection()).sync_connection
    assert connection is not None
    if _VERIFIED not in connection.info:
        await require_same_database(session)
        connection.info[_VERIFIED] = True
