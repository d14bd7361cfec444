"""A PostgreSQL with a synchronous standby, which takes its place when it fails, and a pooler before both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from tests.faults.site import POSTGRES_SETTINGS, Site, make_template
from tests.support.pooler import Pooler, find_pooler
from tests.support.shop import Shop
from worker.sandbox.servers.accounts import Account, user_for_postgres
from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.postgres import LocalPostgres, installed_programs
from worker.sandbox.servers.processes import run_to_end, wait_until

_IN_SYNC_SECONDS: Final = 60.0


class Standby(LocalPostgres):
    """A copy of a running server, which follows it until it is promoted."""

    def __init__(self, folder: Path, primary: LocalPostgres, port: int | None) -> None:
        super().__init__(folder, settings=POSTGRES_SETTINGS, port=port)
        self._primary = primary

    def promote(self) -> None:
        """Return when it takes writes."""
        assert Shop(self.url).value("SELECT pg_promote(wait => true)")

    def _initialise(self) -> Account:
        self._home.mkdir()
        user = user_for_postgres(installed_programs(), self._home)
        options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-d", self._primary.url]
        command: list[str | Path] = [user.programs / "pg_basebackup", "-D", self._data, *options]
        run_to_end("pg_basebackup", command, log_path=self.log_path, folder=self._home, user=user.options)
        return user


class PostgresPair:
    """A primary and its standby on two ports. What is committed is on both, while both are there."""

    def __init__(self, folder: Path, pooler: Pooler | None) -> None:
        self._pooler = pooler
        self._folder = folder
        self._made = 0
        self._primary: LocalPostgres = LocalPostgres(self._next_folder(), settings=POSTGRES_SETTINGS)
        self._standby: Standby | None = None

    @property
    def url(self) -> str:
        return self._of_both(self._primary.url)

    def start(self) -> None:
        self._primary.start()
        self._add_standby(None)
        if self._pooler:
            self._pooler.start(self._primary.url)

    def create_database(self, name: str, template: str | None = None) -> str:
        """As a server's; the URL names both hosts."""
        return self._of_both(self._primary.create_database(name, template))

    def drop_database(self, name: str) -> None:
        self._primary.drop_database(name)

    def fail_over(self, *, in_order: bool) -> None:
        """Kill or stop the primary, and promote its standby."""
        assert self._standby
        if in_order:
            self._primary.stop()
        else:
            self._primary.crash()
        self._standby.promote()
        gone, self._primary, self._standby = self._primary, self._standby, None
        gone.abandon()
        if self._pooler:
            self._pooler.point_at(self._primary.url)
        self._add_standby(gone.port)

    def abandon(self) -> None:
        for server in (self._primary, self._standby):
            if server:
                server.abandon()

    def _add_standby(self, port: int | None) -> None:
        """A new standby in place of the lost server."""
        self._standby = Standby(self._next_folder(), self._primary, port)
        self._standby.start()
        primary = Shop(self._primary.url)
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.sql("SELECT pg_reload_conf()")
        in_sync = "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        if not wait_until(lambda: bool(primary.value(in_sync)), _IN_SYNC_SECONDS):
            raise LocalServiceError(f"no standby in sync within {_IN_SYNC_SECONDS:.0f} s")

    def _next_folder(self) -> Path:
        self._made += 1
        folder = self._folder / f"postgres-{self._made}"
        folder.mkdir()
        return folder

    def _of_both(self, url: str) -> str:
        parts = urlsplit(url)
        if self._standby is None:
            return url
        hosts = f"{parts.username}@127.0.0.1:{self._primary.port},127.0.0.1:{self._standby.port}"
        return urlunsplit(parts._replace(netloc=hosts, query="target_session_attrs=read-write"))


@contextmanager
def on_a_pair(site: Site) -> Iterator[Site]:
    """The site with a PostgreSQL that has a standby, and a pooler before it where one is installed."""
    program = find_pooler()
    with data_folder() as folder:
        pooler_folder = folder / "pooler"
        pooler_folder.mkdir()
        pooler = Pooler(program, pooler_folder, "session") if program else None
        pair = PostgresPair(folder, pooler)
        try:
            pair.start()
            yield replace(site, databases=pair, pooler=pooler, template=make_template(pair))
        finally:
            if pooler:
                pooler.kill()
            pair.abandon()
