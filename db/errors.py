"""The errors that `db` raises for bad input. Each names the id or field; the transaction stays usable.

    ShopError
    ├ InvalidValueError          a value no column takes
    ├ NotFoundError              nothing has this id or e-mail
    ├ AlreadyExistsError         a unique value or id is taken
    ├ SequenceBehindError        the id that PostgreSQL gives a new row is taken
    ├ StillReferencedError       orders or products still need the row
    ├ LockedError                another transaction needs the row at this moment
    ├ IllegalStatusChangeError   an order cannot go from this status to that
    ├ UnusableProductError       nothing can be sold at the price that a product has
    ├ NoTransactionError         the session is in AUTOCOMMIT
    └ RefusedError               the rule of the shop refuses; `refusals` lists everything it found
        ├ UnknownNameError       … an order of an unknown user or product (a NotFoundError as well)
        ├ PriceChangedError      … a price the buyer saw is no longer in force
        └ NotEnoughStockError    … stock is the only thing missing

Other failures are raised by SQLAlchemy: a server that is away, a deadlock, a timeout. Roll back then, and run
the transaction again, as `db.transactions.run_in_transaction` does.
"""

from collections.abc import Mapping, Sequence

from db.decision import InsufficientStock, PriceChanged, Refusal, UnknownProduct, UnknownUser
from db.statuses import OrderStatus

Value = object  # whatever the caller gave; it is only shown


class ShopError(Exception):
    """Base of everything this module raises."""


class InvalidValueError(ShopError):
    """`field` cannot hold `value`, and why."""

    def __init__(self, field: str, value: Value, why: str) -> None:
        super().__init__(f"{field} {why}: {shown(value)}")
        self.field = field
        self.value = value


class NotFoundError(ShopError):
    """There is no `what` whose `field` is `value`."""

    def __init__(self, what: str, field: str, value: Value) -> None:
        super().__init__(f"there is no {what} with {field} {shown(value)}")
        self.what = what
        self.field = field
        self.value = value


class AlreadyExistsError(ShopError):
    """There is a `what` whose `field` is `value` already; `constraint` is what PostgreSQL calls the rule."""

    def __init__(self, what: str, field: str, value: Value, constraint: str) -> None:
        super().__init__(f"{what} with {field} {shown(value)} exists already ({constraint})")
        self.what = what
        self.field = field
        self.value = value
        self.constraint = constraint


class SequenceBehindError(ShopError):
    """The id that PostgreSQL gave a new row of `table` is taken: rows were copied there with their ids.

    No value of the caller's is at fault.
    """

    def __init__(self, table: str) -> None:
        super().__init__(
            f"the next id of {table} is taken: SELECT setval(pg_get_serial_sequence('{table}', 'id'),"  # noqa: S608
            f" (SELECT max(id) FROM {table}))"
        )
        self.table = table


class StillReferencedError(ShopError):
    """The `what` with this id cannot be deleted: `orders` orders need it, or `products` products."""

    def __init__(self, what: str, row_id: int, orders: int = 0, products: int = 0) -> None:
        number, needed_by = (products, "product") if products else (orders, "order")
        need = f"1 {needed_by} needs" if number == 1 else f"{number:,} {needed_by}s need"
        super().__init__(f"{what} {row_id} cannot be deleted: {need} it")
        self.what = what
        self.id = row_id
        self.orders = orders
        self.products = products


class LockedError(ShopError):
    """Another transaction needs the `what` with this id, and this one has the stock lock: nobody waits.

    The same transaction may succeed a moment later.
    """

    def __init__(self, what: str, row_id: int) -> None:
        super().__init__(
            f"{what} {row_id} is in use by another transaction: run yours again, or change and delete"
            f" {what} {row_id} in one that has taken no stock yet"
        )
        self.what = what
        self.id = row_id


class IllegalStatusChangeError(ShopError):
    """An order in status `current` cannot become `wanted`; nothing was changed."""

    def __init__(self, order_id: Value, current: OrderStatus, wanted: OrderStatus) -> None:
        cannot = "already" if current is wanted else f"and cannot become {wanted}"
        super().__init__(f"order {order_id} is {current} {cannot}")
        self.order_id = order_id
        self.current = current
        self.wanted = wanted


class UnusableProductError(ShopError):
    """Nothing can be sold of these products; `products`: by id, what is wrong with each."""

    def __init__(self, products: Mapping[int, str]) -> None:
        first = min(products)
        others = f", and {len(products) - 1} more like it" if len(products) > 1 else ""
        super().__init__(f"product {first} has {products[first]}{others}")
        self.products = products


class NoTransactionError(ShopError):
    """The session is in AUTOCOMMIT, where locks end at once and half of an operation could be written."""

    def __init__(self) -> None:
        super().__init__("the session is in AUTOCOMMIT: use one whose transactions end with a commit")


class RefusedError(ShopError):
    """The rule of the shop refuses, for all these reasons. Nothing was written."""

    def __init__(self, refusals: Sequence[Refusal], user_id: int | None = None) -> None:
        # Not super(): UnknownNameError is a NotFoundError too, whose arguments are others.
        ShopError.__init__(self, "; ".join(_sentence(refusal, user_id) for refusal in refusals))
        self.refusals = tuple(refusals)


class UnknownNameError(RefusedError, NotFoundError):
    """The order names a user or products that do not exist; `what` and `value` are the first of them."""

    def __init__(self, refusals: Sequence[Refusal], user_id: int | None = None) -> None:
        RefusedError.__init__(self, refusals, user_id)
        first = next(r for r in refusals if isinstance(r, UnknownUser | UnknownProduct))
        self.field = "id"
        self.what, self.value = (
            ("product", first.product_id) if isinstance(first, UnknownProduct) else ("user", user_id)
        )


class PriceChangedError(RefusedError):
    """A price the buyer saw is no longer in force; stock may be short as well."""


class NotEnoughStockError(RefusedError):
    """Stock is all that is missing: the same order may fit later."""

    @property
    def short(self) -> tuple[InsufficientStock, ...]:
        """Every short product, with what was requested and what is available."""
        return tuple(r for r in self.refusals if isinstance(r, InsufficientStock))


def refused(refusals: Sequence[Refusal], user_id: int | None = None) -> RefusedError:
    """The error for an order that the rule refuses, by the gravest of the reasons."""
    if any(isinstance(r, UnknownUser | UnknownProduct) for r in refusals):
        return UnknownNameError(refusals, user_id)
    if any(isinstance(r, PriceChanged) for r in refusals):
        return PriceChangedError(refusals, user_id)
    return NotEnoughStockError(refusals, user_id)


def _sentence(refusal: Refusal, user_id: int | None) -> str:
    match refusal:
        case UnknownUser():
            return f"there is no user with id {user_id}"
        case UnknownProduct(product_id):
            return f"there is no product with id {product_id}"
        case PriceChanged(product_id, expected, current):
            return f"product {product_id} costs {current}, not {expected}"
        case InsufficientStock(product_id, requested, available):
            return f"product {product_id}: {requested} requested, {available} available"


def shown(value: Value) -> str:
    """The value for one line of text: at most 60 characters of it."""
    try:
        text = str(value)
    except ValueError:  # an integer of more than 4,300 digits
        return f"a {type(value).__name__} too long to show"
    text = text if len(text) <= 60 else text[:60] + "…"
    return repr(text) if isinstance(value, str) else text
