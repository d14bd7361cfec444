"""The topics: which event each carries. The key is everywhere the order id as text."""

from dataclasses import dataclass
from typing import Final

from contracts.events import OrderConfirmed, OrderPlaced, OrderRejected

ORDER_PLACED: Final = "order-placed"
ORDER_CONFIRMED: Final = "order-confirmed"
ORDER_REJECTED: Final = "order-rejected"
DEAD_LETTER: Final = "order-placed-dlt"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's default name and what its values are."""

    name: str
    event: type[OrderPlaced] | type[OrderConfirmed] | type[OrderRejected] | None
    purpose: str


TOPICS: Final = (
    Topic(ORDER_PLACED, OrderPlaced, "orders to decide, published by upstream services"),
    Topic(ORDER_CONFIRMED, OrderConfirmed, "orders whose stock is taken"),
    Topic(ORDER_REJECTED, OrderRejected, "orders that were refused, with every reason"),
    Topic(DEAD_LETTER, None, "records that could not be decided, exactly as they came"),
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
