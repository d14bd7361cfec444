"""The listings' benchmark, small: what it writes is right, what it reads is counted, nothing is left."""

import pytest
from sqlalchemy import text

from bench import fill
from bench.errors import WrongResultError
from bench.fill import Size, Written, filled_shop, find_faults, portion
from bench.listings import measure
from bench.screen import Screen
from tests.support.shop import Shop

SIZE = Size(orders=2_000, users=400, products=200)


def schemas_left(shop: Shop) -> int:
    return int(shop.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bench_listings_%'"))


async def test_every_listing_is_called_counted_and_cleared_away(shop: Shop) -> None:
    measured = await measure(shop.database_url, SIZE, 2, Screen())
    pages = {timed.name: timed for timed in measured.listings}
    assert {timed.statements for name, timed in pages.items() if name != "get_category_with_products"} == {1}
    assert pages["get_category_with_products"].statements == 2
    assert pages["list_orders, skip=1,800"].rows == pages["list_orders, after 1,800"].rows == 100
    assert pages["list_users, after 200"].rows == 100
    assert pages["list_orders_with_items, typical"].rows == SIZE.orders // SIZE.users
    assert (
        pages["list_orders_with_items, biggest"].rows > pages["list_orders_with_items, limit=50"].rows == 50
    )
    assert {timed.name: timed.rows for timed in measured.reports} == {
        "category_stats": 100,
        "sales_by_product, all time": SIZE.products,
        "sales_by_product, last 7 days": SIZE.products,
        "stock_discrepancies": 0,
    }
    assert all(len(timed.seconds) == 2 for timed in [*measured.listings, *measured.reports])
    assert schemas_left(shop) == 0
    assert shop.value("SELECT count(*) FROM public.orders") == 0


async def test_what_is_missing_or_does_not_add_up_is_found(shop: Shop) -> None:
    written = Written()
    for number in SIZE.portions:
        written.add(portion(SIZE, number))
    async with filled_shop(shop.database_url, SIZE, Screen()) as engine:
        assert await find_faults(engine, SIZE, written) == []
        async with engine.begin() as connection:
            await connection.execute(
                text("UPDATE products SET stock_quantity = stock_quantity + 1 WHERE id = 7")
            )
            await connection.execute(text("UPDATE orders SET total_amount = total_amount + 1"))
            await connection.execute(text("DELETE FROM users WHERE id NOT IN (SELECT user_id FROM orders)"))
        faults = await find_faults(engine, SIZE, written)
    assert len(faults) == 3
    assert "users instead of 400" in faults[0]
    assert faults[1:] == ["2,000 wrong totals", "stock that does not add up: 1 products"]


async def test_a_wrong_result_ends_the_run_and_leaves_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "_RECEIVE", "SELECT $1::bigint[], $2::bigint[]")
    with pytest.raises(WrongResultError, match="does not add up: 200 products"):
        await measure(shop.database_url, SIZE, 1, Screen())
    assert schemas_left(shop) == 0
