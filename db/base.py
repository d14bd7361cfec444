"""What every table has in common: names of constraints, and how Python's types are stored."""

from datetime import datetime
from decimal import Decimal
from typing import ClassVar

from sqlalchemy import BigInteger, DateTime, LargeBinary, MetaData, Numeric, Text, inspect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import UserDefinedType

from db.errors import shown


class JsonText(UserDefinedType[str]):
    """A `json` column read and written as text: PostgreSQL keeps it byte for byte (`jsonb` would not).

    Select it through `cast(column, Text)`: the driver's own codec for json would parse it.
    """

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "JSON"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        int: BigInteger,
        str: Text,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        Decimal: Numeric(10, 2),
    }

    _SHOWN: ClassVar[tuple[str, ...]] = ()  # what a reader of a log needs beside the key; nothing personal

    def __repr__(self) -> str:
        """The key, and a few loaded columns; this never sends a query."""
        state = inspect(self)
        keys = [column.name for column in state.mapper.primary_key]
        identity: dict[str, object] = dict(zip(keys, state.identity or (), strict=False))
        loaded = identity | state.dict
        fields = [f"{name}={shown(loaded[name])}" for name in (*keys, *self._SHOWN) if name in loaded]
        return f"{type(self).__name__}({', '.join(fields)})"
