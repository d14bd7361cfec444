"""Checks, before a worker starts, that its PostgreSQL role has the rights that it needs.

This includes rights for rare cases. Otherwise an outcome that Kafka refuses could stop a partition months
later.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.altered_tables import is_unique, require_tables, require_unaltered, rewriters
from worker.errors import CommandError
from worker.settings import Settings

RIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "replays": ("SELECT", "INSERT"),
    "skips": ("SELECT", "INSERT", "UPDATE"),
    "positions": ("SELECT", "INSERT", "UPDATE"),
    "withheld_outcomes": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "order_outcomes": ("SELECT", "INSERT"),
    "users": ("SELECT", "UPDATE"),  # UPDATE: to lock the row
    "products": ("SELECT", "UPDATE"),
    "orders": ("SELECT", "INSERT"),  # SELECT: whether a shop has used an id
    "order_items": ("INSERT",),
}
"""By table: the rights that a worker needs. A grant of some columns counts."""
WRITTEN: Final = tuple(name for name, rights in RIGHTS.items() if "INSERT" in rights)
"""the tables to which a worker adds rows"""
PAGE_RIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "order_items": ("SELECT",),
    "order_reopenings": ("SELECT",),
    "dead_letter_redrives": ("SELECT",),
    "settled_letters": ("SELECT",),
}
"""By table: what the page, `/explain` and the metric of open dead letters need beside these."""

_MISSING: Final = text("""
    SELECT quote_ident(current_user) AS role, wanted.name, wanted."right"
    FROM unnest(CAST(:names AS text[]), CAST(:rights AS text[]))
        WITH ORDINALITY AS wanted (name, "right", place)
    WHERE NOT CASE wanted."right" WHEN 'DELETE' THEN has_table_privilege(name, 'DELETE')
              ELSE has_any_column_privilege(name, wanted."right") END
    ORDER BY place
    """)
_HIDDEN: Final = text("""
    SELECT quote_ident(current_user) AS role, name FROM unnest(CAST(:names AS text[])) AS wanted (name)
    WHERE row_security_active(name::regclass)
    """)
_SYNCED: Final = text("SELECT current_setting('fsync') = 'on'")
# After an upgrade of the system's C library, which may sort text in another order.
_OTHER_COLLATION: Final = text("""
    SELECT quote_ident(datname) FROM pg_database
    WHERE datname = current_database()
      AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)
    """)
_KNOWS_COLLATION: Final = text("SELECT current_setting('server_version_num')::int >= 150000")
_READ_ONLY: Final = text("""
    SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'set' END
    WHERE current_setting('transaction_read_only') = 'on'
    """)
_HOW_TO_WRITE: Final = {
    "standby": "PostgreSQL is read-only (a standby?): name the primary in ORDER_WORKER_DATABASE_URL, or all"
    " hosts and target_session_attrs=read-write",
    "set": "PostgreSQL is read-only, because default_transaction_read_only is on for the server, the database"
    " or the role: ALTER ROLE … RESET default_transaction_read_only, or ALTER DATABASE … RESET it",
}


async def require_rights(engine: AsyncEngine, settings: Settings) -> str | None:
    """Raise CommandError, which names what is missing, unless the role may do what a worker does.

    Returns remarks on what a worker can do without, and on what may be wrong with the server or the tables
    without an error of PostgreSQL's.
    """
    async with engine.connect() as connection:
        if why := await connection.scalar(_READ_ONLY):
            raise CommandError(_HOW_TO_WRITE[why])
        await require_tables(connection, [*RIGHTS, *PAGE_RIGHTS])
        hidden = (await connection.execute(_HIDDEN, {"names": list(RIGHTS)})).all()
        if hidden:
            raise CommandError(
                f"row-level security is on for {', '.join(row.name for row in hidden)}, which hides rows and"
                f" refuses COPY: ALTER ROLE {hidden[0].role} BYPASSRLS"
            )
        if missing := await _missing(connection, RIGHTS):
            raise CommandError(f'in schema "{settings.database_schema}", {missing}')
        await require_unaltered(connection, list(RIGHTS), WRITTEN)
        return "; ".join(await _remarks(connection)) or None


async def _remarks(connection: AsyncConnection) -> list[str]:
    """What a worker can do without, and what it cannot see by itself."""
    remarks = []
    if missing := await _missing(connection, PAGE_RIGHTS):
        remarks.append(f"parts of the page and of /metrics will be missing: {missing}")
    if not await connection.scalar(_SYNCED):
        remarks.append("PostgreSQL runs with fsync off: a crash of its machine may lose decided orders")
    if await connection.scalar(_KNOWS_COLLATION) and (name := await connection.scalar(_OTHER_COLLATION)):
        remarks.append(
            "the system sorts text otherwise than when the indexes were made, so that rows may not be found:"
            f" stop the workers, REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION"
        )
    if not await is_unique(connection, "orders", "id"):
        remarks.append(
            "orders has no unique index on id alone (partitioned by time?): an id that a shop has given to"
            " `create_order` must never be placed through Kafka, or it is ordered twice"
        )
    if remark := await rewriters_remark(connection):
        remarks.append(remark)
    return remarks


async def rewriters_remark(connection: AsyncConnection) -> str | None:
    """What nobody sees but a comparison of the rows with the ledger; None: nothing changes them."""
    if not (named := await rewriters(connection, WRITTEN)):
        return None
    return (
        f"the shop's triggers or rules may change what workers write ({', '.join(named)}), which only"
        " `order-worker reconcile` shows: let them set columns of the shop's own"
    )


def grants(role: str) -> list[str]:
    """The statements that grant this role exactly the rights of a worker, including its page."""
    return [
        f"GRANT {', '.join(rights)} ON {table} TO {role}"
        for listed in ({"alembic_version": ("SELECT",)}, RIGHTS, PAGE_RIGHTS)
        for table, rights in listed.items()
    ]


async def require_more_rights(
    engine: AsyncEngine, settings: Settings, rights: Mapping[str, Sequence[str]]
) -> None:
    """Raise CommandError, which names what is missing, unless the role has these rights too, by table."""
    async with engine.connect() as connection:
        if missing := await _missing(connection, rights):
            raise CommandError(f'in schema "{settings.database_schema}", {missing}')


async def _missing(connection: AsyncConnection, rights: Mapping[str, Sequence[str]]) -> str | None:
    """One line: the role, the rights it lacks, and the statements that grant them; None: it lacks none."""
    wanted = [(name, right) for name, of_one in rights.items() for right in of_one]
    names, kinds = zip(*wanted, strict=True)
    rows = (await connection.execute(_MISSING, {"names": names, "rights": kinds})).all()
    if not rows:
        return None
    by_table = {
        name: ", ".join(row.right for row in of_one) for name, of_one in groupby(rows, lambda row: row.name)
    }
    role = rows[0].role
    lacks = "; ".join(f"{kinds} on {name}" for name, kinds in by_table.items())
    grants = "; ".join(f"GRANT {kinds} ON {name} TO {role}" for name, kinds in by_table.items())
    return f"role {role} lacks {lacks}: {grants}"
