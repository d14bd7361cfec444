"""The reads of `db` that are timed: each function with its arguments, over a shop of a given size."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from bench.fill import CATEGORIES, LAST, Size
from db import catalog
from db.catalog import ProductOrder
from db.orders import get_order, list_orders, list_orders_with_items
from db.reports import category_stats, sales_by_product, stock_discrepancies

# Of all rows. Of a million orders, 200,000 users and 20,000 products: the round numbers of the default.
_DEPTHS_OF_ORDERS: Final = (0.001, 0.01, 0.1, 0.9)
_DEPTHS_OF_USERS: Final = (0.05, 0.5)
_DEPTH_OF_PRODUCTS: Final = 0.5

_NEWEST_FIRST: Final = "SELECT created_at, id FROM orders ORDER BY created_at DESC, id DESC"
_CUSTOMERS: Final = "SELECT user_id, count(*) FROM orders GROUP BY user_id ORDER BY"

Read = Callable[[AsyncSession], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Listing:
    """One function of `db` with its arguments. Those that name the same page must show the same rows."""

    name: str
    read: Read
    page: str = ""


async def find_listings(session: AsyncSession, size: Size) -> list[Listing]:
    """Every read of users, products and orders; where in the tables they begin is found by plain SQL."""
    user, product, category = size.users // 2, size.products // 2, CATEGORIES[-1]
    _, order = await _row(session, _NEWEST_FIRST, size.orders // 2)
    return [
        Listing("get_user_by_id", partial(catalog.get_user_by_id, user_id=user)),
        Listing("get_user_by_email", partial(catalog.get_user_by_email, email=f"user{user}@example.com")),
        Listing("get_product_by_id", partial(catalog.get_product_by_id, product_id=product)),
        Listing("get_order", partial(get_order, order_id=order)),
        *await _users(session, size),
        *await _products(session, size),
        Listing(
            "list_products_in_category", partial(catalog.list_products_in_category, category_id=category)
        ),
        Listing(
            "get_category_with_products", partial(catalog.get_category_with_products, category_id=category)
        ),
        *await _orders(session, size),
        *await _orders_with_items(session, size),
    ]


def list_reports() -> list[Listing]:
    """Every statistic. They read all they count, so that no limit is claimed for them."""
    week = LAST - timedelta(days=7)
    return [
        Listing("category_stats", category_stats),
        Listing("sales_by_product, all time", sales_by_product),
        Listing("sales_by_product, last 7 days", partial(sales_by_product, since=week)),
        Listing("stock_discrepancies", stock_discrepancies),
    ]


async def _users(session: AsyncSession, size: Size) -> list[Listing]:
    found = [Listing("list_users", catalog.list_users)]
    for depth in _depths(size.users, *_DEPTHS_OF_USERS):
        (last,) = await _row(session, "SELECT id FROM users ORDER BY id", depth)
        found += _both_ways("list_users", catalog.list_users, depth, last)
    return found


async def _products(session: AsyncSession, size: Size) -> list[Listing]:
    found = [
        Listing(f"list_products by {order}", partial(catalog.list_products, order_by=order))
        for order in ProductOrder
    ]
    (depth,) = _depths(size.products, _DEPTH_OF_PRODUCTS)
    last = await _row(session, "SELECT price, id FROM products ORDER BY price, id", depth)
    by_price = partial(catalog.list_products, order_by=ProductOrder.PRICE)
    return [*found, *_both_ways("list_products by price", by_price, depth, last)]


async def _orders(session: AsyncSession, size: Size) -> list[Listing]:
    found = [Listing("list_orders", list_orders)]
    for depth in _depths(size.orders, *_DEPTHS_OF_ORDERS):
        last = await _row(session, _NEWEST_FIRST, depth)
        found += _both_ways("list_orders", list_orders, depth, last)
    return found


async def _orders_with_items(session: AsyncSession, size: Size) -> list[Listing]:
    nearest_to_average = f"abs(count(*) - {size.orders / size.users}), user_id"
    typical, _ = await _row(session, f"{_CUSTOMERS} {nearest_to_average}")
    biggest, _ = await _row(session, f"{_CUSTOMERS} count(*) DESC, user_id")
    name = "list_orders_with_items"
    return [
        Listing(f"{name}, typical", partial(list_orders_with_items, user_id=typical)),
        Listing(f"{name}, biggest", partial(list_orders_with_items, user_id=biggest)),
        Listing(f"{name}, limit=50", partial(list_orders_with_items, user_id=biggest, limit=50)),
    ]


def _both_ways(name: str, read: Callable[..., Awaitable[Any]], depth: int, last: Any) -> list[Listing]:
    """The page after the first `depth` rows: by skipping them, and by the key of the last of them."""
    page = f"{name} after {depth:,}"
    return [
        Listing(f"{name}, skip={depth:,}", partial(read, skip=depth), page),
        Listing(f"{name}, after {depth:,}", partial(read, after=last), page),
    ]


def _depths(rows: int, *shares: float) -> list[int]:
    return [max(1, round(rows * share)) for share in shares]


async def _row(session: AsyncSession, query: str, number: int = 1) -> tuple[Any, ...]:
    return tuple((await session.execute(text(f"{query} OFFSET {number - 1} LIMIT 1"))).one())
