"""Importing a catalogue where there is one: rehearsed first, and stock moves only as asked for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from db.bulk.catalog_plan import PriceChange, StockChange, StockMode
from tests.support.catalog_folder import (
    USERS,
    CatalogFolder,
    catalog_rows,
    run_import,
    stock_and_received,
)
from tests.support.shop import Shop
from worker.operations.setup.catalog import ImportRequest, import_catalog
from worker.operations.setup.catalog_report import Imported, StockMoves
from worker.settings import read_settings

NO_MOVES = StockMoves(0, 0, [])


@pytest.fixture
def folder(shop: Shop, tmp_path: Path) -> CatalogFolder:
    """A folder that is imported."""
    folder = CatalogFolder(tmp_path)
    run_import(shop, folder.path)
    return folder


def sell(shop: Shop, quantity: int) -> None:
    """Product 10, as an order does."""
    shop.sql(
        "WITH placed AS (INSERT INTO orders (id, user_id, total_amount, placed_at)"
        "   VALUES (gen_random_uuid(), 1, 75, now()) RETURNING id),"
        " item AS (INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price)"
        "   SELECT id, 1, 10, $1::int, 2.50 FROM placed)"
        " UPDATE products SET stock_quantity = stock_quantity - $1 WHERE id = 10",
        quantity,
    )


async def somebody_waits_for(pid: int, watcher: "asyncpg.Connection[Any]") -> None:
    # Not asked by the one waited for: pg_stat_activity stands still within a transaction.
    async with asyncio.timeout(20):
        while not await watcher.fetchval(  # noqa: ASYNC110 (the event is in another process)
            "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", pid
        ):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def an_open_sale(shop: Shop, quantity: int) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A sale of product 10 that is committed at the end of the block."""
    seller = await asyncpg.connect(shop.database_url)
    try:
        async with seller.transaction():
            await seller.execute(
                "UPDATE products SET stock_quantity = stock_quantity - $1 WHERE id = 10", quantity
            )
            yield seller
    finally:
        await seller.close()


def test_goods_that_were_sold_do_not_come_back(shop: Shop, folder: CatalogFolder) -> None:
    sell(shop, 30)
    path = folder.write("products", [(10, "Lamp", "bright", "2.60", 100, 1)])
    report = run_import(shop, path)
    assert stock_and_received(shop) == (70, 100)
    assert shop.value("SELECT price::text FROM products WHERE id = 10") == "2.60"
    assert report.products is not None
    assert (report.products.stocks_raised, report.products.stocks_lowered) == (NO_MOVES, NO_MOVES)
    assert (report.products.prices_changed, report.products.stocks_kept) == (1, 1)


@pytest.mark.parametrize(
    ("mode", "quantity", "stock", "received"),
    [
        (StockMode.KEEP, 500, 70, 100),
        (StockMode.SET, 0, 0, 30),
        (StockMode.SET, 60, 60, 90),
        (StockMode.SET, 500, 500, 530),
        (StockMode.ADD, 0, 70, 100),
        (StockMode.ADD, 20, 90, 120),
        (StockMode.ADD, -70, 0, 30),
    ],
)
def test_received_minus_sold_stays_the_stock(
    shop: Shop, folder: CatalogFolder, mode: StockMode, quantity: int, stock: int, received: int
) -> None:
    sell(shop, 30)
    run_import(shop, folder.write("products", [(10, "Lamp", "bright", "2.50", quantity, 1)]), mode)
    assert stock_and_received(shop) == (stock, received)
    assert received - 30 == stock


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(StockMode.KEEP, (70, 100)), (StockMode.SET, (40, 70)), (StockMode.ADD, (110, 140))],
)
def test_what_is_sold_while_the_import_waits_is_counted(
    shop: Shop, folder: CatalogFolder, mode: StockMode, expected: tuple[int, int]
) -> None:
    path = folder.write("products", [(10, "Lamp", "bright", "3.00", 40, 1)])

    async def sell_while_importing() -> None:
        watcher = await asyncpg.connect(shop.database_url)
        asked = ImportRequest(path, mode, execute=True, quiet=True)
        async with an_open_sale(shop, 30) as seller:
            importing = asyncio.create_task(import_catalog(settings_of(shop), asked))
            await somebody_waits_for(seller.get_server_pid(), watcher)
        await asyncio.gather(importing, watcher.close())

    asyncio.run(sell_while_importing())
    assert stock_and_received(shop) == expected  # 30 of them sold


def settings_of(shop: Shop) -> Any:
    return read_settings(database_url=shop.database_url)


@pytest.mark.parametrize("mode", list(StockMode))
def test_a_rehearsal_says_what_the_import_then_does_and_changes_nothing(
    shop: Shop, folder: CatalogFolder, mode: StockMode
) -> None:
    sell(shop, 30)
    folder.write("users", [USERS[0], (3, "cy@example.org", "Cy")])
    folder.write("categories", [(3, "Tables", "")])
    folder.write("products", [(10, "Lamp", "", "2.60", 90, 1), (11, "Chair", "", "19.99", 2, 3)])
    before = catalog_rows(shop)
    rehearsed = run_import(shop, folder.path, mode, execute=False)
    assert (rehearsed.executed, catalog_rows(shop)) == (False, before)
    assert rehearsed.tables == [
        Imported("users", 2, 1, 0),
        Imported("categories", 1, 1, 0),
        Imported("products", 2, 0, 2),
    ]
    done = run_import(shop, folder.path, mode)
    assert (done.executed, done.tables, done.products) == (True, rehearsed.tables, rehearsed.products)


def test_the_totals_are_of_all_and_the_lists_of_the_first(shop: Shop, folder: CatalogFolder) -> None:
    changed = [(10, "Lamp", "bright", "2.60", 110, 1), (11, "Chair", "", "20.00", 2, 2)]
    added = [(i, f"P{i}", "", "1", 100, 1) for i in range(20, 40)]
    path = folder.write("products", [*changed, *added])
    found = run_import(shop, path, StockMode.SET, execute=False).products
    assert found is not None
    assert found.stocks_raised == StockMoves(1, 10, [StockChange(10, "Lamp", 100, 110, 10)])
    assert found.stocks_lowered == StockMoves(1, 3, [StockChange(11, "Chair", 5, 2, -3)])
    assert [str(change.after) for change in found.price_changes] == ["2.60", "20.00"]
    run_import(shop, path, StockMode.SET)
    path = folder.write("products", [(i, f"P{i}", "", "2", i, 1) for i in range(39, 19, -1)])
    found = run_import(shop, path, StockMode.ADD, limit=2).products
    assert found is not None
    assert (found.stocks_raised.products, found.stocks_raised.quantity) == (20, sum(range(20, 40)))
    assert [change.product_id for change in found.stocks_raised.first] == [39, 38]
    assert (found.prices_changed, [change.product_id for change in found.price_changes]) == (20, [39, 38])
    assert isinstance(found.price_changes[0], PriceChange)


async def test_a_rehearsal_waits_for_no_lock(shop: Shop, folder: CatalogFolder) -> None:
    path = folder.write("products", [(10, "Lamp", "", "9.00", 1, 1)])
    async with asyncio.timeout(20), an_open_sale(shop, 30) as seller:
        await seller.execute(
            "SELECT pg_advisory_xact_lock(hashtext('order-worker.stock'), hashtext(current_schema()))"
        )
        report = await import_catalog(settings_of(shop), ImportRequest(path, StockMode.SET, quiet=True))
    assert report.tables == [Imported("products", 1, 0, 1)]


def test_the_same_file_twice_writes_nothing_the_second_time(shop: Shop, folder: CatalogFolder) -> None:
    path = folder.write("products", [(10, "Lamp", "dim", "2.60", 7, 1), (12, "New", "", "1", 9, 2)])
    run_import(shop, path)
    sell(shop, 3)
    before = catalog_rows(shop)
    assert run_import(shop, path).tables == [Imported("products", 2, 0, 0)]
    assert catalog_rows(shop) == before
    assert stock_and_received(shop, 12) == (9, 9)


def test_without_products_it_acts_at_once_also_file_by_file(shop: Shop, tmp_path: Path) -> None:
    folder = CatalogFolder(tmp_path)
    for name in ("users", "users", "categories", "products"):
        assert run_import(shop, folder.path / f"{name}.csv", execute=False).executed
    assert shop.stock() == {10: 100, 11: 5}
    users = folder.write("users", [(3, "cy@example.org", "Cy")])
    assert not run_import(shop, users, execute=False).executed
    assert shop.value("SELECT count(*) FROM users") == 2


async def test_of_two_first_imports_at_a_time_the_second_finds_all_done(shop: Shop, tmp_path: Path) -> None:
    folder = CatalogFolder(tmp_path)
    asked = ImportRequest(folder.path, execute=True, quiet=True)
    reports = await asyncio.gather(*(import_catalog(settings_of(shop), asked) for _ in range(3)))
    assert sorted(report.tables[2].added for report in reports) == [0, 0, 2]
    assert stock_and_received(shop) == (100, 100)
