"""A folder of catalogue files, and their import as the command does it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from db.bulk.catalog_plan import StockMode
from tests.support.shop import Shop, run_apart
from worker.errors import CommandError
from worker.operations.setup.catalog import ImportRequest, import_catalog
from worker.operations.setup.catalog_report import CatalogReport
from worker.settings import read_settings

USERS = [(1, "ann@example.org", "Ann"), (2, "bob@example.org", "Bob")]
CATEGORIES = [(1, "Lamps", ""), (2, "Chairs", "to sit on")]
PRODUCTS = [(10, "Lamp", "bright", "2.50", 100, 1), (11, "Chair", "", "19.99", 5, 2)]
HEADERS = {
    "users": "id,email,full_name",
    "categories": "id,name,description",
    "products": "id,name,description,price,stock_quantity,category_id",
}


class CatalogFolder:
    """A folder with the three files; write one again to change it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("users", USERS)
        self.write("categories", CATEGORIES)
        self.write("products", PRODUCTS)

    def write(self, name: str, rows: Sequence[Sequence[Any]], header: str = "") -> Path:
        path = self.path / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([(header or HEADERS[name]).split(","), *rows])
        return path


def run_import(
    shop: Shop,
    path: Path,
    stock: StockMode = StockMode.KEEP,
    *,
    execute: bool = True,
    schema: str = "public",
    limit: int = 20,
) -> CatalogReport:
    settings = read_settings(database_url=shop.database_url, database_schema=schema)
    return run_apart(import_catalog(settings, ImportRequest(path, stock, execute, limit, quiet=True)))


def refusal(shop: Shop, path: Path, stock: StockMode = StockMode.KEEP, *, execute: bool = True) -> str:
    """The error of an import that has to be refused."""
    with pytest.raises(CommandError) as caught:
        run_import(shop, path, stock, execute=execute)
    return str(caught.value)


def stock_and_received(shop: Shop, product_id: int = 10) -> tuple[int, int]:
    row = shop.sql("SELECT stock_quantity, received_quantity FROM products WHERE id = $1", product_id)[0]
    return row["stock_quantity"], row["received_quantity"]


def catalog_rows(shop: Shop) -> list[Any]:
    """Every row of the catalogue, with the transaction that wrote it."""
    tables = ("users", "categories", "products")
    return [[*map(tuple, shop.sql(f"SELECT xmin::text, * FROM {table} ORDER BY id"))] for table in tables]
