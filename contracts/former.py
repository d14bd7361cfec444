"""What earlier versions took for an order, and this one refuses: read only to know what was decided of it.

An order may have been decided by an earlier version, and its outcome not yet be published; and the input
topic is kept for years. So an order is still known by an id in capital letters, by a time with a space before
the clock, and by one that lies within the bounds in UTC only.
"""

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AwareDatetime, GetPydanticSchema
from pydantic_core import core_schema as schema

from contracts.events import OrderPlaced

_TIME: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_ID_FROM_JSON: Final = schema.chain_schema(
    [schema.str_schema(strict=True, min_length=36, max_length=36), schema.uuid_schema(strict=False)]
)
_TIME_FROM_JSON: Final = schema.chain_schema(
    [
        schema.str_schema(strict=True, pattern=_TIME),
        schema.datetime_schema(
            strict=False,
            tz_constraint="aware",
            ge=datetime(1970, 1, 1, tzinfo=UTC),
            lt=datetime(9999, 1, 1, tzinfo=UTC),
        ),
    ]
)


class FormerOrder(OrderPlaced):
    """An `OrderPlaced` whose id and time have the forms of before."""

    order_id: Annotated[UUID, GetPydanticSchema(lambda _kind, _handler: _ID_FROM_JSON)]
    placed_at: Annotated[AwareDatetime, GetPydanticSchema(lambda _kind, _handler: _TIME_FROM_JSON)]
