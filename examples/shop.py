"""A walk through the shop's data layer, from the first user to books that balance.

    python -m examples.shop                           on a PostgreSQL of its own, gone afterwards
    python -m examples.shop postgresql://host/name    on yours, in a schema of its own, dropped at the end

Read it from top to bottom. Each chapter is one function, and one transaction that `walk` commits.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from db import catalog, orders, reports
from db.catalog import ProductOrder
from db.errors import ShopError
from db.models import Product
from db.orders import OrderLine
from db.statuses import OrderStatus
from examples.shop_database import CannotStartError, empty_shop, postgres_of_its_own
from examples.shop_output import say, short, show_orders, show_products, show_totals, table

GRACES_ORDER: Final = uuid4()


async def users(session: AsyncSession) -> None:
    """Users"""
    ada = await catalog.create_user(session, "ada@example.com", "Ada Lovelace")
    grace = await catalog.create_user(session, "grace@example.com", "Grace Hoper")
    tony = await catalog.create_user(session, "tony@example.com", "Tony Hoare")
    say("create_user", ", ".join(f"{user.id} {user.full_name}" for user in (ada, grace, tony)))

    user = await catalog.get_user_by_id(session, ada.id)
    say("get_user_by_id", f"user {ada.id} is {user.full_name}")

    user = await catalog.get_user_by_email(session, "grace@example.com")
    say("get_user_by_email", f"grace@example.com is {user.full_name}, who needs a second p")

    user = await catalog.update_user(session, grace.id, full_name="Grace Hopper")
    say("update_user", f"{user.full_name}; the e-mail is still {user.email}")

    await catalog.delete_user(session, tony.id)
    say("delete_user", f"{tony.full_name} never ordered anything, and is gone")


async def categories_and_products(session: AsyncSession) -> None:
    """Categories and products"""
    kitchen = await catalog.create_category(session, "Kitchen", "Cups and what goes into them")
    garden = await catalog.create_category(session, "Garden")
    await catalog.create_category(session, "Books", "Coming soon")
    say("create_category", f"{kitchen.name}, {garden.name}, and one that stays empty")

    await catalog.update_category(session, garden.id, description="Pots, and what grows in them")
    garden = await catalog.get_category_by_id(session, garden.id)
    say("update_category", f"{garden.name}: {garden.description}")
    say("get_category_by_id", f"category {garden.id}, of {garden.created_at:%Y}, without its products")

    toys = await catalog.create_category(session, "Toys")
    toys = await catalog.get_category_by_name(session, toys.name)
    say("get_category_by_name", f"{toys.name} is category {toys.id}")
    await catalog.delete_category(session, toys.id)
    say("delete_category", f"{toys.name} never had a product, and is gone")

    page = await catalog.list_categories(session, limit=10)
    say("list_categories", ", ".join(category.name for category in page))

    mug = await catalog.create_product(session, kitchen.id, "White mug", Decimal("2.55"), stock_quantity=500)
    cup = await catalog.create_product(session, kitchen.id, "Egg cup", Decimal("1.25"))
    await catalog.create_product(session, kitchen.id, "Tea towel", Decimal("3.39"), stock_quantity=300)
    say("create_product", f"{mug.name} at {mug.price}, {mug.stock_quantity} in stock, and two more")

    # Through the relationship: no id to look up, and product.category is this very object.
    pot = await catalog.create_product_in_category(
        session, garden, "Clay pot", Decimal("4.95"), stock_quantity=120, description="Twelve centimetres"
    )
    say("create_product_in_category", f"{pot.name} in {pot.category.name}")

    product = await catalog.get_product_by_id(session, pot.id)
    say("get_product_by_id", f"product {pot.id} is the {product.name}: {product.description}")

    product = await catalog.update_product_price(session, mug.id, Decimal("2.75"))
    say("update_product_price", f"{product.name} costs {product.price} from now on")

    product = await catalog.update_product(session, pot.id, description="Unglazed, twelve centimetres")
    say("update_product", f"{product.name}: {product.description.lower()}; it still costs {product.price}")

    # What came or went: a number that somebody read before would bring back what was sold since.
    product = await catalog.adjust_stock(session, pot.id, +20)
    say("adjust_stock", f"20 more of the {product.name}: {product.stock_quantity}")

    changed = await catalog.adjust_stock_for_category(session, kitchen.id, +40)
    say("adjust_stock_for_category", f"40 more of each of {changed} products, in one statement")

    await catalog.delete_product(session, cup.id)
    say("delete_product", f"{cup.name} was never ordered, and is gone")

    category = await catalog.get_category_with_products(session, kitchen.id)
    say("get_category_with_products", f"{category.name}, its products loaded with it:")
    show_products(category.products)


async def ordering(session: AsyncSession) -> None:
    """Ordering"""
    ada = await catalog.get_user_by_email(session, "ada@example.com")
    grace = await catalog.get_user_by_email(session, "grace@example.com")
    goods = await products_by_name(session)
    mug, pot = goods["White mug"], goods["Clay pot"]

    small = await orders.create_order(session, ada.id, [OrderLine(mug.id, 6), OrderLine(pot.id, 2)])
    say("create_order", f"{short(small)}: Ada takes 6 mugs and 2 pots for {small.total_amount}")
    say("", f"in stock are now {mug.stock_quantity} mugs and {pot.stock_quantity} pots")

    # With the price the buyer saw: had it changed meanwhile, the order would be refused.
    large = await orders.create_order(session, ada.id, [OrderLine(mug.id, 100, unit_price=mug.price)])
    say("", f"{short(large)}: Ada takes 100 mugs at the price she saw, for {large.total_amount}")

    # With an id of the buyer's own: a second try gets AlreadyExistsError, not a second order.
    lines = [OrderLine(pot.id, 1), OrderLine(goods["Tea towel"].id, 3)]
    await orders.create_order(session, grace.id, lines, order_id=GRACES_ORDER)

    order = await orders.get_order(session, GRACES_ORDER)
    say("get_order", f"{short(order)} of {order.user.full_name}, whole, in one statement:")
    show_orders([order])


async def life_cycle(session: AsyncSession) -> None:
    """The life of an order: pending, then completed or cancelled"""
    ada = await catalog.get_user_by_email(session, "ada@example.com")
    adas = await orders.list_orders_with_items(session, ada.id)
    small, large = sorted(adas, key=lambda order: order.total_amount)
    mug = large.items[0].product

    await orders.complete_order(session, small.id)
    say("complete_order", f"{short(small)} is {small.status}: handed over, and final")

    before = mug.stock_quantity
    await orders.cancel_order(session, large.id)
    say("cancel_order", f"{short(large)} is {large.status}: {before} mugs are {mug.stock_quantity} again")

    await catalog.update_product_price(session, mug.id, Decimal("3.10"))
    small = await orders.get_order(session, small.id)
    say("", f"mugs cost {mug.price} by now; {short(small)} keeps its {small.items[0].unit_price}")

    pot = (await products_by_name(session))["Clay pot"]
    before = pot.stock_quantity
    mistake = await orders.create_order(session, ada.id, [OrderLine(pot.id, 50)])
    between = pot.stock_quantity
    await orders.delete_order(session, mistake.id)
    say("delete_order", f"as if it had never been: {before} pots, then {between}, now {pot.stock_quantity}")


async def bad_input(session: AsyncSession) -> None:
    """Bad input: each error names it, and the transaction continues"""
    ada = await catalog.get_user_by_email(session, "ada@example.com")
    goods = await products_by_name(session)
    mug, pot = goods["White mug"], goods["Clay pot"]
    lines = [OrderLine(mug.id, 1)]

    await refused(catalog.create_user(session, "ADA@example.com", "Another Ada"))
    await refused(catalog.update_product_price(session, mug.id, Decimal("2.999")))
    await refused(catalog.get_product_by_id(session, 4711))
    await refused(catalog.delete_user(session, ada.id))
    await refused(catalog.delete_product(session, mug.id))
    await refused(catalog.delete_category(session, mug.category_id))
    await refused(catalog.adjust_stock(session, mug.id, -10_000))
    await refused(catalog.adjust_stock_for_category(session, pot.category_id, -1_000))
    await refused(orders.create_order(session, ada.id, [OrderLine(mug.id, 1), OrderLine(4711, 1)]))
    await refused(orders.create_order(session, ada.id, [OrderLine(mug.id, 1, unit_price=Decimal("2.55"))]))
    # The lines of one product count together: each alone would fit.
    await refused(orders.create_order(session, ada.id, [OrderLine(pot.id, 80), OrderLine(pot.id, 80)]))
    await refused(orders.create_order(session, ada.id, lines, order_id=GRACES_ORDER))
    await orders.complete_order(session, GRACES_ORDER)
    await refused(orders.cancel_order(session, GRACES_ORDER))

    order = await orders.create_order(session, ada.id, lines)
    say("create_order", f"{short(order)}: fine, and still in the same transaction")


async def listings(session: AsyncSession) -> None:
    """Listings, page by page"""
    page = await catalog.list_users(session, skip=0, limit=10)
    say("list_users", "the first ten")
    table([(user.id, user.full_name, user.email) for user in page], "id", "name", "e-mail")

    cheapest = await catalog.list_products(session, ProductOrder.PRICE, limit=2)
    say("list_products", "the newest two; then by price, two a page")
    show_products(await catalog.list_products(session, ProductOrder.NEWEST, limit=2))
    show_products(cheapest)
    # `after` costs the same on every page, where `skip` reads what it skips.
    key = ProductOrder.PRICE.key(cheapest[-1])
    show_products(await catalog.list_products(session, ProductOrder.PRICE, limit=2, after=key))

    in_kitchen = await catalog.list_products_in_category(session, cheapest[0].category_id, limit=10)
    say("list_products_in_category", ", ".join(product.name for product in in_kitchen))

    newest = await orders.list_orders(session, limit=2)
    say("list_orders", "newest first, two a page")
    show_totals(newest)
    last = newest[-1]
    show_totals(await orders.list_orders(session, limit=2, after=(last.created_at, last.id)))

    say("", "those to be packed, of the last hour, with their items")
    an_hour_ago = last.created_at - timedelta(hours=1)
    show_orders(
        await orders.list_orders(session, status=OrderStatus.PENDING, since=an_hour_ago, with_items=True)
    )

    ada = await catalog.get_user_by_email(session, "ada@example.com")
    say("list_orders_with_items", "all of Ada's, whole, in one statement")
    show_orders(await orders.list_orders_with_items(session, ada.id))


async def statistics(session: AsyncSession) -> None:
    """Reports"""
    say("category_stats", "what each category holds now")
    stats = await reports.category_stats(session)
    rows = [(s.name, s.product_count, s.stock_value, s.average_price) for s in stats]
    table(rows, "category", "products", "stock value", "average price")

    yesterday = datetime.now(UTC) - timedelta(days=1)
    say("sales_by_product", "since yesterday, in orders not cancelled, at the prices paid")
    sales = await reports.sales_by_product(session, since=yesterday, limit=10)
    table([(s.name, s.orders, s.quantity, s.revenue) for s in sales], "product", "orders", "sold", "revenue")

    wrong = await reports.stock_discrepancies(session)
    say("stock_discrepancies", str(wrong) if wrong else "none: received − sold = stock for every product")


CHAPTERS: Final[Sequence[Callable[[AsyncSession], Awaitable[None]]]] = (
    users,
    categories_and_products,
    ordering,
    life_cycle,
    bad_input,
    listings,
    statistics,
)


async def walk(database_url: str) -> None:
    """Every chapter in a transaction of its own, on tables of their own."""
    async with empty_shop(database_url) as sessions:
        for number, chapter in enumerate(CHAPTERS, 1):
            title = f"{number}. {chapter.__doc__}"
            print(f"\n{title}\n{'─' * len(title)}")
            async with sessions.begin() as session:  # commits at the end, rolls back on an error
                await chapter(session)


async def products_by_name(session: AsyncSession) -> dict[str, Product]:
    return {product.name: product for product in await catalog.list_products(session)}


async def refused(attempt: Awaitable[object]) -> None:
    """Show the error that the attempt must end with."""
    try:
        await attempt
    except ShopError as error:
        say(type(error).__name__, str(error))
    else:
        raise AssertionError("this should have been refused")


def given_database() -> str | None:
    parser = argparse.ArgumentParser(
        description="Walk through the shop's data layer, step by step.",
        epilog="example: python -m examples.shop postgresql://shop:shop@127.0.0.1:5432/shop",
    )
    parser.add_argument(
        "database_url",
        nargs="?",
        default=os.environ.get("ORDER_WORKER_DATABASE_URL"),
        help="default: ORDER_WORKER_DATABASE_URL, else a PostgreSQL of its own, gone afterwards",
    )
    return parser.parse_args().database_url or None


def main() -> int:
    """0 done, 1 no database, 2 wrong usage, 130 interrupted."""
    given = given_database()
    try:
        with nullcontext(given) if given else postgres_of_its_own() as database_url:
            asyncio.run(walk(database_url))
    except CannotStartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
