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
