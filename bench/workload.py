"""The orders, and what must be left behind when each of them was decided once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Final

from contracts.events import OrderPlaced
from worker.operations.place import Message, encode, random_orders

USERS: Final = range(1, 10_001)
PRODUCTS: Final = range(1, 5_001)
STOCK: Final = 1_000_000  # of each product: more than any run takes, so every order is confirmed
MAX_ITEMS: Final = 5  # 1 to 5 different products an order, 3 on average
SEED: Final = 7


def price_of(product_id: int) -> Decimal:
    """From 1.00 to 100.99, the same in every run."""
    return Decimal(product_id * 37 % 10_000 + 100) / 100


@dataclass(frozen=True, slots=True)
class Expected:
    """What is right after a drain."""

    order_ids: frozenset[bytes]  # as the records' keys
    lines: int
    taken: dict[int, int]  # product id → quantity


@dataclass(frozen=True)
class Workload:
    """`count` seeded orders, uniform over users and products: the same ones each time they are asked for."""

    count: int

    def orders(self) -> Iterator[OrderPlaced]:
        products = [(product_id, price_of(product_id)) for product_id in PRODUCTS]
        return random_orders(SEED, USERS, products, self.count, max_items=MAX_ITEMS)

    def messages(self) -> Iterator[Message]:
        """As an upstream service would publish them. Made one by one: nothing here holds the backlog."""
        return map(encode, self.orders())

    @cached_property
    def expected(self) -> Expected:
        order_ids: set[bytes] = set()
        taken: Counter[int] = Counter()
        lines = 0
        for order in self.orders():
            order_ids.add(str(order.order_id).encode())
            lines += len(order.items)
            for item in order.items:
                taken[item.product_id] += item.quantity
        return Expected(frozenset(order_ids), lines, dict(taken))
