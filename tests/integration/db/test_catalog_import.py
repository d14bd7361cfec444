"""Importing a catalogue into a real PostgreSQL: all of it or nothing, and stock stays conserved."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from db import migrate
from db.engine import create_engine
from tests.support.catalog_folder import HEADERS, PRODUCTS, USERS, CatalogFolder, refusal, run_import
from tests.support.shop import Shop
from worker.errors import CommandError
from worker.operations.setup.catalog import ImportRequest, import_catalog
from worker.operations.setup.catalog_report import Imported
from worker.settings import read_settings


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    return CatalogFolder(tmp_path)


def counts(shop: Shop) -> tuple[int, ...]:
    return tuple(shop.value(f"SELECT count(*) FROM {table}") for table in HEADERS)


def test_imports_a_folder(shop: Shop, folder: CatalogFolder) -> None:
    assert [(i.table, i.added) for i in run_import(shop, folder.path).tables] == [
        ("users", 2),
        ("categories", 2),
        ("products", 2),
    ]
    lamp = shop.sql("SELECT *, price::text AS shown FROM products WHERE id = 10")[0]
    assert (lamp["name"], lamp["description"], lamp["shown"]) == ("Lamp", "bright", "2.50")
    assert (lamp["stock_quantity"], lamp["received_quantity"], lamp["category_id"]) == (100, 100, 1)


def test_a_second_import_writes_nothing(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.path)
    before = shop.sql("SELECT id, xmin::text FROM products UNION ALL SELECT id, xmin::text FROM users")
    assert [i.unchanged for i in run_import(shop, folder.path).tables] == [2, 2, 2]
    assert before == shop.sql(
        "SELECT id, xmin::text FROM products UNION ALL SELECT id, xmin::text FROM users"
    )


def test_one_file_changes_what_differs(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.path)
    path = folder.write("users", [USERS[0], (2, "bob@example.org", "Robert"), (3, "cy@example.org", "Cy")])
    assert run_import(shop, path).tables == [Imported("users", 3, 1, 1)]
    assert shop.value("SELECT full_name FROM users WHERE id = 2") == "Robert"


def test_new_rows_get_ids_past_the_imported_ones(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.path)
    added = "INSERT INTO products (name, price, category_id) VALUES ('New', 1, 1) RETURNING id"
    assert shop.value(added) == 12
    # A later import of smaller ids does not move the sequence back.
    run_import(shop, folder.write("products", [(3, "Three", "", "1", 1, 1)]))
    assert shop.value(added) == 13


def test_two_users_may_swap_their_emails(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.path)
    run_import(shop, folder.write("users", [(1, "bob@example.org", "Ann"), (2, "ann@example.org", "Bob")]))
    assert [r["email"] for r in shop.sql("SELECT email FROM users ORDER BY id")] == [
        "bob@example.org",
        "ann@example.org",
    ]


def test_a_new_user_may_take_an_email_that_the_import_frees(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.path)
    run_import(shop, folder.write("users", [(1, "ann@new.org", "Ann"), (3, "ann@example.org", "Anna")]))
    assert shop.value("SELECT id FROM users WHERE email = 'ann@example.org'") == 3


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("users", [*USERS, (1, "x@y.z", "X")], "users.csv, line 4, column id: 1 is on line 2 already"),
        (
            "users",
            [*USERS, (3, "bob@example.org", "X")],
            "users.csv, line 4, column email: bob@example.org is on line 3 already",
        ),
        ("categories", [(1, "A", ""), (2, "A", "")], "line 3, column name: A is on line 2 already"),
        ("products", [*PRODUCTS, PRODUCTS[0]], "products.csv, line 4, column id: 10 is on line 2 already"),
        (
            "products",
            [PRODUCTS[0], (12, "B", "", "1", 1, 77)],
            "products.csv, line 3, column category_id: there is no category 77",
        ),
        (
            "products",
            [PRODUCTS[0], (12, "B", "", "free", 1, 1)],
            "products.csv, line 3, column price: is not",
        ),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_imported(
    shop: Shop, folder: CatalogFolder, name: str, rows: list[tuple[Any, ...]], expected: str
) -> None:
    folder.write(name, rows)
    assert expected in refusal(shop, folder.path)
    assert counts(shop) == (0, 0, 0)


def test_a_bad_row_far_into_the_file_ends_the_copy(shop: Shop, folder: CatalogFolder) -> None:
    rows: list[tuple[Any, ...]] = [(i, f"u{i}@example.org", "U") for i in range(1, 50_001)]
    folder.write("users", [*rows, (50_001, "", "U")])
    assert "users.csv, line 50002, column email: is empty" in refusal(shop, folder.path)
    assert counts(shop) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        (
            "users",
            (3, "ann@example.org", "X"),
            "users.csv, line 2, column email: ann@example.org belongs to id 1 in the table users already",
        ),
        (
            "users",
            (3, "ANN@example.org", "X"),
            "users.csv, line 2, column email: ANN@example.org belongs to id 1 in the table users already",
        ),
        (
            "categories",
            (3, "Lamps", ""),
            "categories.csv, line 2, column name: Lamps belongs to id 1 in the table categories already",
        ),
    ],
)
def test_a_value_taken_in_the_database_is_named(
    shop: Shop, folder: CatalogFolder, name: str, row: tuple[Any, ...], expected: str
) -> None:
    run_import(shop, folder.path)
    assert expected in refusal(shop, folder.write(name, [row]))
    assert counts(shop) == (2, 2, 2)


def test_an_email_twice_in_a_file_but_for_upper_and_lower_case_is_named(
    shop: Shop, folder: CatalogFolder
) -> None:
    path = folder.write("users", [*USERS, (3, "ANN@example.org", "X")])
    assert "users.csv, line 4, column email: ANN@example.org is on line 2 already" in refusal(shop, path)
    assert counts(shop) == (0, 0, 0)


def test_users_may_swap_their_emails_and_change_their_case_at_once(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.path)
    run_import(shop, folder.write("users", [(1, "BOB@example.org", "Ann"), (2, "Ann@example.org", "Bob")]))
    run_import(shop, folder.write("users", [(1, "Bob@example.org", "Ann")]))
    rows = shop.sql("SELECT id, email FROM users ORDER BY id")
    assert [tuple(row) for row in rows] == [(1, "Bob@example.org"), (2, "Ann@example.org")]


def test_categories_may_differ_in_upper_and_lower_case(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.write("categories", [(1, "Lamps", ""), (2, "LAMPS", "")]))
    assert counts(shop)[1] == 2


def test_products_alone_need_stored_categories(shop: Shop, folder: CatalogFolder) -> None:
    assert "there is no category 1" in refusal(shop, folder.path / "products.csv")


def test_works_in_any_schema(shop: Shop, folder: CatalogFolder) -> None:
    schema = 'Second "shop"'

    async def upgrade() -> None:
        engine = create_engine(shop.database_url, schema=schema)
        await migrate.upgrade(engine, schema)
        await engine.dispose()

    asyncio.run(upgrade())
    run_import(shop, folder.path, schema=schema)
    assert shop.value('SELECT count(*) FROM "Second ""shop""".products') == 2
    assert counts(shop) == (0, 0, 0)
    assert (
        shop.value(
            'INSERT INTO "Second ""shop""".users (email, full_name) VALUES (\'n\', \'N\') RETURNING id'
        )
        == 3
    )


def test_a_database_without_tables_says_what_to_run(shop: Shop, folder: CatalogFolder) -> None:
    settings = read_settings(database_url=shop.database_url, database_schema="empty")
    with pytest.raises(
        CommandError, match=r'schema "empty" has no tables yet: run `order-worker db upgrade`'
    ):
        asyncio.run(import_catalog(settings, ImportRequest(folder.path, quiet=True)))
