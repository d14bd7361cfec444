"""Users, categories and products: what a shop keeps up by hand and shows page by page.

Every function works in the caller's transaction and sees what the caller did before. A function that
writes has sent its statement when it returns, so that its error comes from it and not from the commit.

`get_` raises NotFoundError, `list_` gives a page: `skip` rows passed over, or all up to `after`, the key of
the last row of the page before. `skip` reads what it passes over; `after` costs the same on every page.
It pays from some 10,000 rows on: of users by id, the page after 10,000 took 2.0 ms by `skip` and 1.6 by
`after`, after 100,000 it took 6.9 and 1.6; of products by price, after 10,000, 5.0 and 1.8
(`python -m bench.listings`).
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from sqlalchemy import Row, func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from db import values
from db.constraints import translated
from db.decision import InsufficientStock
from db.entities import delete_row, get_row, identity_of, updated_row
from db.errors import InvalidValueError, NotEnoughStockError, NotFoundError
from db.models import Category, Order, OrderItem, Product, User
from db.product_order import Key, products_by
from db.product_order import ProductOrder as ProductOrder
from db.stock import acquire_stock_lock


async def create_user(session: AsyncSession, email: str, full_name: str) -> User:
    """Add a user. Raises AlreadyExistsError when the e-mail is taken; upper and lower case differ."""
    user = User(
        email=values.filled_text("email", email), full_name=values.filled_text("full_name", full_name)
    )
    async with translated(session, email=email):
        session.add(user)
        await session.flush()
    return user


async def get_user_by_id(session: AsyncSession, user_id: int) -> User:
    """The user, or NotFoundError."""
    return await get_row(session, User, "user", user_id)


async def get_user_by_email(session: AsyncSession, email: str) -> User:
    """The user with exactly this e-mail, or NotFoundError."""
    user = await session.scalar(select(User).where(User.email == values.text("email", email)))
    if user is None:
        raise NotFoundError("user", "email", email)
    return user


async def list_users(
    session: AsyncSession, skip: int = 0, limit: int = 100, *, after: int | None = None
) -> Sequence[User]:
    """A page of users by id; `after` is the id of the last user of the page before."""
    values.page(skip, limit, after)
    query = select(User).order_by(User.id).offset(skip).limit(limit)
    if after is not None:
        query = query.where(User.id > values.integer("after", after, 0, values.MAX_ID))
    return (await session.scalars(query)).all()


async def update_user(
    session: AsyncSession, user_id: int, *, email: str | None = None, full_name: str | None = None
) -> User:
    """Change what is given and nothing else. Raises NotFoundError, or AlreadyExistsError for the e-mail."""
    changes = {}
    if email is not None:
        changes["email"] = values.filled_text("email", email)
    if full_name is not None:
        changes["full_name"] = values.filled_text("full_name", full_name)
    if not changes:
        return await get_user_by_id(session, user_id)
    values.row_id("user", user_id)
    statement = update(User).where(User.id == user_id).values(changes).returning(User)
    async with translated(session, **changes):
        return await updated_row(session, statement, "user", user_id)


async def delete_user(session: AsyncSession, user_id: int) -> None:
    """Remove a user. Raises NotFoundError, or StillReferencedError when the user has orders."""
    await delete_row(session, User, "user", user_id, select(func.count()).where(Order.user_id == user_id))


async def create_category(session: AsyncSession, name: str, description: str = "") -> Category:
    """Add a category. Raises AlreadyExistsError when the name is taken."""
    category = Category(
        name=values.filled_text("name", name),
        description=values.text("description", description),
        products=[],  # known to be empty, so that reading it later asks nobody
    )
    async with translated(session, name=name):
        session.add(category)
        await session.flush()
    return category


async def get_category_with_products(session: AsyncSession, category_id: int) -> Category:
    """The category with its `products`, by id, in two statements whatever their number; or NotFoundError."""
    values.row_id("category", category_id)
    category = await session.scalar(
        select(Category).where(Category.id == category_id).options(selectinload(Category.products)),
        execution_options={"populate_existing": True},
    )
    if category is None:
        raise NotFoundError("category", "id", category_id)
    return category


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
    after: tuple[Key, int] | None = None,
) -> Sequence[Product]:
    """A page of products, smallest first; `after` is `order_by.key(product)` of the last one before.

    The key is what that product showed, so that going on works also when it was changed or deleted since.
    """
    values.page(skip, limit, after)
    return (await session.scalars(products_by(order_by, after).offset(skip).limit(limit))).all()


async def list_products_in_category(
    session: AsyncSession, category_id: int, skip: int = 0, limit: int = 100, *, after: int | None = None
) -> Sequence[Product]:
    """A page of a category's products by id; `after` is the last id of the page before.

    Raises NotFoundError when there is no such category.
    """
    values.page(skip, limit, after)
    values.row_id("category", category_id)
    query = select(Product).where(Product.category_id == category_id).order_by(Product.id)
    if after is not None:
        query = query.where(Product.id > values.integer("after", after, 0, values.MAX_ID))
    products = (await session.scalars(query.offset(skip).limit(limit))).all()
    if not products:
        # An empty page is an answer, a category that does not exist is a mistake: only here they look alike.
        await get_row(session, Category, "category", category_id)
    return products


async def list_user_ids(session: AsyncSession, limit: int) -> Sequence[int]:
    """The ids of the first `limit` users by id."""
    return (await session.scalars(select(User.id).order_by(User.id).limit(limit))).all()


async def list_prices(session: AsyncSession, limit: int) -> Sequence[tuple[int, Decimal]]:
    """Id and price of the first `limit` products by id."""
    rows = await session.execute(select(Product.id, Product.price).order_by(Product.id).limit(limit))
    return [(product_id, price) for product_id, price in rows]


async def update_product_price(session: AsyncSession, product_id: int, price: Decimal) -> Product:
    """Change the price of orders to come; orders that exist keep the price they were sold at.

    An order that names the old price is rejected from now on, also one in flight.
    """
    values.row_id("product", product_id)
    changes = {"price": values.price("price", price)}
    # Before the row, as everybody who locks products: else this and a following create_order could deadlock.
    await acquire_stock_lock(session)
    statement = update(Product).where(Product.id == product_id).values(changes).returning(Product)
    return await updated_row(session, statement, "product", product_id)


async def adjust_stock_for_category(session: AsyncSession, category_id: int, change: int) -> int:
    """Add `change` to the stock of every product of the category, in one statement; how many products.

    Negative takes away: where one product holds less, none is changed, and NotEnoughStockError names all
    that do. Raises NotFoundError when there is no such category.
    """
    values.row_id("category", category_id)
    values.integer("change", change, -values.MAX_STOCK, values.MAX_STOCK)
    # Beside workers the rows would be locked in another order than theirs, which could be a deadlock. And
    # PostgreSQL checks a row as it was before it waits for the one who has just put something into stock.
    await acquire_stock_lock(session)
    statement = (
        update(Product)
        .where(Product.category_id == category_id)
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
        if short := await _list_short(session, category_id, -change):
            raise NotEnoughStockError(short) from error
        raise
    if not changed:
        await get_row(session, Category, "category", category_id)
    _show(session, changed)
    return len(changed)


async def delete_product(session: AsyncSession, product_id: int) -> None:
    """Remove a product. Raises NotFoundError, or StillReferencedError when it was ever ordered."""
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


def _show(session: AsyncSession, stocks: Iterable[Row[int, int, int]]) -> None:
    """Bring the products that the session has loaded up to date: (id, stock, received)."""
    for product_id, stock, received in stocks:
        product = session.identity_map.get(identity_key(Product, product_id))
        if product is not None:
            set_committed_value(product, "stock_quantity", stock)
            set_committed_value(product, "received_quantity", received)


async def _list_short(session: AsyncSession, category_id: int, requested: int) -> list[InsufficientStock]:
    rows = await session.execute(
        select(Product.id, Product.stock_quantity)
        .where(Product.category_id == category_id, Product.stock_quantity < requested)
        .order_by(Product.id)
    )
    return [InsufficientStock(product_id, requested, stock) for product_id, stock in rows]
