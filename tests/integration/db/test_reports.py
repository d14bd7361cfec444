"""The statistics on real PostgreSQL, against a plain reading of the same shop in Python."""

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from bench.statements import Statements
from db.errors import InvalidValueError
from db.models import Category, Order, OrderItem, Product, User
from db.reports import (
    CategoryStats,
    ProductSales,
    StockDiscrepancy,
    category_stats,
    sales_by_product,
    stock_discrepancies,
)
from db.statuses import OrderStatus
from tests.support.shop import Shop

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
CENT = Decimal("0.01")


def product(product_id: int, price: str = "2.50", stock: int = 10, *, category: int = 1) -> Product:
    """A product of which nothing was sold yet."""
    return Product(
        id=product_id,
        name=f"Product {product_id}",
        price=Decimal(price),
        stock_quantity=stock,
        received_quantity=stock,
        category_id=category,
    )


def sold(
    number: int, *lines: tuple[int, int, str], at: datetime = NOON, status: OrderStatus = OrderStatus.PENDING
) -> Order:
    """An order of (product, quantity, price) lines as it is stored. It takes no stock."""
    items = [
        OrderItem(line_number=n, product_id=product_id, quantity=quantity, unit_price=Decimal(price))
        for n, (product_id, quantity, price) in enumerate(lines, 1)
    ]
    total = sum((item.quantity * item.unit_price for item in items), Decimal(0))
    return Order(
        id=UUID(int=number),
        user_id=1,
        status=status,
        total_amount=total,
        placed_at=NOON,
        created_at=at,
        items=items,
    )


async def stored(session: AsyncSession, *things: Category | Product | Order) -> None:
    """Committed, beside user 1 and category 1."""
    session.add_all([User(id=1, email="u", full_name="U"), Category(id=1, name="Gifts"), *things])
    await session.commit()


class RandomShop:
    """Categories, products and orders drawn from a seed, some categories empty and some stock wrong."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.categories = [Category(id=n, name=f"Category {n}") for n in range(2, 8)]
        self.products = [
            product(
                n,
                f"{chance.randint(0, 9999) / 100:.2f}",
                chance.randint(0, 99),
                category=chance.randint(1, 5),
            )
            for n in range(1, 31)
        ]
        self.orders = [
            sold(
                number,
                *(
                    (chance.randint(1, 25), chance.randint(1, 9), f"{chance.randint(0, 9999) / 100:.2f}")
                    for _ in range(chance.randint(1, 6))
                ),
                at=NOON + timedelta(hours=chance.randint(-5, 5)),
                status=chance.choice(list(OrderStatus)),
            )
            for number in range(1, 121)
        ]
        for one in self.products:
            if chance.random() < 0.7:
                one.received_quantity += sum(item.quantity for _, item in self.sold_of(one.id))

    @property
    def everything(self) -> list[Category | Product | Order]:
        return [*self.categories, *self.products, *self.orders]

    def sold_of(
        self, product_id: int, since: datetime | None = None, until: datetime | None = None
    ) -> list[tuple[Order, OrderItem]]:
        return [
            (order, item)
            for order in self.orders
            for item in order.items
            if item.product_id == product_id
            and order.status is not OrderStatus.CANCELLED
            and (since is None or order.created_at >= since)
            and (until is None or order.created_at < until)
        ]

    def stats(self) -> list[CategoryStats]:
        def of(category_id: int, name: str) -> CategoryStats:
            mine = [one for one in self.products if one.category_id == category_id]
            value = sum((one.price * one.stock_quantity for one in mine), Decimal(0))
            average = sum((one.price for one in mine), Decimal(0)) / len(mine) if mine else None
            rounded = average if average is None else average.quantize(CENT, ROUND_HALF_UP)
            return CategoryStats(category_id, name, len(mine), value, rounded)

        return [of(1, "Gifts"), *(of(one.id, one.name) for one in self.categories)]

    def sales(self, since: datetime | None = None, until: datetime | None = None) -> list[ProductSales]:
        every = []
        for one in self.products:
            mine = self.sold_of(one.id, since, until)
            revenue = sum((item.quantity * item.unit_price for _, item in mine), Decimal(0))
            orders = len({order.id for order, _ in mine})
            every.append(ProductSales(one.id, one.name, orders, sum(i.quantity for _, i in mine), revenue))
        return sorted(every, key=lambda sales: (-sales.revenue, sales.product_id))

    def discrepancies(self) -> list[StockDiscrepancy]:
        found = []
        for one in self.products:
            quantity = sum(item.quantity for _, item in self.sold_of(one.id))
            if one.received_quantity - quantity != one.stock_quantity:
                found.append(
                    StockDiscrepancy(one.id, one.name, one.received_quantity, quantity, one.stock_quantity)
                )
        return found


seeds = pytest.mark.parametrize("seed", range(3))


# Categories


@seeds
async def test_categories_hold_what_a_plain_count_finds(session: AsyncSession, seed: int):
    shop = RandomShop(seed)
    await stored(session, *shop.everything)
    assert await category_stats(session) == shop.stats()
    assert any(stats.product_count == 0 for stats in shop.stats())


async def test_a_category_without_products_is_listed_with_no_value_and_no_average(session: AsyncSession):
    await stored(session, Category(id=2, name="Empty"), product(1, "2.50", 4), product(2, "0.99", 0))
    assert await category_stats(session) == [
        CategoryStats(1, "Gifts", 2, Decimal("10.00"), Decimal("1.75")),
        CategoryStats(2, "Empty", 0, Decimal("0.00"), None),
    ]


@pytest.mark.parametrize(
    ("prices", "average"),
    [
        (["0.01", "0.02"], "0.02"),
        (["0.01", "0.01", "0.02"], "0.01"),
        (["1.00", "1.00", "1.01", "1.01"], "1.01"),
        (["99999999.99"], "99999999.99"),
        (["0.00"], "0.00"),
        (["5.00", "6.00"], "5.50"),
    ],
)
async def test_the_average_price_is_rounded_to_cents(session: AsyncSession, prices: list[str], average: str):
    await stored(session, *(product(n, price) for n, price in enumerate(prices, 1)))
    (stats,) = await category_stats(session)
    assert str(stats.average_price) == average


async def test_the_value_of_the_largest_stock_at_the_highest_price_is_reported_to_the_cent(
    session: AsyncSession,
):
    await stored(session, *(product(n, "99999999.99", 10**18) for n in (1, 2, 3)))
    (stats,) = await category_stats(session)
    assert str(stats.stock_value) == "299999999970000000000000000.00"


async def test_a_shop_without_categories_has_no_statistics(session: AsyncSession):
    assert await category_stats(session) == []


# Sales


@seeds
@pytest.mark.parametrize(
    ("since", "until"),
    [(None, None), (-2, None), (None, 3), (-2, 3), (3, -2), (2, 2)],
    ids=["ever", "since", "until", "window", "backwards", "empty"],
)
async def test_sales_are_what_a_plain_count_finds(
    session: AsyncSession, seed: int, since: int | None, until: int | None
):
    shop = RandomShop(seed)
    await stored(session, *shop.everything)
    window: dict[str, Any] = {
        name: NOON + timedelta(hours=hours)
        for name, hours in {"since": since, "until": until}.items()
        if hours is not None
    }
    expected = shop.sales(**window)
    assert await sales_by_product(session, **window) == expected
    assert await sales_by_product(session, **window, limit=7) == expected[:7]
    assert await sales_by_product(session, **window, limit=1_000) == expected


async def test_two_lines_of_one_order_are_one_order_and_are_paid_at_their_own_prices(session: AsyncSession):
    await stored(
        session, product(1, "9.99"), sold(1, (1, 2, "2.50"), (1, 3, "2.00")), sold(2, (1, 1, "1.00"))
    )
    assert await sales_by_product(session) == [ProductSales(1, "Product 1", 2, 6, Decimal("12.00"))]


async def test_cancelled_orders_are_no_sales_and_completed_ones_are(session: AsyncSession):
    await stored(
        session,
        product(1),
        product(2),
        sold(1, (1, 2, "2.50")),
        sold(2, (1, 3, "2.50"), status=OrderStatus.COMPLETED),
        sold(3, (1, 4, "2.50"), (2, 1, "2.50"), status=OrderStatus.CANCELLED),
    )
    assert await sales_by_product(session) == [
        ProductSales(1, "Product 1", 2, 5, Decimal("12.50")),
        ProductSales(2, "Product 2", 0, 0, Decimal("0.00")),
    ]


async def test_the_highest_revenue_comes_first_and_equal_ones_by_id(session: AsyncSession):
    await stored(
        session,
        *(product(n) for n in (5, 4, 3, 2, 1)),
        sold(1, (4, 1, "5.00"), (2, 2, "2.50"), (3, 1, "5.01")),
    )
    assert [sales.product_id for sales in await sales_by_product(session)] == [3, 2, 4, 1, 5]
    assert [sales.product_id for sales in await sales_by_product(session, limit=2)] == [3, 2]


@pytest.mark.parametrize(
    ("window", "quantity"),
    [
        ({"since": NOON}, 6),
        ({"since": NOON + INSTANT}, 4),
        ({"until": NOON}, 1),
        ({"until": NOON + INSTANT}, 3),
        ({"since": NOON, "until": NOON + INSTANT}, 2),
        ({"since": NOON.astimezone(timezone(timedelta(hours=9)))}, 6),
        ({"since": datetime.min.replace(tzinfo=UTC), "until": datetime.max.replace(tzinfo=UTC)}, 7),
    ],
)
async def test_sales_count_from_since_on_and_before_until(
    session: AsyncSession, window: dict[str, Any], quantity: int
):
    moments = [NOON - INSTANT, NOON, NOON + INSTANT]
    await stored(
        session,
        product(1),
        *(sold(n + 1, (1, 2**n, "1.00"), at=moment) for n, moment in enumerate(moments)),
    )
    (sales,) = await sales_by_product(session, **window)
    assert sales.quantity == quantity


@pytest.mark.parametrize("edge", ["since", "until"])
@pytest.mark.parametrize(
    "moment",
    [
        NOON.replace(tzinfo=None),
        NOON.isoformat(),
        0,
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
    ],
    ids=["naive", "text", "number", "beyond UTC"],
)
async def test_a_window_of_anything_but_aware_times_is_refused(session: AsyncSession, edge: str, moment: Any):
    with pytest.raises(InvalidValueError) as caught:
        await sales_by_product(session, **{edge: moment})
    assert caught.value.field == edge


@pytest.mark.parametrize("limit", [0, -1, 1_001, True, "5"], ids=repr)
async def test_a_limit_no_page_has_is_refused(session: AsyncSession, limit: Any):
    with pytest.raises(InvalidValueError) as caught:
        await sales_by_product(session, limit=limit)
    assert caught.value.field == "limit"


# Stock


@seeds
async def test_discrepancies_are_what_a_plain_count_finds(session: AsyncSession, seed: int):
    shop = RandomShop(seed)
    await stored(session, *shop.everything)
    assert await stock_discrepancies(session) == shop.discrepancies()
    assert 0 < len(shop.discrepancies()) < len(shop.products)


@pytest.mark.parametrize(("stock", "missing"), [(7, 3), (13, -3), (0, 10)], ids=["lost", "found", "all gone"])
async def test_stock_that_somebody_changed_behind_the_books_shows_with_what_is_missing(
    session: AsyncSession, shop: Shop, stock: int, missing: int
):
    shop.stock_up({1: 10, 2: 10})
    assert await stock_discrepancies(session) == []
    shop.sql("UPDATE products SET stock_quantity = $1 WHERE id = 2", stock)
    (found,) = await stock_discrepancies(session)
    assert found == StockDiscrepancy(2, "Product 2", 10, 0, stock)
    assert found.missing == missing


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (OrderStatus.PENDING, []),
        (OrderStatus.COMPLETED, []),
        (OrderStatus.CANCELLED, [StockDiscrepancy(1, "Product 1", 10, 0, 7)]),
    ],
)
async def test_what_a_cancelled_order_took_is_missing_until_it_is_given_back(
    session: AsyncSession, status: OrderStatus, expected: list[StockDiscrepancy]
):
    one = product(1, stock=10)
    one.stock_quantity = 7
    await stored(session, one, sold(1, (1, 2, "2.50"), (1, 1, "2.50"), status=status))
    found = await stock_discrepancies(session)
    assert found == expected
    assert [discrepancy.missing for discrepancy in found] == [3] * len(expected)


# All of them

REPORTS = [category_stats, sales_by_product, stock_discrepancies]


@pytest.mark.parametrize("report", REPORTS)
async def test_a_report_is_one_statement(
    session: AsyncSession,
    count_statements: Callable[[], AbstractContextManager[Statements]],
    report: Callable[[AsyncSession], Awaitable[Any]],
):
    await stored(session, *RandomShop(1).everything)
    with count_statements() as sent:
        assert await report(session)
    assert len(sent) == 1


@pytest.mark.parametrize("report", REPORTS)
async def test_every_number_of_a_report_has_the_type_it_says(
    session: AsyncSession, report: Callable[[AsyncSession], Awaitable[Any]]
):
    await stored(session, *RandomShop(2).everything)
    kinds: dict[str, Any] = {
        "name": str,
        "stock_value": Decimal,
        "average_price": (Decimal, type(None)),
        "revenue": Decimal,
    }
    for row in await report(session):
        for field in row.__dataclass_fields__:
            assert isinstance(getattr(row, field), kinds.get(field, int)), field
