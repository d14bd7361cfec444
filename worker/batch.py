"""What happens to a batch of records: decode, one database transaction, and what is to be published.

    settle
     ├ decode              each record by itself; never raises
     └ one transaction     find known outcomes → triage → read stock → decide → write → take stock

The transaction writes optimistically: products are read unlocked, everything is written, and only
the last step, under one advisory lock, takes the stock where price and stock still allow it. If they
do not, nothing happened, and the batch runs again with its products locked first.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from itertools import groupby
from typing import Final, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from contracts.envelope import outcome_headers
from contracts.events import DeadLetterCode
from db import ledger, orders, stock
from db.decision import Decider, Decision, Rejected
from db.ledger import LedgerRow, SilentReplay
from db.models import Outcome
from worker.dead_letter import dead_letter_headers, fit
from worker.decode import Invalid, decode
from worker.metrics import Metrics
from worker.outcome import event_json, reason_codes
from worker.retry import (
    Remedy,
    StaleReadError,
    describe,
    is_duplicate_key,
    may_concern_all,
    remedy,
)
from worker.steps import Reached, Step
from worker.triage import Arrival, Source, Standing, triage

# A rerun helps when somebody else changed a row meanwhile. Locked reruns meet that at most once per
# competing commit; more than a few means the cause is in the batch itself, or a server's.
MAX_RERUNS: Final = 4
# Orders asked, at random, whether it is the database that refuses all of them. One that is confirmed is
# enough; where these few are refused too, the next attempt asks others.
MAX_WITNESSES: Final = 5

_CONFIRMED: Final = Outcome.CONFIRMED.value
_REJECTED: Final = Outcome.REJECTED.value


class Fate(Enum):
    """What became of a record. Every record has exactly one."""

    CONFIRMED = auto()
    REJECTED = auto()
    REDELIVERED = auto()  # decided before, outcome announced again
    SILENCED = auto()  # decided and announced before; a silent replay passes over it
    DUPLICATE = auto()
    DEAD_LETTER = auto()


class Publication(NamedTuple):
    """One record to publish.

    `timestamp_ms` and `headers` together differ from those of every other publication of the same: an
    outcome has the time of this one, a dead letter that of its record, and its `failed_at`.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int


class Settled(NamedTuple):
    """A record's fate, why (reason or error codes), and what to publish for it, if anything."""

    fate: Fate
    publication: Publication | None = None
    codes: tuple[str, ...] = ()


class Told(NamedTuple):
    """What there is to tell of a decided order, byte for byte."""

    key: bytes
    outcome: str
    event: bytes
    decided_at: datetime


class Verdict(NamedTuple):
    """What the database transaction found or wrote for one arrival.

    `fault`: how PostgreSQL refused this very order.
    """

    standing: Standing
    told: Told | None = None
    codes: tuple[str, ...] = ()
    fault: Exception | None = None

    @property
    def is_dead_letter(self) -> bool:
        return self.fault is not None or self.standing is Standing.CONFLICT


@dataclass(slots=True)
class OutputTopics:
    """Where outcomes and dead letters go. `dead_letter_max_bytes`: the largest record that topic takes."""

    confirmed: str
    rejected: str
    dead_letter: str
    dead_letter_max_bytes: int = 1024 * 1024  # Kafka's default; the topic's own is read at the start


@dataclass(frozen=True, slots=True)
class BatchProcessor:
    """Settles batches. After `settle` returns, the database holds every decision; Kafka knows nothing yet."""

    sessions: async_sessionmaker[AsyncSession]
    topics: OutputTopics
    metrics: Metrics
    reached: Reached
    message_max_bytes: int
    timeout_seconds: float

    async def settle(
        self,
        records: Sequence[ConsumerRecord],
        replays: Mapping[TopicPartition, Sequence[SilentReplay]],
    ) -> list[Settled]:
        """One result per record, in their order. Safe to call again with the same records at any time.

        Raises what PostgreSQL or the connection raised when the whole batch has to wait, and TimeoutError
        when one transaction takes longer than `timeout_seconds`. Some of its orders may be decided then;
        the next call finds them so.
        """
        arrivals: list[Arrival] = []
        invalid: dict[int, Invalid] = {}  # by place in the batch
        unknown_fields = 0
        for place, record in enumerate(records):
            decoded = decode(record.value, self.message_max_bytes)
            if isinstance(decoded, Invalid):
                invalid[place] = decoded
                continue
            arrivals.append(Arrival(decoded.order, decoded.fingerprint, record))
            unknown_fields += decoded.unknown_fields
        decided = await self._decide(arrivals, MAX_RERUNS, arrivals)
        refused = invalid or any(v.is_dead_letter for v in decided)
        del arrivals  # most of a batch's memory, and what is published now is made beside the next batch's
        now = await self._time() if refused else None
        self.reached(Step.AFTER_DATABASE_COMMIT)
        self.metrics.unknown_fields.inc(unknown_fields)
        verdicts = iter(decided)
        announced_ms = int(time.time() * 1_000)
        return [
            self._dead_letter(record, wrong.code, wrong.message, wrong.path, now)
            if (wrong := invalid.get(place))
            else self._settled(record, next(verdicts), replays, now, announced_ms)
            for place, record in enumerate(records)
        ]

    async def _decide(
        self, arrivals: Sequence[Arrival], reruns: int, batch: Sequence[Arrival]
    ) -> list[Verdict]:
        """As one transaction if PostgreSQL takes it; else in halves, until the order it refuses is alone."""
        if not arrivals:
            return []
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    return await self._decide_in_one_transaction(arrivals, locked=attempt > 0)
            except Exception as error:
                # Not kept beyond this block: an error in a variable of a frame that its traceback names is a
                # cycle, which would hold the whole batch until the collector, which is spared, comes by.
                what = remedy(error)
                if what is Remedy.WAIT or (what is Remedy.RERUN and attempt == reruns):
                    raise
                if what is Remedy.SPLIT or attempt == reruns:
                    return await self._decide_apart(arrivals, error, batch)
                self.metrics.reruns.labels(type(error).__name__).inc()
                attempt += 1

    async def _decide_apart(
        self, arrivals: Sequence[Arrival], failure: Exception, batch: Sequence[Arrival]
    ) -> list[Verdict]:
        if len(arrivals) == 1:
            return [await self._refused(arrivals[0], failure, batch)]
        if is_duplicate_key(failure) and (spent := await self._spent_keys(arrivals)):
            # Each by itself, and not found by halving, which takes twice as long: should the ledger be purged
            # and everything come again, a batch would outlast a rebalance. In their order, as below.
            verdicts: list[Verdict] = []
            for is_spent, run in groupby(arrivals, lambda a: a.order.key in spent):
                for part in ([a] for a in run) if is_spent else [list(run)]:
                    verdicts += await self._decide(part, 1, batch)
            return verdicts
        half = len(arrivals) // 2
        # In their order: the second half meets the stock that the first one leaves.
        # One rerun each: where many orders are refused, more would take longer than a rebalance waits.
        first = await self._decide(arrivals[:half], 1, batch)
        return first + await self._decide(arrivals[half:], 1, batch)

    async def _spent_keys(self, arrivals: Sequence[Arrival]) -> set[str]:
        """Of those whose id an order has that is not in the ledger: if confirmed, PostgreSQL refuses them."""
        async with asyncio.timeout(self.timeout_seconds), self.sessions() as session:
            found = await orders.find_orders_without_outcome(session, {a.order.key for a in arrivals})
        return {str(order_id) for order_id in found}

    async def _refused(self, arrival: Arrival, failure: Exception, batch: Sequence[Arrival]) -> Verdict:
        """The verdict on an order that PostgreSQL refuses; raises where it may be the database's trouble.

        It is not, if another order of the batch would be confirmed now and this one is refused once more.
        """
        if not may_concern_all(failure):
            return Verdict(Standing.NEW, fault=failure)
        others = [a for a in batch if a is not arrival]
        for other in random.sample(others, min(len(others), MAX_WITNESSES)):
            if await self._would_be_confirmed(other):
                break
        else:
            raise failure
        try:
            async with asyncio.timeout(self.timeout_seconds):
                (verdict,) = await self._decide_in_one_transaction([arrival], locked=True)
        except Exception as error:
            if not may_concern_all(error):
                raise
            return Verdict(Standing.NEW, fault=error)
        return verdict

    async def _would_be_confirmed(self, arrival: Arrival) -> bool:
        """Whether all tables take this order now; nothing of it stays."""
        try:
            async with asyncio.timeout(self.timeout_seconds), self.sessions() as session:
                (verdict,) = await self._decide_all(session, [arrival], locked=True)
        except Exception:
            return False
        written = verdict.told if verdict.standing is Standing.NEW else None
        return written is not None and written.outcome == _CONFIRMED

    async def _decide_in_one_transaction(self, arrivals: Sequence[Arrival], locked: bool) -> list[Verdict]:
        async with self.sessions.begin() as session:
            verdicts = await self._decide_all(session, arrivals, locked)
            self.reached(Step.BEFORE_DATABASE_COMMIT)
        return verdicts

    async def _decide_all(
        self, session: AsyncSession, arrivals: Sequence[Arrival], locked: bool
    ) -> list[Verdict]:
        # The first statement also sends BEGIN, without which the COPYs would commit by themselves.
        now = await ledger.database_time(session)
        keys = {a.order.key for a in arrivals}
        found = await ledger.find_outcomes(session, keys)
        if not found and len(keys) == len(arrivals):  # as a rule: then triage finds nothing but new orders
            return await self._decide_new(session, arrivals, now, locked)
        known = {str(order_id): row for order_id, row in found.items()}
        standings = triage(arrivals, known)
        new = [a for a, standing in zip(arrivals, standings, strict=True) if standing is Standing.NEW]
        written = iter(await self._decide_new(session, new, now, locked))
        return [
            next(written) if standing is Standing.NEW else Verdict(standing, _told(arrival.order.key, known))
            for arrival, standing in zip(arrivals, standings, strict=True)
        ]

    async def _decide_new(
        self, session: AsyncSession, new: Sequence[Arrival], now: datetime, locked: bool
    ) -> list[Verdict]:
        if not new:
            return []
        users = await orders.lock_user_ids(session, {a.order.user_id for a in new})
        product_ids = {product_id for a in new for product_id, _, _ in a.order.items}
        if locked:
            await stock.take_turn(session)
            shelves = await stock.lock_stock(session, product_ids)
        else:
            shelves = await stock.list_stock(session, product_ids)
        decider, rows = Decider(users, shelves), _Rows(now)
        # One order after the other, and all of it: what an order is made of is in the processor's cache then.
        verdicts = [rows.write(a, decider.decide(a.order)) for a in new]
        await ledger.add_outcomes(session, rows.outcomes)
        await orders.add_orders(session, rows.orders, rows.items, references_hold=True)
        if not locked:
            # As late as possible: everything above runs beside the other workers.
            await stock.take_turn(session)
        await self._take_stock(session, decider, shelves, locked)
        return verdicts

    async def _take_stock(
        self,
        session: AsyncSession,
        decided: Decider,
        shelves: Mapping[int, stock.StockLevel],
        locked: bool,
    ) -> None:
        takings = {i: stock.Taking(quantity, shelves[i].price) for i, quantity in decided.taken.items()}
        # Rejections first: these are reads, and what this batch itself takes must not look like a change.
        if not locked and decided.relied_on:
            seen = {i: shelves[i] for i in decided.relied_on if i in shelves}
            if await stock.lock_stock(session, decided.relied_on) != seen:
                raise StaleReadError("a product of a rejected order changed")
        if not await stock.take_stock(session, takings):
            raise StaleReadError("a product was sold or repriced meanwhile")

    async def _time(self) -> datetime:
        async with asyncio.timeout(self.timeout_seconds), self.sessions() as session:
            return await ledger.database_time(session)

    def _settled(
        self,
        record: ConsumerRecord,
        verdict: Verdict,
        replays: Mapping[TopicPartition, Sequence[SilentReplay]],
        now: datetime | None,
        announced_ms: int,
    ) -> Settled:
        standing, told, codes, fault = verdict
        if fault is not None:
            return self._dead_letter(record, DeadLetterCode.DATA_ERROR, describe(fault), "", now)
        if standing is Standing.DUPLICATE:
            return Settled(Fate.DUPLICATE)
        if standing is Standing.CONFLICT:
            message = "this order id was decided for an order with other content; that decision stands"
            return self._dead_letter(record, DeadLetterCode.ORDER_ID_CONFLICT, message, "order_id", now)
        assert told is not None
        if standing is Standing.REDELIVERY:
            silent = replays.get(TopicPartition(record.topic, record.partition), ())
            if is_silenced(record.offset, told.decided_at, silent):
                return Settled(Fate.SILENCED)
            return Settled(Fate.REDELIVERED, self._announcement(record, told, announced_ms))
        fate = Fate.CONFIRMED if told.outcome == _CONFIRMED else Fate.REJECTED
        return Settled(fate, self._announcement(record, told, announced_ms), codes)

    def _announcement(self, record: ConsumerRecord, told: Told, announced_ms: int) -> Publication:
        key, outcome, event, decided_at = told
        return Publication(
            self.topics.confirmed if outcome == _CONFIRMED else self.topics.rejected,
            key,
            event,
            outcome_headers(key, f"order-{outcome}", decided_at, record.headers),
            announced_ms,
        )

    def _dead_letter(
        self, record: ConsumerRecord, code: DeadLetterCode, message: str, path: str, now: datetime | None
    ) -> Settled:
        assert now is not None
        headers = dead_letter_headers(
            code, message, path, _source(record), record.timestamp, now, record.headers
        )
        value, headers = fit(record.value, headers, self.topics.dead_letter_max_bytes)
        # -1: the record has none. One from the future, which Kafka would refuse, stays in source.timestamp.
        now_ms = int(now.timestamp() * 1_000)
        timestamp_ms = record.timestamp if 0 <= record.timestamp <= now_ms else now_ms
        letter = Publication(self.topics.dead_letter, record.key, value, headers, timestamp_ms)
        return Settled(Fate.DEAD_LETTER, letter, (code.value,))


def _source(record: ConsumerRecord) -> Source:
    return Source(record.topic, record.partition, record.offset)


def is_silenced(offset: int, decided_at: datetime, replays: Sequence[SilentReplay]) -> bool:
    """Whether what was decided then, from the record at this offset, is not to be announced again."""
    return any(r.from_offset <= offset < r.to_offset and decided_at < r.requested_at for r in replays)


def _told(key: str, known: Mapping[str, LedgerRow]) -> Told | None:
    row = known.get(key)
    return Told(key.encode(), row.outcome, row.event.encode(), row.decided_at) if row else None


class _Rows:
    """What is written for decided orders, as COPY takes it. A rejected one has no row in `orders`."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self.outcomes: list[bytes] = []
        self.orders: list[bytes] = []
        self.items: list[bytes] = []

    def write(self, arrival: Arrival, decision: Decision) -> Verdict:
        (key, user_id, placed_at, _, lines), fingerprint, record = arrival
        now = self._now
        order_id = bytes.fromhex(key.replace("-", ""))
        event = event_json(arrival.order, decision, now).encode()
        outcome = _CONFIRMED
        codes: tuple[str, ...] = ()
        if isinstance(decision, Rejected):
            outcome, codes = _REJECTED, reason_codes(decision)
        else:
            total_amount, unit_prices = decision
            self.orders.append(orders.encode_order(order_id, user_id, total_amount, placed_at, now))
            self.items.append(orders.encode_items(order_id, lines, unit_prices))
        source = (record.topic, record.partition, record.offset)
        self.outcomes.append(ledger.encode_outcome(order_id, outcome, fingerprint, source, event, now))
        return Verdict(Standing.NEW, Told(key.encode(), outcome, event, now), codes)
