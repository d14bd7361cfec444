"""From rows and records to the facts of an explanation. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition

from contracts.dead_letters import read_letter_headers
from contracts.envelope import SUPERSEDES, reopened_id
from contracts.events import DeadLetterCode, OrderConfirmed, OrderRejected
from contracts.fields import parse_order_id
from contracts.plain_order import PlainOrder
from db.bulk.rows import LedgerRow
from db.models import Order
from db.statuses import Outcome
from worker.core.decode import Decoded, Invalid
from worker.core.same_order import difference_from_row, is_same
from worker.operations.explain.order_facts import (
    DeadLetterRecord,
    Decision,
    InputRecord,
    Line,
    OutcomeRecord,
    Place,
    RecordStanding,
    StoredOrder,
)
from worker.operations.input_records import decode_kept

_CONFLICT: Final = RecordStanding.CONFLICT
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# A producer may stamp a record with any time up to 2^63 milliseconds; Python's times end in the year 9999.
_LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Found:
    """Records of one order, each kind by partition and offset."""

    inputs: Sequence[ConsumerRecord] = field(default=())
    outcomes: Sequence[ConsumerRecord] = field(default=())
    dead_letters: Sequence[ConsumerRecord] = field(default=())

    def __add__(self, other: "Found") -> "Found":
        return Found(
            _joined(self.inputs, other.inputs),
            _joined(self.outcomes, other.outcomes),
            _joined(self.dead_letters, other.dead_letters),
        )


def _joined(first: Sequence[ConsumerRecord], second: Sequence[ConsumerRecord]) -> Sequence[ConsumerRecord]:
    by_place = {(r.topic, r.partition, r.offset): r for r in (*first, *second)}
    return [by_place[place] for place in sorted(by_place)]


def time_of(record: ConsumerRecord) -> datetime:
    """When it was published, by its timestamp."""
    return _EPOCH + timedelta(milliseconds=min(max(0, record.timestamp), _LAST_MS))


def place_of(record: ConsumerRecord) -> Place:
    return Place(record.topic, record.partition, record.offset)


def decision_of(row: LedgerRow) -> Decision:
    """What the ledger says."""
    source = Place(row.source_topic, row.source_partition, row.source_offset)
    if row.event is None:
        return Decision(row.outcome, row.decided_at, source, None, None, None, (), (), None, pruned=True)
    if row.outcome == Outcome.CONFIRMED:
        confirmed = OrderConfirmed.model_validate_json(row.event)
        lines = tuple(Line(i.product_id, i.quantity, i.unit_price) for i in confirmed.items)
        return Decision(
            row.outcome, row.decided_at, source, confirmed.user_id, confirmed.placed_at,
            confirmed.total_amount, lines, (), None,
        )  # fmt: skip
    rejected = OrderRejected.model_validate_json(row.event)
    return Decision(
        row.outcome, row.decided_at, source, rejected.user_id, rejected.placed_at,
        None, (), rejected.reasons, rejected.retryable,
    )  # fmt: skip


def stored_order(order: Order) -> StoredOrder:
    """The rows, of an order loaded whole."""
    return StoredOrder(
        order.status.value,
        order.user_id,
        order.total_amount,
        order.placed_at,
        order.created_at,
        tuple(Line(item.product_id, item.quantity, item.unit_price) for item in order.items),
    )


def inputs(
    records: Sequence[ConsumerRecord],
    letters: Sequence[ConsumerRecord],
    row: LedgerRow | None,
    committed: Mapping[TopicPartition, int | None],
    max_bytes: int,
) -> tuple[InputRecord, ...]:
    """Each record of the input with what it is to the order; the one that was decided first."""
    refused = {letter.source: letter for letter in dead_letters(letters) if letter.source}
    found = [_input(record, refused.get(place_of(record)), row, committed, max_bytes) for record in records]
    return tuple(sorted(found, key=lambda record: record.standing is not RecordStanding.DECIDED))


def _input(
    record: ConsumerRecord,
    letter: DeadLetterRecord | None,
    row: LedgerRow | None,
    committed: Mapping[TopicPartition, int | None],
    max_bytes: int,
) -> InputRecord:
    decoded = decode_kept(record, max_bytes)
    place, time = place_of(record), time_of(record)
    if isinstance(decoded, Invalid):
        path = f"{decoded.path}: " if decoded.path else ""
        why = f"{path}{decoded.message} ({decoded.code.value})"
        return InputRecord(place, time, RecordStanding.INVALID, why, None, ())
    offset = committed.get(TopicPartition(record.topic, record.partition))
    standing = _standing(place, decoded, row, is_handled=offset is not None and record.offset < offset)
    why = difference_from_row(decoded.order, row).message if row and standing is _CONFLICT else ""
    if letter is not None and letter.code == DeadLetterCode.ORDER_ID_CONFLICT:
        # As the worker saw it that wrote this: to an older version, other order of lines is another order.
        standing, why = _CONFLICT, letter.message
    elif letter is not None and standing is not _CONFLICT:
        standing, why = RecordStanding.INVALID, f"{letter.message} ({letter.code})"
    return InputRecord(place, time, standing, why, decoded.order.user_id, _lines(decoded.order))


def _lines(order: PlainOrder) -> tuple[Line, ...]:
    return tuple(
        Line(product_id, quantity, None if price is None else Decimal(price))
        for product_id, quantity, price in order.items
    )


def _standing(place: Place, read: Decoded, row: LedgerRow | None, *, is_handled: bool) -> RecordStanding:
    if row is None:
        return RecordStanding.PASSED_OVER if is_handled else RecordStanding.WAITING
    if Place(row.source_topic, row.source_partition, row.source_offset) == place:
        return RecordStanding.DECIDED
    return RecordStanding.DUPLICATE if is_same(read.order, read.fingerprint, row) else _CONFLICT


def outcomes(
    records: Sequence[ConsumerRecord], confirmed_topic: str, row: LedgerRow | None
) -> tuple[OutcomeRecord, ...]:
    """The records in the outcome topics, in the order in which they were published."""
    return tuple(
        OutcomeRecord(
            place_of(record),
            time_of(record),
            (Outcome.CONFIRMED if record.topic == confirmed_topic else Outcome.REJECTED).value,
            _header(record, "ce_id"),
            _header(record, "republished") == "true",
            # What was pruned has no event to compare with.
            row is not None and (row.event is None or record.value == row.event.encode()),
            tombstone=record.value is None,
        )
        for record in sorted(records, key=lambda record: (record.timestamp, record.offset))
    )


def dead_letters(records: Sequence[ConsumerRecord]) -> tuple[DeadLetterRecord, ...]:
    """What became of records that could not be decided, the latest last."""
    letters = [_dead_letter(record) for record in records]
    return tuple(sorted(letters, key=lambda letter: (letter.failed_at or _EPOCH, letter.place.offset)))


def _dead_letter(record: ConsumerRecord) -> DeadLetterRecord:
    said = read_letter_headers(record.headers)
    return DeadLetterRecord(
        place_of(record),
        time_of(record),
        said.code,
        said.message,
        said.path,
        Place(*said.source) if said.source else None,
        said.failed_at,
    )


def superseded(records: Sequence[ConsumerRecord]) -> UUID | None:
    """The rejected order that one of these records names as the one it was placed again for."""
    for record in records:
        old = parse_order_id(_header(record, SUPERSEDES))
        if old and str(reopened_id(old)).encode() == record.key:
            return old
    return None


def sources_of(records: Sequence[ConsumerRecord]) -> list[tuple[TopicPartition, int]]:
    """Where the records of these dead letters lie."""
    places = [letter.source for letter in dead_letters(records) if letter.source]
    return [(TopicPartition(place.topic, place.partition), place.offset) for place in places]


def _header(record: ConsumerRecord, name: str) -> str:
    """Text of the last header of that name, ours if there are several; empty where there is none."""
    values = [value for key, value in record.headers if key == name and value is not None]
    return values[-1].decode(errors="replace") if values else ""
