"""A real PgBouncer in front of a real PostgreSQL."""

import os
import pwd
import shutil
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


@contextmanager
def pooled(program: str, database_url: str, mode: str) -> Iterator[str]:
    """The database's URL by way of a PgBouncer in this mode, which is gone after the block."""
    server, port = urlsplit(database_url), free_port()
    with tempfile.TemporaryDirectory(prefix="order-worker-pooler-") as name:
        folder = Path(name)
        settings = folder / "pgbouncer.ini"
        settings.write_text(_SETTINGS.format(server=server, port=port, mode=mode), encoding="utf-8")
        pooler = Child("PgBouncer", folder / "pgbouncer.log")
        pooler.spawn([program, settings], folder=folder, user=_ordinary_user(folder))
        try:
            pooler.wait_until_ready(lambda: _listens(port), READY_SECONDS)
            yield f"postgresql://{server.username}@127.0.0.1:{port}{server.path}"
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
