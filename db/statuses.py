"""What an order, a decision, a redrive and a replay may be. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class OrderStatus(StrEnum):
    """Where a confirmed order stands. Rejected orders are in the ledger only."""

    PENDING = "pending"  # confirmed, stock taken, to be fulfilled
    COMPLETED = "completed"  # handed over
    CANCELLED = "cancelled"  # given up, stock given back


class Outcome(StrEnum):
    """What was decided, once and for good."""

    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class RedriveStatus(StrEnum):
    """How far a dead letter's redrive has come."""

    CLAIMED = "claimed"  # chosen, and perhaps sent: `db.worker.redrives` says how one finds out
    SENT = "sent"  # in the input topic again, at `input_offset`
    DECIDED = "decided"  # confirmed or rejected; `result` says which
    DUPLICATE = "duplicate"  # this very order was decided from another record
    FAILED = "failed"  # a dead letter again, with a source of its own; `result` says why


@dataclass(frozen=True, slots=True)
class SilentReplay:
    """Offsets from `from_offset` up to, not including, `to_offset` that an operator replays silently."""

    from_offset: int
    to_offset: int
    requested_at: datetime
