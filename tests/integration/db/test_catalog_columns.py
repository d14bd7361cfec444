"""Importing files that lack columns, or whose quantities cannot be: where there is a catalogue already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from db.bulk.catalog_plan import StockMode
from db.values import MAX_STOCK
from tests.support.catalog_folder import (
    CATEGORIES,
    HEADERS,
    PRODUCTS,
    USERS,
    CatalogFolder,
    catalog_rows,
    refusal,
    run_import,
    stock_and_received,
)
from tests.support.shop import Shop
from worker.errors import UsageError


@pytest.fixture
def folder(shop: Shop, tmp_path: Path) -> CatalogFolder:
    """A folder that is imported."""
    folder = CatalogFolder(tmp_path)
    run_import(shop, folder.path)
    return folder


@pytest.mark.parametrize(
    ("name", "header", "row", "expected"),
    [
        ("products", "id,price", (10, "2.60"), ("Lamp", "bright", "2.60", 100, 100, 1)),
        ("products", "id,description", (10, ""), ("Lamp", "", "2.50", 100, 100, 1)),
        ("products", "id,name,category_id", (10, "Sun", 2), ("Sun", "bright", "2.50", 100, 100, 2)),
        ("products", "id,stock_quantity", (10, 7), ("Lamp", "bright", "2.50", 100, 100, 1)),
        ("users", "id,full_name", (1, "Anna"), ("ann@example.org", "Anna")),
        ("users", "id,email", (1, "bo@example.org"), ("bo@example.org", "Ann")),
        ("categories", "id,description", (1, "light"), ("Lamps", "light")),
    ],
)
def test_what_is_left_out_stays_as_it_is(
    shop: Shop, folder: CatalogFolder, name: str, header: str, row: Sequence[Any], expected: Sequence[Any]
) -> None:
    run_import(shop, folder.write(name, [row], header))
    columns = {
        "products": "name, description, price::text, stock_quantity, received_quantity, category_id",
        "users": "email, full_name",
        "categories": "name, description",
    }[name]
    assert tuple(shop.sql(f"SELECT {columns} FROM {name} WHERE id = $1", row[0])[0]) == expected


def test_a_new_row_needs_no_description(shop: Shop, folder: CatalogFolder) -> None:
    new = [(12, "Sun", "1.00", 7, 1)]
    path = folder.write("products", new, "id,name,price,stock_quantity,category_id")
    run_import(shop, path, StockMode.ADD)
    assert shop.value("SELECT description FROM products WHERE id = 12") == ""
    assert stock_and_received(shop, 12) == (7, 7)


@pytest.mark.parametrize(
    ("name", "header", "row", "column"),
    [
        ("products", "id,price", (77, "1.00"), "name"),
        ("products", "id,name,description,price,category_id", (77, "N", "", "1", 1), "stock_quantity"),
        ("products", "id,name,stock_quantity", (77, "N", 1), "price"),
        ("users", "id,full_name", (77, "N"), "email"),
        ("categories", "id,description", (77, ""), "name"),
    ],
)
def test_a_new_row_without_what_it_needs_is_named(
    shop: Shop, folder: CatalogFolder, name: str, header: str, row: Sequence[Any], column: str
) -> None:
    stored: dict[str, Sequence[Any]] = {
        "products": PRODUCTS[0],
        "users": USERS[0],
        "categories": CATEGORIES[0],
    }
    by_name = dict(zip(HEADERS[name].split(","), stored[name], strict=True))
    first = [by_name[each] for each in header.split(",")]
    path, before = folder.write(name, [first, row], header), catalog_rows(shop)
    expected = f"{name}.csv, line 3, column {column}: the file has no such column, and a new row needs it"
    for execute in (False, True):
        assert expected in refusal(shop, path, execute=execute)
    assert catalog_rows(shop) == before


@pytest.mark.parametrize(
    ("quantity", "product_id", "expected"),
    [
        (-101, 10, "product 10 would have -1, which is not from 0 to"),
        (MAX_STOCK, 10, f"product 10 would have {MAX_STOCK + 100}, which is not"),
        (-3, 12, "product 12 would have -3, which is not"),
        (-MAX_STOCK - 1, 10, "is not from -"),
    ],
)
def test_a_stock_that_cannot_be_is_named_and_nothing_is_imported(
    shop: Shop, folder: CatalogFolder, quantity: int, product_id: int, expected: str
) -> None:
    before = catalog_rows(shop)
    new = (product_id, "Lamp", "", "2.60", quantity, 1)
    path = folder.write("products", [(11, "Chair", "", "1.00", 3, 2), new])
    said = refusal(shop, path, StockMode.ADD)
    assert f"products.csv, line 3, column stock_quantity: {expected}" in said
    assert catalog_rows(shop) == before


def test_a_quantity_to_set_or_keep_is_never_negative(shop: Shop, folder: CatalogFolder) -> None:
    path = folder.write("products", [(10, -1)], "id,stock_quantity")
    for mode in (StockMode.KEEP, StockMode.SET):
        assert "line 2, column stock_quantity: is not from 0 to" in refusal(shop, path, mode)


def test_a_mode_that_has_nothing_to_do_is_refused(shop: Shop, folder: CatalogFolder) -> None:
    prices = folder.write("products", [(10, "9.00")], "id,price")
    assert "has no column stock_quantity: --stock set needs it" in refusal(shop, prices, StockMode.SET)
    with pytest.raises(UsageError, match=r"--stock add is for products, and .*users\.csv holds none"):
        run_import(shop, folder.path / "users.csv", StockMode.ADD)
