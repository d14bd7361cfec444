"""The facts about one order: its records, the decision, its rows, and what could not be read. Pure."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from contracts.events import Reason
from db.worker.skips import SkippedSpan
from worker.kafka.consuming.unreadable import UnreadableCount


class State(StrEnum):
    """The state of an order."""

    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    WAITING = "waiting"  # its record is behind the committed offset: a worker will come to it
    DEAD_LETTER = "dead_letter"  # its record could not be decided
    PASSED_OVER = "passed_over"  # the group is past its record, and nothing of it is to be found
    DIRECT = "direct"  # stored by `create_order`, never placed through Kafka
    NOT_FOUND = "not_found"


class RecordStanding(StrEnum):
    """How one input record relates to the order."""

    DECIDED = "decided"  # the record that was decided
    DUPLICATE = "duplicate"  # the same order once more
    CONFLICT = "conflict"  # another order under this id: a dead letter
    INVALID = "invalid"  # names the id, and is no order: a dead letter
    WAITING = "waiting"  # not handled yet
    PASSED_OVER = "passed_over"  # handled by the committed offset, and by nothing else


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order: `unit_price` is the price it was sold for, or the one the buyer saw."""

    product_id: int
    quantity: int
    unit_price: Decimal | None


@dataclass(frozen=True, slots=True)
class InputRecord:
    """A record of the input topic with this order id. `why` says what is wrong with an invalid one."""

    place: Place
    time: datetime
    standing: RecordStanding
    why: str
    user_id: int | None
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """A record in an outcome topic. `as_stored`: its value is the ledger's event, byte for byte.

    `tombstone`: it has no value, and is no publication: in a compacted topic it deletes those before it.
    """

    place: Place
    time: datetime
    outcome: str
    event_id: str
    republished: bool
    as_stored: bool
    tombstone: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A dead letter that holds or names the order id; `source` is the input record it was."""

    place: Place
    time: datetime
    code: str
    message: str
    path: str
    source: Place | None
    failed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the ledger holds. `lines` of a confirmation, with the prices at the decision; `reasons` else.

    `pruned`: the event is no longer there, and with it all that is None or empty then.
    """

    outcome: str
    decided_at: datetime
    source: Place
    user_id: int | None
    placed_at: datetime | None
    total_amount: Decimal | None
    lines: tuple[Line, ...]
    reasons: tuple[Reason, ...]
    retryable: bool | None
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """The rows in `orders` and `order_items`."""

    status: str
    user_id: int
    total_amount: Decimal
    placed_at: datetime
    created_at: datetime
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class ProductNow:
    """A product of the order as it is now, which need not be as it was: stock is not kept with a decision.

    `taken_later` is what orders decided later took (None: not counted, it would have taken long).
    """

    product_id: int
    price: Decimal | None  # with stock: None where the product is not there
    stock: int | None
    taken_later: int | None


@dataclass(frozen=True, slots=True)
class Unread:
    """Offsets from `start` up to, not including, `end` that were not read."""

    topic: str
    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LinkedOrder:
    """The order under which a rejected one was placed again, or the one that was rejected before it.

    `outcome`: None, it is not decided. Who asked for it, when, and whether the prices that the buyer saw were
    dropped, is None where a backup has lost it.
    """

    order_id: UUID
    outcome: str | None
    requested_by: str | None = None
    requested_at: datetime | None = None
    drop_prices: bool | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. `committed` is the group's offset by partition of the input; None: there is none.

    `skips` are all spans of the input that no worker decides. `withheld`: why the outcome's topic refuses it,
    and what to do; empty where it does not.
    """

    order_id: UUID
    group_id: str
    members: int
    committed: dict[int, int | None]
    decision: Decision | None = None
    order: StoredOrder | None = None
    inputs: tuple[InputRecord, ...] = ()
    outcomes: tuple[OutcomeRecord, ...] = ()
    dead_letters: tuple[DeadLetterRecord, ...] = ()
    products: tuple[ProductNow, ...] = ()
    unread: tuple[Unread, ...] = ()
    notes: tuple[str, ...] = ()
    unreadable: tuple[UnreadableCount, ...] = ()
    skips: tuple[SkippedSpan, ...] = ()
    withheld: str = ""
    reopened_as: LinkedOrder | None = None
    supersedes: LinkedOrder | None = None

    @property
    def publications(self) -> tuple[OutcomeRecord, ...]:
        """The outcomes without tombstones."""
        return tuple(record for record in self.outcomes if not record.tombstone)
