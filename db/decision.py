"""The rule of the shop, and nothing else: no await, no clock, no I/O.

An order is confirmed whole or rejected whole. Orders are decided one after the other, each against
the stock the ones before it left.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol


class Line(Protocol):
    """What the rule needs to know of one line of an order."""

    @property
    def product_id(self) -> int: ...
    @property
    def quantity(self) -> int: ...
    @property
    def unit_price(self) -> Decimal | None: ...


class Request(Protocol):
    """What the rule needs to know of an order."""

    @property
    def user_id(self) -> int: ...
    @property
    def items(self) -> Sequence[Line]: ...


class Shelf(Protocol):
    """A product's price, and its stock before the first order of the batch."""

    @property
    def price(self) -> Decimal: ...
    @property
    def quantity(self) -> int: ...


@dataclass(frozen=True, slots=True)
class UnknownUser:
    pass


@dataclass(frozen=True, slots=True)
class UnknownProduct:
    product_id: int


@dataclass(frozen=True, slots=True)
class InsufficientStock:
    """`requested` is the sum of all lines of the product; `available` is what was left at that moment."""

    product_id: int
    requested: int
    available: int


@dataclass(frozen=True, slots=True)
class PriceChanged:
    product_id: int
    expected: Decimal
    current: Decimal


Refusal = UnknownUser | UnknownProduct | InsufficientStock | PriceChanged


class Confirmed(NamedTuple):
    """`unit_prices` has one price per line, in the order of the lines."""

    total_amount: Decimal
    unit_prices: tuple[Decimal, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    refusals: tuple[Refusal, ...]


Decision = Confirmed | Rejected


@dataclass(frozen=True, slots=True)
class BatchDecision:
    """One decision per order, in their order; what they take per product; what rejections rest on.

    `relied_on` names every product of a rejected order: if one of them changed meanwhile, the rejection
    may be wrong, or silent on a product that ran out. (A confirmation is guarded by the update that takes
    its stock.)
    """

    decisions: tuple[Decision, ...]
    taken: Mapping[int, int]
    relied_on: AbstractSet[int]


def decide_batch(
    orders: Iterable[Request], users: AbstractSet[int], shelves: Mapping[int, Shelf]
) -> BatchDecision:
    """Exactly what deciding the orders one at a time would give.

    `users` are the ids that exist, `shelves` the products that exist. Never takes more of a product
    than its shelf holds. A product in `taken` is on a shelf.
    """
    taken: dict[int, int] = {}
    relied_on: set[int] = set()
    decisions = []
    for order in orders:
        # Several lines may name one product: only their sum can be compared with the stock.
        wanted: dict[int, int] = {}
        decision = _decide(order, users, shelves, taken, wanted)
        decisions.append(decision)
        if isinstance(decision, Rejected):
            relied_on.update(wanted)
            continue
        for product_id, quantity in wanted.items():
            taken[product_id] = taken.get(product_id, 0) + quantity
    return BatchDecision(tuple(decisions), taken, relied_on)


def _decide(
    order: Request,
    users: AbstractSet[int],
    shelves: Mapping[int, Shelf],
    taken: Mapping[int, int],
    wanted: dict[int, int],
) -> Decision:
    """Fills `wanted` with what the order asks for of each product."""
    total = Decimal(0)
    prices = []
    fits = order.user_id in users
    for line in order.items:
        product_id, quantity = line.product_id, line.quantity
        wanted[product_id] = sum_wanted = wanted.get(product_id, 0) + quantity
        shelf = shelves.get(product_id)
        if shelf is None:
            fits = False
            continue
        price = shelf.price
        seen = line.unit_price
        if sum_wanted > shelf.quantity - taken.get(product_id, 0) or (seen is not None and seen != price):
            fits = False
        prices.append(price)
        total += price * quantity
    if fits:
        return Confirmed(total, tuple(prices))
    return Rejected(tuple(_refusals(order, users, shelves, taken, wanted)))


def _refusals(
    order: Request,
    users: AbstractSet[int],
    shelves: Mapping[int, Shelf],
    taken: Mapping[int, int],
    wanted: Mapping[int, int],
) -> Iterable[Refusal]:
    """Everything that stands against the order: the user, then each product by first appearance."""
    if order.user_id not in users:
        yield UnknownUser()
    expected_prices: dict[int, dict[Decimal, None]] = {}  # a dict keeps the order of first appearance
    for line in order.items:
        if line.unit_price is not None:
            expected_prices.setdefault(line.product_id, {})[line.unit_price] = None
    for product_id, requested in wanted.items():
        shelf = shelves.get(product_id)
        if shelf is None:
            yield UnknownProduct(product_id)
            continue
        for expected in expected_prices.get(product_id, {}):
            if expected != shelf.price:
                yield PriceChanged(product_id, expected, shelf.price)
        available = shelf.quantity - taken.get(product_id, 0)
        if requested > available:
            yield InsufficientStock(product_id, requested, available)
