"""A real PgBouncer in front of a real PostgreSQL."""

import os
import pwd
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.processes import Child

HOW_TO_INSTALL = "no PgBouncer to test with: run `make pooler` (as root)"
READY_SECONDS = 20.0

# Everybody is let in, as the tests' own PostgreSQL does.
_SETTINGS = """\
[databases]
* = host={server.hostname} port={server.port} user={server.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


def find_pooler() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """A PgBouncer in `mode`, which can be pointed at another server. Data and log live in `folder`."""

    def __init__(self, program: str, folder: Path, mode: str) -> None:
        self.port = free_port()
        self._program = program
        self._folder = folder
        self._mode = mode
        self._child = Child("PgBouncer", folder / "pgbouncer.log")

    def start(self, database_url: str) -> None:
        """Return when it lets clients through to the server of this URL."""
        self._write(database_url)
        command: list[str | Path] = [self._program, self._settings]
        self._child.spawn(command, folder=self._folder, user=_ordinary_user(self._folder))
        self._child.wait_until_ready(lambda: _listens(self.port), READY_SECONDS)

    def point_at(self, database_url: str) -> None:
        """Let those that are connected from now on through to the server of this URL."""
        self._write(database_url)
        assert self._child.pid
        os.kill(self._child.pid, signal.SIGHUP)

    def kill(self) -> None:
        self._child.kill()

    @property
    def _settings(self) -> Path:
        return self._folder / "pgbouncer.ini"

    def _write(self, database_url: str) -> None:
        server = urlsplit(database_url)
        self._settings.write_text(
            _SETTINGS.format(server=server, port=self.port, mode=self._mode), encoding="utf-8"
        )


@contextmanager
def pooled(program: str, database_url: str, mode: str) -> Iterator[str]:
    """The database's URL by way of a PgBouncer in this mode, which is gone after the block."""
    server = urlsplit(database_url)
    with tempfile.TemporaryDirectory(prefix="order-worker-pooler-") as name:
        pooler = Pooler(program, Path(name), mode)
        try:
            pooler.start(database_url)
            yield f"postgresql://{server.username}@127.0.0.1:{pooler.port}{server.path}"
        finally:
            pooler.kill()


def _ordinary_user(folder: Path) -> tuple[str, ...]:
    """The options of guard.py: it refuses to run as root."""
    if os.geteuid() != 0:
        return ()
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return ("--account", f"{nobody.pw_uid}:{nobody.pw_gid}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
