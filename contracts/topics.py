"""The topics: which event each carries. The key is everywhere the order id as text."""

from dataclasses import dataclass
from typing import Final

from contracts.events import OrderConfirmed, OrderPlaced, OrderRejected

ORDER_PLACED: Final = "order-placed"
ORDER_CONFIRMED: Final = "order-confirmed"
ORDER_REJECTED: Final = "order-rejected"
DEAD_LETTER: Final = "order-placed-dlt"
DEFAULT_PARTITIONS: Final = 4

_DAY_MS: Final = 24 * 60 * 60 * 1000
_MIB: Final = 1024 * 1024
# Kafka's default, which holds a batch of the largest records that the contract allows.
USUAL_MAX_BYTES: Final = _MIB + 12
# A dead letter is a record of any size that the input takes, with our headers.
HEADER_ROOM_BYTES: Final = _MIB - 12


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's default name, what its values are, and how `topics create` makes it."""

    name: str
    event: type[OrderPlaced] | type[OrderConfirmed] | type[OrderRejected] | None
    purpose: str
    retention_days: int
    max_message_bytes: int = USUAL_MAX_BYTES

    @property
    def settings(self) -> dict[str, str]:
        """Kafka's settings of the topic, but for the largest record."""
        # Never compacted: a second record of a key must not remove the first before everybody has read it.
        # Stamped by the broker: whatever time a record claims, none is refused for it or deleted too soon.
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_days * _DAY_MS),
            "message.timestamp.type": "LogAppendTime",
        }


TOPICS: Final = (
    # The input topic is the retry log: a record must outlive the longest time that all workers are away.
    Topic(ORDER_PLACED, OrderPlaced, "orders to decide, published by upstream services", 14),
    # Time for a subscriber to come back and read on. Older outcomes are in the ledger (`republish`).
    Topic(ORDER_CONFIRMED, OrderConfirmed, "orders whose stock is taken", 14),
    Topic(ORDER_REJECTED, OrderRejected, "orders that were refused, with every reason", 14),
    # Time to look, repair and redrive. Longer than the input is kept: then the dead letter is the only copy.
    Topic(
        DEAD_LETTER,
        None,
        "records that could not be decided, exactly as they came",
        30,
        USUAL_MAX_BYTES + HEADER_ROOM_BYTES,
    ),
)


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics that one worker reads and writes."""

    placed: str = ORDER_PLACED
    confirmed: str = ORDER_CONFIRMED
    rejected: str = ORDER_REJECTED
    dead_letter: str = DEAD_LETTER

    @property
    def all(self) -> tuple[str, str, str, str]:
        return self.placed, self.confirmed, self.rejected, self.dead_letter

    @property
    def outputs(self) -> tuple[str, str, str]:
        return self.confirmed, self.rejected, self.dead_letter

    @property
    def outcomes(self) -> tuple[str, str]:
        return self.confirmed, self.rejected

    def of_outcome(self, outcome: str) -> str:
        """Where a `confirmed` or `rejected` order is published."""
        return {"confirmed": self.confirmed, "rejected": self.rejected}[outcome]
