"""The rule of the shop. Pure: no await, no clock, no I/O.

An order is confirmed whole or rejected whole. Orders are decided one after the other, each against
the stock that earlier orders left.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol

# A price is text with two decimals, as PostgreSQL and events write it: equal prices are equal texts. It is
# compared for each line of each order, and written twice: as Decimals that took 2 of the 17 µs of an order.
Price = str

# What the rule needs to know of one line of an order: product, quantity, and the price the buyer saw, if any.
Line = tuple[int, int, Price | None]


class Request(Protocol):
    """What the rule needs to know of an order."""

    @property
    def user_id(self) -> int: ...
    @property
    def items(self) -> Sequence[Line]: ...


# A product's price, its stock before the first order of the batch, and the price in cents.
PriceAndStock = tuple[Price, int, int]


def price_of(amount: Decimal) -> Price:
    """`amount` has two decimals at most."""
    return f"{amount:.2f}"


def cents_of(price: Price) -> int:
    return int(price.replace(".", ""))


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

    total_cents: int
    unit_prices: Sequence[Price]

    @property
    def total_amount(self) -> Decimal:
        return Decimal(self.total_cents).scaleb(-2)


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
    orders: Iterable[Request], users: AbstractSet[int], levels: Mapping[int, PriceAndStock]
) -> BatchDecision:
    """Exactly what deciding the orders one at a time would give.

    `users` are the ids that exist, `levels` the products that exist. Never takes more of a product
    than its level has. A product in `taken` is among the levels.
    """
    decider = Decider(users, levels)
    decisions = tuple([decider.decide(order) for order in orders])
    return BatchDecision(decisions, decider.taken, decider.relied_on)


class Decider:
    """Decides orders one after the other, each against the stock that earlier ones left.

    `taken` and `relied_on` are as in `BatchDecision`, so far.
    """

    def __init__(self, users: AbstractSet[int], levels: Mapping[int, PriceAndStock]) -> None:
        self._users = users
        self._levels = levels
        self.taken: dict[int, int] = {}
        self.relied_on: set[int] = set()

    def decide(self, order: Request) -> Decision:
        """The order's decision; if it is confirmed, its quantities are taken."""
        levels, taken = self._levels, self.taken
        total_cents = 0
        prices = []
        fits = order.user_id in self._users
        # Line by line, for several may name one product. Given back if anything is against the order.
        for product_id, quantity, seen in order.items:
            taken[product_id] = sum_taken = taken.get(product_id, 0) + quantity
            level = levels.get(product_id)
            if level is None:
                fits = False
                continue
            price, stock, cents = level
            if sum_taken > stock or (seen is not None and seen != price):
                fits = False
            prices.append(price)
            total_cents += cents * quantity
        if fits:
            return Confirmed(total_cents, prices)
        wanted = self._give_back(order.items)
        self.relied_on.update(wanted)
        return Rejected(tuple(self._refusals(order, wanted)))

    def _give_back(self, lines: Iterable[Line]) -> Mapping[int, int]:
        """Undo what these lines took; returns how much of each product that was, by first appearance."""
        wanted: dict[int, int] = {}
        for product_id, quantity, _ in lines:
            wanted[product_id] = wanted.get(product_id, 0) + quantity
        for product_id, quantity in wanted.items():
            self.taken[product_id] -= quantity
            if not self.taken[product_id]:
                del self.taken[product_id]
        return wanted

    def _refusals(self, order: Request, wanted: Mapping[int, int]) -> Iterable[Refusal]:
        """Everything that stands against the order: the user, then each product by first appearance."""
        if order.user_id not in self._users:
            yield UnknownUser()
        expected_prices: dict[int, dict[Price, None]] = {}  # a dict keeps the order of first appearance
        for product_id, _, seen in order.items:
            if seen is not None:
                expected_prices.setdefault(product_id, {})[seen] = None
        for product_id, requested in wanted.items():
            level = self._levels.get(product_id)
            if level is None:
                yield UnknownProduct(product_id)
                continue
            price, stock, _ = level
            for expected in expected_prices.get(product_id, {}):
                if expected != price:
                    yield PriceChanged(product_id, Decimal(expected), Decimal(price))
            available = stock - self.taken.get(product_id, 0)
            if requested > available:
                yield InsufficientStock(product_id, requested, available)
