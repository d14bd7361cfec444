"""Tables that `Base.metadata.create_all` made: taken over as they are, or refused before anything changes."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, inspect

from db.models import Base
from db.upgrade_refused import UpgradeRefusedError

_TABLES: Final = Base.metadata.tables
_NAMED: Final = 3  # differences in one line


def match_this_version(connection: Connection) -> bool:
    """Whether there are tables and no revision, and they are those of the models; False: there are none.

    Raises UpgradeRefusedError where they are others. Further tables and indexes are ignored.
    """
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "include_object": _is_compared}
    )
    found = set(inspect(connection).get_table_names()) & _TABLES.keys()
    if context.get_current_revision() is not None or not found:
        return False
    if differing := [*_differences(compare_metadata(context, Base.metadata)), *_missing_checks(connection)]:
        more = " …" if len(differing) > _NAMED else ""
        raise UpgradeRefusedError(
            f"there are tables that no upgrade made ({', '.join(sorted(found)[:_NAMED])} …), and they are not"
            f" those of this version ({', '.join(differing[:_NAMED])}{more}): rename them, or use another"
            " schema; nothing was changed"
        )
    return True


def _is_compared(_object: object, _name: object, kind: str, reflected: bool, counterpart: object) -> bool:
    return not (reflected and counterpart is None and kind in {"table", "index"})


def _differences(found: Iterable[Any]) -> Iterator[str]:
    """What alembic would do about each, and with what: "add_column products.created_at"."""
    for one in found:
        if isinstance(one, list):  # changes of one column
            yield from (f"{kind} {table}.{column}" for kind, _, table, column, *_ in one)
            continue
        kind, subject = one[0], one[-1]
        if kind.endswith("_column"):
            yield f"{kind} {one[2]}.{subject.name}"
        else:
            yield f"{kind} {subject.name}"


def _missing_checks(connection: Connection) -> Iterator[str]:
    """Alembic does not compare these, and without one PostgreSQL would let stock become negative."""
    inspector = inspect(connection)
    for table in sorted(_TABLES.keys() & set(inspector.get_table_names())):
        there = {check["name"] for check in inspector.get_check_constraints(table)}
        wanted = {str(c.name) for c in _TABLES[table].constraints if isinstance(c, CheckConstraint)}
        yield from (f"add_constraint {name}" for name in sorted(wanted - there))
