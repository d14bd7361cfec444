"""What every table has in common: names of constraints, and how Python's types are stored."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, DateTime, LargeBinary, MetaData, Numeric, Text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import UserDefinedType


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
