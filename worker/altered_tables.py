"""Checks, before a worker starts, that its tables keep what it writes: exactly, once, and over a crash.

A shop may add columns, triggers and indexes of its own, and widen what it reads. But PostgreSQL rounds an
amount to the decimals of its column without an error, `jsonb` keeps no event byte for byte, and a ledger that
is partitioned by time has no key that two decisions of one order would meet.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Column, Numeric, String, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import Base
from worker.errors import CommandError

_ABSENT: Final = text("""
    SELECT name FROM unnest(CAST(:names AS text[])) AS wanted (name) WHERE to_regclass(name) IS NULL
    """)
# The search path is our one schema, in quotes.
_SCHEMA: Final = text("SELECT current_setting('search_path'), current_schema() IS NOT NULL")
_UNLOGGED: Final = text("""
    SELECT DISTINCT part.id::regclass::text FROM unnest(CAST(:names AS text[])) AS wanted (name)
    CROSS JOIN LATERAL (SELECT to_regclass(name)
                        UNION SELECT relid FROM pg_partition_tree(to_regclass(name))) AS part (id)
    JOIN pg_class ON pg_class.oid = part.id WHERE relpersistence = 'u'
    ORDER BY 1
    """)
# Few orders are written by a statement that PostgreSQL refuses where there are rules; COPY ignores rules.
_RULES: Final = text("""
    SELECT format('DROP RULE %I ON %s', rulename, wanted.name)
    FROM unnest(CAST(:names AS text[])) AS wanted (name)
    JOIN pg_rewrite ON ev_class = to_regclass(wanted.name)
    WHERE ev_enabled IN ('O', 'A') AND ev_type = '3' ORDER BY 1
    """)
# COPY writes into a view only where a trigger does it instead: bits 4 (INSERT) and 64 (INSTEAD OF).
_VIEWS: Final = text("""
    SELECT name FROM unnest(CAST(:names AS text[])) AS wanted (name)
    JOIN pg_class ON pg_class.oid = to_regclass(name)
    WHERE relkind = 'v' AND NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgtype & 68 = 68 AND tgenabled IN ('O', 'A'))
    """)
# A deferrable one counts: it fails the COMMIT.
_IS_UNIQUE: Final = text("""
    SELECT EXISTS (
        SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attname = :column
        WHERE indrelid = to_regclass(:table) AND indisunique AND indisvalid
          AND indpred IS NULL AND indnkeyatts = 1 AND indkey[0] = attnum)
    """)
# Of a domain, the type that it is made of.
_TYPES: Final = text("""
    SELECT wanted.name AS table_name, attname AS column_name,
        CASE typtype WHEN 'd' THEN format_type(typbasetype, typtypmod)
             ELSE format_type(atttypid, atttypmod) END AS type
    FROM unnest(CAST(:names AS text[])) AS wanted (name)
    JOIN pg_attribute ON attrelid = to_regclass(wanted.name) AND attnum > 0 AND NOT attisdropped
    JOIN pg_type ON pg_type.oid = atttypid
    """)
# Triggers that run before a row is written: bits 1 (each row), 2 (before), 4 (INSERT), 16 (UPDATE).
# If its text gives no column of ours a value, a trigger leaves our rows as they are. And rules, where they
# do not keep orders from being written.
_REWRITERS: Final = text(r"""
    SELECT wanted.name || '.' || tgname
    FROM unnest(CAST(:names AS text[]), CAST(:columns AS text[])) AS wanted (name, columns)
    CROSS JOIN LATERAL (SELECT to_regclass(wanted.name)
                        UNION SELECT relid FROM pg_partition_tree(to_regclass(wanted.name))) AS part (id)
    JOIN pg_trigger ON tgrelid = part.id JOIN pg_proc ON pg_proc.oid = tgfoid
    WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 3 = 3
      AND tgtype & CASE wanted.name WHEN 'products' THEN 16 ELSE 4 END > 0
      AND (prosrc ~* ('\mnew(\W+(' || wanted.columns || ')\M)?[^\w<>!=]*=')
           OR prosrc ~* '\minto\s+(strict\s+)?new\M')
    UNION
    SELECT 'products.' || rulename FROM pg_rewrite
    WHERE ev_class = to_regclass('products') AND ev_enabled IN ('O', 'A') AND ev_type = '2'
    ORDER BY 1
    """)
_OF_STOCK: Final = ("price", "stock_quantity", "received_quantity")
_TEXT: Final = re.compile(r"text|character varying(\(\d+\))?")
_EXACT_NUMBER: Final = re.compile(r"numeric(\(\d+,(?P<decimals>\d+)\))?")
_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


async def require_tables(connection: AsyncConnection, names: Sequence[str]) -> None:
    """Raise CommandError, which names them, if some of these tables are not found."""
    if absent := (await connection.scalars(_ABSENT, {"names": names})).all():
        schema, is_usable = (await connection.execute(_SCHEMA)).one()
        if not is_usable:
            raise CommandError(f"the role may not use schema {schema}: GRANT USAGE ON SCHEMA {schema} to it")
        raise CommandError(
            f"schema {schema} lacks {', '.join(absent)}: were they moved or renamed? Move them back"
            f" (ALTER TABLE … SET SCHEMA {schema}), or rename them back"
        )


async def require_unaltered(connection: AsyncConnection, used: Sequence[str], written: Sequence[str]) -> None:
    """Raise CommandError, with the statements that help, unless these tables keep what is written to them.

    `used` must be there and survive a crash. `written` must take all rows, and their columns must have types
    that keep each value as it is.
    """
    await require_tables(connection, used)
    if views := (await connection.scalars(_VIEWS, {"names": written})).all():
        raise CommandError(
            f"a view takes no COPY: make tables of {', '.join(views)}, or add a trigger INSTEAD OF INSERT"
        )
    if rules := (await connection.scalars(_RULES, {"names": written})).all():
        raise CommandError(
            f"rules keep orders from being written: {'; '.join(rules)} (a trigger may do the same)"
        )
    if unlogged := (await connection.scalars(_UNLOGGED, {"names": used})).all():
        raise CommandError(
            "a crash of PostgreSQL would empty tables that are unlogged: "
            + "; ".join(f"ALTER TABLE {name} SET LOGGED" for name in unlogged)
        )
    if not await is_unique(connection, "order_outcomes", "order_id"):
        raise CommandError(
            "an order could be decided twice, since order_outcomes has no unique index on order_id alone:"
            " ALTER TABLE order_outcomes ADD UNIQUE (order_id)"
        )
    rows = await connection.execute(_TYPES, {"names": written})
    found = {(row.table_name, row.column_name): row.type for row in rows}
    columns = [column for name in written for column in Base.metadata.tables[name].columns]
    others = [one for one in columns if not _keeps(one, found.get((one.table.name, one.name)))]
    if others:
        raise CommandError(
            f"columns do not keep what is written ({_listed(others, found)}): "
            + "; ".join(f"ALTER TABLE {c.table.name} ALTER {c.name} TYPE {_type(c)}" for c in others)
        )


async def is_unique(connection: AsyncConnection, table: str, column: str) -> bool:
    """Whether PostgreSQL refuses a second row with the same value in this column."""
    return bool(await connection.scalar(_IS_UNIQUE, {"table": table, "column": column}))


async def rewriters(connection: AsyncConnection, inserted: Sequence[str]) -> list[str]:
    """Triggers and rules, as `table.name`, that may change what is written to these tables or to a stock.

    PostgreSQL says nothing of it, and it is seen only where the rows are compared with the ledger.
    """
    columns = {name: tuple(Base.metadata.tables[name].columns.keys()) for name in inserted}
    columns["products"] = _OF_STOCK
    parameters = {"names": list(columns), "columns": ["|".join(names) for names in columns.values()]}
    return list(await connection.scalars(_REWRITERS, parameters))


def _keeps(column: Column[object], found: str | None) -> bool:
    """Whether a column of the type that was found keeps each value of ours, or refuses it with an error."""
    if found is None:
        return True  # it has another name now: PostgreSQL says so of the first order, and all wait
    if isinstance(column.type, String):
        return _TEXT.fullmatch(found) is not None
    if isinstance(column.type, Numeric) and (number := _EXACT_NUMBER.fullmatch(found)):
        return int(number["decimals"] or column.type.scale or 0) >= (column.type.scale or 0)
    return found == _type(column)


def _type(column: Column[object]) -> str:
    """As PostgreSQL writes it."""
    compiled = column.type.compile(_DIALECT).lower().replace("varchar", "character varying")
    return compiled.replace(", ", ",")


def _listed(columns: Sequence[Column[object]], found: Mapping[tuple[str, str], str]) -> str:
    names = [(column.table.name, column.name) for column in columns]
    return ", ".join(f"{table}.{name} is {found[table, name]}" for table, name in names)
