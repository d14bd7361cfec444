"""What `examples/shop.py` prints: the name of an operation, its result, and tables."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from db.models import Order, Product

INDENT: Final = 30  # of everything that is printed beside the name of an operation


def say(what: str, result: str) -> None:
    print(f"  {what:<{INDENT - 2}}{result}")


def show_products(products: Iterable[Product]) -> None:
    rows = [(product.id, product.name, product.price, product.stock_quantity) for product in products]
    table(rows, "id", "product", "price", "stock")


def show_totals(some: Iterable[Order]) -> None:
    rows = [(short(order), order.user.full_name, order.status, order.total_amount) for order in some]
    table(rows, "order", "user", "status", "total")


def show_orders(whole: Iterable[Order]) -> None:
    """Orders with their items, a line each."""
    rows = [
        (short(order), order.status, item.product.name, item.quantity, item.unit_price)
        for order in whole
        for item in order.items
    ]
    table(rows, "order", "status", "product", "quantity", "unit price")


def table(rows: Sequence[Sequence[object]], *headings: str) -> None:
    """Rows in aligned columns, numbers to the right."""
    to_the_right = [
        any(isinstance(value, int | Decimal) for value in column) for column in zip(*rows, strict=True)
    ]
    lines = [headings, *([shown(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, to_the_right, strict=True)
        aligned = [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells]
        print(" " * INDENT + "   ".join(aligned).rstrip())


def shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case Decimal():
            return f"{value:,.2f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def short(order: Order) -> str:
    return str(order.id)[:8]
