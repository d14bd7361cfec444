"""Importing a catalogue into a real PostgreSQL: all of it or nothing, and stock stays conserved."""

import asyncio
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from db import migrate
from db.engine import create_engine
from tests.support.shop import Shop
from worker.errors import CommandError
from worker.operations.setup.catalog import Imported, import_catalog
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

    def write(self, name: str, rows: Sequence[Sequence[Any]]) -> Path:
        path = self.path / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEADERS[name].split(","), *rows])
        return path


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    return CatalogFolder(tmp_path)


def run_import(shop: Shop, path: Path, schema: str = "public") -> list[Imported]:
    settings = read_settings(database_url=shop.database_url, database_schema=schema)
    return asyncio.run(import_catalog(settings, path, quiet=True))


def refusal(shop: Shop, path: Path) -> str:
    with pytest.raises(CommandError) as caught:
        run_import(shop, path)
    return str(caught.value)


async def somebody_waits_for(pid: int, watcher: "asyncpg.Connection[Any]") -> None:
    # Not asked by the one waited for: pg_stat_activity stands still within a transaction.
    async with asyncio.timeout(20):
        while not await watcher.fetchval(  # noqa: ASYNC110 (the event is in another process)
            "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", pid
        ):
            await asyncio.sleep(0.02)


def counts(shop: Shop) -> tuple[int, ...]:
    return tuple(shop.value(f"SELECT count(*) FROM {table}") for table in HEADERS)


def test_imports_a_folder(shop: Shop, folder: CatalogFolder) -> None:
    assert [(i.table, i.added) for i in run_import(shop, folder.path)] == [
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
    assert [i.unchanged for i in run_import(shop, folder.path)] == [2, 2, 2]
    assert before == shop.sql(
        "SELECT id, xmin::text FROM products UNION ALL SELECT id, xmin::text FROM users"
    )


def test_one_file_changes_what_differs(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.path)
    path = folder.write("users", [USERS[0], (2, "bob@example.org", "Robert"), (3, "cy@example.org", "Cy")])
    assert run_import(shop, path) == [Imported("users", 3, 1, 1)]
    assert shop.value("SELECT full_name FROM users WHERE id = 2") == "Robert"


@pytest.mark.parametrize("new_stock", [0, 60, 500])
def test_received_minus_sold_stays_the_stock(shop: Shop, folder: CatalogFolder, new_stock: int) -> None:
    run_import(shop, folder.path)
    shop.sql(
        "INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES (gen_random_uuid(), 1, 75, now())"
    )
    shop.sql(
        "INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price)"
        " SELECT id, 1, 10, 30, 2.50 FROM orders"
    )
    shop.sql("UPDATE products SET stock_quantity = stock_quantity - 30 WHERE id = 10")
    run_import(shop, folder.write("products", [(10, "Lamp", "bright", "2.50", new_stock, 1)]))
    assert shop.stock()[10] == new_stock
    assert shop.value("SELECT received_quantity - 30 - stock_quantity FROM products WHERE id = 10") == 0


def test_stock_sold_while_the_import_waits_is_counted(shop: Shop, folder: CatalogFolder) -> None:
    run_import(shop, folder.path)
    path = folder.write("products", [(10, "Lamp", "bright", "3.00", 40, 1)])

    async def sell_while_importing() -> None:
        seller = await asyncpg.connect(shop.database_url)
        watcher = await asyncpg.connect(shop.database_url)
        settings = read_settings(database_url=shop.database_url)
        try:
            async with seller.transaction():
                await seller.execute("UPDATE products SET stock_quantity = 70 WHERE id = 10")
                importing = asyncio.create_task(import_catalog(settings, path, quiet=True))
                await somebody_waits_for(seller.get_server_pid(), watcher)
            await importing
        finally:
            await seller.close()
            await watcher.close()

    asyncio.run(sell_while_importing())
    row = shop.sql("SELECT stock_quantity, received_quantity FROM products WHERE id = 10")[0]
    # 100 received, 30 sold; from 70 to 40 is 30 fewer received.
    assert tuple(row) == (40, 70)


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
    run_import(shop, folder.path, schema)
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
        asyncio.run(import_catalog(settings, folder.path, quiet=True))
