"""Categories: added, found, changed and removed one at a time. `db.catalog` exports them, with the rules."""

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from db import values
from db.constraints import translated
from db.entities import delete_row, get_row, require_alone, updated_row
from db.errors import NotFoundError
from db.models import Category, Product


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


async def get_category_by_id(session: AsyncSession, category_id: int) -> Category:
    """The category without its products, or NotFoundError."""
    return await get_row(session, Category, "category", category_id)


async def get_category_by_name(session: AsyncSession, name: str) -> Category:
    """The category with exactly this name, upper and lower case included, or NotFoundError."""
    category = await session.scalar(select(Category).where(Category.name == values.text("name", name)))
    if category is None:
        raise NotFoundError("category", "name", name)
    return category


async def list_categories(
    session: AsyncSession, skip: int = 0, limit: int = 100, *, after: int | None = None
) -> Sequence[Category]:
    """A page of categories by id, without their products; `after` is the last id of the page before."""
    values.page(skip, limit, after)
    query = select(Category).order_by(Category.id).offset(skip).limit(limit)
    if after is not None:
        query = query.where(Category.id > values.integer("after", after, 0, values.MAX_ID))
    return (await session.scalars(query)).all()


async def update_category(
    session: AsyncSession, category_id: int, *, name: str | None = None, description: str | None = None
) -> Category:
    """Change what is given and nothing else.

    Raises NotFoundError, AlreadyExistsError for the name, or LockedError.
    """
    changes = {}
    if name is not None:
        changes["name"] = values.filled_text("name", name)
    if description is not None:
        changes["description"] = values.text("description", description)
    if not changes:
        return await get_category_by_id(session, category_id)
    values.row_id("category", category_id)
    if name is not None:
        await require_alone(session, Category, "category", category_id)
    statement = update(Category).where(Category.id == category_id).values(changes).returning(Category)
    async with translated(session, **changes):
        return await updated_row(session, statement, "category", category_id)


async def delete_category(session: AsyncSession, category_id: int) -> None:
    """Remove a category. Raises NotFoundError, StillReferencedError when it has products, or LockedError."""
    products = select(func.count()).where(Product.category_id == category_id)
    await delete_row(session, Category, "category", category_id, products)
