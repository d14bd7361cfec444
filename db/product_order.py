"""The sort orders of product listings, and where the next page begins."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Any, Final

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from db import values
from db.errors import InvalidValueError
from db.models import Product

Key = int | str | Decimal | datetime


class ProductOrder(StrEnum):
    """What a listing of products is sorted by; products that are equal in it by id."""

    ID = "id"
    NAME = "name"
    PRICE = "price"
    STOCK = "stock_quantity"  # sorts the whole table: no index, because every sale would write it
    NEWEST = "created_at"  # the newest first, where nothing else is asked for

    def key(self, product: Product) -> "tuple[Key, int]":
        """Where the product stands in this order: its value and its id."""
        return getattr(product, self.value), product.id


_CHECKS: Final[dict[ProductOrder, Callable[[str, Any], Key]]] = {
    ProductOrder.ID: partial(values.integer, lowest=0, highest=values.MAX_ID),
    ProductOrder.NAME: values.text,
    ProductOrder.PRICE: values.price,
    ProductOrder.STOCK: partial(values.integer, lowest=0, highest=values.MAX_ID),  # adjusted, it may be more
    ProductOrder.NEWEST: values.aware,
}


def products_by(
    order_by: ProductOrder, after: tuple[Key, int] | None, *, descending: bool | None = None
) -> Select[Product]:
    """Products in this order, behind `after`: (key, id) of the last one of the page before.

    `descending`: the largest first; None: the newest of NEWEST first, else the smallest. Raises
    InvalidValueError for an order or a key that there cannot be.
    """
    try:
        order_by = ProductOrder(order_by)
    except ValueError:
        raise InvalidValueError("order_by", order_by, f"must be one of {', '.join(ProductOrder)}") from None
    down = order_by is ProductOrder.NEWEST if descending is None else values.flag("descending", descending)
    column: InstrumentedAttribute[Key] = getattr(Product, order_by.value)
    query = select(Product).order_by(*(c.desc() if down else c.asc() for c in (column, Product.id)))
    if after is None:
        return query
    if not isinstance(after, tuple) or len(after) != 2:
        raise InvalidValueError("after", after, f"must be ({column.key}, id) of the last product before")
    key, product_id = after
    last = (_CHECKS[order_by]("after", key), values.integer("after", product_id, 0, values.MAX_ID))
    place = tuple_(column, Product.id)
    return query.where(place < last if down else place > last)
