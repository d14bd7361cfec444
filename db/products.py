"""Products and their stock. `db.catalog` exports all of it, with the rules."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from sqlalchemy import ColumnElement, Row, func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from db import values
from db.constraints import translated
from db.decision import InsufficientStock
from db.entities import delete_row, get_row, identity_of, updated_row
from db.errors import InvalidValueError, NotEnoughStockError, NotFoundError
from db.models import Category, OrderItem, Product
from db.product_order import Key, ProductOrder, products_by
from db.stock import acquire_stock_lock


async def create_product(
    session: AsyncSession,
    category_id: int,
    name: str,
    price: Decimal,
    *,
    stock_quantity: int = 0,
    description: str = "",
) -> Product:
    """Add a product with its first stock. Raises NotFoundError when there is no such category."""
    values.row_id("category", category_id)
    product = _product(name, price, stock_quantity, description)
    product.category_id = category_id
    async with translated(session, category_id=category_id):
        session.add(product)
        await session.flush()
    return product


async def create_product_in_category(
    session: AsyncSession,
    category: Category,
    name: str,
    price: Decimal,
    *,
    stock_quantity: int = 0,
    description: str = "",
) -> Product:
    """As `create_product`, through the relationship: `product.category` is the object given.

    Where `category.products` is loaded, the product is in it. Raises InvalidValueError for a category of
    another session or none.
    """
    product = await create_product(
        session,
        identity_of(session, category),
        name,
        price,
        stock_quantity=stock_quantity,
        description=description,
    )
    # Not before it is written: where that fails, the category would keep a product that does not exist.
    if "products" not in inspect(category).unloaded:
        category.products.append(product)
    product.category = category
    return product


async def get_product_by_id(session: AsyncSession, product_id: int) -> Product:
    """The product, or NotFoundError."""
    return await get_row(session, Product, "product", product_id)


async def list_products(
    session: AsyncSession,
    order_by: ProductOrder = ProductOrder.ID,
    skip: int = 0,
    limit: int = 100,
    *,
    descending: bool | None = None,
    after: tuple[Key, int] | None = None,
) -> Sequence[Product]:
    """A page of products, smallest first; by NEWEST the newest first, and where `descending` the largest.

    `after` is `order_by.key(product)` of the last one before. The key is what that product showed, so that
    continuing works also when it was changed or deleted since. All pages need the same `descending`.
    """
    values.page(skip, limit, after)
    query = products_by(order_by, after, descending=descending)
    return (await session.scalars(query.offset(skip).limit(limit))).all()


async def list_products_in_category(
    session: AsyncSession, category_id: int, skip: int = 0, limit: int = 100, *, after: int | None = None
) -> Sequence[Product]:
    """A page of a category's products by id; `after` is the last id of the page before.

    Raises NotFoundError when there is no such category.
    """
    values.page(skip, limit, after)
    values.row_id("category", category_id)
    # Not `==`: PostgreSQL would leave the one category out of the order then, and may look for its products
    # among those of all others, by id.
    of_category = Product.category_id.between(category_id, category_id)
    query = select(Product).where(of_category).order_by(Product.category_id, Product.id)
    if after is not None:
        query = query.where(Product.id > values.integer("after", after, 0, values.MAX_ID))
    products = (await session.scalars(query.offset(skip).limit(limit))).all()
    if not products:
        # An empty page is an answer, a category that does not exist is a mistake: only here they look alike.
        await get_row(session, Category, "category", category_id)
    return products


async def list_prices(session: AsyncSession, limit: int) -> Sequence[tuple[int, Decimal]]:
    """Id and price of the first `limit` products by id."""
    values.integer("limit", limit, 1, values.MAX_ID)
    rows = await session.execute(select(Product.id, Product.price).order_by(Product.id).limit(limit))
    return [(product_id, price) for product_id, price in rows]


async def update_product_price(session: AsyncSession, product_id: int, price: Decimal) -> Product:
    """Change the price of orders to come; orders that exist keep the price they were sold at.

    An order that names the old price is rejected from now on, also one in flight.
    """
    values.row_id("product", product_id)
    changes = {"price": values.price("price", price)}
    # Before the row, as in all code that locks products: else this and a later create_order could deadlock.
    await acquire_stock_lock(session)
    statement = update(Product).where(Product.id == product_id).values(changes).returning(Product)
    return await updated_row(session, statement, "product", product_id)


async def update_product(
    session: AsyncSession,
    product_id: int,
    *,
    name: str | None = None,
    description: str | None = None,
    price: Decimal | None = None,
    category_id: int | None = None,
    stock_quantity: None = None,
    received_quantity: None = None,
) -> Product:
    """Change what is given and nothing else; a price as `update_product_price` does.

    Stock is changed by `adjust_stock` alone, and refused here: set to what somebody saw, it would bring back
    what was sold since. Raises NotFoundError for the product and for the category.
    """
    for field, given in (("stock_quantity", stock_quantity), ("received_quantity", received_quantity)):
        if given is not None:
            raise InvalidValueError(field, given, "is changed by adjust_stock, by what comes or goes")
    changes: dict[str, str | Decimal | int] = {}
    if name is not None:
        changes["name"] = values.filled_text("name", name)
    if description is not None:
        changes["description"] = values.text("description", description)
    if price is not None:
        changes["price"] = values.price("price", price)
    if category_id is not None:
        changes["category_id"] = values.row_id("category", category_id)
    if not changes:
        return await get_product_by_id(session, product_id)
    values.row_id("product", product_id)
    await acquire_stock_lock(session)
    statement = update(Product).where(Product.id == product_id).values(changes).returning(Product)
    async with translated(session, **changes):
        product = await updated_row(session, statement, "product", product_id)
    if category_id is not None:
        session.expire(product, ["category"])  # it may be the old one
    return product


async def adjust_stock(session: AsyncSession, product_id: int, change: int) -> Product:
    """Add `change` to the product's stock, and to what was received; negative takes away.

    Raises NotFoundError, or NotEnoughStockError where the product holds less; nothing is changed then.
    """
    values.row_id("product", product_id)
    if not await _adjust(session, Product.id == product_id, change):
        raise NotFoundError("product", "id", product_id)
    return await get_product_by_id(session, product_id)


async def adjust_stock_for_category(session: AsyncSession, category_id: int, change: int) -> int:
    """Add `change` to the stock of every product of the category, in one statement; how many products.

    Negative takes away: where one product holds less, none is changed, and NotEnoughStockError names all
    that do. Raises NotFoundError when there is no such category.
    """
    values.row_id("category", category_id)
    changed = await _adjust(session, Product.category_id == category_id, change)
    if not changed:
        await get_row(session, Category, "category", category_id)
    return changed


async def delete_product(session: AsyncSession, product_id: int) -> None:
    """Remove a product. Raises NotFoundError, StillReferencedError when ever ordered, or LockedError."""
    orders = select(func.count(OrderItem.order_id.distinct())).where(OrderItem.product_id == product_id)
    await delete_row(session, Product, "product", product_id, orders)


def _product(name: str, price: Decimal, stock_quantity: int, description: str) -> Product:
    stock = values.integer("stock_quantity", stock_quantity, 0, values.MAX_STOCK)
    return Product(
        name=values.filled_text("name", name),
        description=values.text("description", description),
        price=values.price("price", price),
        stock_quantity=stock,
        received_quantity=stock,
    )


async def _adjust(session: AsyncSession, which: ColumnElement[bool], change: int) -> int:
    """Add `change` to the stock of these products, or of none; how many they are."""
    values.integer("change", change, -values.MAX_STOCK, values.MAX_STOCK)
    # Without it, rows would be locked in another order than workers lock them, which could deadlock. And
    # PostgreSQL would check a row as it was before it waited for a transaction that adds stock.
    await acquire_stock_lock(session)
    statement = (
        update(Product)
        .where(which)
        .values(
            stock_quantity=Product.stock_quantity + change,
            # What came or went otherwise than by an order, so that received − sold = stock stays true.
            received_quantity=Product.received_quantity + change,
        )
        .returning(Product.id, Product.stock_quantity, Product.received_quantity)
        # The session would add to what it loaded, which may be out of date.
        .execution_options(synchronize_session=False)
    )
    try:
        async with translated(session, change=change):
            changed = (await session.execute(statement)).all()
    except InvalidValueError as error:
        if short := await _list_short(session, which, -change):
            raise NotEnoughStockError(short) from error
        raise
    _show(session, changed)
    return len(changed)


def _show(session: AsyncSession, stocks: Iterable[Row[int, int, int]]) -> None:
    """Bring the products that the session has loaded up to date: (id, stock, received)."""
    for product_id, stock, received in stocks:
        product = session.identity_map.get(identity_key(Product, product_id))
        if product is not None:
            set_committed_value(product, "stock_quantity", stock)
            set_committed_value(product, "received_quantity", received)


async def _list_short(
    session: AsyncSession, which: ColumnElement[bool], requested: int
) -> list[InsufficientStock]:
    rows = await session.execute(
        select(Product.id, Product.stock_quantity)
        .where(which, Product.stock_quantity < requested)
        .order_by(Product.id)
    )
    return [InsufficientStock(product_id, requested, stock) for product_id, stock in rows]
