"""The real orders: reads the retailer's invoices and gives a catalogue, orders, and what was left out.

    invoice        an order; its id is the UUIDv5 of the invoice number
    stock code     a product; ids count from 1 in the order of first appearance
    customer       a user under the customer's own number; invoices without one belong to one guest
    line           a line: several lines of one product stay several lines

A product's price in the catalogue is the one of its first appearance. Three quarters of the products were
sold at several prices, so most orders name none; one in twenty carries the prices its buyer saw.
"""

import csv
import gzip
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from contracts.fields import MAX_ITEMS, MAX_QUANTITY

DATA_PATH: Final = Path(__file__).parent / "data" / "online_retail.csv.gz"
GUEST_ID: Final = 1  # customers' own numbers have five digits

# Found by deciding all orders one after the other: at nine tenths 15 % of them find no stock,
# at eight tenths 24 %, because an order of twenty lines needs all twenty.
STOCKED_TENTHS: Final = 9
# Nearly nine in ten orders that carry prices name one that has changed since.
PRICES_SEEN_EVERY: Final = 20

_ORDER_IDS: Final = uuid5(NAMESPACE_URL, "https://doi.org/10.24432/C5BW33")
_CENT: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class StockItem:
    """A product of the catalogue. `wanted` is what all orders together ask for."""

    id: int
    stock_code: str
    name: str
    price: Decimal
    wanted: int = 0

    @property
    def stock(self) -> int:
        """What is put into stock: a little less than is wanted."""
        return -(-self.wanted * STOCKED_TENTHS // 10)

    @property
    def is_fee(self) -> bool:
        """Postage, bank charges and the like: real goods have a code that begins with five digits."""
        return not self.stock_code[:5].isdigit()


@dataclass(frozen=True, slots=True)
class Customer:
    id: int
    email: str
    full_name: str


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of an invoice, at the price it was really sold for."""

    product_id: int
    quantity: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Invoice:
    """One order of the past."""

    number: str
    user_id: int
    lines: tuple[InvoiceLine, ...]

    @property
    def order_id(self) -> UUID:
        """The same id for the same invoice, in every run."""
        return uuid5(_ORDER_IDS, self.number)


@dataclass(slots=True)
class LeftOut:
    """What no order can be made of."""

    cancellations: int = 0  # invoices that take an earlier one back: C…, negative quantities
    cancelled_lines: int = 0
    unpriced_lines: int = 0  # a price of zero or less: samples, damage, write-offs
    uncountable_lines: int = 0  # priced, but with a quantity the contract does not allow
    empty_invoices: int = 0  # of which no line is left
    too_long_invoices: int = 0  # more lines than the contract allows
    too_long_lines: int = 0


@dataclass(frozen=True, slots=True)
class Retailer:
    """Catalogue and orders, in the order of the file."""

    users: Sequence[Customer]
    products: Sequence[StockItem]
    invoices: Sequence[Invoice]
    left_out: LeftOut

    @property
    def lines(self) -> int:
        return sum(len(invoice.lines) for invoice in self.invoices)


@dataclass(frozen=True, slots=True)
class _Row:
    invoice: str
    stock_code: str
    description: str
    quantity: int
    price: Decimal
    customer: str


@dataclass(slots=True)
class _Catalogue:
    """Grows with the orders; the first appearance of a stock code fixes id, name and price."""

    products: dict[str, StockItem] = field(default_factory=dict)
    users: dict[int, Customer] = field(default_factory=dict)

    def sell(self, row: _Row) -> InvoiceLine:
        known = self.products.get(row.stock_code) or StockItem(
            id=len(self.products) + 1,
            stock_code=row.stock_code,
            name=row.description.strip() or row.stock_code,
            price=row.price,
        )
        self.products[row.stock_code] = replace(known, wanted=known.wanted + row.quantity)
        return InvoiceLine(known.id, row.quantity, row.price)

    def user_id(self, customer: str) -> int:
        user_id = int(customer) if customer else GUEST_ID
        name = f"Customer {customer}" if customer else "Guest"
        self.users.setdefault(
            user_id, Customer(user_id, f"{name.lower().replace(' ', '-')}@example.org", name)
        )
        return user_id


def read_retailer(path: Path = DATA_PATH) -> Retailer:
    """The catalogue and the orders of the file: the same at every call."""
    with gzip.open(path, "rt", encoding="latin-1", newline="") as file:
        return retailer_of(csv.DictReader(file))


def retailer_of(rows: Iterable[dict[str, str]]) -> Retailer:
    """The same, of the rows of the file."""
    left_out, catalogue = LeftOut(), _Catalogue()
    invoices = [
        Invoice(number, catalogue.user_id(kept[0].customer), tuple(map(catalogue.sell, kept)))
        for number, kept in _invoices(map(_row, rows), left_out)
    ]
    return Retailer(list(catalogue.users.values()), list(catalogue.products.values()), invoices, left_out)


def _invoices(rows: Iterable[_Row], left_out: LeftOut) -> Iterator[tuple[str, list[_Row]]]:
    grouped: dict[str, list[_Row]] = {}
    for row in rows:
        grouped.setdefault(row.invoice, []).append(row)
    for number, lines in grouped.items():
        kept = _kept(number, lines, left_out)
        if kept:
            yield number, kept


def _kept(number: str, lines: Sequence[_Row], left_out: LeftOut) -> list[_Row]:
    if number.startswith("C"):
        left_out.cancellations += 1
        left_out.cancelled_lines += len(lines)
        return []
    priced = [line for line in lines if line.price > 0]
    kept = [line for line in priced if 1 <= line.quantity <= MAX_QUANTITY]
    left_out.unpriced_lines += len(lines) - len(priced)
    left_out.uncountable_lines += len(priced) - len(kept)
    left_out.empty_invoices += not kept
    if len(kept) > MAX_ITEMS:
        left_out.too_long_invoices += 1
        left_out.too_long_lines += len(kept)
        return []
    return kept


def _row(row: dict[str, str]) -> _Row:
    return _Row(
        invoice=row["InvoiceNo"],
        stock_code=row["StockCode"],
        description=row["Description"],
        quantity=int(row["Quantity"]),
        price=Decimal(row["UnitPrice"]).quantize(_CENT),
        customer=row["CustomerID"],
    )
