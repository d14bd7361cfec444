"""From a published outcome back to the rows that it was made with. Pure.

The ledger keeps the outcome's bytes, and of the order that it came of the fingerprint and the source. The
latter two are in no outcome: they come of the input record. Where that is gone, `made_up` says what is
written in their place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from aiokafka import ConsumerRecord
from aiokafka.structs import OffsetAndMetadata

from contracts.dead_letters import read_letter_headers
from contracts.envelope import encode_passed_on, event_id
from contracts.events import OrderConfirmed, OrderRejected, ReasonCode
from contracts.fields import parse_order_id, time_text
from contracts.plain_order import PlainItem, PlainOrder
from db.bulk.rows import encode_items, encode_order, encode_outcome
from db.decision import Line, cents_of, price_of
from db.reconciliation.restoration import MissingOutcome, Restorable, RestoredLetter
from db.statuses import Outcome
from worker.core.same_order import UNKNOWN_OFFSET
from worker.kafka.offset_mark import is_workers_mark, pending_when_committed

Event = OrderConfirmed | OrderRejected


class Published(NamedTuple):
    """A record of an outcome topic that a worker wrote, or `republish`."""

    order_id: UUID
    outcome: Outcome
    value: bytes
    topic: str
    partition: int
    offset: int
    passed_on: str | None = None  # as in the ledger


def published(record: ConsumerRecord, outcome: Outcome) -> Published | None:
    """The outcome, by its key and event id alone; None: no worker wrote it."""
    try:
        order_id = parse_order_id((record.key or b"").decode())
    except UnicodeDecodeError:
        return None
    if order_id is None or record.value is None:
        return None
    if ("ce_id", str(event_id(order_id)).encode()) not in record.headers:
        return None
    place = (record.topic, record.partition, record.offset)
    return Published(order_id, outcome, record.value, *place, encode_passed_on(record.headers))


def missing_outcome(found: Published) -> MissingOutcome | None:
    """The outcome as it is written to the ledger; None: its value is no event of this order."""
    event = read_event(found.outcome, found.value)
    if event is None or event.order_id != found.order_id:
        return None
    digest = sha256(found.outcome.value.encode() + b" " + found.value).digest()[:16]
    place = (found.topic, found.partition, found.offset)
    text = found.value.decode()
    return MissingOutcome(
        found.order_id, digest, found.outcome.value, event.decided_at, *place, text, found.passed_on
    )


def read_event(outcome: str, value: str | bytes) -> Event | None:
    """The event; None: it is none that a worker publishes."""
    try:
        if outcome == Outcome.REJECTED:
            return OrderRejected.model_validate_json(value)
        confirmed = OrderConfirmed.model_validate_json(value)
    except ValueError:  # pydantic's own is one, too
        return None
    total = sum(item.unit_price * item.quantity for item in confirmed.items)
    return confirmed if confirmed.items and total == confirmed.total_amount else None


def may_be_outcome_of(event: Event, order: PlainOrder) -> bool:
    """Whether the order may be the one that was decided: it agrees with everything in its outcome."""
    if (order.user_id, order.placed_at) != (event.user_id, event.placed_at):
        return False
    if isinstance(event, OrderConfirmed):
        return [(i.product_id, i.quantity) for i in order.items] == [
            (i.product_id, i.quantity) for i in event.items
        ] and all(
            line.unit_price in (None, price_of(sold.unit_price))
            for line, sold in zip(order.items, event.items, strict=True)
        )
    wanted: dict[int, int] = {}
    for product_id, quantity, _ in order.items:
        wanted[product_id] = wanted.get(product_id, 0) + quantity
    return all(
        reason.product_id is None
        or (
            reason.product_id in wanted
            and (
                reason.code != ReasonCode.INSUFFICIENT_STOCK or reason.requested == wanted[reason.product_id]
            )
        )
        for reason in event.reasons
    )


def made_up_fingerprint(event: Event) -> bytes:
    """A fingerprint where the order is gone, so that the order is never decided again.

    Of a confirmed order it is exact if the buyer had seen no prices: the same order again is a duplicate
    then. Otherwise, and of every rejected order, whose lines its event does not tell, the same order again is
    a dead letter (`order_id_conflict`).
    """
    lines: tuple[PlainItem, ...] = ()  # an order has one at least: none has this fingerprint
    if isinstance(event, OrderConfirmed):
        lines = tuple(PlainItem(i.product_id, i.quantity, None) for i in event.items)
    key, placed_at = str(event.order_id), event.placed_at
    return PlainOrder(key, event.user_id, placed_at, time_text(placed_at), lines).fingerprint()


@dataclass(slots=True)
class LostRows:
    """What is written, as COPY takes it; and what the orders sold, by product."""

    outcomes: list[bytes] = field(default_factory=list)
    orders: list[bytes] = field(default_factory=list)
    items: list[bytes] = field(default_factory=list)
    user_ids: set[int] = field(default_factory=set)
    sold: dict[int, int] = field(default_factory=dict)

    def add_outcome(self, one: Restorable, event: Event, input_topic: str) -> None:
        if one.source_partition is None or one.source_offset is None or one.fingerprint is None:
            source, fingerprint = (one.partition, UNKNOWN_OFFSET), made_up_fingerprint(event)
        else:
            source, fingerprint = (one.source_partition, one.source_offset), one.fingerprint
        self.outcomes.append(
            encode_outcome(
                one.order_id.bytes,
                one.outcome,
                fingerprint,
                (input_topic, *source),
                one.event.encode(),
                one.decided_at,
                one.sorted_fingerprint,
                one.passed_on,
            )
        )

    def add_order(self, event: OrderConfirmed) -> None:
        """Order and items as the worker wrote them: the order is pending."""
        order_id = event.order_id.bytes
        total_cents = cents_of(price_of(event.total_amount))
        self.orders.append(
            encode_order(order_id, event.user_id, total_cents, event.placed_at, event.decided_at)
        )
        lines: Sequence[Line] = [(i.product_id, i.quantity, None) for i in event.items]
        self.items.append(encode_items(order_id, lines, [price_of(i.unit_price) for i in event.items]))
        self.user_ids.add(event.user_id)
        for product_id, quantity, _ in lines:
            self.sold[product_id] = self.sold.get(product_id, 0) + quantity


def letter_row(record: ConsumerRecord, input_topic: str) -> RestoredLetter | None:
    """Which input record became this dead letter; None: none of this topic."""
    said = read_letter_headers(record.headers)
    if said.source is None or said.source.topic != input_topic:
        return None
    return RestoredLetter(said.source.partition, said.source.offset, said.source_timestamp_ms)


@dataclass(frozen=True, slots=True)
class Behind:
    """A partition of which PostgreSQL knows less than the group has committed; `known` None: nothing."""

    partition: int
    known: int | None
    committed: int

    @property
    def span(self) -> tuple[int, int]:
        """The records that the group has committed and PostgreSQL does not know of."""
        return self.known or 0, self.committed


def behind(commits: Mapping[int, OffsetAndMetadata | None], pending_to: Mapping[int, int]) -> list[Behind]:
    """The partitions of which PostgreSQL has lost something, in order: as long as there is one, all wait."""
    found = []
    for partition, commit in sorted(commits.items()):
        if commit is None or not is_workers_mark(commit.metadata):
            continue  # an operator's move is believed
        committed, known = pending_when_committed(commit.offset, commit.metadata), pending_to.get(partition)
        if committed > (known or 0):
            found.append(Behind(partition, known, committed))
    return found
