"""`order-worker catalog import` where there is a catalogue: as an operator calls it, and beside workers."""

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from db.bulk.catalog_plan import StockMode
from tests.support.builders import line, order_value
from tests.support.catalog_folder import CatalogFolder, run_import, stock_and_received
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.terminal import shown_at
from tests.support.worker_process import Workers

PRODUCTS, STOCK = 20, 2_000


def price_list(quantity: int, price: str = "2.50") -> list[tuple[object, ...]]:
    return [(i, f"Product {i}", "", price, quantity, 1) for i in range(1, PRODUCTS + 1)]


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    folder = CatalogFolder(tmp_path)
    folder.write("users", [(i, f"user{i}@example.org", f"User {i}") for i in range(1, 11)])
    folder.write("products", price_list(STOCK))
    return folder


def test_a_rehearsal_names_the_call_that_does_it(
    order_worker: OrderWorker, shop: Shop, folder: CatalogFolder
):
    first = order_worker("catalog", "import", str(folder.path)).done().out
    assert "Nothing was changed" not in first
    assert [shop.stock()[i] for i in (1, PRODUCTS)] == [STOCK, STOCK]
    counted = [(1, "2.50", STOCK - 5), (2, "2.60", STOCK + 1_000), (3, "2.50", STOCK)]
    path = folder.write("products", counted, "id,price,stock_quantity")
    said = order_worker.here("catalog", "import", str(path), "--stock", "set").done().out
    assert "Stocks that would be raised: 1 product, by 1,000 in total." in said
    assert "Stocks that would be lowered: 1 product, by 5 in total." in said
    assert "Prices that would be changed: 1 product." in said
    rows = [line.split() for line in said.splitlines() if line.lstrip().startswith(("1 ", "2 "))]
    assert ["2", "Product", "2", "2,000", "3,000", "1,000"] in rows
    assert ["1", "Product", "1", "2,000", "1,995", "-5"] in rows
    assert ["2", "Product", "2", "2.50", "2.60"] in rows
    assert stock_and_received(shop, 2) == (STOCK, STOCK)

    program, *arguments = shlex.split(said.partition("To import this: ")[2])
    assert (program, arguments[-1]) == ("order-worker", "--execute")
    done = order_worker.here(*arguments).done().out
    assert "Stocks raised: 1 product, by 1,000 in total." in done
    assert (stock_and_received(shop, 1), stock_and_received(shop, 2)) == ((1_995, 1_995), (3_000, 3_000))
    again = order_worker.here(*arguments[:-1]).done().out
    assert "there is nothing to change" in again

    document = order_worker.here("catalog", "import", str(path), "--stock", "add", "--json").done().document
    assert (document["executed"], document["stock"]) == (False, "add")
    assert document["tables"] == [{"table": "products", "rows": 3, "added": 0, "changed": 3, "unchanged": 0}]
    raised = document["products"]["stocks_raised"]
    assert (raised["products"], raised["quantity"]) == (3, 3 * STOCK + 995)
    assert raised["first"][0] == {
        "product_id": 1, "name": "Product 1", "before": 1_995, "after": 3_990, "change": 1_995
    }  # fmt: skip
    assert order_worker.here("catalog", "import", str(path), "--stock", "all").code == 2
    path.write_text("id,price\n1,free\n")
    failed = order_worker.here("catalog", "import", str(path), "--json")
    assert failed.code == 1
    assert "products.csv, line 2, column price" in json.loads(failed.err)["error"]["message"]


def test_an_import_says_that_it_waits_for_another_one(
    order_worker: OrderWorker, shop: Shop, folder: CatalogFolder
):
    lock = "(hashtext('order-worker.catalog'), hashtext('public'))"
    shop.sql(f"SELECT pg_advisory_lock{lock}")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(shown_at, order_worker, 80, ["catalog", "import", str(folder.path)])
        eventually(lambda: shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), 30)
        assert shop.value(f"SELECT pg_advisory_unlock{lock}")
        code, said = waiting.result()
    assert (code, "waiting for other imports" in said) == (0, True), said


def test_the_same_price_list_again_sells_nothing_twice(
    scene: Scene, workers: Workers, shop: Shop, folder: CatalogFolder
):
    run_import(shop, folder.path)
    ids = [uuid4(), uuid4()]
    worker = workers.start().wait_until_ready()
    scene.place([order_value(line(1, STOCK), order_id=ids[0])])
    scene.wait_until_drained()
    run_import(shop, folder.write("products", price_list(STOCK, "2.60")))
    scene.place([order_value(line(1, STOCK), order_id=ids[1])])
    scene.wait_until_drained()
    assert worker.stop() == 0
    assert (len(scene.confirmed()), len(scene.rejected())) == (1, 1)
    assert stock_and_received(shop, 1) == (0, STOCK)
    scene.assert_promises(ids)


@pytest.mark.guarantee_1
def test_imports_beside_workers_lose_and_make_up_no_stock(
    scene: Scene, workers: Workers, shop: Shop, folder: CatalogFolder
):
    run_import(shop, folder.path)
    ids = [uuid4() for _ in range(3_000)]
    scene.place(
        order_value(
            line(1 + n % PRODUCTS, 2), line(1 + n * 7 % PRODUCTS, 3), order_id=each, user_id=1 + n % 10
        )
        for n, each in enumerate(ids)
    )
    # In small batches, so that many imports meet many of them.
    running = [workers.start(batch_max_records="50") for _ in range(2)]
    eventually(lambda: shop.value("SELECT count(*) FROM order_outcomes") > 0, 60)
    imports = 0
    while scene.lag() != 0:
        imports += 1
        # Users are held by workers, as products are: e-mails change, of the last one first.
        users = [(i, f"user{i}.{imports}@example.org", f"User {i}") for i in range(10, 0, -1)]
        folder.write("users", users)
        folder.write("products", price_list(10, f"{2 + imports % 3}.50")[::-1])
        mode = (StockMode.ADD, StockMode.KEEP, StockMode.SET)[imports % 3]
        run_import(shop, folder.path, mode)
    assert [worker.stop() for worker in running] == [0, 0]
    assert imports >= 3
    assert "deadlock" not in workers.logs
    scene.assert_promises(ids)
