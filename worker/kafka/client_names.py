"""The client id of a worker: it shows the worker's version and name to everyone who describes the group."""

from typing import Final

from worker import __version__

_PREFIX: Final = "order-worker-"


def client_id(name: str) -> str:
    """`order-worker-VERSION@NAME`, or without `@NAME` for a worker that has no name."""
    return f"{_PREFIX}{__version__}@{name}" if name else f"{_PREFIX}{__version__}"


def version_of(client_id: str) -> str | None:
    """The version of the worker of that client id; None: one of an earlier version, or no worker."""
    return client_id.removeprefix(_PREFIX).partition("@")[0] if client_id.startswith(_PREFIX) else None


def is_worker(client_id: str) -> bool:
    """Whether a member of the group with this client id is a worker, of whatever version."""
    return client_id == _PREFIX.rstrip("-") or client_id.startswith(_PREFIX)


def name_of(client_id: str) -> str:
    """The name of the worker of that client id, whatever its version; empty where it has none."""
    return client_id.partition("@")[2] if client_id.startswith(_PREFIX) else ""
