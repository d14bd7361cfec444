"""What `catalog import` shows: what it did, or would do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from db.bulk.catalog_plan import PriceChange, StockChange, StockMode
from worker.operations.screen import table


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did to one table, or would do."""

    table: str
    rows: int
    added: int
    changed: int

    @property
    def unchanged(self) -> int:
        return self.rows - self.added - self.changed


@dataclass(frozen=True, slots=True)
class StockMoves:
    """Products that exist whose stock moves one way: how many, by how much in total, and the first ones."""

    products: int
    quantity: int
    first: Sequence[StockChange]


@dataclass(frozen=True, slots=True)
class ProductChanges:
    """What an import did to products that exist, or would do. `price_changes` are the first ones.

    `stocks_kept`: how many have another stock than the file says, and keep it.
    """

    stocks_raised: StockMoves
    stocks_lowered: StockMoves
    prices_changed: int
    price_changes: Sequence[PriceChange]
    stocks_kept: int


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """What was done, or what would be done. `products`: None without a file of products."""

    executed: bool
    stock: StockMode
    tables: Sequence[Imported]
    products: ProductChanges | None


def summary(imported: Sequence[Imported]) -> str:
    """A table with a line for each part."""
    lines = [f"{'table':<10} {'rows':>11} {'added':>11} {'changed':>11} {'unchanged':>11}"]
    lines += [
        f"{i.table:<10} {i.rows:>11,} {i.added:>11,} {i.changed:>11,} {i.unchanged:>11,}" for i in imported
    ]
    return "\n".join(lines)


def show(console: Console, report: CatalogReport, again: str) -> None:
    """As a person reads it. `again`: the call that does it."""
    _say(console, summary(report.tables))
    # Where all are new, there is nothing to compare.
    if report.products and any(one.table == "products" and one.rows > one.added for one in report.tables):
        _show_products(console, report.products, "" if report.executed else "that would be ")
    if not report.executed:
        _say(console, "", _next_step(report, again))


def document(report: CatalogReport) -> dict[str, Any]:
    """The report for scripts."""
    tables = [{**asdict(one), "unchanged": one.unchanged} for one in report.tables]
    return {**asdict(report), "tables": tables}


def _say(console: Console, *lines: str) -> None:
    """Lines that a script may copy: never folded."""
    for line in lines:
        console.print(line, soft_wrap=True)


def _show_products(console: Console, found: ProductChanges, would_be: str) -> None:
    for name, moves in (("raised", found.stocks_raised), ("lowered", found.stocks_lowered)):
        by = f", by {moves.quantity:,} in total" if moves.products else ""
        _say(console, "", f"Stocks {would_be}{name}: {_products(moves.products)}{by}.")
        _show_first(console, moves.first, moves.products, ("stock before", "after", "change"))
    _say(console, "", f"Prices {would_be}changed: {_products(found.prices_changed)}.")
    _show_first(console, found.price_changes, found.prices_changed, ("price before", "after"))
    if found.stocks_kept:
        _say(
            console,
            "",
            f"Stocks kept, though the file has another quantity: {_products(found.stocks_kept)}."
            " --stock add adds it, --stock set makes it the stock.",
        )


def _show_first(
    console: Console, rows: Sequence[StockChange | PriceChange], total: int, numbers: Sequence[str]
) -> None:
    if not rows:
        return
    head = ("product", "name", *numbers)
    console.print(table(head, [tuple(asdict(row).values()) for row in rows], numbers=("product", *numbers)))
    if total > len(rows):
        _say(console, f"… and {total - len(rows):,} more: --limit shows more of them")


def _products(count: int) -> str:
    return f"{count:,} product{'s' * (count != 1)}" if count else "none"


def _next_step(report: CatalogReport, again: str) -> str:
    if not any(one.added or one.changed for one in report.tables):
        return "Nothing was changed, and there is nothing to change."
    return f"Nothing was changed. To import this: {again}"
