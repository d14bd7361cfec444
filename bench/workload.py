"""The orders, and the right result if each of them is decided once."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cache, cached_property
from itertools import accumulate, cycle, islice
from random import Random
from typing import Final
from uuid import UUID

from contracts.events import OrderedItem, OrderPlaced
from worker.operations.place.messages import Message, encode, random_orders, with_twins
from worker.sandbox.demo import retailer

USERS: Final = range(1, 10_001)
PRODUCTS: Final = range(1, 5_001)
STOCK: Final = 1_000_000  # of each product: more than any run takes, so every order is confirmed
MAX_ITEMS: Final = 5  # 1 to 5 different products an order, 3 on average
SEED: Final = 7
HOT_PRODUCT: Final = 1
ZIPF_EXPONENT: Final = 1.1
DUPLICATES: Final = 0.1  # of the orders come twice

FIRST_PLACED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)  # as of `random_orders`; later ones follow


class Shape(StrEnum):
    """Which products the orders name."""

    UNIFORM = "uniform"
    ZIPF = "Zipf 1.1"  # the n-th product is wanted in proportion to 1 / n^1.1
    HOT = "hot product"  # one product is in every order
    DUPLICATES = "duplicates"  # uniform, and a tenth of the orders comes a second time
    REAL = "real orders"  # of a UK retailer, 21 lines each, some with one product on several


def price_of(product_id: int) -> Decimal:
    """From 1.00 to 100.99, the same in every run."""
    return Decimal(product_id * 37 % 10_000 + 100).scaleb(-2)


@dataclass(frozen=True, slots=True)
class Expected:
    """The right result of a drain."""

    order_ids: frozenset[bytes]  # as the records' keys
    lines: int
    taken: dict[int, int]  # product id → quantity


@dataclass(frozen=True)
class Workload:
    """`count` seeded orders: the same ones each time they are asked for."""

    count: int
    shape: Shape = Shape.UNIFORM

    def orders(self) -> Iterator[OrderPlaced]:
        return _ORDERS[self.shape](self.count)

    def messages(self) -> Iterator[Message]:
        """As an upstream service would publish them. Made one by one: nothing here holds the backlog."""
        share = DUPLICATES if self.shape is Shape.DUPLICATES else 0.0
        return (message for message, _ in with_twins(map(encode, self.orders()), share, SEED))

    @cached_property
    def records(self) -> int:
        """How many messages there are, duplicates included."""
        return sum(1 for _ in self.messages()) if self.shape is Shape.DUPLICATES else self.count

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


def _uniform(count: int) -> Iterator[OrderPlaced]:
    products = [(product_id, price_of(product_id)) for product_id in PRODUCTS]
    return random_orders(SEED, USERS, products, count, max_items=MAX_ITEMS)


def _zipf(count: int) -> Iterator[OrderPlaced]:
    weights = list(accumulate(n**-ZIPF_EXPONENT for n in range(1, len(PRODUCTS) + 1)))

    def wanted(chance: Random) -> set[int]:
        return set(chance.choices(PRODUCTS, cum_weights=weights, k=chance.randint(1, MAX_ITEMS)))

    return _made(count, wanted)


def _hot(count: int) -> Iterator[OrderPlaced]:
    def wanted(chance: Random) -> set[int]:
        return {HOT_PRODUCT, *chance.sample(PRODUCTS, chance.randint(0, MAX_ITEMS - 1))}

    return _made(count, wanted)


def _made(count: int, wanted: Callable[[Random], set[int]]) -> Iterator[OrderPlaced]:
    """Orders of one to five of each product that `wanted` draws, at its price."""
    chance = Random(SEED)
    for number in range(count):
        yield OrderPlaced(
            order_id=_some_id(chance),
            user_id=chance.choice(USERS),
            placed_at=FIRST_PLACED_AT + timedelta(milliseconds=number),
            items=tuple(
                OrderedItem(product_id=i, quantity=chance.randint(1, 5), unit_price=price_of(i))
                for i in sorted(wanted(chance))
            ),
        )


def _real(count: int) -> Iterator[OrderPlaced]:
    """The retailer's orders again and again, each under another id; users and products are ours."""
    chance = Random(SEED)
    for number, invoice in enumerate(islice(cycle(_retailer().invoices), count)):
        yield OrderPlaced(
            order_id=_some_id(chance),
            user_id=USERS[invoice.user_id % len(USERS)],
            placed_at=FIRST_PLACED_AT + timedelta(milliseconds=number),
            # The demo's quantities are a wholesaler's: orders of hundreds of pieces would sell out our stock.
            items=tuple(
                OrderedItem(product_id=line.product_id, quantity=min(line.quantity, 10))
                for line in invoice.lines
            ),
        )


@cache
def _retailer() -> retailer.Retailer:
    return retailer.read_retailer()


def _some_id(chance: Random) -> UUID:
    return UUID(int=chance.getrandbits(128), version=4)


_ORDERS: Final = {
    Shape.UNIFORM: _uniform,
    Shape.ZIPF: _zipf,
    Shape.HOT: _hot,
    Shape.DUPLICATES: _uniform,
    Shape.REAL: _real,
}
