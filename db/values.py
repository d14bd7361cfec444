"""What a column takes, checked before PostgreSQL sees it: it would round money, or end the transaction.

Every function returns the value or raises InvalidValueError with the name of its field.
"""

from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Final
from uuid import UUID

from db.errors import InvalidValueError, NotFoundError

MAX_ID: Final = 2**63 - 1  # bigint
MAX_QUANTITY: Final = 1_000_000  # of one line, as in the contract of order-placed
MAX_LINES: Final = 1_000  # of one order, likewise
MAX_PRICE: Final = Decimal("99999999.99")  # numeric(10, 2)
MAX_TOTAL: Final = Decimal("999999999999.99")  # numeric(14, 2)
# Far below the end of bigint, because received_quantity holds what was sold and what is left.
MAX_STOCK: Final = 10**18
MAX_TEXT_BYTES: Final = 2_000  # of e-mails and names, which stand in indexes: an entry takes 2,704 bytes
MAX_PAGE: Final = 1_000
_STORED_AS_INFINITY: Final = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
_CENT: Final = Decimal("0.01")
_EXACT: Final = Context(prec=12)  # not the caller's context, whatever that is


def filled_text(field: str, value: str) -> str:
    """Text that is more than white space and fits into an index."""
    if not text(field, value).strip():
        raise InvalidValueError(field, value, "must not be empty")
    if len(value.encode()) > MAX_TEXT_BYTES:
        raise InvalidValueError(field, value, f"must not be longer than {MAX_TEXT_BYTES:,} bytes")
    return value


def email(field: str, value: str) -> str:
    """As `filled_text`; it is stored as it is, and found in lower case, which may take more bytes."""
    if len(filled_text(field, value).lower().encode()) > MAX_TEXT_BYTES:
        raise InvalidValueError(
            field, value, f"must not be longer than {MAX_TEXT_BYTES:,} bytes in lower case"
        )
    return value


def text(field: str, value: str) -> str:
    """Text that PostgreSQL can hold, empty or not."""
    if not isinstance(value, str):
        raise InvalidValueError(field, value, "must be text")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidValueError(field, value.encode(errors="backslashreplace"), "must be UTF-8 without NUL")
    return value


def integer(field: str, value: int, lowest: int, highest: int) -> int:
    """An integer of these bounds; True is none."""
    if type(value) is not int or not lowest <= value <= highest:
        raise InvalidValueError(field, value, f"must be an integer from {lowest:,} to {highest:,}")
    return value


def row_id(what: str, value: int) -> int:
    """An integer. One that no row can have is not found, like any other that no row has: NotFoundError."""
    if type(value) is not int:
        raise InvalidValueError("id", value, "must be an integer")
    if not 1 <= value <= MAX_ID:
        raise NotFoundError(what, "id", value)
    return value


def price(field: str, value: Decimal) -> Decimal:
    """A Decimal of at most 8 digits, never negative, with 2 decimals: no third one is ever rounded away."""
    if not isinstance(value, Decimal):
        raise InvalidValueError(field, value, "must be a Decimal")
    if not value.is_finite() or not 0 <= value <= MAX_PRICE:
        raise InvalidValueError(field, value, f"must be from 0 to {MAX_PRICE}")
    cents = value.quantize(_CENT, context=_EXACT)
    if cents != value:
        raise InvalidValueError(field, value, "must have at most 2 decimals")
    return cents.copy_abs()  # of -0.00


def flag(field: str, value: bool) -> bool:
    """True or False; 1 and 0 are none."""
    if not isinstance(value, bool):
        raise InvalidValueError(field, value, "must be True or False")
    return value


def uuid(field: str, value: UUID) -> UUID:
    """A UUID; its text is none."""
    if not isinstance(value, UUID):
        raise InvalidValueError(field, value, "must be a UUID")
    return value


def aware(field: str, value: datetime) -> datetime:
    """A time that says which zone it is of; in UTC."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidValueError(field, value, "must be a datetime with a zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidValueError(field, value, "must be a time that there is in UTC") from None


def stored_time(field: str, value: datetime) -> datetime:
    """As `aware`, but not the first or last datetime there is: the driver would store infinity."""
    taken = aware(field, value)
    if taken in _STORED_AS_INFINITY:
        raise InvalidValueError(field, value, "must be after datetime.min and before datetime.max")
    return taken


def span(since: datetime | None, until: datetime | None) -> tuple[datetime | None, datetime | None]:
    """From `since` on and before `until`, both aware; None: no bound. Backwards, nothing lies in it."""
    return (
        None if since is None else aware("since", since),
        None if until is None else aware("until", until),
    )


def page(skip: int, limit: int, after: object | None) -> None:
    """Where a page begins and how long it is: `skip` rows skipped, or all up to `after`, not both."""
    integer("skip", skip, 0, MAX_ID)
    integer("limit", limit, 1, MAX_PAGE)
    if skip and after is not None:
        raise InvalidValueError("skip", skip, "must be 0 where after is given")
