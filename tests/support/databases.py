"""A database for each test, upgraded and empty. Most are used by one test after the other.

To copy a template and drop the copy takes a quarter of a second on a busy machine, because PostgreSQL writes
and removes some 300 files. To empty the few tables that a test has filled takes a tenth of that.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from tests.support.shop import Shop, run_apart
from worker.sandbox.servers.postgres import create_database, drop_database

_END_WITHIN_MS = 10_000
_FIRST_OF_OURS = 16_384  # lower object ids are those of initdb

# Sessions that are still connected are ended: nobody may write into the tables of the next test.
_END_OTHERS = f"""
    SELECT coalesce(bool_and(pg_terminate_backend(pid, {_END_WITHIN_MS})), true) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

# Any change to a row of a system catalogue changes its newest xmin, or its number of rows. Four need a
# closer look: pg_class changes by TRUNCATE as well, pg_namespace by the first temporary table,
# pg_statistic by autovacuum in the catalogues, and pg_database is of all databases.
_CATALOGUES = (
    "pg_attrdef", "pg_attribute", "pg_constraint", "pg_default_acl", "pg_depend", "pg_event_trigger",
    "pg_extension", "pg_index", "pg_inherits", "pg_policy", "pg_proc", "pg_publication", "pg_rewrite",
    "pg_sequence", "pg_statistic_ext", "pg_trigger", "pg_type", "public.alembic_version",
)  # fmt: skip
_STRUCTURE = f"""
    SELECT concat_ws(' ',
        (SELECT md5(string_agg(concat_ws(' ', oid, relname, relnamespace, relowner, relkind, relpersistence,
            reltablespace, relreplident, relrowsecurity, relforcerowsecurity, relacl, reloptions), ','
            ORDER BY oid)) FROM pg_class),
        (SELECT string_agg(concat_ws(' ', oid, nspname, nspowner, nspacl), ',' ORDER BY oid)
         FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'),
        (SELECT concat_ws(' ', datdba, datallowconn, datconnlimit, datacl,
            (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = pg_database.oid))
         FROM pg_database WHERE datname = current_database()),
        (SELECT count(*) FROM pg_statistic WHERE starelid >= {_FIRST_OF_OURS}),
        {", ".join(f"(SELECT concat(count(*), '/', max(xmin::text::int8)) FROM {n})" for n in _CATALOGUES)})
"""

_FILLED = """
    SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relkind = 'r' AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0
"""
_BEGIN_SEQUENCES = "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence"


class Databases:
    """Copies of a template, which nobody changes once this is made."""

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url, self._template = server_url, template
        self._free: list[str] = []
        self._structures: dict[str, str] = {}
        """that of each copy before its first test, by URL; of those that had no rows then"""

    @contextmanager
    def one(self) -> Iterator[str]:
        """The URL of an empty database that nobody else has meanwhile."""
        url = self._free.pop() if self._free else self._copy()
        try:
            yield url
        finally:
            if run_apart(self._emptied(url)):
                self._free.append(url)
            else:
                self._drop(url)

    def close(self) -> None:
        """Drop them all."""
        while self._free:
            self._drop(self._free.pop())

    def _copy(self) -> str:
        url = create_database(self._server_url, f"test_{uuid4().hex[:12]}", template=self._template)
        if Shop(url).value(_FILLED) is None:
            self._structures[url] = Shop(url).value(_STRUCTURE)
        return url

    def _drop(self, url: str) -> None:
        drop_database(self._server_url, urlsplit(url).path[1:])

    async def _emptied(self, url: str) -> bool:
        """Whether it is empty again; False if a test has changed more than rows, or blocks it."""
        with suppress(asyncpg.PostgresError):
            connection = await asyncpg.connect(url)
            try:
                alone = await connection.fetchval(_END_OTHERS)
                if not alone or await connection.fetchval(_STRUCTURE) != self._structures.get(url):
                    return False
                if filled := await connection.fetchval(_FILLED):
                    await connection.execute(f"TRUNCATE {filled} CASCADE")
                await connection.execute(_BEGIN_SEQUENCES)
                return True
            finally:
                await connection.close()
        return False
