"""The result for each record of a batch: the rows to write, and what to publish. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from operator import itemgetter
from typing import Final, NamedTuple

from contracts.envelope import encode_passed_on, outcome_headers, passed_through
from contracts.events import DeadLetterCode
from contracts.fields import MAX_TOTAL_CENTS
from contracts.plain_order import PlainOrder
from contracts.topics import Topics
from db.bulk import rows
from db.bulk.rows import LedgerRow
from db.decision import Decision, Rejected
from db.statuses import Outcome, SilentReplay
from worker.core.dead_letter import dead_letter_headers
from worker.core.decode import Invalid
from worker.core.outcome import event_json, reason_codes
from worker.core.same_order import difference, difference_from_row
from worker.core.triage import Arrival, Record, Source, Standing

_CONFIRMED: Final = Outcome.CONFIRMED.value
_REJECTED: Final = Outcome.REJECTED.value
ID_TAKEN: Final = Invalid(
    DeadLetterCode.ORDER_ID_TAKEN, "this id belongs to an order that was not placed through Kafka", "order_id"
)


class Fate(Enum):
    """The result for a record. Every record has exactly one."""

    CONFIRMED = auto()
    REJECTED = auto()
    REDELIVERED = auto()  # decided before, outcome published again
    SILENCED = auto()  # decided and published before; a silent replay skips it, or it was pruned
    DUPLICATE = auto()
    DEAD_LETTER = auto()

    __hash__ = object.__hash__  # Enum's own is written in Python, and a fate is counted with every record


class Publication(NamedTuple):
    """One record to publish.

    No two publications of one outcome or dead letter have the same `timestamp_ms` and `headers`: an outcome
    is stamped when it is published, and a dead letter's headers say when its record failed.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int


class RecordResult(NamedTuple):
    """A record's fate, its reason or error codes, and what to publish for it, if anything."""

    fate: Fate
    publication: Publication | None = None
    codes: tuple[str, ...] = ()


Replays = Mapping[tuple[str, int], Sequence[SilentReplay]]  # by topic and partition

_new: Final = tuple.__new__  # of a NamedTuple: half the time of a call of its class


class Rows(NamedTuple):
    """The rows to write, in COPY's format. A rejected order has a row in `outcomes` only."""

    outcomes: list[bytes]
    orders: list[bytes]
    items: list[bytes]


class ResultBuilder:
    """Builds the results of one transaction, one order at a time, while each is in the processor's cache.

    `decided_at`: the transaction's time, aware UTC; `published_ms`: what outcomes are stamped with.
    """

    def __init__(self, topics: Topics, replays: Replays, decided_at: datetime, published_ms: int) -> None:
        self._rows: list[tuple[bytes, bytes, bytes]] = []
        self._topics = topics
        self._replays = replays
        self._decided_at = decided_at
        self._published_ms = published_ms
        # Totals above the contract's limit, in cents, by the order's key. Then nothing may be written.
        self.over_total: dict[str, int] = {}

    def add(self, arrival: Arrival, decision: Decision) -> RecordResult:
        """A new order, decided now."""
        order, fingerprint, record = arrival
        key, user_id, placed_at, _, lines = order
        decided_at, published_ms = self._decided_at, self._published_ms
        if self._replays and (later := self._not_before_replays(record)) > decided_at:
            # Stamped with it as well: `explain` looks for an outcome only after its decision.
            decided_at, published_ms = later, int(later.timestamp() * 1_000)
        order_id = bytes.fromhex(key.replace("-", ""))
        event = event_json(order, decision, decided_at).encode()
        if isinstance(decision, Rejected):
            fate, outcome, codes = Fate.REJECTED, _REJECTED, reason_codes(decision)
            stored = items = b""
            # A rejection has no lines: by this a repeat is recognised whose lines are in another order.
            sorted_fingerprint = order.sorted_fingerprint()
        else:
            fate, outcome, codes = Fate.CONFIRMED, _CONFIRMED, ()
            sorted_fingerprint = None
            total_cents, unit_prices = decision
            if total_cents > MAX_TOTAL_CENTS:
                self.over_total[key] = total_cents
            stored = rows.encode_order(order_id, user_id, total_cents, placed_at, decided_at)
            items = rows.encode_items(order_id, lines, unit_prices)
        source = (record.topic, record.partition, record.offset)
        passed_on = passed_through(record.headers, record.value) if record.headers else ()
        kept = encode_passed_on(passed_on) if passed_on else None
        decided = rows.encode_outcome(
            order_id, outcome, fingerprint, source, event, decided_at, sorted_fingerprint, kept
        )
        self._rows.append((decided, stored, items))
        publication = self._publication(key, outcome, event, decided_at, passed_on, published_ms)
        return _new(RecordResult, (fate, publication, codes))

    def _not_before_replays(self, record: Record) -> datetime:
        """The transaction's time, or that of the latest replay that reads this record, if it is later.

        The database's clock may be behind the one by which the replay was dated. Dated before the replay, the
        outcome would count as published, and be lost if it has to be published again.
        """
        replays = self._replays.get((record.topic, record.partition), ())
        later = (replay.requested_at for replay in replays if _covers(replay, record.offset))
        return max([self._decided_at, *later])

    def rows(self) -> Rows:
        """The rows of all decided orders, sorted by order id."""
        # By the outcome's row, which begins with the id. Sorting them again before they are written is cheap.
        ordered = sorted(self._rows, key=itemgetter(0))
        return Rows(
            [outcome for outcome, _, _ in ordered],
            [order for _, order, _ in ordered if order],
            [items for _, _, items in ordered if items],
        )

    def repeat(self, arrival: Arrival, standing: Standing, first: LedgerRow | PlainOrder) -> RecordResult:
        """An order that is not new. `first`: the ledger's row, or the first arrival in this batch."""
        record = arrival.record
        if standing is Standing.DUPLICATE:
            return RecordResult(Fate.DUPLICATE)
        if standing is Standing.CONFLICT:
            code = DeadLetterCode.ORDER_ID_CONFLICT
            path, message = (
                difference(arrival.order, first)
                if isinstance(first, PlainOrder)
                else difference_from_row(arrival.order, first)
            )
            return dead_letter(self._topics, record, code, message, path, self._decided_at)
        assert isinstance(first, LedgerRow)
        replays = self._replays.get((record.topic, record.partition), ())
        if is_silenced(record.offset, first.decided_at, replays):
            return RecordResult(Fate.SILENCED)
        if first.event is None:
            # It was published before it was pruned. Its record is there again because a volume was restored.
            return RecordResult(Fate.SILENCED)
        key, event = arrival.order.key, first.event.encode()
        passed_on = passed_through(record.headers, record.value)
        publication = self._publication(
            *(key, first.outcome, event, first.decided_at, passed_on), self._published_ms
        )
        return RecordResult(Fate.REDELIVERED, publication)

    def _publication(
        self,
        key: str,
        outcome: str,
        event: bytes,
        decided_at: datetime,
        passed_on: Sequence[tuple[str, bytes]],
        published_ms: int,
    ) -> Publication:
        subject = key.encode()
        topic = self._topics.confirmed if outcome == _CONFIRMED else self._topics.rejected
        headers = outcome_headers(subject, f"order-{outcome}", decided_at, passed_on)
        return _new(Publication, (topic, subject, event, headers, published_ms))


def dead_letter(
    topics: Topics, record: Record, code: DeadLetterCode, message: str, path: str, failed_at: datetime
) -> RecordResult:
    """The record as it came, and why it is not an order. `failed_at` is aware UTC.

    A dead letter's timestamp is the time of the failure, because retention uses it: with the record's time,
    the dead letter of an old record would be deleted at once. The record's time is in `source.timestamp`.
    """
    source = Source(record.topic, record.partition, record.offset)
    headers = dead_letter_headers(code, message, path, source, record.timestamp, failed_at, record.headers)
    failed_ms = int(failed_at.timestamp() * 1_000)
    letter = Publication(topics.dead_letter, record.key, record.value, headers, failed_ms)
    return RecordResult(Fate.DEAD_LETTER, letter, (code.value,))


def is_silenced(offset: int, decided_at: datetime, replays: Sequence[SilentReplay]) -> bool:
    """Whether a replay suppresses the outcome that was decided then, of the record at this offset."""
    return any(_covers(r, offset) and decided_at < r.requested_at for r in replays)


def _covers(replay: SilentReplay, offset: int) -> bool:
    return replay.from_offset <= offset < replay.to_offset
